"""Scores: agreement with the libraries that define them, and what must hold of a bootstrap interval."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from kdtw_jax.errors import UserError
from kdtw_jax.evaluation import differences, metrics, score, score_all

WORDS = [
    "the",
    "a",
    "of",
    "red",
    "green",
    "blue",
    "large",
    "house",
    "12",
    "345",
    "runs",
    "sees",
    "Straße",
    ",",
    ".",
]


def corpus(sentences: int, keep: float, seed: int = 0) -> tuple[list[str], list[str]]:
    """Random references, and hypotheses that keep each word with probability `keep`; some are empty."""
    rng = np.random.default_rng(seed)
    references = [" ".join(rng.choice(WORDS, size=rng.integers(1, 12))) for _ in range(sentences)]
    hypotheses = [
        " ".join(w if rng.random() < keep else rng.choice(WORDS) for w in r.split() if rng.random() < 0.95)
        for r in references
    ]
    return hypotheses, references


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


@pytest.mark.parametrize("name", metrics.NAMES)
def test_a_text_against_itself_scores_100_on_every_resample(name: str) -> None:
    _, references = corpus(30, 1.0)
    references = [f"the red house runs {r}" for r in references]  # long enough for 4-grams, never without letters
    s = score(name, references, references, resamples=50)
    assert (s.value, s.low, s.high) == pytest.approx((100.0, 100.0, 100.0))


@pytest.mark.parametrize("name", metrics.NAMES)
def test_the_interval_holds_the_value_repeats_with_the_seed_and_moves_with_another(name: str) -> None:
    hypotheses, references = corpus(60, 0.9)
    s = score(name, hypotheses, references, resamples=150, seed=3)
    assert 0 <= s.low <= s.value <= s.high <= 100
    assert s.low < s.high
    assert s == score(name, hypotheses, references, resamples=150, seed=3)
    assert s[2:4] != score(name, hypotheses, references, resamples=150, seed=4)[2:4]


@pytest.mark.parametrize("name", metrics.NAMES)
def test_even_one_draw_gives_an_interval_that_holds_the_value(name: str) -> None:
    hypotheses, references = corpus(60, 0.9)
    s = score(name, hypotheses, references, resamples=1)
    assert s.low < s.high
    assert s.value in (s.low, s.high)  # the other end is the single draw


@pytest.mark.parametrize("name", ["bleu", "chrf", "rougeL"])
def test_four_times_the_sentences_halve_the_interval(name: str) -> None:
    widths = []
    for repeats in (1, 4):
        hypotheses, references = corpus(150, 0.7)
        s = score(name, hypotheses * repeats, references * repeats, resamples=600)
        widths.append(s.high - s.low)
    assert widths[0] / widths[1] == pytest.approx(2.0, rel=0.2)


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation() -> None:
    # 300 right of 1000: standard error sqrt(.3 * .7 / 1000) = 1.449 points, so 30 +- 2.84.
    s = score("exact_match", ["a"] * 300 + ["b"] * 700, ["a"] * 1000, resamples=3000)
    assert (s.low, s.high) == pytest.approx((30 - 2.84, 30 + 2.84), abs=0.25)


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge2", "exact_match"])
def test_paired_differences(name: str) -> None:
    worse, references = corpus(120, 0.6)
    better = [r if i % 4 == 0 else h for i, (h, r) in enumerate(zip(worse, references, strict=True))]
    outputs = {"worse": [worse], "twin": [worse], "better": [better]}
    same, behind = differences("worse", outputs, references, [name], resamples=200)
    assert [r["minus"] for r in (same, behind)] == ["twin", "better"]
    # The same resamples for both, so not a grain of noise.
    assert [same[k] for k in ("value", "low", "high", "least", "most")] == [0.0] * 5
    ahead, _ = differences("better", outputs, references, [name], resamples=200)
    assert 0 < ahead["low"] <= ahead["value"] <= ahead["high"]
    assert [ahead[k] for k in ("value", "low", "high")] == pytest.approx([-behind[k] for k in ("value", "high", "low")])
    separate = score(name, better, references, resamples=2).value - score(name, worse, references, resamples=2).value
    assert ahead["value"] == ahead["least"] == ahead["most"] == pytest.approx(separate)


def test_differences_are_of_the_mean_over_seeds() -> None:
    worse, references = corpus(120, 0.6)
    better = [r if i % 4 == 0 else h for i, (h, r) in enumerate(zip(worse, references, strict=True))]
    (one,) = differences("a", {"a": [better], "b": [worse]}, references, ["chrf"], resamples=200)
    (two,) = differences("a", {"a": [better, worse], "b": [worse, worse]}, references, ["chrf"], resamples=200)
    for name in ("value", "low", "high"):
        assert two[name] == pytest.approx(one[name] / 2)
    assert (two["least"], two["most"]) == (0.0, one["value"])


def test_pairing_removes_the_noise_that_both_systems_share() -> None:
    hypotheses, references = corpus(200, 0.6)
    slightly = [f"{h} large" for h in hypotheses]  # a small change everywhere
    outputs = {"slightly": [slightly], "not": [hypotheses]}
    (paired,) = differences("slightly", outputs, references, ["chrf"], resamples=200)
    alone = score("chrf", hypotheses, references, resamples=200)
    assert paired["high"] - paired["low"] < 0.5 * (alone.high - alone.low)


def test_the_order_of_sentences_does_not_change_a_value() -> None:
    hypotheses, references = corpus(50, 0.7)
    for name in metrics.NAMES:
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
        ("blue", ["a"], ["a"], 10, "unknown metric 'blue'; choose from bleu"),
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
