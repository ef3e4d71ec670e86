"""The distributions that a model's states stand for, held or sliced."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.decoding.policy import allowed, without_banned
from kdtw_jax.losses.vocabulary import ChunkedLogits, DenseLogits, Distribution
from kdtw_jax.models import Model, Params, output_slices


def distribution(
    model: Model,
    params: Params,
    hidden_BxXxD: jax.Array,
    banned: tuple[int, ...],
    *,
    vocab_chunk: int = 0,
    temperature: float = 1.0,
) -> Distribution:
    """Makes softmax(logits / temperature) over the tokens not in `banned`.

    Args:
      model: whose output layer it is.
      hidden_BxXxD: states as `decode` gives them.
      banned: ids that are never written.
      temperature: below 1 it is sharper than the model.
      params: `Model.output_layer` of them is enough.
      vocab_chunk: tokens whose logits are held at once; 0, or as many as there are: all.

    Raises:
      UserError: as `policy.without_banned` does.
    """
    if not 0 < vocab_chunk < model.config.vocab_size:
        logits = without_banned(model.unembed(params, hidden_BxXxD), banned)
        return DenseLogits(logits if temperature == 1 else logits / temperature)
    slices = output_slices(model, params, vocab_chunk)
    allowed_V = allowed(model.config.vocab_size, banned)
    count = len(jax.tree.leaves(slices)[0])
    allowed_CxW = np.pad(allowed_V, (0, count * vocab_chunk - len(allowed_V))).reshape(count, vocab_chunk)

    def logits_of(piece: tuple[Any, jax.Array]) -> jax.Array:
        layer, allowed_W = piece
        logits_BxXxW = model.unembed(layer, hidden_BxXxD)
        return jnp.where(allowed_W, logits_BxXxW / temperature, -jnp.inf)

    return ChunkedLogits(logits_of, (slices, jnp.asarray(allowed_CxW)), vocab_chunk, model.config.vocab_size)
