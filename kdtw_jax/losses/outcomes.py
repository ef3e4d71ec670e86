"""A distribution as few outcomes: some tokens of the vocabulary, and any other.

Elementwise work over the vocabulary is bound by memory on a CPU and most of what a student's loss costs there, so
the gradient is written by hand: one pass makes it, where differentiating step by step makes several.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp

from kdtw_jax.losses.masked import LOG_FLOOR

Arrays: TypeAlias = tuple[jax.Array, ...]
Found: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]


def student_outcomes(student_BxTxV: jax.Array, ids_BxTxK: jax.Array) -> jax.Array:
    """log of the student's probabilities of `ids_BxTxK` (distinct per row) and, where these are not all there are, of
    any other token: BxTx(K + 1) float32, the last at least about `LOG_FLOOR`. From logits, normalised or not.
    """
    rest_BxT, kept_BxTxK, _ = kept_and_rest(student_BxTxV.astype(jnp.float32), ids_BxTxK, ids_BxTxK[..., 0])
    return outcomes(rest_BxT, kept_BxTxK, student_BxTxV.shape[-1])


def outcomes(rest_BxT: jax.Array, kept_BxTxK: jax.Array, vocabulary: int) -> jax.Array:
    """`student_outcomes` of the logits of the K tokens, and of the logsumexp of those of all others."""
    k = kept_BxTxK.shape[-1]
    if k == vocabulary:
        return jax.nn.log_softmax(kept_BxTxK, axis=-1)
    floor_BxT = jax.lax.stop_gradient(jnp.max(kept_BxTxK, axis=-1)) + LOG_FLOOR + math.log(k)
    tail_BxTx1 = jnp.logaddexp(rest_BxT, floor_BxT)[..., None]
    return jax.nn.log_softmax(jnp.concatenate([kept_BxTxK, tail_BxTx1], axis=-1), axis=-1)


@jax.custom_vjp
def kept_and_rest(logits_BxTxV: jax.Array, ids_BxTxK: jax.Array, tokens_BxT: jax.Array) -> Found:
    """logsumexp of the logits of all tokens but the K of `ids_BxTxK` (distinct per row), BxT, -inf if there are none;
    the logits of those, BxTxK; those of `tokens_BxT`, which may be among them, BxT. All float32.

    The others are summed up instead of taken for 1 - sum: a confident student's rest is then right to float32's
    relative precision, and so is its gradient, which 1 - sum would build from differences of huge numbers.
    """
    return _forward(logits_BxTxV, ids_BxTxK, tokens_BxT)[0]


def _forward(logits_BxTxV: jax.Array, ids_BxTxK: jax.Array, tokens_BxT: jax.Array) -> tuple[Found, Arrays]:
    kept_BxTxK = jnp.take_along_axis(logits_BxTxV, ids_BxTxK, axis=-1)
    picked_BxT = jnp.take_along_axis(logits_BxTxV, tokens_BxT[..., None], axis=-1)[..., 0]
    others_BxTxV = logits_BxTxV.at[_places(ids_BxTxK)].set(-jnp.inf, mode="promise_in_bounds")
    rest_BxT = jax.nn.logsumexp(others_BxTxV, axis=-1)
    return (rest_BxT, kept_BxTxK, picked_BxT), (others_BxTxV, rest_BxT, ids_BxTxK, tokens_BxT)


def _backward(kept: Arrays, slopes: Arrays) -> tuple[jax.Array, None, None]:
    others_BxTxV, rest_BxT, ids_BxTxK, tokens_BxT = kept
    of_rest_BxT, of_kept_BxTxK, of_picked_BxT = slopes
    finite_BxT = jnp.maximum(rest_BxT, jnp.finfo(jnp.float32).min)  # of nothing: -inf less that is -inf, and its exp 0
    slope_BxTxV = jnp.exp(others_BxTxV - finite_BxT[..., None]) * of_rest_BxT[..., None]
    slope_BxTxV = slope_BxTxV.at[_places(ids_BxTxK)].set(of_kept_BxTxK, mode="promise_in_bounds")
    token = _places(tokens_BxT[..., None])
    return slope_BxTxV.at[token].add(of_picked_BxT[..., None], mode="promise_in_bounds"), None, None


kept_and_rest.defvjp(_forward, _backward)


def _places(ids_BxTxK: jax.Array) -> tuple[jax.Array, ...]:
    rows_B, cols_T = jnp.indices(ids_BxTxK.shape[:2], sparse=True)
    return rows_B[..., None], cols_T[..., None], ids_BxTxK
