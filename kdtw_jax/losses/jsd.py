"""The generalised Jensen-Shannon divergence between teacher mu and student pi (Agarwal et al., arXiv 2306.13649)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from kdtw_jax.losses.masked import LOG_FLOOR, kl_terms


def generalized_jsd(student_logp: jax.Array, teacher_logp: jax.Array, beta: float) -> jax.Array:
    """beta KL(mu || m) + (1 - beta) KL(pi || m) with m = beta mu + (1 - beta) pi, nats, over the last axis.

    That is JSD(beta) of the paper's section 2. It vanishes at both ends of beta, where JSD / beta tends to the forward
    KL(mu || pi) and JSD / (1 - beta) to the reverse KL(pi || mu): these limits are what beta = 0 and beta = 1 mean
    here. Bounded by the entropy of a coin of bias beta everywhere else.

    Args:
      student_logp: normalised log-probabilities [..., V], -inf where nothing is (harmless in value and
        gradient).
      teacher_logp: likewise.
      beta: weight of the teacher in the mixture, in [0, 1], static.
    """
    return jnp.sum(jsd_terms(student_logp, teacher_logp, beta), axis=-1)


def jsd_terms(student_logp: jax.Array, teacher_logp: jax.Array, beta: float) -> jax.Array:
    """The terms that `generalized_jsd` sums up, [..., V].

    Args:
      student_logp: as there.
      teacher_logp: as there.
      beta: as there.
    """
    if beta == 0:
        return kl_terms(teacher_logp, student_logp)
    if beta == 1:
        return kl_terms(student_logp, teacher_logp)
    # Two impossible tokens would make log(0 + 0) with a gradient of 0/0; the floor's gradient is zero.
    mixture_logp = jnp.logaddexp(
        math.log(beta) + jnp.maximum(teacher_logp, LOG_FLOOR), math.log1p(-beta) + jnp.maximum(student_logp, LOG_FLOOR)
    )
    return beta * kl_terms(teacher_logp, mixture_logp) + (1 - beta) * kl_terms(student_logp, mixture_logp)
