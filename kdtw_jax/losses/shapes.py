"""Shapes of arrays, checked against the names of arguments: `logits_BxTxV` has three axes, the first as long as B."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def check_shapes(**arrays: jax.Array | None) -> None:
    """Checks arrays against the suffixes of their names, one letter an axis; None is skipped.

    Without it, broadcasting turns a wrong rank or a mixed-up axis into a number that looks like a loss. It costs
    nothing under jit: shapes are known as a function is traced.

    Raises:
      ValueError: another number of axes than letters, or a letter that stands for two lengths.
    """
    lengths: dict[str, tuple[int, str]] = {}
    for name, array in arrays.items():
        if array is None:
            continue
        letters, shape = name.rpartition("_")[2].split("x"), jnp.shape(array)
        if len(letters) != len(shape):
            raise ValueError(f"{name} must have the axes {' x '.join(letters)}, got an array of shape {shape}")
        for letter, length in zip(letters, shape, strict=True):
            known, first = lengths.setdefault(letter, (length, name))
            if known != length:
                raise ValueError(f"{letter} is {known} in {first}, but {length} in {name} of shape {shape}")
