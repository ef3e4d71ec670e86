"""GGUF files, as llama.cpp has them: sizes, vocabulary and quantised weights, read through the library `gguf`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp  # knows bfloat16
import numpy as np

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.errors import UserError, told_of
from kdtw_jax.models import CausalConfig
from kdtw_jax.models.causal.layers import rope_frequencies
from kdtw_jax.pretrained.causal_layout import KINDS
from kdtw_jax.pretrained.gguf_vocabulary import read_gguf_vocabulary
from kdtw_jax.runs.atomic import explained

SUFFIX = ".gguf"
_AT_ONCE = 2**22  # numbers that are dequantised together
_ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_ARCHITECTURES |= {"gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3_text"}
_SIZES = {
    "embedding_length": "d_model",
    "feed_forward_length": "d_ff",
    "block_count": "num_layers",
    "attention.head_count": "num_heads",
}
_27B = {"gemma2": 46, "gemma3": 62}  # layers of the one size whose scores are divided by the root of d_model / heads
_SUFFIXES = {
    **{f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"},
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    **{f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")},
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


class Tensor(NamedTuple):
    """A tensor of a file, of which nothing is read yet."""

    file: Path
    name: str  # its name there
    shape: tuple[int, ...]
    # (dtype): as the published library holds it. Of numbers in float32 there are only ever those of some rows.
    read: Callable[[str], np.ndarray]


class GGUF(NamedTuple):
    """What a file says, and its tensors by the names of the published library."""

    config: CausalConfig
    tokenizer: Tokenizer
    tensors: dict[str, Tensor]


def open_gguf(file: Path) -> GGUF:
    """Reads sizes and vocabulary of a file; of tensors only what they are.

    A large one takes seconds, and is asked for several times: it is read once, until another takes its place.

    Raises:
      UserError: no such file, a damaged one, another architecture, or a vocabulary or stretched positions of a kind
        that is not known.
    """
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    with explained(file, "read"):
        found = file.stat()
    return _read_gguf(file, (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=2)
def _read_gguf(file: Path, _: tuple[int, ...]) -> GGUF:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        stated = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged or no GGUF file ({error}); fetch it again") from error
    kind = stated.get("general.architecture")
    if not isinstance(kind, str) or kind not in _ARCHITECTURES:
        raise UserError(f"{file} is of the architecture {str(kind)[:40]!r}; known are {', '.join(_ARCHITECTURES)}")
    names = {_published(tensor.name, kind): tensor for tensor in reader.tensors}
    config = _config(file, kind, stated, tied="lm_head.weight" not in names)
    if "rope_freqs.weight" in names:
        config = _stretched(file, config, np.asarray(names.pop("rope_freqs.weight").data, np.float64).ravel())
    found = {name: _tensor(file, name, tensor, kind, config) for name, tensor in names.items()}
    rows = found["model.embed_tokens.weight"].shape[0] if "model.embed_tokens.weight" in found else 0
    return GGUF(config, read_gguf_vocabulary(file, stated, rows), found)


def _published(name: str, kind: str) -> str:
    """A name of llama.cpp as the published library has it."""
    *where, what, last = name.split(".")
    if not where:
        return f"{_TOP.get(what, what)}.{last}"
    outer = kind in ("gemma2", "gemma3")
    after = {"ffn_norm": "pre_feedforward_layernorm" if outer else "post_attention_layernorm"}
    after |= {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
    return f"model.layers.{where[-1]}.{(_SUFFIXES | after).get(what, what)}.{last}"


def _config(file: Path, kind: str, stated: dict[str, Any], *, tied: bool) -> CausalConfig:
    def said(name: str, otherwise: Any = None) -> Any:
        found = stated.get(f"{kind}.{name}", otherwise)
        if found is None:
            raise UserError(f"{file} does not say {kind}.{name}")
        return found

    sizes = {ours: said(name) for name, ours in _SIZES.items()}
    heads, width = sizes["num_heads"], sizes["d_model"]
    if not (isinstance(heads, int) and isinstance(width, int) and heads > 0):  # some have as many as layers
        raise UserError(f"{file} has {kind}.attention.head_count {str(heads)[:40]}; it has to be one number above 0")
    head_dim = said("attention.key_length", width // heads)
    gemma23, window = kind in ("gemma2", "gemma3"), stated.get(f"{kind}.attention.sliding_window", 0)
    more: dict[str, Any] = {}
    if gemma23:
        more["query_scale"] = float(width // heads if sizes["num_layers"] == _27B[kind] else head_dim)
        more |= {"sliding_window": window, "full_every": 2 if kind == "gemma2" else 6}
    elif window:
        more |= {"sliding_window": window, "full_every": 0}
    if kind == "gemma2":
        more |= {"score_cap": said("attn_logit_softcapping", 50.0), "logit_cap": said("final_logit_softcapping", 30.0)}
    if kind == "gemma3":
        more["rope_local_theta"] = 10_000.0
    how = stated.get(f"{kind}.rope.scaling.type", "none")
    if how not in ("none", "linear", "yarn"):
        raise UserError(f"{file} has rope.scaling.type {str(how)[:40]!r}; known are none, linear and yarn")
    if how != "none":
        more |= {"rope_kind": how, "rope_factor": said("rope.scaling.factor")}
    if how == "yarn":
        more |= {"rope_length": said("rope.scaling.original_context_length"), "rope_low": 1.0, "rope_high": 32.0}
        if isinstance(factor := more["rope_factor"], int | float):
            more["rope_scale"] = 0.1 * math.log(max(factor, 1.0)) + 1.0
    tokens = stated.get("tokenizer.ggml.tokens")
    with told_of(file):
        return CausalConfig(
            vocab_size=len(tokens) if isinstance(tokens, list) and tokens else 1,  # of none more is said below
            **sizes,
            num_kv_heads=said("attention.head_count_kv", heads),
            head_dim=head_dim,
            **KINDS[_ARCHITECTURES[kind]],
            norm_epsilon=said("attention.layer_norm_rms_epsilon"),
            rope_theta=said("rope.freq_base", 10_000.0),
            tie_embeddings=tied,
            **more,
            value_heads=False,
        )


def _stretched(file: Path, config: CausalConfig, slower: np.ndarray) -> CausalConfig:
    """Finds the settings of positions that were stretched as Llama 3.1's are (`rope_frequencies`).

    Such a file states how many times slower each pair of numbers turns, [head_dim / 2], and not the settings. Between
    the slowest and those that stay, what is left of a frequency is linear in it, and two settings are the line's.

    Raises:
      UserError: they were stretched otherwise.
    """
    frequency = rope_frequencies(config).astype(np.float64)
    high, length, factor = 4.0, 8192.0, float(np.max(slower, initial=1.0))  # by the published ones, if nothing tells
    fits = slower.shape == frequency.shape and config.rope_kind == "default" and 1 < factor < math.inf
    if fits and np.all(slower >= 1):
        share = (1 / slower - 1 / factor) / (1 - 1 / factor)
        between = (share > 1e-6) & (share < 1 - 1e-6)
        if between.sum() > 1:
            slope, below = np.polyfit(frequency[between], share[between], 1)
            if slope > 0 > below:  # turns from 1 to `high` of the length the model was trained for
                high, length = 1 - 1 / below, round(-2 * math.pi * slope / below)
        how: dict[str, Any] = {"rope_low": 1.0, "rope_high": round(high, 3), "rope_length": float(length)}
        with told_of(file):
            found = dataclasses.replace(config, rope_kind="llama3", rope_factor=factor, **how)
        if np.allclose(rope_frequencies(found), frequency / slower, rtol=1e-3, atol=0):
            return found
    raise UserError(f"{file} has positions stretched in a way that is not known (rope_freqs.weight); use safetensors")


def _tensor(file: Path, name: str, tensor: Any, kind: str, config: CausalConfig) -> Tensor:
    shape = tuple(int(size) for size in reversed(tensor.shape))

    def read(dtype: str) -> np.ndarray:
        found = np.empty(shape, jnp.dtype(dtype))
        rows = max(_AT_ONCE // max(math.prod(shape[1:]), 1), 1)
        for start in range(0, shape[0], rows):
            part = slice(start, min(start + rows, shape[0]))
            # llama.cpp has added 1 to norms of Gemma's.
            found[part] = _dequantised(file, tensor, part) - (kind.startswith("gemma") and name.endswith("norm.weight"))
        if kind == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            # llama.cpp turns neighbours, and so has moved them beside each other.
            heads = config.num_heads if name.endswith("q_proj.weight") else config.num_kv_heads
            return found.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        return found

    return Tensor(file, tensor.name, shape, read)


def _dequantised(file: Path, tensor: Any, rows: slice) -> np.ndarray:
    """Some rows of a tensor, float32."""
    from gguf.quants import dequantize

    try:
        return dequantize(tensor.data[rows], tensor.tensor_type).astype(np.float32, copy=False)
    except (NotImplementedError, ValueError) as error:
        quantised = tensor.tensor_type.name
        raise UserError(f"{file}: {tensor.name} is quantised as {quantised}, which is not read ({error})") from error
