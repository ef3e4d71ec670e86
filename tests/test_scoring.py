"""What language references are in, which words are then scored, and what a vocabulary cannot write of them."""

from __future__ import annotations

import dataclasses
import io
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from rich.console import Console

from kdtw_jax.data.task import load_task, stated_language
from kdtw_jax.data.textfiles import FileSpec
from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation import score
from kdtw_jax.evaluation.ceiling import find_ceiling
from kdtw_jax.metrics.scoring import Scoring, bleu_metric
from kdtw_jax.pipeline.config import EvalConfig, Experiment, TextConfig
from kdtw_jax.pipeline.prepare import Setup, check_scoring, look_up, prepare
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.runs import open_run
from kdtw_jax.text.language import guess_language, main_language
from tests.commands import train

CHINESE = [
    f"我们{day}去{place}，好吗？" for day in "一二三四五六七八九十" for place in ("北京", "上海", "广州", "天津")
]


# ---- languages


@pytest.mark.parametrize(
    ("code", "language"),
    {
        "zh_TW": "zh",
        "zho_Hans": "zh",
        "cmn": "zh",
        "yue": "zh",
        "JPN": "ja",
        "pt-BR": "pt",
        "sh": "sr",
        "tlh": "tlh",
        "": "",
    }.items(),
)
def test_codes_of_languages_have_one_form(code: str, language: str) -> None:
    assert main_language(code) == language


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (CHINESE, "zh"),
        (["使用 Debian GNU/Linux 操作系统安装软件包", "用の字"], "zh"),
        (["東京タワーへ行く", "コーヒーを飲む"], "ja"),
        (["ｶﾀｶﾅ ﾃﾞｽ"], "ja"),
        (["나는 매일 학교에 갑니다", unicodedata.normalize("NFD", "한국어")], "ko"),
        (["韓國 나는 매일 학교에 갑니다 の"], "ko"),
        (["ผมรักเมืองไทย"], "th"),
        (["ຂ້ອຍຮັກປະເທດລາວ"], "lo"),
        (["ខ្ញុំស្រឡាញ់"], "km"),
        (["မြန်မာနိုင်ငံ"], "my"),
        (["བོད་ཡིག"], "bo"),
        (["Wir fahren nach 北京 und zurück"], ""),
        (["Мы едем", "سلام", "שלום", "हिन्दी में"], ""),
        (["12 — 34 !", "…"], ""),
        ([], ""),
    ],
)
def test_the_script_of_most_words_says_the_language(texts: list[str], language: str) -> None:
    assert guess_language(texts) == language


def test_tasks_state_the_language_of_their_targets() -> None:
    stated = {name: stated_language(name) for name in ("cldr", "debian/en-zh_CN", "debian/ja-en")}
    assert stated == {"cldr": "de", "debian/en-zh_CN": "zh_CN", "debian/ja-en": "en"}
    others = ("debian/summarize", "tfds:xsum", "files", "nothing")
    assert {stated_language(name) for name in others} == {""}


def test_a_user_states_a_code_of_a_language() -> None:
    for code in ("", "pt_BR", "zho_Hans", "JPN", "yue", "sh", "pt-BR", "tlh"):
        assert EvalConfig(language=code).language == code
    for code in ("Chinese", "z", "zh CN", "deutsch", "qq", "en_", "en--US", "en_123456789", "en_\u00e9", "cn"):
        with pytest.raises(UserError, match=r"eval\.language must be a code such as en, zh or pt_BR, got ") as raised:
            EvalConfig(language=code)
    assert str(raised.value).endswith("got 'cn'; is zh meant?")


@pytest.mark.parametrize(
    ("text", "contradicted", "fitting"),
    [
        ("\u0e02\u0e49\u0e2d", ("en", "zh_TW"), ("th", "th_TH", "tha")),
        ("\u5317\u4eac", ("ja", "en"), ("zh_TW", "zho_Hans", "yue")),
        ("text", (), ("en", "pt_BR", "zh")),  # a script that many languages share contradicts none
    ],
)
def test_a_language_that_the_script_contradicts_is_remarked_once_and_no_other(
    text: str,
    contradicted: tuple[str, ...],
    fitting: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for side, word in {"a": "text", "b": text}.items():
        (tmp_path / side).write_text("".join(f"{word} {i}\n" for i in range(40)), encoding="utf8")

    def said_of(language: str) -> list[str]:
        files = FileSpec(train_source=tmp_path / "a", train_target=tmp_path / "b")
        assert load_task("files", data_dir=tmp_path, files=files, language=language).language == language
        return [line for line in capsys.readouterr().err.splitlines() if "said to be" in line]

    script = guess_language([text])
    for code in contradicted:
        line = f"files: the targets are said to be in {code!r}, but are in the script of {script!r}"
        assert said_of(code) == [line]
    assert not any(map(said_of, fitting))
    monkeypatch.setattr("kdtw_jax.data.remarks.is_writer", lambda: False)  # one of several hosts, not the first
    assert not any(map(said_of, contradicted))


# ---- vocabularies


@pytest.fixture(scope="module")
def nfkc(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Of Chinese, with T5's normalisation."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CHINESE * 3),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("nfkc") / "spiece.model"
    path.write_bytes(model.getvalue())
    return load_tokenizer(path)


def test_references_in_other_characters_than_the_vocabulary_has_are_counted_and_bound_the_scores(
    nfkc: Tokenizer,
) -> None:
    plain = ["我们一去北京", "我们二去上海"]
    references = [*CHINESE[:6], *plain]
    targets = [nfkc.encode(text) for text in references]
    found = find_ceiling(nfkc, references, targets, ("bleu", "chrf", "exact_match"), Scoring("zh"))
    assert (found.references, found.unwritable) == (8, 6)
    assert found.changes == ('"，" is written ","', '"？" is written "?"')
    outputs = [nfkc.decode(ids) for ids in targets]
    for name, value in found.best.items():
        expected = score(name, outputs, references, scoring=Scoring("zh"), resamples=1).value
        assert value == pytest.approx(expected) and 0 < value < 100
    assert find_ceiling(nfkc, plain, targets[6:], ("bleu",)).best == {}


def test_unknown_characters_are_left_out_and_what_is_cut_off_is_not_in_the_best_outputs() -> None:
    tokenizer = train_tokenizer(["abc abd acd bcd"] * 5, vocab_size=30, exact=False)
    references = ["abc € abd", "ab\u200bc", "acd bcd", "a\u0301 b", unicodedata.normalize("NFC", "a\u0301")]
    targets = [tokenizer.encode(text) for text in references]
    found = find_ceiling(tokenizer, references, targets, ("exact_match", "chrf"))
    assert found.unwritable == 4 and found.best["exact_match"] == 20.0
    assert found.changes[0].startswith('"€') and found.changes[1] == "U+200B is left out"
    cut = [ids[:1] for ids in targets]
    assert find_ceiling(tokenizer, references, cut, ("chrf",)).best["chrf"] < found.best["chrf"]
    assert find_ceiling(tokenizer, references, cut, ("chrf",)).unwritable == 4


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_canonically_equal_references_can_be_written(form: str) -> None:
    texts = ["Tiếng Việt\u00a0viết ở Việt Nam", "\u095bमीन पर बड़ा पे\u095c", "▁one\x00two"]
    tokenizer = train_tokenizer(texts * 3, vocab_size=70, exact=False)
    references = [unicodedata.normalize(form, text) for text in texts]
    targets = [tokenizer.encode(text) for text in references]
    assert find_ceiling(tokenizer, references, targets, ("bleu",)).unwritable == 0
    for other in (tokenizer, load_tokenizer("byt5")):
        outputs = [other.decode(other.encode(text)) for text in references]
        assert score("exact_match", outputs, references, resamples=1).value == 100.0


# ---- runs


def chinese(folder: Path, **text: Any) -> Experiment:
    """A run's configuration with English sources and Chinese targets."""
    for name, lines in {
        "a.en": [f"to {chr(97 + i % 26) * (1 + i // 26)}" for i in range(len(CHINESE))],
        "a.zh": CHINESE,
    }.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf8")
    files = FileSpec(train_source=folder / "a.en", train_target=folder / "a.zh", held_out=0.2)
    changes = {"folder": folder / "data", "files": files, "tokenizer": Path("byt5"), "max_target": 64, **text}
    config = PRESETS["tiny"]
    return dataclasses.replace(config, data="files", text=dataclasses.replace(config.text, **changes), devices=1)


def prepared(config: Experiment, path: Path) -> tuple[Setup, str]:
    """What is prepared, and what is said."""
    said = io.StringIO()
    with open_run(path, config.identity()) as run:
        return prepare(config, run, Console(file=said), look_up(config)), said.getvalue()


def test_a_run_tells_chinese_by_its_characters_and_may_be_judged_otherwise(tmp_path: Path) -> None:
    config = chinese(tmp_path)
    setup, said = prepared(config, tmp_path / "run")
    assert setup.scoring == Scoring("zh", "unicode")
    assert "files: BLEU by the tokenizer zh, as the targets are in the language 'zh', which their script says" in said
    assert setup.ceiling.unwritable == 0 and "cannot be written" not in said
    assert score("bleu", setup.references, setup.references, scoring=setup.scoring).value == pytest.approx(100.0)
    other = dataclasses.replace(config, eval=EvalConfig(bleu_tokenizer="char"))
    assert "BLEU by the tokenizer char, as configured" in prepared(other, tmp_path / "run")[1]
    assert config.identity() == other.identity()


def test_a_run_says_what_its_vocabulary_cannot_write_and_that_references_look_tokenized(
    tmp_path: Path, nfkc: Tokenizer
) -> None:
    nfkc.save(tmp_path / "spiece.model")
    setup, said = prepared(chinese(tmp_path, tokenizer=tmp_path / "spiece.model"), tmp_path / "run")
    count = len(setup.references)
    assert f'{count} of {count} references cannot be written in this vocabulary ("，" is written ","' in said
    assert f"the best possible outputs have bleu {setup.ceiling.best['bleu']:.1f}" in said
    lines = "".join(f"{'ab'[i % 2]} {i:010b} .\n".translate({48: "c", 49: "d"}) for i in range(600))
    (tmp_path / "tokenized").write_text(lines, encoding="utf8")
    (tmp_path / "copy").write_text(lines, encoding="utf8")
    files = FileSpec(train_source=tmp_path / "copy", train_target=tmp_path / "tokenized", held_out=0.2)
    config = dataclasses.replace(
        chinese(tmp_path), text=TextConfig(files=files, tokenizer=Path("byt5")), eval=EvalConfig()
    )
    setup, said = prepared(config, tmp_path / "other")
    assert "100 or more references end in a period with a space before it" in said
    assert setup.scoring == Scoring("13a", "unicode")


def test_a_tokenizer_that_cannot_be_had_stops_a_run_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bleu_metric.cache_clear()
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    common = ["--preset=tiny", f"--text.folder={tmp_path / 'data'}", f"--out={tmp_path / 'run'}"]
    for data in ("debian/en-ja", "files"):
        words = [*common, f"--data={data}", "--eval.language=ja"]
        assert train(words) == 2
        error = capsys.readouterr().err
        assert "pip install 'sacrebleu[ja]'" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    config = chinese(tmp_path)
    config = dataclasses.replace(config, eval=EvalConfig(language="ja", metrics=("chrf",)))
    check_scoring(config)  # no BLEU, no need of its tokenizer
    assert prepared(config, tmp_path / "run")[0].scoring.bleu == "ja-mecab"
    written = set(tmp_path.iterdir())
    for side, text in (("a", "word"), ("b", "\u3053\u308c\u306f")):  # Japanese by its script alone
        (tmp_path / side).write_text("".join(f"{text} {i}\n" for i in range(40)), encoding="utf8")
    words = ["--preset=tiny", "--data=files", f"--out={tmp_path / 'told'}", f"--text.folder={tmp_path / 'data'}"]
    words += [f"--text.files.train-{side}={tmp_path / name}" for side, name in (("source", "a"), ("target", "b"))]
    assert train(words) == 2
    assert "pip install 'sacrebleu[ja]'" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) - written <= {tmp_path / name for name in ("a", "b", "data")}
    with pytest.raises(UserError, match=r"eval.bleu_tokenizer must be one of none, zh, 13a"):
        EvalConfig(bleu_tokenizer="13b")
