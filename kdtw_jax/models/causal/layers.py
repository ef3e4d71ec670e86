"""The layers of a decoder-only model: norm, rotary positions, attention over a prompt and after it, feed-forward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.models.causal.config import CausalConfig
from kdtw_jax.models.layers import KeysValues, Linear, dropout, mask_bias, wide_einsum

# Queries whose scores are held at once where a prompt is read: memory grows with its length and not with its square.
QUERIES = 256


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last axis, in float32 (Zhang and Sennrich, arXiv 1910.07467)."""

    config: CausalConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config = self.config
        start = nn.initializers.zeros if config.norm_offset else nn.initializers.ones
        scale_D = self.param("scale", start, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        normed = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + config.norm_epsilon)
        scale = jnp.expand_dims(scale_D + config.norm_offset, range(x.ndim - 1))
        return (normed * scale).astype(config.dtype)


def rope_frequencies(config: CausalConfig, window: int = 0) -> np.ndarray:
    """How far a layer of such a window turns each pair of numbers per position, float32 [head_dim / 2].

    A table and not arithmetic on the device, so that it is the same on all of them.
    """
    local = bool(window) and config.rope_local_theta > 0
    theta = config.rope_local_theta if local else config.rope_theta
    half = config.head_dim // 2
    frequency = theta ** -(np.arange(half) / half)
    if local or config.rope_kind == "default":
        return frequency.astype(np.float32)
    slow = frequency / config.rope_factor
    if config.rope_kind == "linear":
        return slow.astype(np.float32)
    if config.rope_kind == "llama3":
        turns = config.rope_length * frequency / (2 * math.pi)
        share = (turns - config.rope_low) / (config.rope_high - config.rope_low)
    else:

        def pair_that_turns(times: float) -> float:
            return half * math.log(config.rope_length / (times * 2 * math.pi)) / math.log(theta)

        first = max(math.floor(pair_that_turns(config.rope_high)), 0)
        last = min(math.ceil(pair_that_turns(config.rope_low)), config.head_dim - 1)
        share = 1 - (np.arange(half) - first) / max(last - first, 1e-3)
    fast = np.clip(share, 0, 1)
    return (fast * frequency + (1 - fast) * slow).astype(np.float32)


def rotate(x_BxHxTxE: jax.Array, position_BxT: jax.Array, frequency: np.ndarray, scale: float) -> jax.Array:
    """Turns each pair (x_i, x_{i + E/2}) by its angle at the position, in float32; `scale`: of the result, 0 for 1."""
    angle_Bx1xTxF = position_BxT.astype(jnp.float32)[:, None, :, None] * frequency[None, None, None]
    cos, sin = jnp.cos(angle_Bx1xTxF), jnp.sin(angle_Bx1xTxF)
    if scale:
        cos, sin = scale * cos, scale * sin
    first, second = jnp.split(x_BxHxTxE.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BxHxTxE.dtype)


class Part(NamedTuple):
    """Keys and values, each [B, K, S, E], and where they stand."""

    keys_values: KeysValues
    position_BxS: jax.Array  # int32; beyond any position where nothing is to be seen


class Attention(nn.Module):
    """Attention of grouped heads to what stands up to a query's own position, within the layer's window."""

    config: CausalConfig
    window: int  # 0: it sees everything before

    def setup(self) -> None:
        config, std = self.config, self.config.d_model**-0.5
        inner = config.num_heads * config.head_dim
        narrow = config.num_kv_heads * config.head_dim
        self.q_proj = Linear(config.dtype, inner, std, bias=config.qkv_bias)
        self.k_proj = Linear(config.dtype, narrow, std, bias=config.qkv_bias)
        self.v_proj = Linear(config.dtype, narrow, std, bias=config.qkv_bias)
        self.o_proj = Linear(config.dtype, config.d_model, inner**-0.5)
        if config.qk_norm:
            self.q_norm, self.k_norm = RMSNorm(config), RMSNorm(config)

    def _heads(self, x_BxTxF: jax.Array) -> jax.Array:
        rows, length, _ = x_BxTxF.shape
        return x_BxTxF.reshape(rows, length, -1, self.config.head_dim).transpose(0, 2, 1, 3)

    def _turned(self, x_BxHxTxE: jax.Array, position_BxT: jax.Array) -> jax.Array:
        local = self.window and self.config.rope_local_theta
        scale = 0.0 if local else self.config.rope_scale
        return rotate(x_BxHxTxE, position_BxT, rope_frequencies(self.config, self.window), scale)

    def keys_values(self, x_BxTxD: jax.Array, position_BxT: jax.Array) -> KeysValues:
        keys = self._heads(self.k_proj(x_BxTxD))
        keys = self._turned(self.k_norm(keys) if self.config.qk_norm else keys, position_BxT)
        return keys, self._heads(self.v_proj(x_BxTxD))

    def __call__(
        self,
        x_BxTxD: jax.Array,
        position_BxT: jax.Array,
        parts: Sequence[Part],
        seed_2: jax.Array | None,
        cached: bool = False,
    ) -> jax.Array:
        """Queries from `x_BxTxD`, at their positions, to all `parts` together; `cached`: some is still to come."""
        config = self.config
        queries = self._heads(self.q_proj(x_BxTxD))
        queries = self._turned(self.q_norm(queries) if config.qk_norm else queries, position_BxT)
        rows, _, length, depth = queries.shape
        queries_BxKxGxTxE = queries.reshape(rows, config.num_kv_heads, -1, length, depth)
        dropped = seed_2 is not None and config.dropout_rate > 0
        here = config.fused_attention and jax.default_backend() == "gpu"  # a model moves between machines
        odd = length % 2 or sum(part.position_BxS.shape[1] for part in parts) % 2  # which cuDNN does not differentiate
        if here and not (dropped or cached or odd or config.score_cap):
            return self.o_proj(fused_attention(config, self.window, queries, position_BxT, parts))
        if length <= QUERIES or dropped:
            mixed = self._mix(queries_BxKxGxTxE, position_BxT, parts, seed_2)
        else:
            mixed = self._mix_some_at_a_time(queries_BxKxGxTxE, position_BxT, parts)
        return self.o_proj(mixed.transpose(0, 3, 1, 2, 4).reshape(rows, length, -1))

    def _mix_some_at_a_time(
        self, queries_BxKxGxTxE: jax.Array, position_BxT: jax.Array, parts: Sequence[Part]
    ) -> jax.Array:
        length = position_BxT.shape[1]
        count = -(-length // QUERIES)

        def cut(x: jax.Array, axis: int) -> jax.Array:
            padding = [(0, 0)] * x.ndim
            padding[axis] = (0, count * QUERIES - length)
            shape = (*x.shape[:axis], count, QUERIES, *x.shape[axis + 1 :])
            return jnp.moveaxis(jnp.pad(x, padding).reshape(shape), axis, 0)

        @jax.checkpoint
        def step(some: tuple[jax.Array, jax.Array]) -> jax.Array:
            return self._mix(*some, parts, None)

        position_BxT = jnp.broadcast_to(position_BxT, (len(queries_BxKxGxTxE), length))
        found = jax.lax.map(step, (cut(queries_BxKxGxTxE, 3), cut(position_BxT, 1)))
        whole = jnp.moveaxis(found, 0, 3)
        return whole.reshape(*whole.shape[:3], count * QUERIES, whole.shape[-1])[:, :, :, :length]

    def _mix(
        self, queries_BxKxGxTxE: jax.Array, position_BxT: jax.Array, parts: Sequence[Part], seed_2: jax.Array | None
    ) -> jax.Array:
        """BxKxGxTxE. Parts are weighed together and mixed one by one, so that none of them is copied."""
        config, window = self.config, self.window
        scores = []
        for (keys_BxKxSxE, _), position_BxS in parts:
            visible_BxTxS = seen(window, position_BxT, position_BxS)
            score = wide_einsum("bkgte,bkse->bkgts", queries_BxKxGxTxE, keys_BxKxSxE)
            score = score * (config.query_scale or config.head_dim) ** -0.5
            if config.score_cap:
                score = config.score_cap * jnp.tanh(score / config.score_cap)
            scores.append(score + mask_bias(visible_BxTxS)[:, None, None])
        weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(config.dtype)
        weights = dropout(weights, config.dropout_rate, seed_2, "weights")
        ends = np.cumsum([part.position_BxS.shape[1] for part in parts])[:-1]
        mixed = [
            jnp.einsum("bkgts,bkse->bkgte", weight, part.keys_values[1])
            for weight, part in zip(jnp.split(weights, ends, axis=-1), parts, strict=True)
        ]
        return sum(mixed[1:], mixed[0])


def seen(window: int, position_BxT: jax.Array, position_BxS: jax.Array) -> jax.Array:
    """Whether a query at T sees a key at S, bool BxTxS."""
    distance_BxTxS = position_BxT[:, :, None] - position_BxS[:, None, :]
    visible_BxTxS = distance_BxTxS >= 0
    return visible_BxTxS & (distance_BxTxS < window) if window else visible_BxTxS


def fused_attention(
    config: CausalConfig,
    window: int,
    queries_BxHxTxE: jax.Array,
    position_BxT: jax.Array,
    parts: Sequence[Part],
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Attention in one kernel that never holds the scores (FlashAttention, arXiv 2205.14135), BxTx(H E)."""
    keys, values = (jnp.concatenate([part.keys_values[i] for part in parts], axis=2) for i in range(2))
    visible: dict[str, Any]
    if len(parts) == 1:  # a prompt alone: what is padded stands behind it
        visible = {"is_causal": True, "local_window_size": (window - 1, 0) if window else None}
    else:
        masks = [jnp.broadcast_to(seen(window, position_BxT, p.position_BxS), _sizes(position_BxT, p)) for p in parts]
        visible = {"mask": jnp.concatenate(masks, axis=-1)[:, None]}
    mixed_BxTxHxE = jax.nn.dot_product_attention(
        *(x.transpose(0, 2, 1, 3) for x in (queries_BxHxTxE, keys, values)),
        scale=(config.query_scale or config.head_dim) ** -0.5,
        implementation=implementation,
        **visible,
    )
    return mixed_BxTxHxE.reshape(*mixed_BxTxHxE.shape[:2], -1)


def _sizes(position_BxT: jax.Array, part: Part) -> tuple[int, int, int]:
    return len(part.keys_values[0]), position_BxT.shape[1], part.position_BxS.shape[1]


class FeedForward(nn.Module):
    """down(act(gate x) * up x) (Shazeer, arXiv 2002.05202), with SiLU or the tanh form of GELU."""

    config: CausalConfig

    def setup(self) -> None:
        config = self.config
        self.gate_proj = Linear(config.dtype, config.d_ff, config.d_model**-0.5)
        self.up_proj = Linear(config.dtype, config.d_ff, config.d_model**-0.5)
        self.down_proj = Linear(config.dtype, config.d_model, config.d_ff**-0.5)

    def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
        act = jax.nn.silu if self.config.activation == "silu" else lambda x: jax.nn.gelu(x, approximate=True)
        return self.down_proj(act(self.gate_proj(x_BxTxD)) * self.up_proj(x_BxTxD))
