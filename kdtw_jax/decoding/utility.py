"""What a whole output is worth, so that an answer can be judged by what follows it: pure functions of arrays.

Sums of log mu reward ending early: what is not written costs nothing. Where a student rambles, a form that is neutral
to the length or nearness to what the teacher would have written is the better aim.

A utility of your own is an entry more: `register_utility(name, function)`; or installed with a package of yours that
names it under the entry points of `kdtw_jax.utilities`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.registry import Registry

_ORDERS = 4  # n-grams of 1 to so many tokens


class Outcome(NamedTuple):
    """Whole outputs, and what student and teacher make of their tokens."""

    tokens_BxT: jax.Array  # int32, end-of-sequence included, 0 after
    log_mu_BxT: jax.Array  # float32, of each token, nats; 0 after the end
    entropy_BxT: jax.Array  # float32, of the student's policy before each token, nats; 0 after the end
    reference_BxT: jax.Array  # int32, what the teacher writes by itself


Utility = Callable[[Outcome], jax.Array]  # float32 [B]


def log_mu(outcome: Outcome) -> jax.Array:
    """Sum of the teacher's log-probabilities, nats [B]."""
    return jnp.sum(outcome.log_mu_BxT, axis=1)


def log_mu_and_entropy(outcome: Outcome) -> jax.Array:
    """What path consistency rewards at alpha 1: the sum of log mu and of the student's entropies, nats [B]."""
    return jnp.sum(outcome.log_mu_BxT + outcome.entropy_BxT, axis=1)


def log_mu_per_token(outcome: Outcome) -> jax.Array:
    """The mean of the teacher's log-probabilities, times the length that the output is to have, nats [B]."""
    length_B, wanted_B = (jnp.sum(x != 0, axis=1) for x in (outcome.tokens_BxT, outcome.reference_BxT))
    return log_mu(outcome) / jnp.maximum(length_B, 1) * wanted_B


def nearness(outcome: Outcome) -> jax.Array:
    """How near it is to what the teacher writes by itself, 0 to 1 [B]."""
    return ngram_f(outcome.tokens_BxT, outcome.reference_BxT)


def ngram_f(one_BxT: jax.Array, other_BxT: jax.Array) -> jax.Array:
    """F-scores of the n-grams of 1 to 4 tokens that two texts share, their mean over the orders that either has; [B].

    Symmetric; 1 for equal texts, 0 for such as share no token. Tokens are padded with 0 at their ends.
    """
    equal = [one_BxT[:, :, None] == y_BxT[:, None, :] for y_BxT in (one_BxT, other_BxT)]
    grams, at_T = equal, jnp.arange(one_BxT.shape[1])
    sum_B, orders_B = jnp.zeros(len(one_BxT)), jnp.zeros(len(one_BxT), jnp.int32)
    for order in range(1, _ORDERS + 1):
        mine_B, theirs_B = (jnp.maximum(jnp.sum(x != 0, axis=1) - order + 1, 0) for x in (one_BxT, other_BxT))
        inside_BxT, there_BxT = (at_T[None, :] < count_B[:, None] for count_B in (mine_B, theirs_B))
        own_BxT = jnp.sum(grams[0] & inside_BxT[:, None, :], axis=2)
        their_BxT = jnp.sum(grams[1] & there_BxT[:, None, :], axis=2)
        # Each of k equal n-grams, of which the other text has m, counts for min(1, m / k).
        matched_BxT = jnp.minimum(1.0, their_BxT / jnp.maximum(own_BxT, 1))
        total_B = mine_B + theirs_B
        sum_B += 2 * jnp.sum(jnp.where(inside_BxT, matched_BxT, 0.0), axis=1) / jnp.maximum(total_B, 1)
        orders_B += total_B > 0
        grams = [first & _next(rest) for first, rest in zip(equal, grams, strict=True)]
    return jnp.where(orders_B > 0, sum_B / jnp.maximum(orders_B, 1), 1.0)


def _next(alike_BxTxT: jax.Array) -> jax.Array:
    """The same of the tokens that follow; False past the end."""
    return jnp.pad(alike_BxTxT[:, 1:, 1:], ((0, 0), (0, 1), (0, 1)))


def register_utility(name: str, utility: Utility) -> Utility:
    """Adds a utility.

    Raises:
      UserError: another one has its name.
    """
    return UTILITIES.add(name, utility)


def find_utility(name: str) -> Utility:
    """Returns the utility of a name.

    Raises:
      UserError: none has that name.
    """
    return UTILITIES.find(name)


UTILITIES: Registry[Utility] = Registry(
    {f.__name__: f for f in (log_mu, log_mu_and_entropy, log_mu_per_token, nearness)},
    kind="utility",
    group="kdtw_jax.utilities",
    how="kdtw_jax.decoding.utility.register_utility(name, function)",
    expected=Callable,
    register=register_utility,
)
