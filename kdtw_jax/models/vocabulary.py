"""Parameters that have a row for each token, made longer or cut. `Model.vocabulary_axis` says which they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.models.interface import Model, Params


def pad_rows(x: np.ndarray, axis: int | None, rows: int) -> np.ndarray:
    """An array for another number of tokens; rows beyond its own are zero.

    Args:
      x: an array of parameters.
      axis: along which it has a row for each token; None: it has none, and is left as it is.
      rows: tokens it is to have.
    """
    if axis is None or x.shape[axis] == rows:
        return x
    shape = list(x.shape)
    shape[axis] = rows
    padded = np.zeros(shape, x.dtype)
    padded[tuple(slice(size) for size in x.shape)] = x
    return padded


def pad_params(params: Any, axis_of: Callable[[str], int | None], rows: int) -> Any:
    """Parameters for a larger vocabulary, numpy arrays.

    What has no token is never written, so that a model says and scores the same as before.

    Args:
      params: of a model, by names at the top of the tree.
      axis_of: the axis of the vocabulary for such a name, as `Model.vocabulary_axis` says.
      rows: size of the vocabulary.
    """

    def padded(name: str, part: Any) -> Any:
        return jax.tree.map(lambda x: pad_rows(x, axis_of(name), rows), part)

    return {name: padded(name, part) for name, part in params.items()}


def output_slices(model: Model, params: Params, width: int) -> Params:
    """The output layer of a model cut along the vocabulary.

    Args:
      model: whose `output_layer` it is.
      params: of the model.
      width: tokens of a slice.

    Returns:
      Leaves [C, ...]; of each of the C slices `Model.unembed` makes logits of `width` tokens. The last is filled up
      with zeros.
    """
    count = -(-model.config.vocab_size // width)

    def cut(x: jax.Array, axis: int | None) -> jax.Array:
        if axis is None:
            return jnp.broadcast_to(x, (count, *x.shape))
        x = jnp.moveaxis(x, axis, 0)
        padded = jnp.pad(x, ((0, count * width - len(x)), *((0, 0),) * (x.ndim - 1)))
        pieces = padded.reshape(count, width, *x.shape[1:])
        return jnp.moveaxis(pieces, 1, axis + 1 if axis >= 0 else axis)

    def cut_all(name: str, part: Any) -> Any:
        return jax.tree.map(lambda x: cut(x, model.vocabulary_axis(name)), part)

    return {name: cut_all(name, part) for name, part in model.output_layer(params).items()}
