"""Path consistency in expectation over the student's own tokens: a family from matching distributions to sequences.

On paths that the student has written itself, the expectation of log mu - log pi over the next token is known: it is
-KL(pi(.|s) || mu(.|s)). With it in place of the sampled log-ratio, the residual of `kdtw_jax.losses.pcl` is

    C(i,d) = -V(s_i) + gamma^d V(s_{i+d}) - sum_{j<d} gamma^j KL_{i+j},

whose only noise is where the path leads. V is fitted to it, and the policy goes down

    KL_i - lambda sg[C(i,d)] log pi(y_i|s_i).

Under the student's own paths lambda = 0 matches distributions where these lead (on-policy reverse KL; GKD, arXiv
2306.13649, at beta 1), and with lambda = 1 and d to the end the expected gradient is that of the KL of whole sequences:
KL_i is what the token itself costs, C what it changes about the rest, with V(s_i) + KL_i as the baseline of a score
function (`tests/test_expected.py` compares both with enumerated MDPs). In between, what lies ahead is discounted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.pcl import penalty, segment_residuals
from kdtw_jax.losses.shapes import check_shapes

Mean: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]  # of a sum and a count


def expected_path_loss(
    log_pi_BxT: jax.Array,
    divergence_BxT: jax.Array,
    value_BxT: jax.Array,
    mask_BxT: jax.Array,
    finished_B: jax.Array,
    *,
    path_lambda: float = 1.0,
    gamma: float = 1.0,
    segment_lengths: tuple[int, ...] = (0,),
    bound: float | None = None,
    huber: float | None = None,
    far_value_BxT: jax.Array | None = None,
    mean: Mean | None = None,
) -> tuple[Weighted, Weighted, dict[str, Weighted]]:
    """What policy and V learn from paths of the student's own.

    Args:
      log_pi_BxT: of the student, of the tokens it took.
      divergence_BxT: KL(pi || mu) of the states they were taken in, nats.
      value_BxT: V of these states; only V's own loss is differentiated by it.
      mask_BxT: bool, True up to and including the last token.
      finished_B: bool, the last token is EOS; otherwise V after it is unknown, and it is in no residual.
      path_lambda: weight of what lies ahead, 0 to 1.
      gamma: discount per token.
      segment_lengths: d; 0: to the end of the path. Of several the policy goes by the mean of C.
      bound: |C| to which it is cut for the policy: a path off what the teacher knows costs hundreds of nats. The
        log-odds of two ways do not exceed it.
      huber: |C| beyond which V's loss is linear.
      far_value_BxT: V at the far ends, from an EMA target; `value_BxT` by default. Neither is differentiated there.
      mean: of sums and counts, [D, T] each, over all rows on all devices. With it C is taken, for the policy, from its
        mean at a place: V lags behind a student that changes, and an error that all rows share would say "less of
        everything", which the student takes to heart before V has caught up. None: C is taken as it is.

    Returns:
      The policy's loss over the tokens, whose value is the KL alone; V's, half the squared C, over the pairs (i,d); and
      diagnostics: means of |C| and V.

    Raises:
      ValueError: shapes that do not go together.
    """
    check_shapes(
        log_pi_BxT=log_pi_BxT,
        divergence_BxT=divergence_BxT,
        value_BxT=value_BxT,
        mask_BxT=mask_BxT,
        finished_B=finished_B,
        far_value_BxT=far_value_BxT,
    )
    cost_BxT = jax.lax.stop_gradient(jnp.where(mask_BxT, divergence_BxT, 0.0))
    far_BxT = jax.lax.stop_gradient(value_BxT if far_value_BxT is None else far_value_BxT)
    arrays = (-cost_BxT, jnp.zeros_like(cost_BxT), value_BxT, far_BxT, mask_BxT, finished_B)
    segments = segment_residuals(*arrays, alpha=1.0, gamma=gamma, segment_lengths=segment_lengths)
    residual = jnp.stack([s.residual_BxT for s in segments])
    valid = jnp.stack([s.valid_BxT for s in segments])
    ahead = residual
    if mean is not None:
        centre_DxT = mean(jnp.sum(residual, axis=1), jnp.sum(valid, axis=1).astype(jnp.float32))
        ahead = jnp.where(valid, residual - centre_DxT[:, None, :], 0.0)
    if bound is not None:
        ahead = jnp.clip(ahead, -bound, bound)
    ahead_BxT = jnp.sum(ahead, axis=0) / jnp.maximum(jnp.sum(valid, axis=0), 1)
    taken_BxT = jnp.where(mask_BxT & jnp.isfinite(log_pi_BxT), log_pi_BxT, 0.0)
    score_BxT = taken_BxT - jax.lax.stop_gradient(taken_BxT)  # zero, with the slope of log pi
    policy_BxT = divergence_BxT - path_lambda * jax.lax.stop_gradient(ahead_BxT) * score_BxT
    diagnostics = {"residual": weighted(jnp.abs(residual), valid), "value": weighted(value_BxT, mask_BxT)}
    of_value = weighted(penalty(residual, huber=huber), valid)
    return weighted(policy_BxT, mask_BxT), of_value, jax.lax.stop_gradient(diagnostics)
