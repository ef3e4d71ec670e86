"""A T5 as the pure functions of a `Network`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.models.depth import check_depth, kept, spread
from kdtw_jax.models.gate import Memory
from kdtw_jax.models.interface import Network, Params
from kdtw_jax.models.layers import KeysValues, wide_einsum
from kdtw_jax.models.roles import Path, Role
from kdtw_jax.models.t5.config import T5Config
from kdtw_jax.models.t5.network import EncoderDecoder, head


def vocabulary_axis(name: str) -> int | None:
    """Of the parameters of this name, at the top of the tree."""
    return {"shared": 0, "lm_head": -1}.get(name)  # [V, D] and [D, V]


_ROLES: dict[str, Role] = {
    "shared": "embedding",
    "relative_attention_bias": "relative_bias",
    "scale": "norm",
    "q": "query",
    "o": "output",
    "wo": "output",
}


def role(path: Path) -> Role:
    """What the parameter at the end of these names is for."""
    return next((_ROLES[name] for name in path if name in _ROLES), "matrix")


class Cache(NamedTuple):
    """State of incremental decoding: one (keys, values) pair a decoder layer, kinds apart.

    Slots of `self_BxHxTxE` that were not written yet hold zeros and are never seen.
    """

    self_BxHxTxE: tuple[KeysValues, ...]
    cross_BxHxSxE: tuple[KeysValues, ...]
    mask_BxS: jax.Array  # bool


def shallower(config: T5Config, layers: int) -> tuple[T5Config, Callable[[Params], Params]]:
    """A config with so many layers in each stack, and what makes its parameters of those of `config`.

    Raises:
      UserError: a stack has not as many.
    """
    stacks = {"encoder": config.num_layers, "decoder": config.num_decoder_layers}
    check_depth(layers, min(stacks.values()))

    def cut(params: Params) -> Params:
        return {**params, **{name: kept(params[name], "block_", spread(of, layers)) for name, of in stacks.items()}}

    return dataclasses.replace(config, num_layers=layers, num_decoder_layers=layers), cut


def make_network(config: T5Config) -> Network:
    """The functions of one T5. An encoded source is its states and where they stand for tokens (`Memory`)."""
    module = EncoderDecoder(config)
    origin = np.zeros((), np.int32)

    def call(params: Params, method: Callable[..., Any], *args: Any) -> Any:
        return module.apply({"params": params}, *args, method=method)

    def init(key: jax.Array) -> dict[str, Any]:
        token = jnp.zeros((1, 1), jnp.int32)
        params: dict[str, Any] = module.init(key, token, token)["params"]
        return params

    def encode(params: Params, source_BxS: jax.Array, dropout_key: jax.Array | None = None) -> Memory:
        mask_BxS = source_BxS != 0
        return Memory(call(params, EncoderDecoder.encode, source_BxS, mask_BxS, _seed(dropout_key)), mask_BxS)

    def decode(
        params: Params, encoded: Memory, inputs_BxT: jax.Array, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        cross = call(params, EncoderDecoder.cross_keys_values, encoded.states_BxSxD)
        where = (inputs_BxT, encoded.mask_BxS, cross, None, origin)
        hidden_BxTxD: jax.Array = call(params, EncoderDecoder.decode, *where, _seed(dropout_key))[0]
        return hidden_BxTxD

    def start(params: Params, encoded: Memory, max_len: int) -> Cache:
        cross = call(params, EncoderDecoder.cross_keys_values, encoded.states_BxSxD)
        rows = encoded.mask_BxS.shape[0]
        empty = jnp.zeros((rows, config.num_heads, max_len, config.d_kv), config.dtype)
        return Cache(((empty, empty),) * config.num_decoder_layers, cross, encoded.mask_BxS)

    def extend(params: Params, cache: Cache, tokens_BxN: jax.Array, position_B: jax.Array) -> tuple[jax.Array, Cache]:
        where = (tokens_BxN, cache.mask_BxS, cache.cross_BxHxSxE, cache.self_BxHxTxE, position_B)
        hidden_BxNxD, seen = call(params, EncoderDecoder.decode, *where, None)
        return hidden_BxNxD, cache._replace(self_BxHxTxE=seen)

    def reorder(cache: Cache, index_B: jax.Array) -> Cache:
        return cache._replace(self_BxHxTxE=jax.tree.map(lambda x: x[index_B], cache.self_BxHxTxE))

    def unembed(params: Params, hidden_BxTxD: jax.Array) -> jax.Array:
        if not config.tie_embeddings:
            own = params["lm_head"]
            layer = head(config, own["kernel"].shape[1])
            return jnp.asarray(layer.apply({"params": own}, hidden_BxTxD))
        rows, length, depth = hidden_BxTxD.shape
        hidden_XxD = hidden_BxTxD.reshape(rows * length, depth) * depth**-0.5
        table_VxD = embedding(params).astype(config.dtype)
        return wide_einsum("xd,vd->xv", hidden_XxD, table_VxD).reshape(rows, length, -1)

    def embedding(params: Params) -> jax.Array:
        table_VxD: jax.Array = params["shared"]["embedding"]
        return table_VxD

    def output_layer(params: Params) -> Params:
        name = "shared" if config.tie_embeddings else "lm_head"
        return {name: params[name]}

    return Network(
        init=init,
        encode=encode,
        decode=decode,
        start=start,
        extend=extend,
        reorder=reorder,
        unembed=unembed,
        output_layer=output_layer,
        memory=lambda encoded: encoded,
        embedding=embedding,
        vocabulary_axis=vocabulary_axis,
        role=role,
    )


def _seed(dropout_key: jax.Array | None) -> jax.Array | None:
    return None if dropout_key is None else jax.random.bits(dropout_key, (2,), jnp.uint32)
