"""The level at which a gate asks as often as is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdtw_jax.data.batches import Bucket, EncodedSplit
from kdtw_jax.evaluation.decoder import Decoder
from kdtw_jax.evaluation.written import DecodeSpec, write_split


def calibrate(
    decoder: Decoder,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    wanted: DecodeSpec,
    scores_X: np.ndarray,
    *,
    tolerance: float = 0.003,
    tries: int = 4,
) -> tuple[float, float, np.ndarray]:
    """The level at which a gate's use is `wanted.budget`: (level, use on `data`, scores of the states then visited).

    Asking changes which states are visited, so the quantile of one decoding's scores is only the next guess. Once there
    are levels on both sides of the wanted use, it is the straight line between the nearest two. `scores_X` are those of
    a decoding nearby.
    """
    if wanted.budget is None:
        raise ValueError("there is no budget to meet")
    aim = wanted.budget
    best: tuple[float, float, np.ndarray] | None = None
    over: tuple[float, float] | None = None  # the highest level found that is too low, and its use
    under: tuple[float, float] | None = None  # the lowest level found that is too high, and its use
    for _ in range(tries):
        if over is not None and under is not None:
            level = float(np.interp(aim, (under[1], over[1]), (under[0], over[0])))
        else:
            level = float(np.quantile(scores_X, 1 - aim))
        written = write_split(decoder, data, buckets, wanted._replace(level=level))
        scores_X = written.score_NxT[written.tokens_NxT != 0]
        if best is None or abs(written.used - aim) < abs(best[1] - aim):
            best = level, written.used, scores_X
        # Of few words no use lies nearer than half of one.
        if abs(best[1] - aim) <= max(tolerance, 0.5 / max(int(written.lengths_N.sum()), 1)):
            break
        if written.used > aim and (over is None or level > over[0]):
            over = level, written.used
        if written.used <= aim and (under is None or level < under[0]):
            under = level, written.used
    if best is None:
        raise ValueError(f"tries={tries}; at least 1 is needed")
    return best
