"""The distribution tokens are drawn from: logits, a temperature, and tokens that must never appear."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.errors import UserError


def log_policy(logits: jax.Array, banned: tuple[int, ...], temperature: float = 1.0) -> jax.Array:
    """Returns the log-probabilities [..., V] of softmax(logits / temperature) over the tokens not in `banned`.

    The one owner of banning: a banned token has log-probability -inf here and so everywhere, and the rest
    sums to one. `banned` and `temperature` are static. Gradients are finite as long as no loss multiplies
    the -inf entries.

    Raises:
      UserError: the temperature is not above 0 (greedy decoding is not a temperature), a banned id is outside the
        vocabulary, or nothing is left to say.
    """
    if not temperature > 0.0:
        raise UserError(f"temperature is {temperature}; it has to be above 0 (for greedy decoding give no noise)")
    logits = without_banned(logits.astype(jnp.float32), banned)
    if temperature != 1.0:
        logits = logits / temperature
    return jax.nn.log_softmax(logits, axis=-1)


def without_banned(logits: jax.Array, banned: tuple[int, ...]) -> jax.Array:
    """Returns `logits` [..., V] with -inf at the `banned` tokens.

    Raises:
      UserError: a banned id is outside the vocabulary, or nothing is left to say.
    """
    vocabulary = logits.shape[-1]
    allowed_V = allowed(vocabulary, banned)
    if not banned:
        return logits
    return jnp.where(jnp.asarray(allowed_V).reshape((1,) * (logits.ndim - 1) + (vocabulary,)), logits, -jnp.inf)


def allowed(vocabulary: int, banned: tuple[int, ...]) -> np.ndarray:
    """Marks the tokens that are not in `banned`, bool [V].

    Raises:
      UserError: a banned id is outside the vocabulary, or nothing is left to say.
    """
    if any(not 0 <= token < vocabulary for token in banned):
        raise UserError(f"banned tokens {banned} are not all within the vocabulary of {vocabulary}")
    allowed_V = np.ones(vocabulary, dtype=bool)
    allowed_V[list(banned)] = False
    if not allowed_V.any():
        raise UserError("every token of the vocabulary is banned; at least one has to stay")
    return allowed_V
