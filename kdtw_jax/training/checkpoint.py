"""Checkpoints of a run, and finished models. The only module that knows Orbax (V1 interface)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import reprlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer
from kdtw_jax.errors import UserError, told_of
from kdtw_jax.finite import check_finite
from kdtw_jax.models import Model, ModelConfig, family_of, find_family, make_model, pad_params, parameter_shapes
from kdtw_jax.parallel.hosts import is_writer, wait
from kdtw_jax.runs.atomic import read_json

PyTree = Any
_REMEDY = "the folder is damaged, or the training that wrote it went wrong: train or copy the model again"


def _orbax() -> Any:
    """Imported where a model is read or written: it takes half a second, and errors in rules or paths come before."""
    from orbax.checkpoint import v1

    return v1


class Restored(NamedTuple):
    """What a checkpoint holds: the carried arrays, and the JSON state of the data iterator."""

    step: int
    carry: PyTree
    iterator: dict[str, Any]


def _abstract(tree: PyTree) -> PyTree:
    there = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=there), tree)


def _named(tree: PyTree) -> dict[str, Any]:
    """The leaves by their place."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _misfit(stored: PyTree, like: PyTree) -> str:
    """The first difference between what a checkpoint says it holds and what is wanted; empty if there is none.

    Looked at beforehand, since Orbax notices in the middle of reading.
    """

    def shapes(tree: PyTree) -> dict[str, tuple[Any, ...]]:
        return {name: (*x.shape, str(x.dtype)) for name, x in _named(tree).items()}

    held, wanted = shapes(stored), shapes(like)
    for name in {**wanted, **held}:
        if held.get(name) != wanted.get(name):
            return f"{name} is {held.get(name, 'missing')} there and {wanted.get(name, 'not wanted')} here"
    return ""


def _refused(error: Exception) -> bool:
    """Whether the file system said no. Tensorstore reports a full or read-only disk as a ValueError."""
    return isinstance(error, OSError) or bool(
        re.search(
            r"no space|read-only|permission|quota|too large|errno|os_error_code|input/output", str(error), re.IGNORECASE
        )
    )


def _why(error: Exception) -> str:
    """The words of the file system for what Tensorstore says in several hundred letters, whose order varies."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.findall(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[-1])) if code else str(error).splitlines()[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the traces that Orbax's threads log out of the terminal: what went wrong is raised as well."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


class Checkpoints:
    """The checkpoints of one run, the newest `keep` of them.

    A checkpoint appears whole or not at all (Orbax writes beside it and renames), so a run killed at any moment finds
    the last whole one. Several processes have to take each step together; the first one writes.

    Raises:
      UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = Path(folder).resolve()
        self._refused = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            ocp = _orbax()
            self._manager = ocp.training.Checkpointer(
                self.folder,
                preservation_policy=ocp.training.preservation_policies.LatestN(keep),
                cleanup_tmp_directories=True,
            )
        except OSError as error:
            raise UserError(f"cannot write checkpoints to {folder}: {error.strerror or error}") from error

    @property
    def latest(self) -> int | None:
        """The step of the newest whole checkpoint, or None."""
        found = self._manager.latest
        return None if found is None else int(found.step)

    def save(self, step: int, carry: PyTree, iterator: Mapping[str, Any]) -> None:
        """Writes `carry` (arrays) and the iterator's state as those after `step` steps.

        Raises:
          UserError: the disk is full or read-only.
        """
        if jax.process_count() > 1:
            carry = jax.device_get(carry)  # Orbax takes arrays of one process for parts of global ones
        try:
            with _quiet():
                self._manager.save(step, carry, custom_metadata={"iterator": json.dumps(dict(iterator))}, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            if not _refused(error):
                raise
            self._refused = True
            for half_written in self.folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(half_written, ignore_errors=True)
            raise UserError(
                f"cannot write the checkpoint of step {step} to {self.folder}: {_why(error)}; "
                f"make room and start the same command again (it continues from step {self.latest or 0})"
            ) from error

    def restore(self, like: PyTree) -> Restored | None:
        """Reads the newest checkpoint, in the shapes of `like`; None if there is none yet.

        Raises:
          UserError: it holds other arrays than `like` (another architecture, vocabulary or buffer size).
        """
        step = self.latest
        if step is None:
            return None
        metadata = self._manager.metadata(step)
        if misfit := _misfit(metadata.metadata, like):
            raise UserError(
                f"the checkpoint of step {step} in {self.folder} does not fit this model or configuration: {misfit}; "
                "choose another run folder or the configuration that wrote it"
            )
        carry = self._manager.load(step, _abstract(like))
        assert metadata.custom_metadata is not None
        return Restored(step, carry, json.loads(metadata.custom_metadata["iterator"]))

    def close(self) -> None:
        """Ends background work."""
        try:
            with _quiet():
                self._manager.close()
        except (OSError, ValueError, RuntimeError):
            if not self._refused:  # otherwise it is what `save` has reported
                raise


class SavedModel(NamedTuple):
    """A finished model with what is needed to run it."""

    model: Model
    params: PyTree
    tokenizer: Tokenizer


def save_model(folder: Path, config: ModelConfig, params: PyTree, tokenizer: Tokenizer) -> None:
    """Writes `config.json`, `tokenizer.model` and the parameters; an older model stays until that is done.

    Several processes have to call it together; the first one writes.

    Raises:
      UserError: the file system refuses.
    """
    folder = Path(folder).resolve()
    scratch = folder.parent / f".{folder.name}-new"
    text = {"family": family_of(config).name, "model": config.to_dict(), "tokenizer": tokenizer.fingerprint}
    try:
        if is_writer():
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            (scratch / "config.json").write_text(json.dumps(text, indent=2) + "\n", encoding="utf8")
            tokenizer.save(scratch / "tokenizer.model")
        wait(f"begun {folder}")
        with _quiet():
            _orbax().save(scratch / "params", params)
        if is_writer():
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(scratch, folder)
        wait(f"saved {folder}")
    except (OSError, ValueError, RuntimeError) as error:
        if not _refused(error):
            raise
        raise UserError(f"cannot write the model to {folder}: {_why(error)}") from error
    finally:
        if is_writer():
            shutil.rmtree(scratch, ignore_errors=True)


def read_model_config(folder: Path) -> tuple[ModelConfig, Tokenizer]:
    """Reads sizes and vocabulary of a folder written by `save_model`.

    No code is looked for by a name that the folder says.

    Raises:
      UserError: it is no such folder, or of a family that nobody has registered.
    """
    folder = Path(folder).resolve()
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a saved model (no config.json); give the folder named model/ of a finished run"
        )
    file = folder / "config.json"
    stated = read_json(file, f"{folder} is not a saved model")
    fields = stated.get("model")
    if not isinstance(fields, dict):
        raise UserError(f"{file} is damaged: it has no sizes under 'model'; give a folder that a run has written")
    with told_of(file):
        family = find_family(stated.get("family", "t5"))  # older folders hold no others
        config: ModelConfig = family.config.from_dict(fields)
    tokenizer = load_tokenizer(folder / "tokenizer.model")
    if (wanted := stated.get("tokenizer", tokenizer.fingerprint)) != tokenizer.fingerprint:
        raise UserError(
            f"{folder / 'tokenizer.model'} is not the vocabulary that the model was saved with: its sha256 is "
            f"{tokenizer.fingerprint[:12]}..., by config.json {reprlib.repr(wanted)}; copy the whole folder again"
        )
    # A published vocabulary has fewer ids than its models have rows of embedding.
    return config, tokenizer.padded_to(config.vocab_size)


def load_model(folder: Path, *, expect: ModelConfig | None = None, tokenizer: Tokenizer | None = None) -> SavedModel:
    """Opens a folder written by `save_model`, its embedding padded to the rows of `tokenizer`.

    Raises:
      UserError: it is no such folder, its architecture is not `expect`, its vocabulary is not `tokenizer`'s, or a
        parameter holds NaN or infinity.
    """
    folder = Path(folder).resolve()
    saved, own = read_model_config(folder)
    if tokenizer is not None:
        check_vocabulary(str(folder), own, tokenizer)
        own = own.padded_to(tokenizer.vocab_size)
    config = dataclasses.replace(saved, vocab_size=own.vocab_size)
    if expect is not None and expect != config:
        stored, asked = ({"family": family_of(c).name, **c.to_dict()} for c in (config, expect))
        keys = [k for k in ("family",) if stored[k] != asked[k]] or asked  # which have no other fields in common
        wanted = ", ".join(f"{k} {stored[k]} (asked for {asked[k]})" for k in keys if asked[k] != stored[k])
        raise UserError(f"the model in {folder} has another architecture: {wanted}")
    like = parameter_shapes(saved)
    ocp = _orbax()
    if misfit := _misfit(ocp.metadata(folder / "params").metadata, like):
        raise UserError(f"the parameters in {folder} do not fit its config.json: {misfit}")
    # Arrays of numpy, in the memory of the host: a teacher may be larger than a device.
    params = ocp.load(folder / "params", jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), like))
    for name, leaf in _named(params).items():
        rows = np.atleast_1d(leaf)
        check_finite(f"{folder / 'params'}: {name}", rows, len(rows), _REMEDY)
    model = make_model(config)
    return SavedModel(model, pad_params(params, model.vocabulary_axis, config.vocab_size), own)


def check_vocabulary(name: str, own: Tokenizer, tokenizer: Tokenizer) -> None:
    """Refuses a model `name` whose vocabulary is not that of the run, which may have more padding.

    Raises:
      UserError: they differ.
    """
    differs = own.difference(tokenizer)
    if differs is None and own.vocab_size <= tokenizer.vocab_size:
        return
    remedy = "take a teacher and a student of one vocabulary, with the same tokenizer files"
    if differs is None:
        differs, remedy = "it has more rows", "name the model where the run begins, which then has as many"
    raise UserError(
        f"the model in {name} was trained with another vocabulary ({own.vocab_size} pieces, {own.fingerprint[:12]}) "
        f"than this run's ({tokenizer.vocab_size} pieces, {tokenizer.fingerprint[:12]}): {differs}; {remedy}"
    )
