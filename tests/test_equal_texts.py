"""Which texts are the same to a score: canonically equal ones, and no others."""

from __future__ import annotations

import unicodedata

import pytest

from kdtw_jax.evaluation import Scoring, differences, score, score_all
from kdtw_jax.evaluation.cells import Texts, harm
from kdtw_jax.text.normal import normalize
from tests.comparing import COMPARING

# Vietnamese, Hindi with letters that NFC takes apart, Korean, Hebrew with points, Greek, a compatibility ideograph that
# is canonically another, a Kelvin sign.
CANONICAL = [
    "Tiếng Việt được viết bằng chữ Quốc ngữ ở Việt Nam",
    "\u095bमीन पर बड़ा पे\u095c है और \u095e्रांस दूर है",
    "한국어 문장은 이렇게 쓰고 여기 두 번 더",
    "\ufb2aלום \ufb31וא עולם טוב מאוד היום",
    "ἁ ὁδὸς ἄνω κάτω μία καὶ ὡυτή",
    "這 \uf9d0 是 一 個 很 長 的 句 子",
    "at 300 \u212a and 12 \u212b or so",
]


@pytest.mark.parametrize("name", COMPARING)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_canonically_equal_texts_score_as_the_same_text(name: str, form: str) -> None:
    turned = [unicodedata.normalize(form, text) for text in CANONICAL]
    for scoring in (Scoring(), Scoring("intl", "unicode")):
        perfect = [
            score(name, *pair, scoring=scoring, resamples=2).value
            for pair in ((CANONICAL, turned), (turned, CANONICAL))
        ]
        # Words of ROUGE for English are of ASCII alone: texts without any have none in common.
        assert perfect == pytest.approx([100.0, 100.0]) or (name.startswith("rouge") and scoring.rouge == "rouge_score")
        poor = [text.replace("n", "m").replace("и", "о")[:-3] for text in map(normalize, CANONICAL)]
        assert score(name, poor, turned, scoring=scoring, resamples=5) == score(
            name, poor, list(map(normalize, CANONICAL)), scoring=scoring, resamples=5
        )


def test_comparisons_take_canonically_equal_texts_for_the_same() -> None:
    references = [unicodedata.normalize("NFD", text) for text in CANONICAL]
    outputs = list(map(normalize, CANONICAL))
    (ahead,) = differences("a", {"a": [outputs], "b": [references]}, references, ["bleu"], resamples=5)
    assert [ahead[k] for k in ("value", "low", "high")] == [0.0] * 3
    test = Texts(None, references, references, ("bleu", "exact_match"))  # type: ignore[arg-type]
    found = harm(outputs, references, test, resamples=5)
    assert [found[m]["value"] for m in test.metrics] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("hypothesis", "reference"),
    [
        ("one two", "one\u00a0two"),
        ("one two", " one\u2003\u3000two\x0b"),
        ("one two", "one\x00two\x85"),
        ("one two", "\u2581one\u2581two"),
        ("\ufffd", "\udcff"),
    ],
)
def test_what_encoding_forgets_costs_no_points(hypothesis: str, reference: str) -> None:
    for s in score_all(["chrf", "exact_match"], [hypothesis], [reference], resamples=2):
        assert s.value == 100.0


@pytest.mark.parametrize(
    ("hypothesis", "reference"),
    [
        ("カタカナ", "ｶﾀｶﾅ"),
        ("سلام", "\ufeb3\ufefc\ufee1"),
        ("x2", "x²"),
        ("a,b", "a，b"),
        ("ab", "a\u200bb"),
        ("é", "e"),
    ],
)
def test_texts_that_are_alike_by_compatibility_alone_are_different(hypothesis: str, reference: str) -> None:
    assert score("exact_match", [hypothesis], [reference], resamples=2).value == 0.0
