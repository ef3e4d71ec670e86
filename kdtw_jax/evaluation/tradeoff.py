"""Quality against use: curves of several gates, what lies between them, and how sure that is. Plain numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdtw_jax.decoding.gates import is_oracle, looks_ahead
from kdtw_jax.metrics.scores import interval

LEARNED, FLOOR, CEILING = "learned", "random", "oracle_regret"
USES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)  # at which gates are compared one by one


class Curve(NamedTuple):
    """A gate at K budgets, on the test set and on R resamples of it (the same for all gates)."""

    use_K: np.ndarray  # the teacher's share of tokens, 0 to 1
    quality_K: np.ndarray
    use_RxK: np.ndarray
    quality_RxK: np.ndarray


def quality_at(use_K: np.ndarray, quality_K: np.ndarray, wanted_X: np.ndarray) -> np.ndarray:
    """Straight lines through the points, in order of use (points of equal use count as their mean); level outside."""
    use, place = np.unique(use_K, return_inverse=True)
    quality = np.bincount(place, quality_K) / np.bincount(place)
    return np.interp(wanted_X, use, quality)


def mean_quality(use_K: np.ndarray, quality_K: np.ndarray, top: float) -> float:
    """The area under the curve from use 0 to `top`, divided by `top`: exact for straight lines."""
    corners = np.unique(np.concatenate([[0.0, top], use_K[(use_K > 0) & (use_K < top)]]))
    return float(np.trapezoid(quality_at(use_K, quality_K, corners), corners) / top)


def envelope(use_K: np.ndarray, quality_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points that no other beats with as much use or less, in order of use."""
    order = np.lexsort((-quality_K, use_K))
    kept: list[int] = []
    for i in order:
        if not kept or quality_K[i] > quality_K[kept[-1]]:
            kept.append(int(i))
    return use_K[kept], quality_K[kept]


Draws = Mapping[str, Sequence[Sequence[float]]]  # by gate, for each resample: its mean quality, and that at each use


def compare_gates(curves: Mapping[str, Curve]) -> tuple[dict[str, Any], Draws]:
    """The learned gate beside its rivals at equal use: a summary, and each gate's quality on every resample.

    The range of use is 0 to the largest that all gates reach, oracles apart: where those have no more to gain they ask
    no more, and their quality stays what it is. `way`: how much of the way from the random gate to the best oracle the
    learned one makes, `ceiling` being the best of the oracle of regret and those that look ahead. Differences are
    paired: every gate sees the same resamples. There is nothing to compare, and no resample says anything, where some
    gate uses no help at all.
    """
    top = float(min(curve.use_K.max() for gate, curve in curves.items() if not is_oracle(gate)))
    if top <= 0:
        return {"range": [0.0, 0.0], "uses": [], "mean_quality": {}, "learned_minus": {}, "way": None}, {}
    uses = [use for use in USES if use <= top]

    def qualities(use_K: np.ndarray, quality_K: np.ndarray) -> np.ndarray:
        at_U = quality_at(use_K, quality_K, np.array(uses))
        return np.array([mean_quality(use_K, quality_K, top), *at_U])

    value = {gate: qualities(curve.use_K, curve.quality_K) for gate, curve in curves.items()}
    draws = {
        gate: np.stack([qualities(u, q) for u, q in zip(curve.use_RxK, curve.quality_RxK, strict=True)])
        for gate, curve in curves.items()
    }
    return summarise(top, uses, value, draws), {gate: np.round(found, 4).tolist() for gate, found in draws.items()}


def summarise(
    top: float, uses: Sequence[float], qualities: Mapping[str, np.ndarray], drawn: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Quality of gates over use 0 to `top`, the learned gate's lead over each rival, and its way to the oracle.

    Args:
      top: the largest use that all reach.
      uses: at which they are compared one by one, U of them.
      qualities: by gate, [1 + U]: the mean over the range, and that at each use.
      drawn: the same of R resamples, [R, 1 + U].
    """
    lead: dict[str, dict[str, Any]] = {}
    for rival in qualities:
        if rival != LEARNED:
            ahead, ahead_R = qualities[LEARNED] - qualities[rival], drawn[LEARNED] - drawn[rival]
            found = [
                {"value": float(x), **dict(zip(("low", "high"), interval(ahead_R[:, i], float(x)), strict=True))}
                for i, x in enumerate(ahead)
            ]
            lead[rival] = {**found[0], "at": found[1:]}
    value, draws = ({gate: x[..., 0] for gate, x in all_of.items()} for all_of in (qualities, drawn))
    way = None
    oracles = [gate for gate in value if gate == CEILING or (is_oracle(gate) and looks_ahead(gate))]
    best = max(oracles, key=lambda gate: value[gate], default=CEILING)
    room = value[best] - value[FLOOR] if {best, FLOOR} <= set(value) else 0.0
    if room > 0:
        made = (value[LEARNED] - value[FLOOR]) / room
        rooms = draws[best] - draws[FLOOR]
        # Of resamples in which there is no way to go nothing can be said.
        kept = rooms > 0
        low, high = interval((draws[LEARNED] - draws[FLOOR])[kept] / rooms[kept], made) if kept.any() else (made, made)
        way = {"value": made, "low": low, "high": high}
    mean = {gate: float(x) for gate, x in value.items()}
    return {
        "range": [0.0, top],
        "uses": list(uses),
        "mean_quality": mean,
        "learned_minus": lead,
        "way": way,
        "ceiling": best,
        "quality_at": {gate: x[1:].tolist() for gate, x in qualities.items()},
    }


def pooled_difference(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean over seeds of paired differences {"value", "draws"}, with its interval over test sentences."""
    value = float(np.mean([part["value"] for part in parts]))
    low, high = interval(np.mean([part["draws"] for part in parts], axis=0), value)
    return {"value": value, "low": low, "high": high}


def pool(summaries: list[dict[str, Any]], draws: list[Draws]) -> dict[str, Any]:
    """The mean over seeds of what `compare_gates` says of each. Intervals are over test sentences, jointly for all
    seeds; how much seeds differ shows in the summaries of each."""
    told = [(s, d) for s, d in zip(summaries, draws, strict=True) if d]
    if not told:
        return summaries[0]
    uses = min((s["uses"] for s, _ in told), key=len)  # that all seeds reach
    kept = slice(1 + len(uses))
    value = {
        gate: np.mean([[s["mean_quality"][gate], *s["quality_at"][gate]][kept] for s, _ in told], axis=0)
        for gate in told[0][1]
    }
    mean = {gate: np.mean([np.asarray(d[gate])[:, kept] for _, d in told], axis=0) for gate in value}
    return summarise(float(np.mean([s["range"][1] for s, _ in told])), uses, value, mean)
