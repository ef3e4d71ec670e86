"""Exact per-state divergences between teacher mu and student pi, over the vocabulary or top-k plus a tail.

Merging outcomes never increases a divergence (data processing), so the one over the k kept tokens and a bucket for the
rest is a lower bound of the full one, whichever it is; it grows with k and is exact at k = V.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.losses.jsd import generalized_jsd
from kdtw_jax.losses.masked import kl_divergence
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.outcomes import student_outcomes
from kdtw_jax.losses.shapes import check_shapes

Direction = Literal["forward", "reverse", "jsd"]  # KL(mu || pi), KL(pi || mu), JSD(1/2)

# A float32 sum of probabilities is no surer than this, so neither is the tail 1 - sum. Taking the tail for
# larger than it is keeps KL(pi || mu) a lower bound; taking it for zero would not.
_LEAST_TAIL = float(jnp.finfo(jnp.float32).eps)


class TopK(NamedTuple):
    """The teacher's k most probable tokens at each step, best first."""

    log_prob_BxTxK: jax.Array  # float32; not renormalised, what they lack to 1 is the tail
    ids_BxTxK: jax.Array  # int32


def token_kl(
    student_logp_BxTxV: jax.Array,
    teacher_logp_BxTxV: jax.Array,
    mask_BxT: jax.Array,
    direction: Direction = "forward",
) -> Weighted:
    """The exact divergence of two distributions over the vocabulary, nats, summed over the states of the mask.

    Args:
      student_logp_BxTxV: log pi, normalised; -inf (a banned token) is harmless in value and gradient.
      teacher_logp_BxTxV: log mu, likewise.
      mask_BxT: bool, the states that count.
      direction: "forward", KL(mu || pi); "reverse", KL(pi || mu); "jsd", `generalized_jsd` of the two at 1/2.

    Raises:
      ValueError: another direction, or shapes that do not go together.
    """
    check_shapes(student_logp_BxTxV=student_logp_BxTxV, teacher_logp_BxTxV=teacher_logp_BxTxV, mask_BxT=mask_BxT)
    return weighted(divergence(student_logp_BxTxV, teacher_logp_BxTxV, direction), mask_BxT)


def top_k_with_tail(teacher_logp_BxTxV: jax.Array, k: int) -> TopK:
    """The teacher's k most probable tokens in every state.

    Args:
      teacher_logp_BxTxV: log mu, normalised.
      k: how many tokens.

    Raises:
      ValueError: unless 1 <= k <= V.
    """
    vocabulary = teacher_logp_BxTxV.shape[-1]
    if not 1 <= k <= vocabulary:
        raise ValueError(f"k must be between 1 and the vocabulary's size {vocabulary}, got {k}")
    log_prob, ids = jax.lax.top_k(teacher_logp_BxTxV.astype(jnp.float32), k)
    return TopK(log_prob, ids.astype(jnp.int32))


def teacher_tail(topk: TopK) -> jax.Array:
    """log of the teacher's probability outside its top k, BxT."""
    kept_BxT = jnp.sum(jnp.exp(topk.log_prob_BxTxK), axis=-1)
    return jnp.log1p(-jnp.minimum(kept_BxT, 1.0 - _LEAST_TAIL))


def topk_kl(
    student_logp_BxTxV: jax.Array,
    topk: TopK,
    mask_BxT: jax.Array,
    direction: Direction = "forward",
) -> Weighted:
    """Like `token_kl` over k + 1 outcomes, the teacher's top k and "any other"; a lower bound of `token_kl`.

    Args:
      student_logp_BxTxV: of the student; need not be normalised.
      topk: of the teacher.
      mask_BxT: as in `token_kl`.
      direction: as in `token_kl`.

    Raises:
      ValueError: as `token_kl` does.
    """
    check_shapes(student_logp_BxTxV=student_logp_BxTxV, ids_BxTxK=topk.ids_BxTxK, mask_BxT=mask_BxT)
    return weighted(topk_divergence(student_logp_BxTxV, topk, direction), mask_BxT)


def topk_divergence(student_BxTxV: jax.Array, topk: TopK, direction: Direction) -> jax.Array:
    """The terms of `topk_kl`, BxT; the student's logits need not be normalised."""
    return outcomes_divergence(student_outcomes(student_BxTxV, topk.ids_BxTxK), topk, direction)


def outcomes_divergence(student: jax.Array, topk: TopK, direction: Direction) -> jax.Array:
    """The terms of `topk_kl`, BxT, of a student's outcomes.

    Args:
      student: what `student_outcomes` gives for the teacher's top k, BxTx(K + 1).
      topk: of the teacher.
      direction: as in `token_kl`.
    """
    return divergence(student, teacher_outcomes(topk, student.shape[-1]), direction)


def teacher_outcomes(topk: TopK, outcomes: int) -> jax.Array:
    """log-probabilities of the teacher's k tokens and, where there are more `outcomes` than these, of all others."""
    kept_BxTxK = topk.log_prob_BxTxK
    if kept_BxTxK.shape[-1] == outcomes:
        return kept_BxTxK
    return jnp.concatenate([kept_BxTxK, teacher_tail(topk)[..., None]], axis=-1)


def divergence(student: jax.Array, teacher: jax.Array, direction: Direction) -> jax.Array:
    """The terms of `token_kl`, [...] nats.

    Args:
      student: log pi, normalised over the last axis, [..., V].
      teacher: log mu, likewise.
      direction: as in `token_kl`.

    Raises:
      ValueError: another direction.
    """
    if direction == "forward":
        return kl_divergence(teacher, student)
    if direction == "reverse":
        return kl_divergence(student, teacher)
    if direction == "jsd":
        return generalized_jsd(student, teacher, 0.5)
    raise ValueError(f'direction must be "forward", "reverse" or "jsd", got {direction!r}')
