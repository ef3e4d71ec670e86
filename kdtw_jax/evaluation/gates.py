"""Rival gates: who asks the teacher, if not the student's own gate. What learning to ask is worth shows beside them.

Scores have no common unit: where one is enough to ask is a threshold of each gate's own. Only `random_gate` needs
uniforms as the noise of the gate. The oracles see the teacher's distribution at every state, which no student can
afford: they say how much there is to gain.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kdtw_jax.decoding.help import Gate, Moment, stateless
from kdtw_jax.decoding.sample import choose
from kdtw_jax.losses.masked import entropy, kl_divergence

Measure = Callable[[jax.Array, jax.Array], jax.Array]  # (log_pi_BxV, log_mu_BxV) -> float32 [B]


def random_gate(probability: jax.Array | float) -> Gate:
    """Asks with that probability at every token, whatever the state: with uniforms in [0, 1) as noise, exactly so."""
    return stateless(lambda moment: jnp.full(moment.history.length_B.shape, probability, jnp.float32))


def entropy_gate() -> Gate:
    """Asks where the student is unsure: entropy of its own token, nats."""
    return stateless(lambda moment: entropy(moment.log_policy_BxV))


def max_prob_gate() -> Gate:
    """Asks where the student's most probable token is not probable: 1 - its probability."""
    return stateless(lambda moment: -jnp.expm1(jnp.max(moment.log_policy_BxV, axis=-1)))


def oracle_gate(measure: Measure) -> Gate:
    """Asks where student and teacher are apart by `measure`, in nats, over all tokens. The teacher has to read along;
    its reading is not part of what asking costs."""

    def score(moment: Moment) -> jax.Array:
        if moment.teacher_log_policy_BxV is None:
            raise ValueError("an oracle needs a teacher that reads along")
        return measure(moment.log_policy_BxV, moment.teacher_log_policy_BxV)

    return stateless(score)


def divergence(log_pi_BxV: jax.Array, log_mu_BxV: jax.Array) -> jax.Array:
    """KL(pi || mu), nats [B]: what an answer saves where tokens are sampled."""
    return kl_divergence(log_pi_BxV, log_mu_BxV)


def regret(log_pi_BxV: jax.Array, log_mu_BxV: jax.Array) -> jax.Array:
    """log mu(best) - log mu(the student's most probable token), nats [B]: for greedy tokens."""
    choice_B = choose(log_pi_BxV, None)
    return jnp.max(log_mu_BxV, axis=-1) - jnp.take_along_axis(log_mu_BxV, choice_B[:, None], axis=-1)[:, 0]
