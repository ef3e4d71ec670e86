"""How a student differs from its teacher, and whether its value function knows it. Functions of arrays.

Log probabilities may be -inf (banned or cut-off tokens). `mask_BxT` (bool) is True on the tokens that count,
up to and including EOS. KL is in nats. `mu` is the teacher, `pi` the student.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from scipy.stats import rankdata

from kdtw_jax.errors import UserError


class Calibration(NamedTuple):
    """How the learned value V relates to the measured minus-KL-to-go, over unmasked states."""

    spearman: float  # rank correlation, 1 is perfect; NaN if either side is constant
    slope: float  # of the least-squares line measured = slope * V + intercept; 1 is calibrated
    intercept: float  # nats; 0 is calibrated
    mean_value: float  # nats
    mean_measured: float  # nats
    rmse: float  # nats, of V itself as a forecast
    states: int


def token_agreement(student_logp_BxTxV: ArrayLike, teacher_logp_BxTxV: ArrayLike, mask_BxT: ArrayLike) -> float:
    """Share of unmasked positions at which student and teacher have the same most probable token, 0 to 1.

    Raises UserError when no position is unmasked or shapes differ (so do all functions here).
    """
    student, teacher, mask = _distributions(student_logp_BxTxV, teacher_logp_BxTxV, mask_BxT)
    return float((student.argmax(axis=-1) == teacher.argmax(axis=-1))[mask].mean())


def step_kl(p_logp_BxTxV: ArrayLike, q_logp_BxTxV: ArrayLike) -> np.ndarray:
    """KL(p || q) at each position, float64 [B, T]. A token of probability 0 under p adds nothing, whatever q
    says; one that only q rules out makes the KL infinite."""
    p, q = np.asarray(p_logp_BxTxV, np.float64), np.asarray(q_logp_BxTxV, np.float64)
    if p.shape != q.shape:
        raise UserError(f"distributions of shapes {p.shape} and {q.shape}; they must be the same")
    possible = p > -np.inf
    gap = np.subtract(p, q, out=np.zeros_like(p), where=possible)
    # Rounding can leave a KL of about -1e-9, which would then order states at random.
    return np.maximum(np.where(possible, np.exp(p) * gap, 0.0).sum(axis=-1), 0.0)


def mean_token_kl(
    student_logp_BxTxV: ArrayLike, teacher_logp_BxTxV: ArrayLike, mask_BxT: ArrayLike
) -> tuple[float, float]:
    """Means over unmasked positions of the forward KL(mu || pi) and the reverse KL(pi || mu), in nats."""
    student, teacher, mask = _distributions(student_logp_BxTxV, teacher_logp_BxTxV, mask_BxT)
    return float(step_kl(teacher, student)[mask].mean()), float(step_kl(student, teacher)[mask].mean())


def sampled_step_kl(student_logp_BxT: ArrayLike, teacher_logp_BxT: ArrayLike, mask_BxT: ArrayLike) -> np.ndarray:
    """log pi(a|s) - log mu(a|s) of the tokens a that the student itself sampled: an unbiased, noisy estimate
    of the reverse KL at each step that needs no distributions. float64 [B, T], 0 where masked."""
    student, teacher = np.asarray(student_logp_BxT, np.float64), np.asarray(teacher_logp_BxT, np.float64)
    mask = np.asarray(mask_BxT, bool)
    _same_shape(student, teacher, mask)
    return np.subtract(student, teacher, out=np.zeros_like(student), where=mask)


def kl_to_go(step_kl_BxT: ArrayLike, mask_BxT: ArrayLike) -> np.ndarray:
    """Sum of the KL from each step to the end of its row, undiscounted, float64 [B, T]; 0 where masked.

    On the student's own rollouts and with the reverse KL, exact at each step or sampled, its expectation is
    -V^pi(s_t) at alpha = gamma = 1. Only rows that end with EOS have a whole tail: leave the others out.
    """
    step, mask = np.asarray(step_kl_BxT, np.float64), np.asarray(mask_BxT, bool)
    _same_shape(step, mask)
    masked = np.where(mask, step, 0.0)
    return np.where(mask, np.cumsum(masked[:, ::-1], axis=1)[:, ::-1], 0.0)


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Rank correlation of two equally long lists; ties get their mean rank. NaN if either is constant.

    Raises UserError for fewer than two values, different lengths or NaNs. Infinities are ranked.
    """
    a, b = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    _same_shape(a, b)
    if len(a) < 2:
        raise UserError(f"a rank correlation of {len(a)} values; at least 2 are needed")
    if np.isnan(a).any() or np.isnan(b).any():
        raise UserError("a rank correlation of values with NaNs; leave those out")
    ranks_a, ranks_b = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
    spread = float(np.sqrt((ranks_a**2).sum() * (ranks_b**2).sum()))
    return float((ranks_a * ranks_b).sum() / spread) if spread > 0 else float("nan")


def value_calibration(value_BxT: ArrayLike, kl_to_go_BxT: ArrayLike, mask_BxT: ArrayLike) -> Calibration:
    """Compares V(s_t) with -KL-to-go as `kl_to_go` measures it, over the unmasked states with finite values.

    One rollout's tail is a noisy sample of its expectation: that holds the rank correlation below 1 even for
    an exact V, but leaves the expected slope at 1. Raises UserError for fewer than two states.
    """
    value, measured = np.asarray(value_BxT, np.float64), -np.asarray(kl_to_go_BxT, np.float64)
    mask = np.asarray(mask_BxT, bool)
    _same_shape(value, measured, mask)
    kept = mask & np.isfinite(value) & np.isfinite(measured)
    v, m = value[kept], measured[kept]
    correlation = spearman(v, m)  # raises for fewer than two
    centred = v - v.mean()
    variance = float((centred**2).mean())
    slope = float((centred * (m - m.mean())).mean() / variance) if variance > 0 else float("nan")
    return Calibration(
        spearman=correlation,
        slope=slope,
        intercept=float(m.mean() - slope * v.mean()),
        mean_value=float(v.mean()),
        mean_measured=float(m.mean()),
        rmse=float(np.sqrt(((v - m) ** 2).mean())),
        states=len(v),
    )


def _distributions(
    student: ArrayLike, teacher: ArrayLike, mask: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    s, t, m = np.asarray(student), np.asarray(teacher), np.asarray(mask, bool)
    if s.shape != t.shape or s.shape[:-1] != m.shape:
        raise UserError(f"shapes {s.shape}, {t.shape} and mask {m.shape} do not fit together")
    if not m.any():
        raise UserError("every position is masked; at least one must count")
    return s, t, m


def _same_shape(*arrays: np.ndarray) -> None:
    if len({a.shape for a in arrays}) > 1:
        raise UserError(f"arrays of shapes {', '.join(str(a.shape) for a in arrays)}; they must be the same")
