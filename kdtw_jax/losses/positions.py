"""What is computed of whole distributions, a few positions at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def over_positions(fn: Callable[..., PyTree], arrays: PyTree, chunk: int) -> PyTree:
    """`fn(*arrays)`, computed for `chunk` positions at a time where there are more (0: all at once).

    What `fn` makes in between, in the forward pass and (being made again there) in the backward pass, exists for one
    chunk only: the [B, T, V] of teacher and student never do.

    Args:
      fn: takes arrays [B, X, ...] and gives a pytree of [B, X, ...], no position depending on another.
      arrays: a tuple of [B, T, ...].

    Returns:
      A pytree of [B, T, ...], equal to `fn(*arrays)`.
    """
    length = jax.tree.leaves(arrays)[0].shape[1]
    if not 0 < chunk < length:
        return fn(*arrays)
    count = -(-length // chunk)

    def cut(x: jax.Array) -> jax.Array:
        rest = [(0, 0)] * (x.ndim - 2)
        padded = jnp.pad(x, [(0, 0), (0, count * chunk - length), *rest])  # zeros, whose results are cut off again
        return jnp.moveaxis(padded.reshape(x.shape[0], count, chunk, *x.shape[2:]), 1, 0)

    def join(y: jax.Array) -> jax.Array:
        whole = jnp.moveaxis(y, 0, 1)
        return whole.reshape(whole.shape[0], count * chunk, *whole.shape[3:])[:, :length]

    step = jax.checkpoint(lambda part: fn(*part))
    return jax.tree.map(join, jax.lax.map(step, jax.tree.map(cut, arrays)))
