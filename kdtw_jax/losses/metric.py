"""Means that stay exact when a batch is cut up: a sum and a weight, divided only at the end.

A mean of per-device means is wrong as soon as devices hold different numbers of real tokens. Losses therefore
return `Weighted`; whoever runs them on several devices computes `psum(total) / psum(weight)`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Weighted(NamedTuple):
    """A sum of weighted terms, [], and the sum of the weights, [] (both float32)."""

    total: jax.Array
    weight: jax.Array

    def mean(self) -> jax.Array:
        """total / weight, []; zero (with zero gradient) where nothing was counted."""
        counted = self.weight > 0
        return jnp.where(counted, self.total / jnp.where(counted, self.weight, 1.0), 0.0)

    def merge(self, other: Weighted) -> Weighted:
        """What one pass over both parts would have given."""
        return Weighted(self.total + other.total, self.weight + other.weight)


def weighted(terms: jax.Array, mask: jax.Array) -> Weighted:
    """Sum of `terms` where the bool `mask` (same shape) holds, and how many there are.

    What stands at masked places is never read, in value or in gradient: infinities and NaN there are harmless.
    """
    return Weighted(
        jnp.sum(jnp.where(mask, terms.astype(jnp.float32), 0.0)),
        jnp.sum(mask.astype(jnp.float32)),
    )
