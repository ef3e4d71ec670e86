"""Finished models as folders: parameters, sizes and vocabulary."""

from __future__ import annotations

import dataclasses
import json
import os
import reprlib
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer
from kdtw_jax.errors import UserError, told_of
from kdtw_jax.finite import check_finite
from kdtw_jax.models import Model, ModelConfig, family_of, find_family, make_model, pad_params, parameter_shapes
from kdtw_jax.parallel.hosts import is_writer, wait
from kdtw_jax.runs.atomic import read_json
from kdtw_jax.training.disk import PyTree, is_refusal, leaves_by_place, misfit, orbax, quiet, reason

_REMEDY = "the folder is damaged, or the training that wrote it went wrong: train or copy the model again"


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
        with quiet():
            orbax().save(scratch / "params", params)
        if is_writer():
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(scratch, folder)
        wait(f"saved {folder}")
    except (OSError, ValueError, RuntimeError) as error:
        if not is_refusal(error):
            raise
        raise UserError(f"cannot write the model to {folder}: {reason(error)}") from error
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
    ocp = orbax()
    if wrong := misfit(ocp.metadata(folder / "params").metadata, like):
        raise UserError(f"the parameters in {folder} do not fit its config.json: {wrong}")
    # Arrays of numpy, in the memory of the host: a teacher may be larger than a device.
    params = ocp.load(folder / "params", jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), like))
    for name, leaf in leaves_by_place(params).items():
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
