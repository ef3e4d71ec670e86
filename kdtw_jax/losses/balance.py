"""Trajectory balance with a log Z estimated from the batch: the log-ratios of whole sequences have to agree.

At the optimum of the entropy-regularised objective pi(y|x)^alpha is proportional to mu(y|x), so over sequences

    d = alpha sum_t log pi(y_t|s_t) - sum_t log mu(y_t|s_t)

is one constant, -log Z (trajectory balance, Malkin et al., arXiv 2201.13259). Its mean over the batch takes the place
of log Z (VarGrad, Richter et al., arXiv 2010.10436): what is left to minimise is the variance of d, whoever drew the
sequences. It asks of a whole sequence what path consistency asks of every segment, and needs no value.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.pcl import penalty
from kdtw_jax.losses.shapes import check_shapes


def log_ratio(
    log_pi_BxT: jax.Array,
    teacher_log_prob_BxT: jax.Array,
    mask_BxT: jax.Array,
    *,
    alpha: float = 1.0,
    min_log_prob: float | None = -20.0,
) -> tuple[jax.Array, jax.Array]:
    """d of each row, and whether the row counts.

    What stands outside the mask is never read. Of rows without an end d is that of the prefix, which is as constant at
    the optimum for alpha = 1.

    Args:
      log_pi_BxT: of the student, of the tokens taken.
      teacher_log_prob_BxT: log mu of the same tokens.
      mask_BxT: bool, the tokens.
      alpha: weight of the entropy.
      min_log_prob: least log mu that counts; None: none.

    Returns:
      d, B nats; and bool B, which is False where the student can never emit one of the tokens.

    Raises:
      ValueError: shapes that do not go together.
    """
    check_shapes(log_pi_BxT=log_pi_BxT, teacher_log_prob_BxT=teacher_log_prob_BxT, mask_BxT=mask_BxT)
    reward_BxT = teacher_log_prob_BxT.astype(jnp.float32)
    reward_BxT = jnp.maximum(reward_BxT, -math.inf if min_log_prob is None else min_log_prob)
    possible_BxT = ~jnp.isneginf(log_pi_BxT) & jnp.isfinite(reward_BxT)
    counted_B = jnp.any(mask_BxT, axis=1) & jnp.all(possible_BxT | ~mask_BxT, axis=1)
    gain_BxT = jnp.where(mask_BxT & possible_BxT, alpha * log_pi_BxT - reward_BxT, 0.0)
    return jnp.sum(gain_BxT, axis=1), counted_B


def balance_loss(
    log_ratio_B: jax.Array,
    counted_B: jax.Array,
    centre: jax.Array,
    mask_BxT: jax.Array,
    *,
    huber: float | None = None,
    clip: float | None = None,
) -> Weighted:
    """Half the squared deviation of d from `centre` (or Huber, or clipped), summed over rows; weight: their tokens.

    A token and not a row is counted, as in `pcl_loss`, so that one weight suits both: squared sums of T independent
    terms grow with T.

    Args:
      log_ratio_B: from `log_ratio`.
      counted_B: likewise.
      centre: [], the mean of d over the counted rows of the whole minibatch, all devices; a constant (its gradient
        would cancel: deviations add to zero).
      mask_BxT: bool, the tokens.
      huber: deviation beyond which the loss is linear.
      clip: deviation beyond which a row no longer pulls at all.

    Raises:
      ValueError: shapes that do not go together.
    """
    check_shapes(log_ratio_B=log_ratio_B, counted_B=counted_B, mask_BxT=mask_BxT)
    deviation_B = jnp.where(counted_B, log_ratio_B - jax.lax.stop_gradient(centre), 0.0)
    tokens = weighted(jnp.ones(mask_BxT.shape), mask_BxT & counted_B[:, None]).weight
    return Weighted(jnp.sum(penalty(deviation_B, huber=huber, clip=clip)), tokens)
