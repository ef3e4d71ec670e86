"""A model that the user names, in whichever layout its folder has: the project's own, or the published one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax

from kdtw_jax.data.byt5 import BYT5
from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.models import ModelConfig, Params, init_heads, make_model
from kdtw_jax.models.two_ways import TwoWaysConfig
from kdtw_jax.pretrained.gguf import SUFFIX
from kdtw_jax.pretrained.hub import PREFIX, fetch
from kdtw_jax.pretrained.layout import CONFIG, read_layout
from kdtw_jax.pretrained.load import PlacementOf, Published, open_published, read_published
from kdtw_jax.pretrained.packages import PACKAGED, fetched
from kdtw_jax.runs.atomic import read_json
from kdtw_jax.training.saved import SavedModel, load_model, read_model_config


class Named(NamedTuple):
    """What is known of a model before its weights are read."""

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer  # with as many ids as the model has rows of embedding
    published: Published | None  # None: saved by this project, or a program
    program: bool = False  # has no weights to be read

    def padded_to(self, rows: int) -> Named:
        """The same model with `rows` rows of embedding, at least its own; those beyond them are zero once it is
        read."""
        config = dataclasses.replace(self.config, vocab_size=rows)
        return self._replace(config=config, tokenizer=self.tokenizer.padded_to(rows))


# Models that no folder holds, by their names: what they do is written down, not learned.
PROGRAMS: dict[str, tuple[ModelConfig, str]] = {
    "ways:program": (TwoWaysConfig(), BYT5),
    "ways:hasty": (TwoWaysConfig(short=0.9), BYT5),  # that seldom needs the long way
}


def is_address(name: str | None) -> bool:
    """Whether a `name` is where a teacher is served, as http://host:8100, and not a model to be read."""
    return name is not None and "://" in name


def find_model(name: str, *, offline: bool = False) -> Named:
    """Finds a model, with everything checked that can be without reading its weights.

    Args:
      name: a folder, a GGUF file, `hf:NAME` (`kdtw_jax.pretrained.hub`), a name of `PACKAGED`, or one of `PROGRAMS`.

    Raises:
      UserError: there is none, and as `open_published` and `fetch` do.
    """
    if name in PROGRAMS:
        config, vocabulary = PROGRAMS[name]
        tokenizer = load_tokenizer(vocabulary).padded_to(config.vocab_size)
        return Named(Path(name), config, tokenizer, None, program=True)
    folder = _folder(name, offline)
    if folder.suffix != SUFFIX and _is_ours(folder):
        return Named(folder, *read_model_config(folder), None)
    published = open_published(folder)
    return Named(folder, published.config, published.tokenizer, published)


def find_config(name: str, *, offline: bool = False) -> ModelConfig:
    """Reads the sizes and variant of such a model; of the hub, no weights are fetched.

    Raises:
      UserError: as `find_model` does.
    """
    if name in PROGRAMS:
        return PROGRAMS[name][0]
    folder = _folder(name, offline, weights=False)
    if folder.suffix == SUFFIX:
        return open_published(folder).config
    return read_model_config(folder)[0] if _is_ours(folder) else read_layout(folder)


def _folder(name: str, offline: bool, weights: bool = True) -> Path:
    if name in PACKAGED:
        return fetched(name)
    folder = fetch(name, offline=offline, weights=weights) if name.startswith(PREFIX) else Path(name).resolve()
    if folder.suffix == SUFFIX and folder.is_file():
        return folder
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} is not a saved model (no config.json); give the folder named model/ of a finished run, "
            "one in the Hugging Face layout, a GGUF file, or hf:NAME"
        )
    return folder


def _is_ours(folder: Path) -> bool:
    return "model" in read_json(folder / CONFIG, "")


def read_teacher(found: Named, *, dtype: str, placement: PlacementOf | None = None) -> SavedModel:
    """Reads a frozen model.

    Args:
      dtype: what a published one computes in and its matrices are kept in; one of ours is as it was saved.
      placement: where each parameter of a published one goes as soon as it is read; by default, and one of ours always,
        it stays on the host.
    """
    if found.program:
        model = make_model(found.config)
        return SavedModel(model, jax.device_get(model.init(jax.random.key(0))), found.tokenizer)
    if found.published is None:
        return load_model(found.folder, tokenizer=found.tokenizer)
    config = dataclasses.replace(found.config, dtype=dtype)
    params = read_published(found.published, config, jax.random.key(0), dtype=dtype, placement=placement)
    return SavedModel(make_model(config), params, found.tokenizer)


def student_config(model: ModelConfig, like: ModelConfig) -> ModelConfig:
    """The sizes and variant of a model with what is no part of a checkpoint as in `like`: dropout, dtype, our heads."""
    return dataclasses.replace(
        model,
        dropout_rate=like.dropout_rate,
        dtype=like.dtype,
        value_heads=like.value_heads,
        gate_width=like.gate_width,
        rule_in_source=like.rule_in_source,
    )


def read_student(found: Named, config: ModelConfig, key: jax.Array) -> Params:
    """Reads parameters to train, float32.

    Args:
      config: of `student_config`.
      key: what heads are drawn with where the model has none of that kind (a published model: V = 0).
    """
    if found.published is not None:
        return read_published(found.published, config, key)
    params = {**init_heads(config, key), **load_model(found.folder, tokenizer=found.tokenizer).params}
    unwanted = {"value": not config.value_heads, "gate": not config.gate_width}
    return {name: part for name, part in params.items() if not unwanted.get(name, False)}
