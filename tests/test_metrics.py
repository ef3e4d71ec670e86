"""Scores: agreement with the libraries that define them, and metrics from outside."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from kdtw_jax.data.task import Task
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation import Scoring, differences, score, score_all
from kdtw_jax.metrics import scores as metrics
from kdtw_jax.pipeline.eval_config import EvalConfig
from kdtw_jax.text.normal import words
from tests.comparing import COMPARING
from tests.sentences import corpus


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_bleu_and_chrf_are_those_of_sacrebleu(keep: float) -> None:
    hypotheses, references = corpus(80, keep)
    bleu, chrf = score_all(["bleu", "chrf"], hypotheses, references, resamples=2)
    assert bleu.value == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references], force=True).score, abs=1e-9)
    assert chrf.value == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references]).score, abs=1e-9)


@pytest.mark.parametrize(
    ("hypothesis", "reference"), [("", "a b"), ("a", ""), ("", ""), ("ab", "abcdefgh"), ("abcdefgh", "ab")]
)
def test_degenerate_sentences_score_as_in_sacrebleu(hypothesis: str, reference: str) -> None:
    # Each beside a good sentence: the odd one's statistics then show in the sum.
    hypotheses, references = [hypothesis, "the red house runs ."], [reference, "the red house sees ."]
    bleu, chrf = score_all(["bleu", "chrf"], hypotheses, references, resamples=2)
    assert bleu.value == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references], force=True).score, abs=1e-9)
    assert chrf.value == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references]).score, abs=1e-9)


def test_rouge_is_the_mean_f1_and_exact_match_the_share_of_equal_texts() -> None:
    hypotheses, references = corpus(40, 0.6)
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names, use_stemmer=False)
    for s in score_all(names, hypotheses, references, resamples=2):
        expected = np.mean([scorer.score(r, h)[s.name].fmeasure for h, r in zip(hypotheses, references, strict=True)])
        assert s.value == pytest.approx(100 * expected)
    found = score("exact_match", ["a b", "a  b", "A b", "a"], ["a b", "a b", "a b", "a b"], resamples=2)
    assert found.value == 50.0  # white space does not count, case does


@pytest.mark.parametrize("name", COMPARING)
def test_a_text_against_itself_scores_100_on_every_resample(name: str) -> None:
    _, references = corpus(30, 1.0)
    references = [f"the red house runs {r}" for r in references]  # long enough for 4-grams, never without letters
    s = score(name, references, references, resamples=50)
    assert (s.value, s.low, s.high) == pytest.approx((100.0, 100.0, 100.0))


def test_the_order_of_sentences_does_not_change_a_value() -> None:
    hypotheses, references = corpus(50, 0.7)
    for name in COMPARING:
        forth = score(name, hypotheses, references, resamples=1).value
        back = score(name, hypotheses[::-1], references[::-1], resamples=1).value
        assert forth == pytest.approx(back)


def test_signatures_say_how_a_score_was_made() -> None:
    assert sacrebleu.__version__ in metrics.signature("bleu")
    assert "tok:13a" in metrics.signature("bleu")
    assert "nc:6" in metrics.signature("chrf")
    assert "stemmer:no" in metrics.signature("rougeL")
    assert score("chrf", ["a"], ["a"], resamples=1).signature == metrics.signature("chrf")


@pytest.mark.parametrize(
    ("name", "hypotheses", "references", "resamples", "message"),
    [
        ("blue", ["a"], ["a"], 10, "unknown metric 'blue'; known are bleu"),
        ("bleu", ["a"], ["a", "b"], 10, "1 hypotheses for 2 references"),
        ("bleu", [], [], 10, "no hypotheses"),
        ("rouge1", ["a"], ["a"], 0, "resamples=0"),
    ],
)
def test_bad_input_is_named(
    name: str, hypotheses: list[str], references: list[str], resamples: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        score(name, hypotheses, references, resamples=resamples)
    if name != "rouge1":
        with pytest.raises(UserError, match=message):
            differences("a", {"a": [hypotheses], "b": [hypotheses]}, references, [name], resamples=resamples)


def right_words(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> np.ndarray:
    """Words of the reference that the hypothesis has, and all of them."""
    pairs = [(set(words(h)), words(r)) for h, r in zip(hypotheses, references, strict=True)]
    return np.array([[sum(word in found for word in known), len(known)] for found, known in pairs])


RECALL = metrics.Metric("recall", right_words, metrics.mean_of_sums, lambda scoring: "recall|words:unicode")


def test_a_metric_from_outside_is_scored_compared_and_tabled_with_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(f"source {i}", f"target {i}") for i in range(40)]
    with pytest.raises(UserError, match=r"unknown metric 'recall'; known are bleu, .*register_metric"):
        Task.from_pairs(pairs, metrics=["recall"])
    monkeypatch.setattr(metrics, "METRICS", copy(metrics.METRICS))
    assert metrics.register_metric(RECALL) is RECALL
    assert Task.from_pairs(pairs, metrics=["recall", "bleu"]).metrics == ("recall", "bleu")
    assert EvalConfig(metrics=("recall",)).metrics == ("recall",)

    references, half, none = ["a b c d", "a b", "e f g h"] * 5, ["a b", "a x", "e f"] * 5, ["x"] * 15
    found = score_all(["recall", "exact_match"], half, references, resamples=50)
    assert [one.name for one in found] == ["recall", "exact_match"]
    assert found[0].value == pytest.approx(50.0) and found[0].signature == "recall|words:unicode"
    mixed = score("recall", [*half[:8], *references[8:]], references, resamples=200)
    assert 50 < mixed.low < mixed.value < mixed.high < 100
    table = differences("half", {"half": [half], "none": [none]}, references, ["recall"])
    assert [(row["metric"], row["value"]) for row in table] == [("recall", pytest.approx(50.0))]


@pytest.mark.parametrize("name", ["", "my-own", "recall_sampled", "bleu"])
def test_a_metric_whose_name_no_table_could_have_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", copy(metrics.METRICS))
    with pytest.raises(UserError, match=r"a metric's name must be|there is a metric bleu already"):
        metrics.register_metric(RECALL._replace(name=name))


def test_statistics_that_are_not_one_row_a_sentence_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", copy(metrics.METRICS))
    metrics.register_metric(RECALL._replace(statistics=lambda hypotheses, references, scoring: np.ones(2)))
    with pytest.raises(UserError, match=r"the statistics of recall have shape \(2,\); give one row a sentence, 2 by"):
        score("recall", ["a", "b"], ["a", "b"])
