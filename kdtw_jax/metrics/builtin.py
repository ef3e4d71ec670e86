"""The metrics that come with the package: statistics of sentences, and the score that their sums make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from kdtw_jax.metrics.classroom import (
    found_in_the_head,
    met_specifications,
    right_calculations,
    right_outlines,
    right_solutions,
)
from kdtw_jax.metrics.reasoning import reasoning_scores, reasoning_signature
from kdtw_jax.metrics.scoring import Scoring, bleu_metric, rouge_metric
from kdtw_jax.metrics.sums import long_ways, right_answers

CHRF_ORDER = 6
CHRF_BETA = 2

# Sums of statistics of a (re)sample of sentences -> score. One row a sentence, one column a statistic.
Formula = Callable[[np.ndarray], float]


class Metric(NamedTuple):
    """How texts are scored.

    statistics(hypotheses, references, scoring): float [sentences, statistics], of normalized texts; what has words
      takes them apart as `scoring` says.
    formula(sums): the score, of the statistics added up over sentences.
    signature(scoring): how it is computed, as far as that can vary, for records.
    """

    name: str
    statistics: Callable[[Sequence[str], Sequence[str], Scoring], np.ndarray]
    formula: Formula
    signature: Callable[[Scoring], str]


def _bleu_signature(scoring: Scoring) -> str:
    return _known_signature(bleu_metric(scoring.bleu))


def _chrf_signature(scoring: Scoring) -> str:
    return _known_signature(CHRF(char_order=CHRF_ORDER, word_order=0, beta=CHRF_BETA))


def _known_signature(metric: BLEU | CHRF) -> str:
    metric.corpus_score(["a"], [["a"]])  # the signature exists once a number of references is known
    return str(metric.get_signature())


def _bleu_rows(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> np.ndarray:
    bleu = bleu_metric(scoring.bleu)
    found = [bleu.corpus_score([h], [[r]]) for h, r in zip(hypotheses, references, strict=True)]
    return np.array([[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in found], float)


def _chrf_rows(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> np.ndarray:
    return np.array([_chrf_row(h, r) for h, r in zip(hypotheses, references, strict=True)], float)


def _rouge(name: str) -> Metric:
    def rows(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> np.ndarray:
        rouge = rouge_metric(name, scoring.rouge)
        return mean_rows([rouge.score(r, h)[name].fmeasure for h, r in zip(hypotheses, references, strict=True)])

    def signed(scoring: Scoring) -> str:
        return f"{name}|f1|mean:sentences|stemmer:no|tok:{scoring.rouge}|form:NFC"

    return Metric(name, rows, mean_of_sums, signed)


def _equal_rows(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> np.ndarray:
    return mean_rows([h == r for h, r in zip(hypotheses, references, strict=True)])


def _shares(
    judge: Callable[[Sequence[str], Sequence[str], Scoring], Sequence[float]],
) -> Callable[[Sequence[str], Sequence[str], Scoring], np.ndarray]:
    return lambda hypotheses, references, scoring: mean_rows(judge(hypotheses, references, scoring))


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
    """A formula for statistics of two columns: the first of `sums`, [2], over the second; 0 where that is 0."""
    return float(sums[0] / sums[1]) if sums[1] else 0.0


def mean_rows(values: Sequence[float]) -> np.ndarray:
    """Statistics of a score that is the mean of sentences' own `values`, which `mean_of_sums` takes."""
    return np.array([(float(value), 1.0) for value in values])


def mean_of_sums(sums: np.ndarray) -> float:
    """The mean in percent, of `sums` over the rows of `mean_rows`, [2]."""
    return 100.0 * ratio_of_sums(sums)


BUILTIN = (
    Metric("bleu", _bleu_rows, _bleu_from_sums, _bleu_signature),
    Metric("chrf", _chrf_rows, _chrf_from_sums, _chrf_signature),
    *map(_rouge, ("rouge1", "rouge2", "rougeL")),
    Metric("exact_match", _equal_rows, mean_of_sums, lambda scoring: "exact_match|space:collapsed|case:mixed|form:NFC"),
    Metric("answer", _shares(right_answers), mean_of_sums, lambda scoring: "answer|after:last ="),
    Metric("long_way", _shares(long_ways), mean_of_sums, lambda scoring: "long_way|begins:A"),
    Metric("right", _shares(right_solutions), mean_of_sums, lambda scoring: "right|after:Answer:"),
    Metric("calculations", _shares(right_calculations), mean_of_sums, lambda scoring: "calculations|all of a text"),
    Metric("in_head", _shares(found_in_the_head), mean_of_sums, lambda scoring: "in_head|begins:Answer:"),
    Metric("specification", _shares(met_specifications), mean_of_sums, lambda scoring: "specification|read back"),
    Metric("outline", _shares(right_outlines), mean_of_sums, lambda scoring: "outline|verified"),
    Metric("reasoning_gym", _shares(reasoning_scores), mean_of_sums, reasoning_signature),
)
