"""A model of ours in the Hugging Face layout, which `transformers` opens and generates the same tokens with."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.models import CausalConfig, ModelConfig, Params, T5Config, family_of, make_model
from kdtw_jax.pretrained.causal_vocabulary import causal_files
from kdtw_jax.pretrained.layout import write_layout
from kdtw_jax.pretrained.names import slots
from kdtw_jax.pretrained.tensors import SINGLE, write_tensors
from kdtw_jax.runs.atomic import explained, write_json, write_text


def export_model(
    folder: Path, config: ModelConfig, params: Params, tokenizer: Tokenizer, *, dtype: str = "float32", card: str = ""
) -> None:
    """Writes a model in the Hugging Face layout, whole or not at all.

    There are `model.safetensors`, `config.json`, the vocabulary (not for byT5) and what generation needs; a `card`
    becomes its README.md.

    The heads of ours, value and gate, have no place in that layout and are left out: what is written is the student
    that does not ask. The generation config suppresses the tokens that are never to be written and renormalises the
    rest, so greedy decoding there is `generate` here, and a beam search without length penalty is `beam_search` (the
    penalties are defined differently).

    Raises:
      UserError: `folder` already holds something, the file system refuses, or the model is of a family, or has a
        vocabulary, that has no such layout.
    """
    if not isinstance(config, T5Config | CausalConfig):
        family = family_of(config).name
        raise UserError(f"models of the family {family} have no Hugging Face layout here; t5 and causal do")
    files = write_layout(config, tokenizer) if isinstance(config, T5Config) else causal_files(config, tokenizer)
    folder = Path(folder).resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; choose another place for the model")
    with explained(folder, "write the model to"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for name, content in files.items():
                write_json(scratch / name, content)
            if tokenizer.published_file is not None:
                name, pieces = tokenizer.published_file
                (scratch / name).write_bytes(pieces)
            if card:
                write_text(scratch / "README.md", card)
            write_tensors(scratch / SINGLE, published_tensors(config, params, dtype, tokenizer.published_ids))
            scratch.chmod(0o755)  # as any other folder; a temporary one is its owner's alone
            os.replace(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def published_tensors(
    config: T5Config | CausalConfig, params: Params, dtype: str = "float32", published_V: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Our parameters under their published names, as the published layout holds them.

    Args:
      config: of the model.
      params: of it.
      dtype: of the tensors.
      published_V: `Tokenizer.published_ids`, by which the rows of the vocabulary go back.
    """
    found, axis_of = {}, make_model(config).vocabulary_axis
    for name, slot in slots(config).items():
        leaf = params
        for part in slot.path:
            leaf = leaf[part]
        x, axis = np.asarray(leaf), axis_of(slot.path[0])
        if published_V is not None and axis is not None:
            x = np.take(x, np.argsort(published_V), axis=axis)
        found[name] = np.ascontiguousarray(x.T if slot.transposed else x, dtype=jnp.dtype(dtype))
    return found
