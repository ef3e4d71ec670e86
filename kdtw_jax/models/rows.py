"""Rows of the embedding, and of a head of its own, that no token has: padding up to a number that models share."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

_AXES = {"shared": 0, "lm_head": 1}  # of the vocabulary


def pad_tensor(name: str, x: np.ndarray, rows: int) -> np.ndarray:
    """`x` with `rows` rows of the vocabulary, those beyond its own zero; `name` is where in the tree of parameters it
    is, from the top, and other tensors are left as they are."""
    axis = _AXES.get(name)
    if axis is None or x.shape[axis] == rows:
        return x
    padded = np.zeros([rows if i == axis else size for i, size in enumerate(x.shape)], x.dtype)
    padded[tuple(slice(size) for size in x.shape)] = x
    return padded


def pad_params(params: Any, rows: int) -> Any:
    """Parameters for a vocabulary of `rows`, numpy arrays. What has no token is never written, so that a model says and
    scores the same as before."""
    return {name: jax.tree.map(lambda x, name=name: pad_tensor(name, x, rows), part) for name, part in params.items()}
