"""Published T5 weights as parameters of ours, one tensor at a time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.data.tokenizer import Tokenizer, load_vocabulary
from kdtw_jax.errors import UserError
from kdtw_jax.finite import check_finite
from kdtw_jax.models import ModelConfig, Params, T5Config, init_heads
from kdtw_jax.models.t5.model import vocabulary_axis
from kdtw_jax.models.vocabulary import pad_rows
from kdtw_jax.pretrained.layout import head_may_be_shared, of_bytes, read_layout
from kdtw_jax.pretrained.names import ALIASES, HEAD, SHARED, UNUSED, TensorSlot, slots
from kdtw_jax.pretrained.tensors import Held, check_tensor, find_tensors, read_tensors, same_tensor

Placement: TypeAlias = jax.Device | jax.sharding.Sharding
_SHOWN = 3  # tensors named in a message


class Published(NamedTuple):
    """A model in the Hugging Face layout whose names and shapes are as they should be. No weights are read yet."""

    folder: Path
    config: T5Config  # sizes and variant; float32, no heads of ours
    tokenizer: Tokenizer  # padded to the rows of the embedding
    held: dict[str, Held]  # where each wanted tensor lies, by its published name
    copies: tuple[Held, ...]  # further tensors, which have to equal the embedding


def open_published(folder: Path) -> Published:
    """Looks through a folder with `config.json`, `spiece.model` or `tokenizer.json` (not for byT5), and safetensors.

    Raises:
      UserError: anything does not fit: missing, unknown and misshapen tensors, another variant than `config.json` says,
        a vocabulary smaller than the tokenizer's.
    """
    folder = Path(folder)
    config = read_layout(folder)
    held = find_tensors(folder)
    wanted = slots(config)
    sources = {name: name for name in wanted}
    if SHARED not in held:
        sources[SHARED] = next((alias for alias in ALIASES if alias in held), SHARED)
    if HEAD in wanted and HEAD not in held and head_may_be_shared(folder):
        sources[HEAD] = sources[SHARED]
    copies = [name for name in (*ALIASES, HEAD) if name in held and name not in sources.values()]
    if misfit := _misfit(wanted, sources, held, {*copies, *sources.values(), *UNUSED}):
        raise UserError(f"the weights in {folder} do not fit its config.json: {misfit}")
    tokenizer = load_vocabulary(folder, of_bytes=of_bytes(folder))
    for copy in (held[name] for name in copies):
        if copy.shape[1:] != wanted[SHARED].shape[1:] or copy.shape[0] < tokenizer.vocab_size:
            raise UserError(
                f"the weights in {folder} do not fit its config.json: {copy.name} is {copy.shape}, by config.json "
                f"{wanted[SHARED].shape}"
            )
    tokenizer = tokenizer.padded_to(config.vocab_size)
    taken = {name: held[source] for name, source in sources.items()}
    return Published(folder, config, tokenizer, taken, tuple(held[name] for name in copies))


def read_published(
    published: Published,
    config: ModelConfig,
    key: jax.Array,
    *,
    dtype: str = "float32",
    placement: Placement | None = None,
) -> Params:
    """Reads the parameters of a published model.

    Each tensor goes straight to its place and is converted on its way, so that little more than the result takes
    memory.

    Args:
      config: the published sizes, with any heads of ours and any further rows of the embedding, which are zero.
      key: what those heads are drawn with.
      dtype: of matrices. Norms and position tables are of float32, in which they are used: under bfloat16 arithmetic,
        matrices in bfloat16 change no output.
      placement: where tensors go, by default into numpy arrays on the host.

    Raises:
      UserError: a tensor that has to repeat another does not, or one holds NaN or infinity, in the file or in what it
        is converted to.
    """
    sized = ("value_heads", "gate_width", "rule_in_source", "dropout_rate", "dtype", "vocab_size")
    ours = {name: getattr(published.config, name) for name in sized}
    if dataclasses.replace(config, **ours) != published.config or config.vocab_size < published.config.vocab_size:
        raise ValueError(f"{config} is of other sizes than {published.folder}")
    for copy in published.copies:
        _check_copy(published.folder, copy, published.held[SHARED])
    params: Params = {}
    wanted = slots(published.config)
    for name, tensor in read_tensors(published.held):
        *path, last = wanted[name].path
        inner = params
        for part in path:
            inner = inner.setdefault(part, {})
        what = f"{published.held[name].file}: {published.held[name].name}"
        converted = _converted(what, tensor, wanted[name], dtype)
        converted = pad_rows(converted, vocabulary_axis(wanted[name].path[0]), config.vocab_size)
        inner[last] = _put(converted, placement)
    for head, fresh in init_heads(config, key).items():
        params[head] = jax.tree.map(lambda x: _put(np.asarray(x), placement), fresh)
    return params


def _converted(what: str, tensor: np.ndarray, slot: TensorSlot, dtype: str) -> np.ndarray:
    turned = tensor.T if slot.transposed else tensor
    wanted = jnp.dtype(dtype if slot.matrix else "float32")
    with np.errstate(over="ignore"):  # looked for right below
        converted = np.ascontiguousarray(turned, dtype=wanted)
    if jnp.finfo(wanted).max < jnp.finfo(tensor.dtype).max:
        there = converted.T if slot.transposed else converted
        check_finite(f"{what}, in {wanted}", there, len(there), f"in the file it is beyond {wanted}: use other weights")
    return converted


def _put(x: np.ndarray, placement: Placement | None) -> np.ndarray | jax.Array:
    return x if placement is None else jax.device_put(x, placement)


def _misfit(wanted: dict[str, TensorSlot], sources: dict[str, str], held: dict[str, Held], known: set[str]) -> str:
    """What is wrong with the tensors of a folder, empty where nothing is."""
    missing = [name for name in wanted if sources[name] not in held]
    extra = [name for name in held if name not in wanted and name not in known]
    misshapen = [
        f"{source} is {held[source].shape}, by config.json {wanted[name].shape}"
        for name, source in sources.items()
        if source in held and held[source].shape != wanted[name].shape
    ]
    found = [f"{what} {_some(names)}" for what, names in (("missing", missing), ("unknown", extra)) if names]
    found += [_some(misshapen)] if misshapen else []
    if any(".wi_0." in name for name in extra):
        found.append("these are gated (v1.1) weights: feed_forward_proj has to be 'gated-gelu'")
    elif any(".wi." in name for name in extra):
        found.append("these are v1.0 weights: feed_forward_proj has to be 'relu'")
    if HEAD in missing:
        found.append("a model without a head of its own has tie_word_embeddings true")
    return "; ".join(found)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _check_copy(folder: Path, copy: Held, shared: Held) -> None:
    if same_tensor(copy, shared):
        return
    for held in (copy, shared):  # of which NaN is the simpler explanation
        check_tensor(held)
    remedy = "embeddings of encoder and decoder that differ are not of a T5 model"
    if copy.name == HEAD:
        remedy = "for a head of its own config.json has to say tie_word_embeddings false"
    raise UserError(f"the weights in {folder} do not fit its config.json: {copy.name} is not {shared.name}; {remedy}")
