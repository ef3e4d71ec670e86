"""Who makes labels: a teacher at work on sources, in this process or elsewhere (`kdtw_jax.pipeline.elsewhere`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kdtw_jax import parallel
from kdtw_jax.data.batches import Bucket, EncodedSplit
from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.methods.seqkd import BeamConfig, BeamTargets, write_outputs
from kdtw_jax.models import Model, Params, count_params, split_axis
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.teacher_cache import How
from kdtw_jax.training.beforehand import Share
from kdtw_jax.training.identity import model_hash
from kdtw_jax.training.reader import read_ahead
from kdtw_jax.training.readings import Kept, Readings
from kdtw_jax.training.saved import SavedModel


class Sources(NamedTuple):
    """What the teacher answers."""

    splits: list[EncodedSplit]  # pairs, and prompts where there are any
    buckets: tuple[Bucket, ...]
    tokenizer: Tokenizer
    devices: parallel.Devices


class Writer(Protocol):
    """A teacher at work on sources, wherever it is; what a killed process left in a `folder` is gone on with."""

    @property
    def facts(self) -> dict[str, Any]:
        """Its name, hash and parameters, as a manifest has them."""
        ...

    def write(self, name: str, folder: Path, split: EncodedSplit, how: How, share: Share) -> BeamTargets:
        """Writes outputs of a share of a split."""
        ...

    def read(self, name: str, folder: Path, outputs: list[EncodedSplit], kept: Kept, share: Share) -> Readings:
        """Reads them."""
        ...


class Here:
    """The writer whose weights are in this process."""

    def __init__(self, config: Experiment, sources: Sources, teacher: SavedModel):
        self._config, self._sources = config, sources
        self.facts = {
            "name": config.teacher_model,
            "hash": model_hash(teacher.model, teacher.params),
            "parameters": count_params(teacher.params),
        }
        self._teacher = teacher
        self._placed: tuple[Model, Params] | None = None
        self._how: dict[str, Any] = {"banned": sources.tokenizer.banned_ids, "devices": sources.devices}

    def write(self, name: str, folder: Path, split: EncodedSplit, how: How, share: Share) -> BeamTargets:
        config = self._config
        beam = BeamConfig(config.beam_size, config.length_penalty) if how == "beam" else BeamConfig(1, 0.0)
        return write_outputs(name, folder, self._ready(), split, self._sources.buckets, beam, share=share, **self._how)

    def read(self, name: str, folder: Path, outputs: list[EncodedSplit], kept: Kept, share: Share) -> Readings:
        rest = {"share": share, "chunks": self._config.training.chunks(), **self._how}
        return read_ahead(name, folder, self._ready(), outputs, self._sources.buckets, kept, **rest)

    def _ready(self) -> tuple[Model, Params]:
        if self._placed is None:
            axis = partial(split_axis, self._teacher.model.role)
            shards = self._config.teacher_shards
            params = parallel.shard_params(self._teacher.params, self._sources.devices, shards, axis)
            self._placed = self._teacher.model, params
        return self._placed
