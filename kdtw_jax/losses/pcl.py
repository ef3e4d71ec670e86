"""Path Consistency Learning (arXiv 1702.08892, section 5) for distillation: rewards are the teacher's log mu.

A path is tokens y_0 .. y_{n-1} from states s_0 .. s_{n-1}. Array index t holds V(s_t), log pi(y_t|s_t) and
log mu(y_t|s_t); `mask_BxT` is True for t < n. For a segment of d steps from i the residual is

    C(i,d) = -V(s_i) + gamma^d V(s_{i+d}) + sum_{j<d} gamma^j [ r_{i+j} - alpha log pi(y_{i+j}|s_{i+j}) ].

Where a segment ends:
- finished path (the last valid token is EOS): V(s_n) = 0, and a segment that would run past the end stops
  there;
- unfinished path: V(s_n) is unknown, so a segment needs i + d <= n - 1 and is left out otherwise. "To the
  end" (length 0) stops at s_{n-1} and takes V there. The last token is used by no segment;
- a token that the student can never emit (log pi = -inf) leaves out every segment that contains it: no finite
  residual exists, and nothing the student could learn.
Every C(i,d) is the discounted sum of its one-step residuals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.errors import UserError
from kdtw_jax.losses.likelihood import partition_and_pick
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.shapes import check_shapes
from kdtw_jax.ranges import check_ranges

Values = Literal["unified", "head"]


@dataclass(frozen=True)
class PCLConfig:
    """Settings of methods that use these losses: which residuals, and how they are tamed.

    Raises:
      UserError: values that make no sense.
    """

    # Weight of the entropy: the optimum is proportional to mu^(1/alpha), and that is what distributions are matched to.
    # The policy is softmax(logits) of the student; as Q its logits count alpha times.
    alpha: float = 1.0
    gamma: float = 1.0  # discount per token
    segment_lengths: tuple[int, ...] = (1,)  # segment lengths d; 0 = to the end of the path
    values: Values = "unified"
    min_log_prob: float | None = -20.0  # least log mu that counts; a top-k or disjoint teacher gives -inf
    huber: float | None = None  # |C| beyond which the loss is linear
    clip: float | None = None  # |C| beyond which a segment no longer pulls at all
    stop_far_end: bool = True  # no gradient through V(s_{i+d})

    def __post_init__(self) -> None:
        check_ranges(self, "pcl.", alpha="(0, inf)", gamma="(0, 1]", min_log_prob="(-inf, 0]")
        check_ranges(self, "pcl.", huber="(0, inf)", clip="(0, inf)")
        if not self.segment_lengths or any(d < 0 for d in self.segment_lengths):
            raise UserError(
                f"pcl.segment_lengths must name at least one d >= 0 (0 = to the end), got {self.segment_lengths}"
            )
        if self.values not in ("unified", "head"):
            raise UserError(f'values must be "unified" or "head", got {self.values!r}')
        if self.huber is not None and self.clip is not None:
            raise UserError("huber and clip are alternatives: set one of them")

    @property
    def of_values(self) -> dict[str, Any]:
        """The keyword arguments of `policy_and_value`."""
        return {"alpha": self.alpha, "values": self.values}

    @property
    def of_loss(self) -> dict[str, Any]:
        """The keyword arguments of `pcl_loss`, but those that are arrays."""
        names = ("alpha", "gamma", "segment_lengths", "min_log_prob", "huber", "clip", "stop_far_end")
        return {name: getattr(self, name) for name in names}


class Segments(NamedTuple):
    """The residuals of one length d."""

    residual_BxT: jax.Array  # C(i,d) at i; zero where not valid
    valid_BxT: jax.Array  # bool


def policy_and_value(
    logits_BxTxV: jax.Array,
    head_value_BxT: jax.Array,
    tokens_BxT: jax.Array,
    *,
    alpha: float = 1.0,
    values: Values = "unified",
) -> tuple[jax.Array, jax.Array]:
    """log pi of the tokens and V of the states they were taken in, both BxT float32.

    The policy is pi = softmax(logits / alpha) either way, so rollouts sample at temperature alpha.

    Args:
      logits_BxTxV: of the student, -inf at banned tokens, which drop out of both results.
      head_value_BxT: of the student's value head.
      tokens_BxT: int, the tokens taken.
      alpha: weight of the entropy.
      values: "unified" (arXiv 1702.08892, section 5.1): the logits are Q, V = alpha logsumexp(Q / alpha) and
        alpha log pi = Q - V; `head_value_BxT` is not used. Logits normalised beforehand would make V zero.
        "head": V = `head_value_BxT`, and a constant added to the logits changes nothing.

    Raises:
      ValueError: shapes that do not go together.
    """
    check_shapes(logits_BxTxV=logits_BxTxV, head_value_BxT=head_value_BxT, tokens_BxT=tokens_BxT)
    scaled = logits_BxTxV if alpha == 1 else logits_BxTxV.astype(jnp.float32) / alpha
    return path_of(*partition_and_pick(scaled, tokens_BxT), head_value_BxT, alpha=alpha, values=values)


def path_of(
    partition_BxT: jax.Array, picked_BxT: jax.Array, head_value_BxT: jax.Array, *, alpha: float, values: Values
) -> tuple[jax.Array, jax.Array]:
    """`policy_and_value` of what it needs to know of logits / alpha.

    Args:
      partition_BxT: their logsumexp.
      picked_BxT: those of the tokens taken.
      head_value_BxT: as there.
      alpha: as there.
      values: as there.
    """
    value_BxT = alpha * partition_BxT if values == "unified" else head_value_BxT.astype(jnp.float32)
    return picked_BxT - partition_BxT, value_BxT


def shift(x_BxT: jax.Array, d: int) -> jax.Array:
    """`x_BxT` at t + d, zero (or False) past the end; BxT."""
    d = min(d, x_BxT.shape[1])
    return jnp.pad(x_BxT[:, d:], ((0, 0), (0, d)))


def window_sum(x_BxT: jax.Array, d: int, gamma: float) -> jax.Array:
    """sum_{j<d} gamma^j x_{t+j} of `x_BxT` with zeros past the end, BxT.

    Put together from windows of 1, 2, 4 .. steps: log d passes, and no cancellation. The difference of two
    sums to go would be one pass for all d, but is off by more than 1e-4 on paths of 512 tokens.
    """
    d = min(d, x_BxT.shape[1])
    total_BxT, done, size = jnp.zeros_like(x_BxT), 0, 1
    while done < d:
        if d & size:
            total_BxT = total_BxT + gamma**done * shift(x_BxT, done)
            done += size
        x_BxT = x_BxT + gamma**size * shift(x_BxT, size)  # now windows of 2 * size
        size *= 2
    return total_BxT


def segment_residuals(
    reward_BxT: jax.Array,
    log_pi_BxT: jax.Array,
    value_BxT: jax.Array,
    far_value_BxT: jax.Array,
    mask_BxT: jax.Array,
    finished_B: jax.Array,
    *,
    alpha: float,
    gamma: float,
    segment_lengths: tuple[int, ...],
) -> tuple[Segments, ...]:
    """C(i,d) for each d of `segment_lengths`, in nats; the module's docstring has the equation.

    What stands outside the mask is never read.

    Args:
      reward_BxT: of the actions taken.
      log_pi_BxT: likewise; -inf leaves out the segments that contain it.
      value_BxT: V where it enters at s_i.
      far_value_BxT: V where it enters at s_{i+d}.
      mask_BxT: bool, True up to and including the last token.
      finished_B: bool, the last token is EOS.
      alpha: weight of the entropy.
      gamma: discount per token.
      segment_lengths: d of each result; 0: to the end of the path.
    """
    open_BxT = mask_BxT & ~finished_B[:, None]
    last_BxT = open_BxT & ~shift(mask_BxT, 1)
    start_BxT = mask_BxT & ~last_BxT
    gain_BxT = jnp.where(start_BxT, reward_BxT - alpha * log_pi_BxT, 0.0)
    stuck_BxT = (start_BxT & jnp.isneginf(log_pi_BxT)).astype(jnp.float32)
    far_BxT = jnp.where(mask_BxT, far_value_BxT, 0.0)

    segments = []
    for d in segment_lengths:
        steps = d or mask_BxT.shape[1]
        if d == 0:
            beyond_BxT = window_sum(jnp.where(last_BxT, far_BxT, 0.0), steps, gamma)
            valid_BxT = start_BxT
        else:
            beyond_BxT = gamma**d * shift(far_BxT, d)
            valid_BxT = start_BxT & (finished_B[:, None] | shift(mask_BxT, d))
        valid_BxT = valid_BxT & (window_sum(stuck_BxT, steps, 1.0) == 0)
        residual_BxT = window_sum(gain_BxT, steps, gamma) + beyond_BxT - value_BxT
        segments.append(Segments(jnp.where(valid_BxT, residual_BxT, 0.0), valid_BxT))
    return tuple(segments)


def pcl_loss(
    log_pi_BxT: jax.Array,
    teacher_log_prob_BxT: jax.Array,
    value_BxT: jax.Array,
    mask_BxT: jax.Array,
    finished_B: jax.Array,
    *,
    alpha: float = 1.0,
    gamma: float = 1.0,
    segment_lengths: tuple[int, ...] = (1,),
    min_log_prob: float | None = -20.0,
    huber: float | None = None,
    clip: float | None = None,
    stop_far_end: bool = True,
    far_value_BxT: jax.Array | None = None,
    fit_value_B: jax.Array | None = None,
) -> tuple[Weighted, dict[str, Weighted]]:
    """The path-consistency loss (arXiv 1702.08892, section 5): half the squared residual C(i,d), in nats squared.

    Args:
      log_pi_BxT: of the student, from `policy_and_value`.
      value_BxT: V of the student, likewise.
      teacher_log_prob_BxT: log mu of the same tokens at temperature 1.
      mask_BxT: bool, True up to and including the last token (EOS where there is one).
      finished_B: bool, the last token is EOS.
      alpha: weight of the entropy; the policy is softmax(logits / alpha).
      gamma: discount per token.
      segment_lengths: d; 0: to the end of the path.
      min_log_prob: least log mu that counts; None: none. A top-k or disjoint teacher gives -inf.
      huber: |C| beyond which the loss is linear.
      clip: |C| beyond which a segment no longer pulls at all.
      stop_far_end: let no gradient through V(s_{i+d}).
      far_value_BxT: V at the far ends, from an EMA target (never differentiated); `value_BxT` by default.
      fit_value_B: bool, rows whose residuals may move V (all by default). A student that cannot express mu
        has, at the least-squares optimum, V(s) = mean over *the data* of the gains to go: minus the reverse
        KL-to-go on its own rollouts, but plus the forward KL on the teacher's. With True for on-policy rows
        only and "head" values, V is V^pi while every row still trains the policy.

    Returns:
      The sum over the valid (i,d), each counted once, with their number; and diagnostics, which are not differentiated:
      means of |C|, V, reward and log pi, and the shares of tokens below `min_log_prob` and of impossible ones.

    Raises:
      ValueError: shapes that do not go together.
    """
    check_shapes(
        log_pi_BxT=log_pi_BxT,
        teacher_log_prob_BxT=teacher_log_prob_BxT,
        value_BxT=value_BxT,
        mask_BxT=mask_BxT,
        finished_B=finished_B,
        far_value_BxT=far_value_BxT,
        fit_value_B=fit_value_B,
    )
    floored = mask_BxT & (teacher_log_prob_BxT < (-math.inf if min_log_prob is None else min_log_prob))
    reward_BxT = teacher_log_prob_BxT.astype(jnp.float32)
    if min_log_prob is not None:
        reward_BxT = jnp.maximum(reward_BxT, min_log_prob)
    if fit_value_B is not None:
        value_BxT = jnp.where(fit_value_B[:, None], value_BxT, jax.lax.stop_gradient(value_BxT))
    far_BxT = value_BxT if far_value_BxT is None else jax.lax.stop_gradient(far_value_BxT)
    if stop_far_end:
        far_BxT = jax.lax.stop_gradient(far_BxT)

    arrays = (reward_BxT, log_pi_BxT, value_BxT, far_BxT, mask_BxT, finished_B)
    segments = segment_residuals(*arrays, alpha=alpha, gamma=gamma, segment_lengths=segment_lengths)
    residual = jnp.stack([s.residual_BxT for s in segments])
    valid = jnp.stack([s.valid_BxT for s in segments])
    possible_BxT = mask_BxT & ~jnp.isneginf(log_pi_BxT)
    diagnostics = {
        "residual": weighted(jnp.abs(residual), valid),
        "value": weighted(value_BxT, mask_BxT),
        "reward": weighted(reward_BxT, mask_BxT),
        "log_pi": weighted(log_pi_BxT, possible_BxT),
        "floored": weighted(floored, mask_BxT),
        "impossible": weighted(~possible_BxT, mask_BxT),
    }
    return weighted(penalty(residual, huber=huber, clip=clip), valid), jax.lax.stop_gradient(diagnostics)


def penalty(residual: jax.Array, *, huber: float | None = None, clip: float | None = None) -> jax.Array:
    """Half the square of each residual, or what `huber` or `clip` make of it; any shape."""
    if huber is not None:
        # By hand: beyond the bound `optax.losses.huber_loss` is this only up to rounding, which would move results.
        size = jnp.abs(residual)
        return jnp.where(size <= huber, 0.5 * jnp.square(residual), huber * (size - 0.5 * huber))
    if clip is not None:
        residual = jnp.clip(residual, -clip, clip)
    return 0.5 * jnp.square(residual)
