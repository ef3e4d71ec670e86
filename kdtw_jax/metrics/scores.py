"""Scores of output texts against references, with bootstrap intervals. All on a scale of 0 to 100.

A score is computed from sums of per-sentence statistics (n-gram counts for BLEU and chrF; the mean needs only
the sentence's own score for ROUGE and exact match), so a bootstrap resample of the test set (Koehn 2004,
"Statistical Significance Tests for Machine Translation Evaluation") is one weighted sum, and comparing two
systems on the same resamples makes the test paired.

Both sides are first made canonical as encoding does it (`kdtw_jax.text.normal.normalize`): a reference written with
combining accents is the same text as an output written without them. Text in NFC scores as it does in the libraries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from kdtw_jax.errors import UserError
from kdtw_jax.metrics.scoring import ENGLISH, Scoring, bleu_metric, rouge_metric
from kdtw_jax.text.normal import normalize

NAMES = ("bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match")
CHRF_ORDER = 6
CHRF_BETA = 2
RESAMPLES_AT_ONCE = 64


class Score(NamedTuple):
    """A corpus score with its 95% percentile-bootstrap interval over sentences, 0 to 100."""

    name: str
    value: float
    low: float
    high: float
    signature: str  # how it was computed, as far as that can vary


# Sums of statistics of a (re)sample of sentences -> score. One row a sentence, one column a statistic.
Formula = Callable[[np.ndarray], float]


class Statistics(NamedTuple):
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

    name: one of NAMES. BLEU and chrF are sacrebleu's with their default settings but for BLEU's tokenizer, ROUGE is the
    mean F1 of the rouge-score package without stemming, exact_match the share of outputs equal to their reference up
    to white space. scoring: tokenizers of BLEU and ROUGE; the default is for English. The interval always contains the
    value and depends on `seed` only.

    Raises UserError for an unknown name or tokenizer, no hypotheses, lists of different length, or resamples < 1.
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
    """`score` for each of `names`, in that order."""
    how = {"resamples": resamples, "seed": seed}
    return [score(name, hypotheses, references, scoring=scoring, **how) for name in names]


def signature(name: str, scoring: Scoring = ENGLISH) -> str:
    """How `name` is computed: sacrebleu's own signature, or the like for the others."""
    _check_name(name)
    if name in ("bleu", "chrf"):
        metric = bleu_metric(scoring.bleu) if name == "bleu" else _chrf()
        metric.corpus_score(["a"], [["a"]])  # the signature exists once a number of references is known
        return str(metric.get_signature())
    if name == "exact_match":
        return "exact_match|space:collapsed|case:mixed|form:NFC"
    return f"{name}|f1|mean:sentences|stemmer:no|tok:{scoring.rouge}|form:NFC"


def sentence_statistics(
    name: str, hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring = ENGLISH
) -> Statistics:
    """Statistics of each sentence, and the formula that turns sums of them into the corpus score.

    Raises UserError as `score` does.
    """
    _check_name(name)
    if len(hypotheses) != len(references):
        raise UserError(f"{len(hypotheses)} hypotheses for {len(references)} references; give as many of each")
    if not hypotheses:
        raise UserError(f"no hypotheses to score with {name}; give at least one")
    pairs = zip(map(normalize, hypotheses), map(normalize, references), strict=True)
    if name == "bleu":
        bleu = bleu_metric(scoring.bleu)
        return Statistics(np.array([_bleu_row(bleu, h, r) for h, r in pairs], float), _bleu_from_sums)
    if name == "chrf":
        return Statistics(np.array([_chrf_row(h, r) for h, r in pairs], float), _chrf_from_sums)
    if name == "exact_match":
        values = [float(h == r) for h, r in pairs]
    else:
        rouge = rouge_metric(name, scoring.rouge)
        values = [rouge.score(r, h)[name].fmeasure for h, r in pairs]
    return Statistics(np.array([(v, 1.0) for v in values]), _mean_from_sums)


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise UserError(f"unknown metric {name!r}; choose from {', '.join(NAMES)}")


def _chrf() -> CHRF:
    return CHRF(char_order=CHRF_ORDER, word_order=0, beta=CHRF_BETA)


def _bleu_row(bleu: BLEU, hypothesis: str, reference: str) -> list[float]:
    one = bleu.corpus_score([hypothesis], [[reference]])
    return [one.sys_len, one.ref_len, *one.counts, *one.totals]


def _bleu_from_sums(sums: np.ndarray) -> float:
    order = (len(sums) - 2) // 2
    counts, totals = sums[2 : 2 + order].tolist(), sums[2 + order :].tolist()
    return float(BLEU.compute_bleu(counts, totals, int(sums[0]), int(sums[1]), smooth_method="exp").score)


def _chrf_row(hypothesis: str, reference: str) -> list[float]:
    """n-grams of the hypothesis, of the reference, and in both, for each order (Popovic 2015)."""
    row: list[float] = []
    for order in range(1, CHRF_ORDER + 1):
        hyp, ref = _character_ngrams(hypothesis, order), _character_ngrams(reference, order)
        # A reference too short for this order cannot be matched: sacrebleu then leaves the order out.
        row += [hyp.total() if ref else 0, ref.total(), (hyp & ref).total()]
    return row


def _character_ngrams(text: str, order: int) -> Counter[str]:
    characters = "".join(text.split())
    return Counter(characters[i : i + order] for i in range(len(characters) - order + 1))


def _chrf_from_sums(sums: np.ndarray) -> float:
    """F-beta of the mean precision and the mean recall over the orders that both sides have."""
    hyp, ref, both = sums.reshape(CHRF_ORDER, 3).T
    used = (hyp > 0) & (ref > 0)
    if not used.any():
        return 0.0
    precision, recall = (both[used] / hyp[used]).mean(), (both[used] / ref[used]).mean()
    weight = CHRF_BETA**2
    bottom = weight * precision + recall
    return float(100.0 * (1 + weight) * precision * recall / bottom) if bottom > 0 else 0.0


def ratio_of_sums(sums: np.ndarray) -> float:
    """A formula for statistics of two columns."""
    return float(sums[0] / sums[1])


def _mean_from_sums(sums: np.ndarray) -> float:
    return 100.0 * ratio_of_sums(sums)


def bootstrap(systems: Sequence[Statistics], resamples: int, seed: int) -> np.ndarray:
    """Scores [resamples, systems]; every system sees the same resamples of the sentences.

    The resamples depend on `seed` and the number of sentences alone, so scores of other calls are paired with these.
    Raises UserError for resamples < 1.
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
    """The 95% percentile interval of a value, given what resamples [resamples] say of it."""
    low, high = np.quantile(draws, [0.025, 0.975]).tolist()
    # BLEU and chrF are not means: on a handful of sentences all resamples may miss the value itself.
    return min(low, value), max(high, value)
