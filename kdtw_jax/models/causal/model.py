"""A decoder-only model as the pure functions of a `Network`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.models.causal.config import CausalConfig
from kdtw_jax.models.causal.layers import Part
from kdtw_jax.models.causal.network import Decoder, head
from kdtw_jax.models.depth import check_depth, kept, kept_by_kind
from kdtw_jax.models.gate import Memory
from kdtw_jax.models.interface import Network, Params
from kdtw_jax.models.layers import KeysValues, wide_einsum
from kdtw_jax.models.roles import Path, Role

_NOWHERE = 2**30  # a position that no query has reached
_FEW = 32  # states at once while a text is written


class Prompt(NamedTuple):
    """A prompt that was read."""

    states_BxSxD: jax.Array
    mask_BxS: jax.Array  # bool, True on tokens
    keys_values: tuple[KeysValues, ...]  # of each layer, [B, K, S, E]
    before_B: jax.Array  # int32, tokens before the last one, the position of that
    last_B: jax.Array  # int32, which is the first input of what follows


class Cache(NamedTuple):
    """State of incremental decoding."""

    prompt: Prompt
    own: tuple[KeysValues, ...]  # of each layer, [B, K, max_len, E]; slots not yet written are never seen


_ROLES: dict[str, Role] = {
    "embed_tokens": "table",
    "o_proj": "output",
    "down_proj": "output",
    "scale": "vector",
    "bias": "vector",
}


def role(path: Path) -> Role:
    """What the parameter at the end of these names is for."""
    return next((_ROLES[name] for name in reversed(path) if name in _ROLES), "matrix")


def vocabulary_axis(name: str) -> int | None:
    """Of the parameters of this name, at the top of the tree."""
    return {"embed_tokens": 0, "lm_head": -1}.get(name)  # [V, D] and [D, V]


def shallower(config: CausalConfig, layers: int) -> tuple[CausalConfig, Callable[[Params], Params]]:
    """A config with so many layers, and what makes its parameters of those of `config`; windows stay layers' own.

    Raises:
      UserError: there are not as many.
    """
    check_depth(layers, config.num_layers)
    smaller = dataclasses.replace(config, num_layers=layers)
    windows = [[one.window(i) for i in range(one.num_layers)] for one in (config, smaller)]
    chosen = kept_by_kind(*windows)
    return smaller, lambda params: kept(params, "layers_", chosen)


def make_network(config: CausalConfig) -> Network:
    """The functions of one model. The first input of what is written stands for the last token of the prompt."""
    module = Decoder(config)

    def call(params: Params, *args: Any, **more: Any) -> Any:
        return module.apply({"params": params}, *args, **more)

    def init(key: jax.Array) -> dict[str, Any]:
        params: dict[str, Any] = module.init(key, jnp.zeros((1, 1), jnp.int32), method=Decoder.everything)["params"]
        return params

    def encode(params: Params, source_BxS: jax.Array, dropout_key: jax.Array | None = None) -> Prompt:
        source_BxS = jnp.asarray(source_BxS)
        mask_BxS = source_BxS != 0  # prompts are padded at their ends
        position_1xS = jnp.arange(source_BxS.shape[1], dtype=jnp.int32)[None]
        states_BxSxD, keys_values = call(params, source_BxS, position_1xS, seed_2=_seed(dropout_key))
        before_B = jnp.maximum(jnp.sum(mask_BxS, axis=1, dtype=jnp.int32) - 1, 0)
        last_B = jnp.take_along_axis(source_BxS, before_B[:, None], axis=1)[:, 0]
        return Prompt(states_BxSxD, mask_BxS, keys_values, before_B, last_B)

    def decode(
        params: Params, prompt: Prompt, inputs_BxT: jax.Array, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        tokens_BxT = jnp.asarray(inputs_BxT).at[:, 0].set(prompt.last_B)
        position_BxT = prompt.before_B[:, None] + jnp.arange(tokens_BxT.shape[1], dtype=jnp.int32)[None]
        hidden_BxTxD: jax.Array = call(params, tokens_BxT, position_BxT, _parts(prompt), seed_2=_seed(dropout_key))[0]
        return hidden_BxTxD

    def start(params: Params, prompt: Prompt, max_len: int) -> Cache:
        shape = (len(prompt.last_B), config.num_kv_heads, max_len, config.head_dim)
        empty = jnp.zeros(shape, config.dtype)
        return Cache(prompt, ((empty, empty),) * config.num_layers)

    def extend(params: Params, cache: Cache, tokens_BxN: jax.Array, position: jax.Array) -> tuple[jax.Array, Cache]:
        prompt, slots = cache.prompt, cache.own[0][0].shape[2]
        slot_BxN = jnp.atleast_1d(position)[:, None] + jnp.arange(tokens_BxN.shape[1], dtype=jnp.int32)[None]
        tokens_BxN = jnp.where(slot_BxN == 0, prompt.last_B[:, None], tokens_BxN)
        room_BxM = prompt.before_B[:, None] + jnp.arange(slots, dtype=jnp.int32)[None]
        own = tuple(Part(keys_values, room_BxM) for keys_values in cache.own)
        where = prompt.before_B[:, None] + slot_BxN
        hidden_BxNxD, seen = call(params, tokens_BxN, where, _parts(prompt), own, position)
        return hidden_BxNxD, cache._replace(own=seen)

    def unembed(params: Params, hidden_BxTxD: jax.Array) -> jax.Array:
        if config.tie_embeddings:
            rows, length, depth = hidden_BxTxD.shape
            table_VxD = embedding(params).astype(config.dtype)
            hidden_XxD = hidden_BxTxD.reshape(rows * length, depth)
            if 1 < rows * length <= _FEW and jax.default_backend() == "cpu":
                # With the large factor on the left, XLA's product for a CPU does not copy it first.
                logits = jax.lax.optimization_barrier(wide_einsum("vd,xd->vx", table_VxD, hidden_XxD)).T
            else:
                logits = wide_einsum("xd,vd->xv", hidden_XxD, table_VxD)
            logits = logits.reshape(rows, length, -1)
        else:
            own = params["lm_head"]
            logits = jnp.asarray(head(config, own["kernel"].shape[1]).apply({"params": own}, hidden_BxTxD))
        return config.logit_cap * jnp.tanh(logits / config.logit_cap) if config.logit_cap else logits

    def embedding(params: Params) -> jax.Array:
        table_VxD: jax.Array = params["embed_tokens"]["embedding"]
        return table_VxD

    def output_layer(params: Params) -> Params:
        name = "embed_tokens" if config.tie_embeddings else "lm_head"
        return {name: params[name]}

    return Network(
        init=init,
        encode=encode,
        decode=decode,
        start=start,
        extend=extend,
        reorder=lambda cache, index_B: cache._replace(own=jax.tree.map(lambda x: x[index_B], cache.own)),
        unembed=unembed,
        output_layer=output_layer,
        memory=lambda prompt: Memory(prompt.states_BxSxD, prompt.mask_BxS),
        embedding=embedding,
        vocabulary_axis=vocabulary_axis,
        role=role,
    )


def _parts(prompt: Prompt) -> tuple[Part, ...]:
    """Of each layer, the prompt up to its last token, which is fed again as an input."""
    place_1xS = jnp.arange(prompt.mask_BxS.shape[1], dtype=jnp.int32)[None]
    position_BxS = jnp.where(place_1xS < prompt.before_B[:, None], place_1xS, _NOWHERE)
    return tuple(Part(keys_values, position_BxS) for keys_values in prompt.keys_values)


def _seed(dropout_key: jax.Array | None) -> jax.Array | None:
    return None if dropout_key is None else jax.random.bits(dropout_key, (2,), jnp.uint32)
