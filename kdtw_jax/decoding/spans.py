"""What a lazy teacher has not read yet, some positions at a time.

The teacher answers only where it is asked. It has not seen what the student wrote since, so a call first processes
these tokens, `SPAN` at once, as in the verification of speculative decoding (arXiv 2211.17192).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.models import Cache, Decoded, Model, Params

SPAN = 8  # positions that the teacher processes at once; a longer span takes several passes
_FEW = 2  # positions likewise, where no row has more left: the next word of an answer has one
# Of a single row a pass takes hardly longer than reading the weights does, and one position is a product of its own.
_OF_ONE = (16, SPAN, 1)


def _lengths(rows: int) -> tuple[int, ...]:
    """Of spans of so many rows, from the longest to the shortest."""
    return _OF_ONE if rows == 1 else (SPAN, _FEW)


def spare(rows: int) -> int:
    """How much longer a cache has to be than the text: a span may begin at any token and is written whole."""
    return _lengths(rows)[0]


def decoder_inputs(tokens_BxT: jax.Array) -> jax.Array:
    """What the decoder reads of these tokens, int32 [B, 1 + T + `spare`]: the start token, which is padding, comes
    first."""
    return jnp.pad(tokens_BxT, ((0, 0), (1, spare(len(tokens_BxT)))))


def read_span(
    network: tuple[Model, Params], cache: Cache, inputs_BxX: jax.Array, place_BxN: jax.Array
) -> tuple[Decoded, Cache]:
    """Feeds a model the inputs at N successive places of every row; its answers to each, and its cache thereafter.

    Args:
      inputs_BxX: as `decoder_inputs` gives them.
      place_BxN: int32, of which each row goes up by 1; rows may begin at different places.
    """
    model, params = network
    span_BxN = jnp.take_along_axis(inputs_BxX, place_BxN, axis=1)
    decoded, cache = model.extend(params, cache, span_BxN, place_BxN[:, 0])
    return decoded, cache


def successive(first_B: jax.Array, count: int) -> jax.Array:
    """The `count` places from `first_B` on, int32 [B, count]."""
    return first_B[:, None] + jnp.arange(count, dtype=jnp.int32)[None, :]


def follow(
    network: tuple[Model, Params], cache: Cache, tokens_BxT: jax.Array, read: jax.Array, place: jax.Array
) -> tuple[jax.Array, Cache]:
    """Feeds a model what it has not read in any row: its logits at a place, and its cache.

    Rows that are not heard now cost little, and will not have to be caught up with: reading all weights takes most of
    a pass. `catch_up` is for rows that stand at different places.

    Args:
      network: the model.
      cache: filled up to `read`, with room for T tokens and what is to `spare`.
      tokens_BxT: int32, what was written.
      read: int32 [], positions that it has processed.
      place: int32 [], not before `read`: the token it is heard about.

    Returns:
      float32 [B, V]; and the cache, filled up to that place.
    """
    model, params = network
    inputs_BxX, rows = decoder_inputs(tokens_BxT), len(tokens_BxT)
    lengths = sorted({*_lengths(rows), 1}, reverse=True)  # of many rows some are heard at nearly every token
    seen = jax.eval_shape(partial(model.extend, params), cache, inputs_BxX[:, :1], place)[0].hidden_BxTxD

    def pass_of(count: int, found: tuple[jax.Array, jax.Array, Cache]) -> tuple[jax.Array, jax.Array, Cache]:
        read, _, cache = found
        span_BxN = jax.lax.dynamic_slice_in_dim(inputs_BxX, read, count, axis=1)
        decoded, cache = model.extend(params, cache, span_BxN, read)
        last = jnp.clip(place - read, 0, count - 1)
        return read + count, jax.lax.dynamic_index_in_dim(decoded.hidden_BxTxD, last, axis=1, keepdims=False), cache

    def go_on(found: tuple[jax.Array, jax.Array, Cache]) -> tuple[jax.Array, jax.Array, Cache]:
        shorter = jnp.sum(place + 1 - found[0] <= jnp.asarray(lengths[1:]))
        after: tuple[jax.Array, jax.Array, Cache] = jax.lax.switch(
            shorter, [partial(pass_of, count) for count in lengths], found
        )
        return after

    nothing_BxD = jnp.zeros((rows, seen.shape[2]), seen.dtype)
    _, state_BxD, cache = jax.lax.while_loop(lambda found: found[0] <= place, go_on, (read, nothing_BxD, cache))
    return model.unembed(params, state_BxD[:, None])[:, 0], cache


class _Found(NamedTuple):
    read_B: jax.Array  # int32, positions that are processed
    logits_BxV: jax.Array  # float32, of the place that is asked about; 0 until it is reached
    cache: Cache


def catch_up(
    network: tuple[Model, Params],
    cache: Cache,
    tokens_BxT: jax.Array,
    read_B: jax.Array,
    place_B: jax.Array,
    heard_B: jax.Array,
) -> tuple[jax.Array, Cache]:
    """Feeds a model what it has not read, in rows where it is to be heard: its logits at a place, and its cache.

    Where these are no more than a quarter of the rows, the model processes no others; where none of them is far behind,
    a shorter span.

    Args:
      network: the model.
      cache: filled up to `read_B`, with room for T tokens and what is to `spare`; rows are the first axis of all its
        arrays.
      tokens_BxT: int32, what was written.
      read_B: int32, positions that it has processed.
      place_B: int32, the token it is heard about.
      heard_B: bool.

    Returns:
      float32 [B, V], 0 in the other rows; and the cache, filled up to these places.
    """
    inputs_BxX = decoder_inputs(tokens_BxT)
    rows = len(heard_B)
    quarter = -(-rows // 4)

    def behind(found: _Found) -> jax.Array:
        return heard_B & (found.read_B <= place_B)

    def read_all(count: int, found: _Found) -> _Found:
        return _read(network, inputs_BxX, place_B, behind(found), count, found)

    def read_some(count: int, found: _Found) -> _Found:
        behind_B = behind(found)
        row_F = jnp.argsort(~behind_B, stable=True)[:quarter]
        part = jax.tree.map(lambda x: x[row_F], found)
        part = _read(network, inputs_BxX[row_F], place_B[row_F], behind_B[row_F], count, part)
        after: _Found = jax.tree.map(lambda x, new: x.at[row_F].set(new), found, part)
        return after

    lengths = _lengths(rows)
    ways = [partial(read, count) for read in (read_all, read_some)[: 1 + (quarter < rows)] for count in lengths]

    def read(found: _Found) -> _Found:
        behind_B = behind(found)
        left = jnp.max(jnp.where(behind_B, place_B + 1 - found.read_B, 0))
        shorter = jnp.sum(left <= jnp.asarray(lengths[1:]))  # the shortest span that is long enough, or the longest
        few = (jnp.sum(behind_B) <= quarter) & (quarter < rows)
        after: _Found = jax.lax.switch(len(lengths) * few + shorter, ways, found)
        return after

    nothing_BxV = jnp.zeros((rows, network[0].config.vocab_size), jnp.float32)
    end = jax.lax.while_loop(lambda found: jnp.any(behind(found)), read, _Found(read_B, nothing_BxV, cache))
    return end.logits_BxV, end.cache


def _read(
    network: tuple[Model, Params],
    inputs_BxX: jax.Array,
    place_B: jax.Array,
    behind_B: jax.Array,
    count: int,
    found: _Found,
) -> _Found:
    """Processes the next `count` positions of rows, of which only those count that are behind."""
    model, params = network
    decoded, cache = read_span(network, found.cache, inputs_BxX, successive(found.read_B, count))
    within_B = place_B - found.read_B  # where the position that answers is in the span, or beyond it
    last_B = jnp.clip(within_B, 0, count - 1)
    state_Bx1xD = jnp.take_along_axis(decoded.hidden_BxTxD, last_B[:, None, None], axis=1)
    said_BxV = model.unembed(params, state_Bx1xD)[:, 0]  # of one position: there are tens of thousands of tokens
    logits_BxV = jnp.where((behind_B & (within_B < count))[:, None], said_BxV, found.logits_BxV)
    read_B = jnp.where(behind_B, jnp.minimum(found.read_B + count, place_B + 1), found.read_B)
    return _Found(read_B, logits_BxV, cache)
