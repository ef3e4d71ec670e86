"""Published weights as parameters of ours, one tensor at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from kdtw_jax.data.tokenizer import Tokenizer, load_vocabulary
from kdtw_jax.errors import UserError
from kdtw_jax.finite import check_finite
from kdtw_jax.models import CausalConfig, ModelConfig, Params, T5Config, init_heads, make_model
from kdtw_jax.models.vocabulary import pad_rows
from kdtw_jax.parallel.shards import put as spread
from kdtw_jax.pretrained.causal_vocabulary import check_beside, load_prompt_vocabulary
from kdtw_jax.pretrained.gguf import SUFFIX, Tensor, open_gguf
from kdtw_jax.pretrained.layout import head_may_be_shared, of_bytes, read_layout
from kdtw_jax.pretrained.names import ALIASES, EMBEDDING, HEAD, SHARED, UNUSED, TensorSlot, slots
from kdtw_jax.pretrained.tensors import Held, check_tensor, find_tensors, read_tensors, same_tensor

Placement: TypeAlias = jax.Device | jax.sharding.Sharding
# (the names that lead to a parameter, its shape): where it goes
PlacementOf: TypeAlias = Callable[[tuple[str, ...], tuple[int, ...]], Placement]
_SHOWN = 3  # tensors named in a message


class Published(NamedTuple):
    """A model in the Hugging Face layout, or a GGUF file, whose names and shapes are as they should be.

    No weights are read yet.
    """

    folder: Path
    config: T5Config | CausalConfig  # sizes and variant; float32, no heads of ours
    tokenizer: Tokenizer  # padded to the rows of the embedding
    held: Mapping[str, Held | Tensor]  # where each wanted tensor lies, by its published name
    copies: tuple[Held, ...]  # further tensors, which have to equal the embedding


def open_published(folder: Path) -> Published:
    """Looks through the files of a model.

    They are those of a folder with `config.json`, `spiece.model` or `tokenizer.json` (not for byT5), and safetensors,
    or one GGUF file.

    Raises:
      UserError: anything does not fit: missing, unknown and misshapen tensors, another variant than `config.json` says,
        a vocabulary smaller than the tokenizer's.
    """
    folder = Path(folder)
    if folder.suffix == SUFFIX:
        return _of_gguf(folder)
    config = read_layout(folder)
    if isinstance(config, CausalConfig):
        return _of_causal(folder, config)
    held = find_tensors(folder)
    wanted = slots(config)
    sources = {name: name for name in wanted}
    if SHARED not in held:
        sources[SHARED] = next((alias for alias in ALIASES if alias in held), SHARED)
    if HEAD in wanted and HEAD not in held and head_may_be_shared(folder):
        sources[HEAD] = sources[SHARED]
    copies = [name for name in (*ALIASES, HEAD) if name in held and name not in sources.values()]
    _check_fit(folder, wanted, held, {*copies, *sources.values(), *UNUSED}, sources)
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


def _of_gguf(file: Path) -> Published:
    found = open_gguf(file)
    wanted = slots(found.config)
    _check_fit(file, wanted, found.tensors, wanted)
    check_beside(file, found.tokenizer, found.config.vocab_size)
    return _with_rows(file, found.config, found.tokenizer, {name: found.tensors[name] for name in wanted})


def _of_causal(folder: Path, config: CausalConfig) -> Published:
    held = find_tensors(folder)
    wanted = slots(config)
    copy = held[HEAD] if config.tie_embeddings and HEAD in held else None
    buffers = {name for name in held if name.endswith("rotary_emb.inv_freq")}  # older files keep them
    _check_fit(folder, wanted, held, {*wanted, *buffers, HEAD})
    tokenizer = load_prompt_vocabulary(folder, config.vocab_size)
    taken = {name: held[name] for name in wanted}
    return _with_rows(folder, config, tokenizer, taken, () if copy is None else (copy,))


def _with_rows(
    where: Path,
    config: CausalConfig,
    tokenizer: Tokenizer,
    held: Mapping[str, Held | Tensor],
    copies: tuple[Held, ...] = (),
) -> Published:
    """With as many rows of the embedding as there are ids."""
    config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    return Published(where, config, tokenizer, held, copies)


def _check_fit(
    where: Path,
    wanted: dict[str, TensorSlot],
    held: Mapping[str, Held | Tensor],
    known: Collection[str],
    sources: Mapping[str, str] = {},
) -> None:
    """Checks that all tensors are there and of their sizes, and no others but those that are `known`."""
    gguf = where.suffix == SUFFIX
    by = "its metadata" if gguf else "config.json"
    if misfit := _misfit(wanted, {**{name: name for name in wanted}, **sources}, held, {*known}, by):
        raise UserError(f"the weights in {where} do not fit {by if gguf else f'its {by}'}: {misfit}")


def read_published(
    published: Published,
    config: ModelConfig,
    key: jax.Array,
    *,
    dtype: str = "float32",
    placement: Placement | PlacementOf | None = None,
) -> Params:
    """Reads the parameters of a published model.

    Each tensor goes straight to its place and is converted on its way, before the next is read: on the host there is
    one at a time, in the dtype that it has in the file, or, where it is quantised, in that of the result.

    Args:
      config: the published sizes, with any heads of ours and any further rows of the embedding, which are zero.
      key: what those heads are drawn with.
      dtype: of matrices. Norms and position tables are of float32, in which they are used: under bfloat16 arithmetic,
        matrices in bfloat16 change no output.
      placement: where tensors go, all to one place or each to its own; by default into numpy arrays on the host.

    Raises:
      UserError: a tensor that has to repeat another does not, or one holds NaN, infinity or numbers too large to
        square.
    """
    sized = ("value_heads", "gate_width", "rule_in_source", "rule_after", "dropout_rate", "dtype", "vocab_size")
    of_this_kind = {field.name for field in dataclasses.fields(config)}  # not every family has all of them
    ours = {name: getattr(published.config, name) for name in sized if name in of_this_kind}
    if dataclasses.replace(config, **ours) != published.config or config.vocab_size < published.config.vocab_size:
        raise ValueError(f"{config} is of other sizes than {published.folder}")
    for copy in published.copies:
        shared = published.held[SHARED if SHARED in published.held else EMBEDDING]
        _check_copy(published.folder, copy, cast(Held, shared))
    params: Params = {}
    wanted, axis_of = slots(published.config), make_model(config).vocabulary_axis
    published_V = published.tokenizer.padded_to(config.vocab_size).published_ids

    def put(x: np.ndarray, path: tuple[str, ...]) -> np.ndarray | jax.Array:
        return _put(x, placement(path, x.shape) if callable(placement) else placement)

    dtypes = {name: dtype if slot.matrix else "float32" for name, slot in wanted.items()}
    for name, tensor in _read_all(published.held, dtypes):
        *path, last = wanted[name].path
        inner = params
        for part in path:
            inner = inner.setdefault(part, {})
        converted = np.ascontiguousarray(tensor.T if wanted[name].transposed else tensor, jnp.dtype(dtypes[name]))
        axis = axis_of(wanted[name].path[0])
        converted = pad_rows(converted, axis, config.vocab_size)
        if axis is not None and published_V is not None:
            converted = np.take(converted, published_V, axis=axis)
        inner[last] = put(converted, wanted[name].path)
        del tensor, converted  # before the next is read
    heads = init_heads(config, key)
    placed = jax.tree.map_with_path(lambda path, x: put(np.asarray(x), tuple(part.key for part in path)), heads)
    return {**params, **placed}


def _read_all(held: Mapping[str, Held | Tensor], dtypes: Mapping[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the tensors one at a time; those of a GGUF file in the dtypes that they are wanted in."""
    yield from read_tensors({name: one for name, one in held.items() if isinstance(one, Held)})
    for name, one in held.items():
        if isinstance(one, Tensor):
            tensor = one.read(dtypes[name])
            check_finite(f"{one.file}: {one.name}", tensor, len(tensor), "the file is damaged: fetch it again")
            yield name, tensor
            del tensor  # before the next is read


def _put(x: np.ndarray, placement: Placement | None) -> np.ndarray | jax.Array:
    if isinstance(placement, NamedSharding):  # perhaps over devices of several processes
        return spread(x, placement)
    return x if placement is None else jax.device_put(x, placement)


def _misfit(
    wanted: dict[str, TensorSlot],
    sources: dict[str, str],
    held: Mapping[str, Held | Tensor],
    known: set[str],
    by: str,
) -> str:
    """What is wrong with tensors, empty where nothing is; `by` is where their sizes are stated."""
    missing = [name for name in wanted if sources[name] not in held]
    extra = [name for name in held if name not in wanted and name not in known]
    misshapen = [
        f"{source} is {held[source].shape}, by {by} {wanted[name].shape}"
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
