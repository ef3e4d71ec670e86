"""Whether a student's value function knows how far it is from its teacher. Functions of arrays.

`mask_BxT` (bool) is True on the tokens that count, up to and including EOS. KL is in nats.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from kdtw_jax.errors import UserError


class Calibration(NamedTuple):
    """How the learned value V relates to the measured minus-KL-to-go, over unmasked states."""

    spearman: float  # rank correlation, 1 is perfect; NaN if either side is constant, or without two states
    slope: float  # of the least-squares line measured = slope * V + intercept; 1 is calibrated
    intercept: float  # nats; 0 is calibrated
    mean_value: float  # nats
    mean_measured: float  # nats
    rmse: float  # nats, of V itself as a forecast
    states: int


def kl_to_go(step_kl_BxT: ArrayLike, mask_BxT: ArrayLike) -> np.ndarray:
    """Sum of the KL from each step to the end of its row, undiscounted, float64 [B, T]; 0 where masked.

    On the student's own rollouts and with the reverse KL, exact at each step or sampled, its expectation is
    -V^pi(s_t) at alpha = gamma = 1. Only rows that end with EOS have a whole tail: leave the others out.

    Raises:
      UserError: the shapes differ.
    """
    step, mask = np.asarray(step_kl_BxT, np.float64), np.asarray(mask_BxT, bool)
    _same_shape(step, mask)
    masked = np.where(mask, step, 0.0)
    return np.where(mask, np.cumsum(masked[:, ::-1], axis=1)[:, ::-1], 0.0)


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Rank correlation of two equally long lists; ties get their mean rank, and infinities are ranked, too.

    Returns:
      NaN if either list is constant or has fewer than two values.

    Raises:
      UserError: the lists have different lengths, or hold NaNs.
    """
    from scipy.stats import spearmanr

    a, b = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    _same_shape(a, b)
    if np.isnan(a).any() or np.isnan(b).any():
        raise UserError("a rank correlation of values with NaNs; leave those out")
    return float("nan") if _constant(a) or _constant(b) else float(spearmanr(a, b).statistic)


def value_calibration(value_BxT: ArrayLike, kl_to_go_BxT: ArrayLike, mask_BxT: ArrayLike) -> Calibration:
    """Compares V(s_t) with -KL-to-go as `kl_to_go` measures it, over the unmasked states with finite values.

    One rollout's tail is a noisy sample of its expectation: that holds the rank correlation below 1 even for
    an exact V, but leaves the expected slope at 1. What is not defined is NaN: without any state, all of it.
    """
    from scipy.stats import linregress

    value, measured = np.asarray(value_BxT, np.float64), -np.asarray(kl_to_go_BxT, np.float64)
    mask = np.asarray(mask_BxT, bool)
    _same_shape(value, measured, mask)
    kept = mask & np.isfinite(value) & np.isfinite(measured)
    v, m = value[kept], measured[kept]
    if not len(v):
        return Calibration(*(float("nan"),) * 6, states=0)
    slope, intercept = float("nan"), float("nan")
    if not _constant(v):
        line = linregress(v, m)
        slope, intercept = float(line.slope), float(line.intercept)
    return Calibration(
        spearman=spearman(v, m),
        slope=slope,
        intercept=intercept,
        mean_value=float(v.mean()),
        mean_measured=float(m.mean()),
        rmse=float(np.sqrt(((v - m) ** 2).mean())),
        states=len(v),
    )


def _constant(x_N: np.ndarray) -> bool:
    return len(x_N) < 2 or bool((x_N == x_N[0]).all())


def _same_shape(*arrays: np.ndarray) -> None:
    if len({a.shape for a in arrays}) > 1:
        raise UserError(f"arrays of shapes {', '.join(str(a.shape) for a in arrays)}; they must be the same")
