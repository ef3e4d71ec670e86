"""Sequence-level distillation (Kim and Rush 2016, arXiv 1606.07947): the teacher's beam outputs as targets.

They are written once, in files of a few batches each, by which an interrupted job goes on; the student is then trained
on them by `mle`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit, Ragged
from kdtw_jax.data.tokenizer import EOS_ID
from kdtw_jax.decoding.beam import beam_search
from kdtw_jax.finite import check_written
from kdtw_jax.methods.mle import MLEConfig, mle
from kdtw_jax.methods.protocol import Method
from kdtw_jax.models import Model
from kdtw_jax.training.beforehand import (
    ALONE,
    BATCHES_A_FILE,
    Made,
    Share,
    beam_buckets,
    make_beforehand,
    parts_of,
)
from kdtw_jax.training.state import Params


class BeamConfig(NamedTuple):
    """Beam search as `kdtw_jax.decoding.beam_search` does it."""

    beam_size: int
    length_penalty: float


class BeamTargets(NamedTuple):
    """A split whose targets are the teacher's, and how many of them did not end within the longest target."""

    data: EncodedSplit
    unfinished: int


def write_outputs(
    name: str,
    folder: Path,
    teacher: tuple[Model, Params],
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    beam: BeamConfig,
    *,
    banned: tuple[int, ...],
    devices: parallel.Devices,
    batches_a_file: int = BATCHES_A_FILE,
    share: Share = ALONE,
    stop_after: int | None = None,
) -> BeamTargets:
    """Writes the teacher's best hypotheses as targets of the split; what `folder` holds is not made anew.

    A hypothesis that does not end is kept as the prefix it is: each of its tokens is the teacher's choice, and nothing
    is learned about its end.

    Args:
      name: beside the progress bar.
      folder: keeps what is written.
      teacher: the model and its parameters.
      data: the split.
      buckets: lengths and rows of batches of training (`beam_buckets`).
      beam: how the teacher searches.
      banned: ids that are never written.
      devices: where it searches.
      batches_a_file: after so many batches a file is written.
      share: which rows are written, the others having empty targets.
      stop_after: ends after as many new files (tests of resuming), the rest being empty.

    Raises:
      UserError: the teacher's scores are not finite, as `beam_search` and `parallel.shard` do, and where `folder`
        cannot be written or read.
    """
    model, params = teacher

    def search(params: Params, source_BxS: jax.Array, like_BxT: jax.Array) -> jax.Array:
        return beam_search(
            model,
            params,
            source_BxS,
            beam_size=beam.beam_size,
            max_len=like_BxT.shape[1],
            length_penalty=beam.length_penalty,
            banned=banned,
        ).tokens_BxT

    searching = parallel.map_batch(search, parallel.place_params(params, devices))

    def make(batch: Batch) -> list[Made]:
        outputs = np.asarray(searching(batch.source_BxS, batch.target_BxT))
        check_written(name, outputs[batch.example_B >= 0])
        return [{"values": row[row != 0]} for row in outputs]

    parts = parts_of(data, buckets, batches_a_file, share)
    made, offsets = make_beforehand(name, folder, data, parts, beam_buckets(buckets), make, stop_after=stop_after)
    targets = Ragged(made["values"].astype(np.int32) if made else np.zeros(0, np.int32), offsets)
    some_N = targets.lengths > 0
    ended = int((targets.values[targets.offsets[1:][some_N] - 1] == EOS_ID).sum())
    return BeamTargets(dataclasses.replace(data, targets=targets, room=None), int(some_N.sum()) - ended)


SEQKD = Method(
    name="seqkd",
    describe="student that goes on by maximum likelihood of the teacher's beam outputs (sequence-level distillation)",
    config=MLEConfig,
    train=mle,
    uses_teacher=False,
    targets="beam",
    color="#F0E442",
    curve="nll",
)
