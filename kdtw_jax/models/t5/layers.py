"""The layers of T5: norm, relative-position bias, attention, feed-forward."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.models.layers import KeysValues, Linear, dropout, wide_einsum
from kdtw_jax.models.t5.config import T5Config


def relative_position_bucket(
    offset: jax.Array, *, bidirectional: bool, num_buckets: int, max_distance: int
) -> jax.Array:
    """Buckets of `offset` = key position - query position (int32, any shape), arXiv 1910.10683 section 2.1.

    Half of the buckets hold one distance each, the other half grow logarithmically up to `max_distance`,
    beyond which all share the last. `bidirectional` (encoder) spends half of all buckets on keys to the
    right; otherwise (decoder) keys to the right, masked anyway, fall into bucket 0.
    """
    if bidirectional:
        num_buckets //= 2
        base = jnp.where(offset > 0, num_buckets, 0)
        distance = jnp.abs(offset)
    else:
        base = jnp.zeros_like(offset)
        distance = jnp.maximum(-offset, 0)
    bucket_of = jnp.asarray(_buckets_of_distances(num_buckets, max_distance))
    return base + bucket_of[jnp.minimum(distance, max_distance)]


def _buckets_of_distances(num_buckets: int, max_distance: int) -> np.ndarray:
    """Buckets of the distances 0 .. `max_distance`, all beyond being as the last.

    A table, not arithmetic on the device: where a bound is a whole number (16, 32 and 64 of the published
    models) the last bit of a float32 logarithm would decide the bucket, differently on different machines.
    """
    exact = num_buckets // 2
    distance = np.arange(max_distance + 1)
    share = np.log(np.maximum(distance, 1) / exact) / math.log(max_distance / exact)
    far = exact + np.floor(share * (num_buckets - exact) + 1e-9).astype(np.int32)
    return np.where(distance < exact, distance, np.minimum(far, num_buckets - 1)).astype(np.int32)


class RMSNorm(nn.Module):
    """x / rms(x) * scale, the mean square taken in float32 (Zhang and Sennrich, arXiv 1910.07467)."""

    config: T5Config

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
        scale_D = self.param("scale", nn.initializers.ones, (x_BxTxD.shape[-1],), jnp.float32)
        x_BxTxD = x_BxTxD.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x_BxTxD), axis=-1, keepdims=True)
        normed = x_BxTxD * jax.lax.rsqrt(mean_square + self.config.layer_norm_epsilon)
        return (normed * scale_D[None, None, :]).astype(self.config.dtype)


class RelativeBias(nn.Module):
    """The table of a stack: one learned scalar per bucket and head, added to the scores of all its layers."""

    config: T5Config
    bidirectional: bool

    @nn.compact
    def __call__(self, query_BxT: jax.Array, key_S: jax.Array) -> jax.Array:
        """From positions of queries and keys to a bias_BxHxTxS (B is 1 if all rows share their positions)."""
        config = self.config
        table = self.param(
            "embedding",
            nn.initializers.normal(config.d_model**-0.5),
            (config.relative_attention_num_buckets, config.num_heads),
            jnp.float32,
        )
        bucket_BxTxS = relative_position_bucket(
            key_S[None, None, :] - query_BxT[:, :, None],
            bidirectional=self.bidirectional,
            num_buckets=config.relative_attention_num_buckets,
            max_distance=config.relative_attention_max_distance,
        )
        return table[bucket_BxTxS].transpose(0, 3, 1, 2)


class Sight(NamedTuple):
    """What each query sees of the keys, said twice: what is not used costs nothing.

    `bias_BxHxTxS` (float32, broadcastable) is added to the scores, masks included. Where nothing was decoded before, it
    is also said in the terms of fused attention: `relative_1xHxTxS` alone is added (None: nothing), and a row sees the
    first `lengths_B` keys (None: all).
    """

    bias_BxHxTxS: jax.Array
    relative_1xHxTxS: jax.Array | None = None
    lengths_B: jax.Array | None = None


class Attention(nn.Module):
    """Multi-head attention with unscaled scores and an additive bias; if `causal`, none sees what comes after it."""

    config: T5Config
    causal: bool = False

    def setup(self) -> None:
        config = self.config
        inner = config.num_heads * config.d_kv
        self.q = Linear(config.dtype, inner, (config.d_model * config.d_kv) ** -0.5)
        self.k = Linear(config.dtype, inner, config.d_model**-0.5)
        self.v = Linear(config.dtype, inner, config.d_model**-0.5)
        self.o = Linear(config.dtype, config.d_model, inner**-0.5)

    def _heads(self, x_BxTxF: jax.Array) -> jax.Array:
        rows, length, _ = x_BxTxF.shape
        return x_BxTxF.reshape(rows, length, self.config.num_heads, self.config.d_kv).transpose(0, 2, 1, 3)

    def keys_values(self, x_BxSxD: jax.Array) -> KeysValues:
        return self._heads(self.k(x_BxSxD)), self._heads(self.v(x_BxSxD))

    def __call__(
        self, x_BxTxD: jax.Array, keys_values: KeysValues, sight: Sight, seed_2: jax.Array | None, cached: bool
    ) -> jax.Array:
        """Queries from `x_BxTxD`; `cached`: some of the keys were there before, or are still to come."""
        queries_BxHxTxE = self._heads(self.q(x_BxTxD))
        dropped = seed_2 is not None and self.config.dropout_rate > 0
        odd = x_BxTxD.shape[1] % 2 or keys_values[0].shape[2] % 2  # which cuDNN does not differentiate
        here = self.config.fused_attention and jax.default_backend() == "gpu"  # a model moves between machines
        if here and not (cached or dropped or odd):
            mixed_BxHxTxE = fused_attention(queries_BxHxTxE, keys_values, sight, self.causal)
        else:
            mixed_BxHxTxE = self._mix(queries_BxHxTxE, keys_values, sight.bias_BxHxTxS, seed_2)
        rows, _, length, _ = mixed_BxHxTxE.shape
        return self.o(mixed_BxHxTxE.transpose(0, 2, 1, 3).reshape(rows, length, -1))

    def _mix(
        self, queries_BxHxTxE: jax.Array, keys_values: KeysValues, bias_BxHxTxS: jax.Array, seed_2: jax.Array | None
    ) -> jax.Array:
        keys_BxHxSxE, values_BxHxSxE = keys_values
        # Unscaled scores are large: rounded to bfloat16 they would be off by whole nats.
        scores_BxHxTxS = wide_einsum("bhte,bhse->bhts", queries_BxHxTxE, keys_BxHxSxE)
        weights = jax.nn.softmax(scores_BxHxTxS + bias_BxHxTxS, axis=-1)
        weights = dropout(weights.astype(self.config.dtype), self.config.dropout_rate, seed_2, "weights")
        return jnp.einsum("bhts,bhse->bhte", weights, values_BxHxSxE)


def fused_attention(
    queries_BxHxTxE: jax.Array,
    keys_values: KeysValues,
    sight: Sight,
    causal: bool,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Attention in one kernel that never holds the scores (FlashAttention, arXiv 2205.14135), BxHxTxE.

    The relative positions are rounded to the arithmetic's dtype, as cuDNN wants them.
    """
    queries, keys, values = (x.transpose(0, 2, 1, 3) for x in (queries_BxHxTxE, *keys_values))
    relative = sight.relative_1xHxTxS
    mixed_BxTxHxE = jax.nn.dot_product_attention(
        queries,
        keys,
        values,
        bias=None if relative is None else relative.astype(queries.dtype),
        key_value_seq_lengths=sight.lengths_B,
        is_causal=causal,
        scale=1.0,
        implementation=implementation,
    )
    return mixed_BxTxHxE.transpose(0, 2, 1, 3)


class FeedForward(nn.Module):
    """ReLU (v1.0: `wi`, `wo`) or gated GELU in its tanh form (v1.1: `wi_0`, `wi_1`, `wo`)."""

    config: T5Config

    def setup(self) -> None:
        config = self.config
        if config.feed_forward == "gated-gelu":
            self.wi_0 = Linear(config.dtype, config.d_ff, config.d_model**-0.5)
            self.wi_1 = Linear(config.dtype, config.d_ff, config.d_model**-0.5)
        else:
            self.wi = Linear(config.dtype, config.d_ff, config.d_model**-0.5)
        self.wo = Linear(config.dtype, config.d_model, config.d_ff**-0.5)

    def __call__(self, x_BxTxD: jax.Array, seed_2: jax.Array | None) -> jax.Array:
        if self.config.feed_forward == "gated-gelu":
            inner = jax.nn.gelu(self.wi_0(x_BxTxD), approximate=True) * self.wi_1(x_BxTxD)
        else:
            inner = jax.nn.relu(self.wi(x_BxTxD))
        return self.wo(dropout(inner, self.config.dropout_rate, seed_2, "inner"))
