"""What decodings with help say of a student: quality against use, obedience, no harm, where it asks, V_C.

Shares are 0 to 1 everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kdtw_jax.data.batches import Bucket, EncodedSplit
from kdtw_jax.evaluation import diagnostics
from kdtw_jax.evaluation.helped import Decoder, DecodeSpec, Written, review_split
from kdtw_jax.evaluation.places import by_class, by_decile, by_position, piece_classes
from kdtw_jax.evaluation.tradeoff import Curve, compare_gates
from kdtw_jax.marks import marked
from kdtw_jax.metrics.scores import Statistics, bootstrap, interval, ratio_of_sums, sentence_statistics
from kdtw_jax.metrics.scoring import ENGLISH, Scoring
from kdtw_jax.text.normal import normalize

SHOWN = 0.2  # the budget at which it is looked at where the student asks
_OVER = 1e-3  # calls; below it lies the rounding of float32
_SAMPLES = 8

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
    scores: list[list[tuple[str, tuple[float, float, float]]]]  # for each cell (metric, (value, low, high))
    equal_use: dict[str, Any]  # by metric
    draws: dict[str, dict[str, list[float]]]  # by metric and gate: mean quality over the range of use, by resample
    alone: dict[str, float]  # by metric: the student that never asks


def measure(cells: Sequence[EvalCell], silent: EvalCell, test: Texts, resamples: int) -> Measured:
    """Scores with intervals, and gates at equal use. The student that never asks is the first point of every gate."""
    everyone = [*cells, silent]
    counts = [
        Statistics(np.stack([c.written.calls_N, c.written.lengths_N], 1).astype(float), ratio_of_sums) for c in everyone
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


def row(cell: EvalCell, metric: str, score: tuple[float, float, float]) -> dict[str, Any]:
    tokens = int(cell.written.lengths_N.sum())
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


def obeyed(cell: EvalCell) -> dict[str, Any]:
    """What a student used of what it was given."""
    return {
        "guard": int(cell.guard),
        "phrasing": cell.phrasing,
        "budget_seen": int(cell.budget_seen),
        "asked": cell.asked,
        **exceeded(cell.written),
    }


def exceeded(written: Written) -> Found:
    """How outputs keep to their rule; `excess`: calls (or other costs) of an output beyond it, below 0 within it."""
    over_N = written.excess_N
    return {
        "used": written.used,
        "excess_calls_mean": float(over_N.mean()),
        "outputs": len(over_N),
        "outputs_over": int((over_N > _OVER).sum()),
        "excess_calls_p95": float(max(np.quantile(over_N, 0.95), 0.0)),
        "excess_share_p95": float(max(np.quantile(over_N / written.lengths_N, 0.95), 0.0)),
        "unfinished": written.unfinished,
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


def look_back(
    decoder: Decoder, test: Texts, buckets: Sequence[Bucket], cells: Sequence[EvalCell], training_tokens_X: np.ndarray
) -> Found:
    """V_C beside the calls made, over all budgets; where the student asks and samples, at the budget `SHOWN`."""
    reviews = [review_split(decoder, test.data, buckets, cell.wanted, cell.written) for cell in cells]
    expected, made = [r.cost_N for r in reviews], [c.written.calls_N for c in cells]
    budgets = [
        {"asked": c.asked, "expected": float(e.mean()), "calls": float(m.mean())}
        for c, e, m in zip(cells, expected, made, strict=True)
    ]
    shown = min(range(len(cells)), key=lambda i: abs(cells[i].asked - SHOWN))
    written, mask = cells[shown].written, cells[shown].written.tokens_NxT != 0
    pieces = decoder.tokenizer.pieces
    tokens_X, asked_X = written.tokens_NxT[mask], written.asked_NxT[mask]
    groups = [
        *by_decile(reviews[shown].kl_NxT[mask], asked_X),
        *by_class(tokens_X, asked_X, piece_classes(pieces, training_tokens_X)),
        *by_position(written.tokens_NxT, written.asked_NxT),
    ]
    # Spread over the split, of outputs in which both wrote.
    both = np.flatnonzero((written.calls_N > 0) & (written.calls_N < written.lengths_N))
    chosen = both[np.linspace(0, len(both) - 1, min(_SAMPLES, len(both))).astype(int)] if len(both) else both
    return {
        "expected_calls": {"by_budget": budgets, **expected_cost_fit(np.concatenate(expected), np.concatenate(made))},
        "where": [group._asdict() for group in groups],
        "samples": [
            {
                "source": normalize(test.sources[i]),
                "reference": normalize(test.references[i]),
                "output": marked(
                    [pieces[token] for token in written.tokens_NxT[i].tolist() if token],
                    written.asked_NxT[i, written.tokens_NxT[i] != 0].tolist(),
                ),
            }
            for i in chosen.tolist()
        ],
    }


def expected_cost_fit(expected_N: np.ndarray, made_N: np.ndarray) -> dict[str, float | None]:
    """How V_C before the first token relates to the calls then made: the line calls = slope V_C + intercept."""
    fit = diagnostics.value_calibration(expected_N, -made_N, np.ones(expected_N.shape, bool))
    numbers = {"spearman": fit.spearman, "slope": fit.slope, "intercept": fit.intercept, "rmse": fit.rmse}
    return {name: value if np.isfinite(value) else None for name, value in numbers.items()}


def obedience(cells: Sequence[Found]) -> list[Found]:
    """What `obeyed` says of many budgets (and seeds), by kind: errors |used - asked| in percentage points."""
    kinds = dict.fromkeys((c["guard"], c["phrasing"], c["budget_seen"]) for c in cells)
    found = []
    for guard, phrasing, seen in kinds:
        own = [c for c in cells if (c["guard"], c["phrasing"], c["budget_seen"]) == (guard, phrasing, seen)]
        errors = 100 * np.array([c["used"] - c["asked"] for c in own])
        found.append(
            {
                "guard": guard,
                "phrasing": phrasing,
                "budget_seen": seen,
                "cells": len(own),
                "error_mean": float(np.abs(errors).mean()),
                "error_p95": float(np.quantile(np.abs(errors), 0.95)),
                "bias": float(errors.mean()),
                "outputs_over": sum(c["outputs_over"] for c in own),
                "outputs": sum(c["outputs"] for c in own),
                "excess_calls_p95": float(np.mean([c["excess_calls_p95"] for c in own])),
                "excess_share_p95": float(np.mean([c["excess_share_p95"] for c in own])),
            }
        )
    return found
