"""What a model in this process does for a teacher's answers, as three functions of arrays to be jitted."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from operator import itemgetter
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from kdtw_jax.decoding.sample import EOS, PAD, choose
from kdtw_jax.models import Cache, Model, Params

Rows: TypeAlias = tuple[Cache, ...]  # of each row its own cache, of one row
_AT_ONCE = 16  # places of a row whose logits are held at once: there are tens of thousands of tokens


class Read(NamedTuple):
    """What is read off at W places of each row."""

    log_prob_BxW: jax.Array  # float32, nats, of the tokens that were asked for
    top_ids_BxWxK: jax.Array  # int32, most probable first
    top_log_prob_BxWxK: jax.Array  # float32, nats
    rows: Rows


class _Writing(NamedTuple):
    """Between two tokens."""

    step: jax.Array  # int32 [], tokens written
    token_B: jax.Array  # int32, the next input
    finished_B: jax.Array  # bool
    tokens_BxT: jax.Array  # int32
    cache: Cache


class Programs(NamedTuple):
    """The functions of one model, jitted."""

    begin: Callable[..., Rows]
    read: Callable[..., Read]
    write: Callable[..., tuple[jax.Array, Rows]]


@lru_cache(maxsize=4)
def make_programs(model: Model) -> Programs:
    """The functions of a model, compiled when they are first used with so many rows of such lengths."""
    return Programs(
        jax.jit(partial(begin, model), static_argnames="room"),
        jax.jit(partial(read, model), static_argnames="top_k"),
        jax.jit(partial(write, model), static_argnames="max_len"),
    )


def begin(model: Model, params: Params, source_BxS: jax.Array, *, room: int) -> Rows:
    """Reads sources.

    Args:
      model: whose caches are begun.
      params: its parameters.
      source_BxS: int32, padded with 0.
      room: decoder inputs that each cache has room for.
    """
    return _apart(model.start(params, model.encode(params, source_BxS), room), len(source_BxS))


def read(
    model: Model,
    params: Params,
    rows: Rows,
    inputs_BxN: jax.Array,
    position_B: jax.Array,
    first_B: jax.Array,
    target_BxW: jax.Array,
    *,
    top_k: int,
) -> Read:
    """Feeds N decoder inputs to each row and reads off the distributions after W of them.

    Args:
      model: of the caches.
      params: its parameters.
      rows: the caches.
      inputs_BxN: int32.
      position_B: int32, of the first input.
      first_B: int32, the first of these inputs whose answer is wanted; W - 1 follow it, the last input is repeated
        where there are not as many.
      target_BxW: int32, the tokens whose log-probabilities are wanted.
      top_k: how many of the most probable tokens are wanted.
    """
    decoded, cache = model.extend(params, _together(rows), inputs_BxN, position_B)
    width = target_BxW.shape[1]
    place_BxW = jnp.minimum(first_B[:, None] + jnp.arange(width, dtype=jnp.int32)[None], inputs_BxN.shape[1] - 1)
    hidden_BxWxD = jnp.take_along_axis(decoded.hidden_BxTxD, place_BxW[:, :, None], axis=1)

    def stats(some: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        hidden_BxCxD, target_BxC = some
        logits_BxCxV = model.unembed(params, hidden_BxCxD).astype(jnp.float32)
        log_prob_BxCxV = jax.nn.log_softmax(logits_BxCxV, axis=-1)
        chosen_BxC = jnp.take_along_axis(log_prob_BxCxV, target_BxC[:, :, None], axis=-1)[:, :, 0]
        top_BxCxK, ids_BxCxK = jax.lax.top_k(log_prob_BxCxV, top_k)
        return chosen_BxC, ids_BxCxK.astype(jnp.int32), top_BxCxK

    chunk = min(width, _AT_ONCE)

    def cut(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(len(x), width // chunk, chunk, *x.shape[2:]), 1, 0)

    def whole(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(len(x), width, *x.shape[3:])

    found = jax.lax.map(stats, (cut(hidden_BxWxD), cut(target_BxW)))
    chosen_BxW, ids_BxWxK, top_BxWxK = (whole(x) for x in found)
    return Read(chosen_BxW, ids_BxWxK, top_BxWxK, _apart(cache, len(inputs_BxN)))


def write(
    model: Model,
    params: Params,
    rows: Rows,
    input_B: jax.Array,
    position_B: jax.Array,
    banned_V: jax.Array,
    limit: jax.Array,
    *,
    max_len: int,
) -> tuple[jax.Array, Rows]:
    """Continues each row greedily until its end-of-sequence token or `limit` tokens.

    Args:
      model: of the caches.
      params: its parameters.
      rows: the caches, filled up to the input.
      input_B: int32, the last decoder input that was given.
      position_B: int32, where it stands.
      banned_V: bool, tokens that are never written.
      limit: int32 [], at most `max_len`.
      max_len: of the array.

    Returns:
      The tokens, int32 [B, max_len], padding after the end; and the caches.
    """
    count = len(input_B)

    def unfinished(state: _Writing) -> jax.Array:
        return (state.step < limit) & ~jnp.all(state.finished_B)

    def step(state: _Writing) -> _Writing:
        at, token_B, finished_B, tokens_BxT, cache = state
        decoded, cache = model.extend(params, cache, token_B[:, None], position_B + at)
        logits_BxV = jnp.where(banned_V[None], -jnp.inf, decoded.logits_BxTxV[:, 0].astype(jnp.float32))
        token_B = choose(jax.nn.log_softmax(logits_BxV, axis=-1), None)
        token_B = jnp.where(finished_B, PAD, token_B)
        tokens_BxT = jax.lax.dynamic_update_index_in_dim(tokens_BxT, token_B, at, axis=1)
        return _Writing(at + 1, token_B, finished_B | (token_B == EOS), tokens_BxT, cache)

    start = _Writing(
        jnp.zeros((), jnp.int32),
        jnp.asarray(input_B),
        jnp.zeros(count, bool),
        jnp.full((count, max_len), PAD, jnp.int32),
        _together(rows),
    )
    end = jax.lax.while_loop(unfinished, step, start)
    return end.tokens_BxT, _apart(end.cache, count)


def _together(rows: Rows) -> Cache:
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *rows)


def _apart(cache: Cache, count: int) -> Rows:
    return tuple(jax.tree.map(itemgetter(slice(row, row + 1)), cache) for row in range(count))
