"""Bootstrap intervals: what must hold of one of a score, and of one of a paired difference."""

from __future__ import annotations

import pytest

from kdtw_jax.evaluation import differences, score
from tests.comparing import COMPARING
from tests.sentences import corpus


@pytest.mark.parametrize("name", COMPARING)
def test_the_interval_holds_the_value_repeats_with_the_seed_and_moves_with_another(name: str) -> None:
    hypotheses, references = corpus(60, 0.9)
    s = score(name, hypotheses, references, resamples=150, seed=3)
    assert 0 <= s.low <= s.value <= s.high <= 100
    assert s.low < s.high
    assert s == score(name, hypotheses, references, resamples=150, seed=3)
    assert s[2:4] != score(name, hypotheses, references, resamples=150, seed=4)[2:4]


@pytest.mark.parametrize("name", COMPARING)
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
