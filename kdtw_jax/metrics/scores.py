"""Scores of output texts against references, with bootstrap intervals. All here are on a scale of 0 to 100.

A score is computed from sums of per-sentence statistics (n-gram counts for BLEU and chrF; the mean needs only
the sentence's own score for ROUGE and exact match), so a bootstrap resample of the test set (Koehn 2004,
"Statistical Significance Tests for Machine Translation Evaluation") is one weighted sum, and comparing two
systems on the same resamples makes the test paired.

Both sides are first made canonical as encoding does it (`kdtw_jax.text.normal.normalize`): a reference written with
combining accents is the same text as an output written without them. Text in NFC scores as it does in the libraries.

A metric of your own is an entry more: `register_metric(Metric(...))`, before a task or a configuration names it; or
installed with a package of yours that names it under the entry points of `kdtw_jax.metrics`, which the command line
reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdtw_jax.errors import UserError, told_of
from kdtw_jax.metrics.builtin import BUILTIN, Formula, Metric, mean_of_sums, mean_rows, ratio_of_sums
from kdtw_jax.metrics.scoring import ENGLISH, Scoring
from kdtw_jax.registry import Registry
from kdtw_jax.text.normal import normalize

__all__ = [
    "METRICS",
    "Formula",
    "Metric",
    "Score",
    "Statistics",
    "bootstrap",
    "check_metrics",
    "find_metric",
    "interval",
    "mean_of_sums",
    "mean_rows",
    "ratio_of_sums",
    "register_metric",
    "score",
    "score_all",
    "sentence_statistics",
    "signature",
]

METRICS = Registry(
    {metric.name: metric for metric in BUILTIN},
    kind="metric",
    group="kdtw_jax.metrics",
    how="kdtw_jax.evaluation.register_metric(Metric(...))",
    expected=Metric,
    register=lambda name, metric: register_metric(metric),
)
_NAME = re.compile(r"(?!.*_sampled)[A-Za-z][A-Za-z0-9_]*")  # tables name scores of sampled outputs so
RESAMPLES_AT_ONCE = 64


class Score(NamedTuple):
    """A corpus score with its 95% percentile-bootstrap interval over sentences, 0 to 100."""

    name: str
    value: float
    low: float
    high: float
    signature: str  # how it was computed, as far as that can vary


class Statistics(NamedTuple):
    """What sentences contribute to a corpus score, and how their sums become one."""

    rows: np.ndarray  # float64 [sentences, statistics]
    formula: Formula


def score(
    name: str,
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    scoring: Scoring = ENGLISH,
    resamples: int = 1000,
    seed: int = 0,
) -> Score:
    """Scores `hypotheses` against one reference each.

    Args:
      name: one of METRICS. Of those here, BLEU and chrF are sacrebleu's with their default settings but for BLEU's
        tokenizer, ROUGE is the mean F1 of the rouge-score package without stemming, exact_match the share of outputs
        equal to their reference up to white space.
      hypotheses: the outputs.
      references: as many texts.
      scoring: tokenizers of BLEU and ROUGE; the default is for English.
      resamples: of the sentences, for the interval.
      seed: of the resamples.

    Returns:
      The score from 0 to 100. The interval always contains the value and depends on `seed` only.

    Raises:
      UserError: an unknown name or tokenizer, no hypotheses, lists of different length, or resamples < 1.
    """
    statistics = sentence_statistics(name, hypotheses, references, scoring)
    draws = bootstrap([statistics], resamples, seed)[:, 0]
    value = statistics.formula(statistics.rows.sum(axis=0))
    return Score(name, value, *interval(draws, value), signature(name, scoring))


def score_all(
    names: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    scoring: Scoring = ENGLISH,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Score]:
    """Scores by each of the metrics `names`, in that order.

    Args:
      hypotheses: as in `score`.
      references: as in `score`.
      scoring: as in `score`.
      resamples: as in `score`.
      seed: as in `score`.

    Raises:
      UserError: as `score` does.
    """
    how = {"resamples": resamples, "seed": seed}
    return [score(name, hypotheses, references, scoring=scoring, **how) for name in names]


def signature(name: str, scoring: Scoring = ENGLISH) -> str:
    """How `name` is computed: sacrebleu's own signature, or the like for the others."""
    return find_metric(name).signature(scoring)


def sentence_statistics(
    name: str, hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring = ENGLISH
) -> Statistics:
    """Statistics of each sentence, and the formula that turns sums of them into the corpus score.

    Raises:
      UserError: as `score` does, or for statistics that are not one row per sentence.
    """
    metric = find_metric(name)
    if len(hypotheses) != len(references):
        raise UserError(f"{len(hypotheses)} hypotheses for {len(references)} references; give as many of each")
    if not hypotheses:
        raise UserError(f"no hypotheses to score with {name}; give at least one")
    written, meant = ([normalize(text) for text in side] for side in (hypotheses, references))
    rows = np.asarray(metric.statistics(written, meant, scoring), np.float64)
    if rows.ndim != 2 or len(rows) != len(hypotheses):
        expected = f"one row a sentence, {len(hypotheses)} by any number of statistics"
        raise UserError(f"the statistics of {name} have shape {rows.shape}; give {expected}")
    return Statistics(rows, metric.formula)


def register_metric(metric: Metric) -> Metric:
    """Adds a metric.

    Raises:
      UserError: another one has its name, or no column could have it.
    """
    if not _NAME.fullmatch(metric.name):
        raise UserError(f"a metric's name must be letters, digits and _, without _sampled, got {metric.name!r}")
    return METRICS.add(metric.name, metric)


def find_metric(name: str) -> Metric:
    """The metric of a name.

    Raises:
      UserError: no metric has it.
    """
    return METRICS.find(name)


def check_metrics(names: Sequence[str], option: str) -> None:
    """Checks that `names` are metrics, at least one, and none twice.

    Raises:
      UserError: they are not; it says so of the `option`.
    """
    if not names or len(set(names)) < len(names):
        raise UserError(f"{option} must be distinct, at least one of {', '.join(METRICS)}, got {tuple(names)}")
    with told_of(option):
        for name in names:
            find_metric(name)


def bootstrap(systems: Sequence[Statistics], resamples: int, seed: int) -> np.ndarray:
    """Scores [resamples, systems]; every system sees the same resamples of the sentences.

    The resamples depend on `seed` and the number of sentences alone, so scores of other calls are paired with these.

    Raises:
      UserError: resamples < 1.
    """
    if resamples < 1:
        raise UserError(f"resamples={resamples}; give at least 1")
    sentences = len(systems[0].rows)
    rng = np.random.default_rng(seed)
    draws = []
    for first in range(0, resamples, RESAMPLES_AT_ONCE):
        # Drawing sentences with replacement = multinomial weights for the sentences.
        size = min(RESAMPLES_AT_ONCE, resamples - first)
        weights = rng.multinomial(sentences, np.full(sentences, 1.0 / sentences), size=size).astype(float)
        sums = [weights @ system.rows for system in systems]
        draws += [[system.formula(s[i]) for system, s in zip(systems, sums, strict=True)] for i in range(size)]
    return np.array(draws)


def interval(draws: np.ndarray, value: float) -> tuple[float, float]:
    """The 95% percentile interval of `value`, given what resamples say of it: `draws`, [resamples]."""
    low, high = np.quantile(draws, [0.025, 0.975]).tolist()
    # BLEU and chrF are not means: on a handful of sentences all resamples may miss the value itself.
    return min(low, value), max(high, value)
