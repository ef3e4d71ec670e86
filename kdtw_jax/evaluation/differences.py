"""How much one way of training is ahead of each other one, on the same sentences and over the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kdtw_jax.metrics.scores import bootstrap, interval, sentence_statistics
from kdtw_jax.metrics.scoring import ENGLISH, Scoring


def differences(
    base: str,
    outputs: Mapping[str, Sequence[Sequence[str]]],
    references: Sequence[str],
    metrics: Sequence[str],
    *,
    scoring: Scoring = ENGLISH,
    resamples: int = 1000,
    progress: Callable[[int], None] = lambda done: None,
) -> list[dict[str, str | float]]:
    """Returns by how much `base` is ahead of each other method, in points of each metric.

    Args:
      outputs: by method, the outputs of each seed in the order of the references.
      scoring: tokenizers of BLEU and ROUGE.
      progress: is told how many methods have been judged, each counted once per metric.

    Returns:
      Rows with the mean over seeds, a paired 95% interval over test sentences (all methods and seeds see the same
      resamples), and the least and the most of single seeds.

    Raises:
      UserError: as `score` does.
    """
    rows: list[dict[str, str | float]] = []
    for i, metric in enumerate(metrics):
        value, draws = {}, {}
        for j, (method, seeds) in enumerate(outputs.items()):
            judged = [sentence_statistics(metric, texts, references, scoring) for texts in seeds]
            value[method] = np.array([s.formula(s.rows.sum(axis=0)) for s in judged])
            draws[method] = bootstrap(judged, resamples, seed=0)
            progress(i * len(outputs) + j + 1)
        for method in outputs:
            if method != base:
                ahead = value[base] - value[method]
                low, high = interval((draws[base] - draws[method]).mean(axis=1), float(ahead.mean()))
                of_seeds = {"least": float(ahead.min()), "most": float(ahead.max())}
                named = {"method": base, "minus": method, "metric": metric}
                rows.append({**named, "value": float(ahead.mean()), "low": low, "high": high, **of_seeds})
    return rows
