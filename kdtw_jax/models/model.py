"""What the rest of the package sees of a network: pure functions of parameters and arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.models.config import T5Config
from kdtw_jax.models.gate import Odds, View
from kdtw_jax.models.layers import KeysValues
from kdtw_jax.models.t5 import T5

Params: TypeAlias = Any  # a pytree of float32 arrays


class Encoded(NamedTuple):
    """A batch of sources, encoded. Padding (token 0) is masked, so its amount changes nothing."""

    states_BxSxD: jax.Array  # compute dtype
    mask_BxS: jax.Array  # bool, True on tokens


class Decoded(NamedTuple):
    """What the decoder says after each input token."""

    logits_BxTxV: jax.Array  # float32, of the next token
    value_BxT: jax.Array  # float32, soft value V of the prefix
    hidden_BxTxD: jax.Array  # compute dtype, the final-normed state the two are linear in


class Cache(NamedTuple):
    """State of incremental decoding: one (keys, values) pair a decoder layer, kinds apart.

    Slots of `self_BxHxTxE` that were not written yet hold zeros and are never seen.
    """

    self_BxHxTxE: tuple[KeysValues, ...]
    cross_BxHxSxE: tuple[KeysValues, ...]
    mask_BxS: jax.Array  # bool


class Model(NamedTuple):
    """A network as functions. None of them is jitted; all may be, with the model closed over.

    Dropout is on exactly where a `dropout_key` is given.
    """

    config: T5Config
    init: Callable[[jax.Array], Params]
    encode: Callable[..., Encoded]  # (params, source_BxS, dropout_key=None)
    decode: Callable[..., Decoded]  # (params, encoded, inputs_BxT, dropout_key=None), inputs shifted right
    start: Callable[[Params, Encoded, int], Cache]  # (params, encoded, max_len): room for max_len inputs
    extend: Callable[..., tuple[Decoded, Cache]]  # (params, cache, tokens_BxN, position [] or [B])
    read_rule: Callable[[Params, Encoded], jax.Array]  # what the gate makes of a source that holds a rule, [B, P]
    weigh: Callable[[Params, jax.Array, View], Odds]  # (params, what was read, what is seen): whether to ask
    # (params, hidden_BxTxD): `decode`'s, for a part of the positions; reads `output_layer(params)` alone
    logits: Callable[[Params, jax.Array], jax.Array]


def make_model(config: T5Config) -> Model:
    """The functions of one T5.

    `extend` feeds N tokens a row, the first standing at `position` (int32, [B], or [] where all rows agree,
    which is faster), overwrites those slots of the cache and answers for each of the N; a token sees the
    slots up to its own. N = 1 is a decoding step, N > 1 a prefill. Feeding beyond the cache's `max_len` is
    the caller's error.
    """
    module = T5(config)
    origin = np.zeros((), np.int32)

    def call(params: Params, method: Callable[..., Any], *args: Any) -> Any:
        return module.apply({"params": params}, *args, method=method)

    def answer(params: Params, hidden_BxTxD: jax.Array) -> Decoded:
        return Decoded(logits(params, hidden_BxTxD), call(params, T5.values, hidden_BxTxD), hidden_BxTxD)

    def init(key: jax.Array) -> Params:
        token = jnp.zeros((1, 1), jnp.int32)
        return module.init(key, token, token)["params"]

    def encode(params: Params, source_BxS: jax.Array, dropout_key: jax.Array | None = None) -> Encoded:
        mask_BxS = source_BxS != 0
        states = call(params, T5.encode, source_BxS, mask_BxS, _seed(dropout_key))
        return Encoded(states, mask_BxS)

    def decode(
        params: Params, encoded: Encoded, inputs_BxT: jax.Array, dropout_key: jax.Array | None = None
    ) -> Decoded:
        cross = call(params, T5.cross_keys_values, encoded.states_BxSxD)
        where = (inputs_BxT, encoded.mask_BxS, cross, None, origin)
        hidden_BxTxD, _ = call(params, T5.decode, *where, _seed(dropout_key))
        return answer(params, hidden_BxTxD)

    def start(params: Params, encoded: Encoded, max_len: int) -> Cache:
        cross = call(params, T5.cross_keys_values, encoded.states_BxSxD)
        rows = encoded.mask_BxS.shape[0]
        empty = jnp.zeros((rows, config.num_heads, max_len, config.d_kv), config.dtype)
        return Cache(((empty, empty),) * config.num_decoder_layers, cross, encoded.mask_BxS)

    def extend(params: Params, cache: Cache, tokens_BxN: jax.Array, position_B: jax.Array) -> tuple[Decoded, Cache]:
        where = (tokens_BxN, cache.mask_BxS, cache.cross_BxHxSxE, cache.self_BxHxTxE, position_B)
        hidden_BxNxD, seen = call(params, T5.decode, *where, None)
        return answer(params, hidden_BxNxD), cache._replace(self_BxHxTxE=seen)

    def read_rule(params: Params, encoded: Encoded) -> jax.Array:
        return call(params, T5.read_rule, encoded.states_BxSxD, encoded.mask_BxS)

    def weigh(params: Params, rule_BxP: jax.Array, view: View) -> Odds:
        return call(params, T5.weigh, rule_BxP, view)

    def logits(params: Params, hidden_BxTxD: jax.Array) -> jax.Array:
        return call(params, T5.logits, hidden_BxTxD)

    return Model(config, init, encode, decode, start, extend, read_rule, weigh, logits)


def shift_right(tokens_BxT: jax.Array) -> jax.Array:
    """Decoder inputs for targets: the start token (pad, 0) in front, the last target dropped."""
    return jnp.pad(tokens_BxT[:, :-1], ((0, 0), (1, 0)))


def output_layer(config: T5Config, params: Params) -> Params:
    """The part of the parameters that `Model.logits` reads."""
    name = "shared" if config.tie_embeddings else "lm_head"
    return {name: params[name]}


def output_slices(config: T5Config, params: Params, width: int) -> Params:
    """`output_layer` cut along the vocabulary: leaves [C, ...], each of the C what `Model.logits` of a model with a
    vocabulary of `width` reads; the last is filled up with zeros."""
    axis = 0 if config.tie_embeddings else 1  # of [V, D] or [D, V]
    count = -(-config.vocab_size // width)

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, axis, 0)
        padded = jnp.pad(x, ((0, count * width - len(x)), (0, 0))).reshape(count, width, -1)
        return jnp.moveaxis(padded, 1, axis + 1)

    return jax.tree.map(cut, output_layer(config, params))


def count_params(params: Params) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def select_rows(cache: Cache, index_B: jax.Array) -> Cache:
    """The cache whose row b continues row `index_B[b]`, which must decode the same source as row b does."""
    return cache._replace(self_BxHxTxE=jax.tree.map(lambda x: x[index_B], cache.self_BxHxTxE))


def _seed(dropout_key: jax.Array | None) -> jax.Array | None:
    return None if dropout_key is None else jax.random.bits(dropout_key, (2,), jnp.uint32)
