"""Where a student asked, what it wrote there, and whether it knew beforehand how often it would ask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdtw_jax.constraints import Unit
from kdtw_jax.data.batches import Bucket
from kdtw_jax.evaluation import diagnostics
from kdtw_jax.evaluation.cells import EvalCell, Found, Texts
from kdtw_jax.evaluation.decoder import Decoder
from kdtw_jax.evaluation.places import by_class, by_decile, by_position, piece_classes
from kdtw_jax.evaluation.written import review_split
from kdtw_jax.marks import marked, whole_words
from kdtw_jax.text.normal import normalize
from kdtw_jax.text.words import word_numbers

SHOWN = 0.2  # the budget at which it is looked at where the student asks


_SAMPLES = 8


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
    both = np.flatnonzero((written.helped_N > 0) & (written.helped_N < written.lengths_N))
    chosen = both[np.linspace(0, len(both) - 1, min(_SAMPLES, len(both))).astype(int)] if len(both) else both
    return {
        "expected_calls": {"by_budget": budgets, **expected_cost_fit(np.concatenate(expected), np.concatenate(made))},
        "where": [group._asdict() for group in groups],
        "samples": [
            {
                "source": normalize(test.sources[i]),
                "reference": normalize(test.references[i]),
                "output": _marked(decoder.unit, pieces, written.tokens_NxT[i], written.asked_NxT[i]),
            }
            for i in chosen.tolist()
        ],
    }


def _marked(unit: Unit, pieces: Sequence[str], tokens_T: np.ndarray, asked_T: np.ndarray) -> str:
    tokens, asked = tokens_T[tokens_T != 0].tolist(), asked_T[tokens_T != 0].tolist()
    if unit.marks is not None:
        asked = whole_words(asked, word_numbers(unit.marks, tokens))
    return marked([pieces[token] for token in tokens], asked)


def expected_cost_fit(expected_N: np.ndarray, made_N: np.ndarray) -> dict[str, float | None]:
    """How V_C before the first token relates to the calls then made: the line calls = slope V_C + intercept."""
    fit = diagnostics.value_calibration(expected_N, -made_N, np.ones(expected_N.shape, bool))
    numbers = {"spearman": fit.spearman, "slope": fit.slope, "intercept": fit.intercept, "rmse": fit.rmse}
    return {name: value if np.isfinite(value) else None for name, value in numbers.items()}
