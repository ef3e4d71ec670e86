"""Decodings of a test split, cell by cell: scores with intervals, and gates at equal use.

Shares are 0 to 1 everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kdtw_jax.data.batches import EncodedSplit
from kdtw_jax.evaluation.tradeoff import Curve, Draws, compare_gates
from kdtw_jax.evaluation.written import DecodeSpec, Written
from kdtw_jax.metrics.scores import Statistics, bootstrap, interval, ratio_of_sums, sentence_statistics
from kdtw_jax.metrics.scoring import ENGLISH, Scoring

Found = dict[str, Any]  # plain values, for JSON


class Texts(NamedTuple):
    """What a student is judged on."""

    data: EncodedSplit
    sources: Sequence[str]
    references: Sequence[str]
    metrics: Sequence[str]
    scoring: Scoring = ENGLISH


class EvalCell(NamedTuple):
    """One decoding of the test split."""

    gate: str
    guard: bool
    phrasing: str  # seen or unseen
    budget_seen: bool
    asked: float
    wanted: DecodeSpec
    written: Written


class Measured(NamedTuple):
    """What `measure` finds."""

    scores: list[list[tuple[str, tuple[float, float, float]]]]  # for each cell (metric, (value, low, high))
    equal_use: dict[str, Any]  # by metric
    draws: dict[str, Draws]  # by metric
    alone: dict[str, float]  # by metric: the student that never asks


def measure(cells: Sequence[EvalCell], silent: EvalCell, test: Texts, resamples: int) -> Measured:
    """Scores with intervals, and gates at equal use. The student that never asks is the first point of every gate."""
    everyone = [*cells, silent]
    counts = [
        Statistics(np.stack([c.written.helped_N, c.written.lengths_N], 1).astype(float), ratio_of_sums)
        for c in everyone
    ]
    use_S, use_RxS = _value_and_draws(counts, resamples)
    scores: list[list[tuple[str, tuple[float, float, float]]]] = [[] for _ in cells]
    compared, draws, alone = {}, {}, {}
    for metric in test.metrics:
        quality_S, quality_RxS = _value_and_draws(_statistics(metric, everyone, test), resamples)
        for i, found in enumerate(scores):
            found.append((metric, (float(quality_S[i]), *interval(quality_RxS[:, i], float(quality_S[i])))))
        curves = {}
        for gate in dict.fromkeys(c.gate for c in cells):
            own = [i for i, c in enumerate(cells) if _compared(c) and c.gate == gate] + [len(cells)]
            curves[gate] = Curve(use_S[own], quality_S[own], use_RxS[:, own], quality_RxS[:, own])
        compared[metric], draws[metric] = compare_gates(curves)
        alone[metric] = float(quality_S[-1])
    return Measured(scores, compared, draws, alone)


def _compared(cell: EvalCell) -> bool:
    return cell.budget_seen and cell.phrasing == "seen" and not cell.guard


def _value_and_draws(systems: Sequence[Statistics], resamples: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([s.formula(s.rows.sum(axis=0)) for s in systems])
    return values, bootstrap(systems, resamples, seed=0)


def _statistics(metric: str, cells: Sequence[EvalCell], test: Texts) -> list[Statistics]:
    """Of every cell. Many outputs are the same in many cells: each is judged once."""
    pairs = {(text, i): 0 for cell in cells for i, text in enumerate(cell.written.texts)}
    for place, pair in enumerate(pairs):
        pairs[pair] = place
    references = [test.references[i] for _, i in pairs]
    judged = sentence_statistics(metric, [text for text, _ in pairs], references, test.scoring)
    return [
        Statistics(judged.rows[[pairs[text, i] for i, text in enumerate(cell.written.texts)]], judged.formula)
        for cell in cells
    ]


def table_row(cell: EvalCell, metric: str, score: tuple[float, float, float]) -> dict[str, Any]:
    """The row of asking.csv of a cell and a metric, whose score is (value, low, high)."""
    tokens = int(np.count_nonzero(cell.written.tokens_NxT))
    return {
        "gate": cell.gate,
        "guard": int(cell.guard),
        "phrasing": cell.phrasing,
        "budget_seen": int(cell.budget_seen),
        "asked": cell.asked,
        "used": cell.written.used,
        "metric": metric,
        "value": score[0],
        "low": score[1],
        "high": score[2],
        "calls": float(cell.written.calls_N.sum() / tokens),
        "positions": float(cell.written.positions_N.sum() / tokens),
        "unfinished": cell.written.unfinished,
    }


def harm(masked: Sequence[str], twin: Sequence[str], test: Texts, resamples: int) -> dict[str, Any]:
    """The student forbidden to ask minus its twin, paired, in points; with what every resample says."""
    found = {}
    for metric in test.metrics:
        pair = [sentence_statistics(metric, texts, test.references, test.scoring) for texts in (masked, twin)]
        values, draws = _value_and_draws(pair, resamples)
        ahead, ahead_R = float(values[0] - values[1]), draws[:, 0] - draws[:, 1]
        low, high = interval(ahead_R, ahead)
        found[metric] = {"value": ahead, "low": low, "high": high, "draws": [round(x, 5) for x in ahead_R.tolist()]}
    return found
