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
from kdtw_jax.losses.pcl import PCLConfig, penalty


def log_ratio(
    log_pi_BxT: jax.Array, teacher_log_prob_BxT: jax.Array, mask_BxT: jax.Array, config: PCLConfig
) -> tuple[jax.Array, jax.Array]:
    """d of each row, B nats, and whether it counts, bool B: not where the student can never emit one of the tokens.

    Of the config alpha and min_log_prob (least log mu that counts) are used. What stands outside the mask is never
    read. Of rows without an end d is that of the prefix, which is as constant at the optimum for alpha = 1.
    """
    reward_BxT = teacher_log_prob_BxT.astype(jnp.float32)
    reward_BxT = jnp.maximum(reward_BxT, -math.inf if config.min_log_prob is None else config.min_log_prob)
    possible_BxT = ~jnp.isneginf(log_pi_BxT) & jnp.isfinite(reward_BxT)
    counted_B = jnp.any(mask_BxT, axis=1) & jnp.all(possible_BxT | ~mask_BxT, axis=1)
    gain_BxT = jnp.where(mask_BxT & possible_BxT, config.alpha * log_pi_BxT - reward_BxT, 0.0)
    return jnp.sum(gain_BxT, axis=1), counted_B


def balance_loss(
    log_ratio_B: jax.Array, counted_B: jax.Array, centre: jax.Array, mask_BxT: jax.Array, config: PCLConfig
) -> Weighted:
    """Half the squared deviation of d from `centre` (or Huber, or clipped), summed over rows; weight: their tokens.

    A token and not a row is counted, as in `pcl_loss`, so that one weight suits both: squared sums of T independent
    terms grow with T.

    Args:
      log_ratio_B, counted_B: from `log_ratio`.
      centre: [], the mean of d over the counted rows of the whole minibatch, all devices; a constant (its gradient
        would cancel: deviations add to zero).
      mask_BxT: bool, the tokens.
    """
    deviation_B = jnp.where(counted_B, log_ratio_B - jax.lax.stop_gradient(centre), 0.0)
    tokens = weighted(jnp.ones(mask_BxT.shape), mask_BxT & counted_B[:, None]).weight
    return Weighted(jnp.sum(penalty(deviation_B, config)), tokens)
