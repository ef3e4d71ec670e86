"""Masked sums, and information quantities of distributions with impossible outcomes.

Banned tokens have log-probability -inf. Products p log p are then 0 * inf, and an unselected branch of
`where` still poisons a gradient; this module is the only place that has to know.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Below the smallest float32 a probability can be (e^-87 normal, e^-103 subnormal): stands in for log 0 where
# an infinite divergence would otherwise end the run, and changes nothing else that float32 can tell.
LOG_FLOOR = -100.0


def masked_sum(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Sum of `x` where the bool `mask` (same shape) holds, []."""
    return jnp.sum(jnp.where(mask, x, 0.0))


def mul_exp(x: jax.Array, log_p: jax.Array) -> jax.Array:
    """x * exp(log_p) with 0 * anything = 0, in the gradient too; shapes equal."""
    p = jnp.exp(log_p)
    return jnp.where(p == 0, 0.0, x) * p


def entropy(log_p: jax.Array) -> jax.Array:
    """-sum_a p log p over the last axis, nats; `log_p` normalised, may hold -inf."""
    return -jnp.sum(mul_exp(jnp.maximum(log_p, LOG_FLOOR), log_p), axis=-1)


def kl_divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p || q) = sum_a p (log p - log q) over the last axis, nats; both normalised, both may hold -inf.

    Where q is 0 and p is not the true value is infinite: log q then counts as `LOG_FLOOR`, a large finite
    cost whose gradient acts on p alone.
    """
    return jnp.sum(kl_terms(log_p, log_q), axis=-1)


def kl_terms(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """The terms that `kl_divergence` sums up, of the shape of both."""
    return mul_exp(jnp.maximum(log_p, LOG_FLOOR) - jnp.maximum(log_q, LOG_FLOOR), log_p)
