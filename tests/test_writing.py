"""Writing texts of one's own: every line of whatever bytes has its line of output, whatever the output can hold."""

from __future__ import annotations

import codecs
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdtw_jax import student as writing
from kdtw_jax.answers import Answer
from kdtw_jax.cli import main as kdtw
from kdtw_jax.data.tokenizer import load_tokenizer
from kdtw_jax.decoding import enforced
from kdtw_jax.errors import UserError
from kdtw_jax.lines import one_line, read_lines
from kdtw_jax.models import T5Config, make_model
from kdtw_jax.pipeline.presets import TINY
from kdtw_jax.runs import write_json
from kdtw_jax.student import Student, load
from kdtw_jax.training.saved import save_model


def main(arguments: list[str]) -> int:
    return kdtw(["write", *arguments])


RULE = "ask the teacher for at most 20% of the words"
MAX_SOURCE = 40


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of random models that read and write bytes, as one that has finished leaves it."""
    folder, tokenizer = tmp_path_factory.mktemp("writing") / "run", load_tokenizer("byt5")
    config = replace(TINY, text=replace(TINY.text, max_source=MAX_SOURCE, max_target=12))
    for name, gate_width, seed in (("teacher", 0, 0), ("seed0/ask", 8, 1)):
        model = T5Config.toy(tokenizer.vocab_size, dropout_rate=0.0, gate_width=gate_width, num_layers=1)
        model = replace(model, num_decoder_layers=1, tie_embeddings=False)
        params = jax.tree.map(lambda x: np.asarray(2.0 * x), make_model(model).init(jax.random.key(seed)))
        if gate_width:  # one that asks now and then
            params["gate"]["saving_out"] = {
                "kernel": 30.0 * params["gate"]["saving_out"]["kernel"],
                "bias": np.ones(1, np.float32),
            }
        save_model(folder / name / "model", model, params, tokenizer)
    (folder / "stages" / "seed0").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"task": "translation", **config.identity()}))
    (folder / "stages" / "data.json").write_text(json.dumps({"instruction": "say: {source}"}))
    (folder / "stages" / "seed0" / "ask.json").write_text("{}")
    (folder / "stages" / "seed0" / "ask.config.json").write_text(json.dumps({"ask": {"unit": "token"}}))
    return folder


@pytest.fixture
def echo(asking: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is what was read."""

    def answers(_: Student, sources: Iterable[str], rule: str, **_more: Any) -> Iterator[Answer]:
        yield from (Answer(text, text, (text,), (False,), 0, len(text)) for text in sources)

    monkeypatch.setattr("kdtw_jax.cli.write.load", lambda *_, **__: asking)
    monkeypatch.setattr(Student, "stream", answers)


@pytest.fixture(scope="module")
def asking(run: Path) -> Student:
    return load(run)


@pytest.fixture
def loaded(asking: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line finds the models in memory."""
    monkeypatch.setattr("kdtw_jax.cli.write.load", lambda *_, **__: asking)


def write(
    monkeypatch: pytest.MonkeyPatch, given: bytes, *more: str, encoding: str = "utf8", run: str = "run"
) -> tuple[int, str]:
    """The status and output of the command line with these bytes on its standard input."""
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf8"))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    status = main([run, "--rule", RULE, *more])
    return status, written.getvalue().decode(encoding)


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_every_line_of_any_bytes_has_its_line_of_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: bytes
) -> None:
    lines = [b"\xef\xbb\xbfone", b"", b"two\r", b"b\xffd", b"a\x00b", b" ", "t\u2028w\x0bx\x85y".encode(), b"\xc3"]
    texts = ["one", "", "two", "b\ufffdd", "a\\x00b", " ", "t\\u2028w\\x0bx\\x85y", "\ufffd"]
    status, found = write(monkeypatch, b"\n".join(lines) + end, "--plain")
    assert status == 0
    assert found == "".join(f"{text}\n" for text in texts)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said[:-1]] == ["line 4 is not UTF-8", "line 8 is not UTF-8"]
    assert "the teacher wrote" in said[-1]


@pytest.mark.usefixtures("loaded")
def test_sources_without_text_have_empty_outputs_in_their_places(
    asking: Student, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["", "one", " \t", "\u200b\ufeff", *[f"number {i} " * (i % 3) for i in range(60)], "\x00"]
    answers = list(asking.stream(texts, RULE))
    assert [not answer.tokens for answer in answers] == [not text.strip(" \t\x00\u200b\ufeff") for text in texts]
    alone = list(asking.stream([text for text in texts if text.strip(" \t\x00\u200b\ufeff")], RULE))
    assert [answer for answer in answers if answer.tokens] == alone
    assert len({answer.marked for answer in alone}) > 5 < sum(answer.calls > 0 for answer in alone)
    assert all(answer.calls <= 0.2 * len(answer.tokens) + 1e-6 for answer in alone)
    status, found = write(monkeypatch, "\n".join(texts).encode(), "--account", "output")
    assert (status, found) == (0, "".join(f"{one_line(answer.marked, None, {})}\n" for answer in answers))
    assert (
        f"wrote {sum(a.calls for a in alone)} of {sum(len(a.tokens) for a in alone)} tokens" in capsys.readouterr().err
    )


def test_what_vague_words_are_taken_for_is_said(
    asking: Student, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kdtw_jax.cli.write.load", lambda *_, **__: asking)
    outputs = []
    for rule in ("ein wenig Hilfe", "ask the teacher for at most 10% of the words"):
        assert main(["run", "--rule", rule, "--text", "one", "two"]) == 0
        outputs.append(capsys.readouterr())
    assert outputs[0].out == outputs[1].out and "vague" not in outputs[1].err
    said = '"ein wenig Hilfe" is vague, and taken for "ask the teacher for at most 10% of the words"'
    assert said in outputs[0].err


@pytest.mark.usefixtures("echo")
def test_without_input_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    assert write(monkeypatch, b"") == (0, "")
    assert write(monkeypatch, b"\n\n") == (0, "\n\n")
    monkeypatch.setattr("sys.stdin", None)
    assert main(["run", "--rule", RULE]) == 2


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf8", "utf-16"])
def test_outputs_are_written_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    tokens = ("a\nь", "▁é", "</s>")
    answer = Answer("x", "a\nь\u2028é", tokens, (True, False, True), 1, 3)
    monkeypatch.setattr(Student, "stream", lambda *_, **__: iter([answer]))
    plain = {"ascii": "a\\n\\u044c\\u2028\\xe9", "latin-1": "a\\n\\u044c\\u2028é", "cp1252": "a\\n\\u044c\\u2028é"}
    marked = {"ascii": "[[a\\n\\u044c]] \\xe9[[<end>]]", "latin-1": "[[a\\n\\u044c]] é[[<end>]]"}
    marked["cp1252"] = marked["latin-1"]
    assert write(monkeypatch, b"x", "--plain", encoding=encoding)[1] == plain.get(encoding, "a\\nь\\u2028é") + "\n"
    assert write(monkeypatch, b"x", encoding=encoding)[1] == marked.get(encoding, "⟦a\\nь⟧ é⟦∎⟧") + "\n"
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])  # it shows the marks


def test_one_line_keeps_what_is_a_line_already_and_nothing_else() -> None:
    for text in ("", "plain", "täb\tand \\n ⟦x⟧", "日本"):
        assert one_line(text, "utf8", {}) == one_line(text, None, {"⟦": "[["}) == text
    every = "".join(map(chr, range(0x3000)))
    assert len(one_line(f"a{every}b", "utf8", {}).splitlines()) == 1
    assert one_line("\x1b[31m\r\n", "utf8", {}) == "\\x1b[31m\\r\\n"


@pytest.mark.usefixtures("echo")
def test_a_reader_that_leaves_and_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf8") as output:  # closing it must not fail either
        monkeypatch.setattr("sys.stdout", output)
        assert main(["run", "--rule", RULE, "--text", "abc", "def"]) == 141
    assert capsys.readouterr().err == ""
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w", encoding="utf8") as output:
            monkeypatch.setattr("sys.stdout", output)
            assert main(["run", "--rule", RULE, "--text", "abc"]) == 2
        assert capsys.readouterr().err == "error: cannot write to standard output: No space left on device\n"


@pytest.mark.usefixtures("echo")
def test_an_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any, **__: Any) -> Iterator[Answer]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Student, "stream", interrupted)
    assert write(monkeypatch, b"abc")[0] == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.usefixtures("loaded")
def test_of_a_long_source_the_beginning_is_read_and_that_is_said(
    asking: Student, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    room = MAX_SOURCE - len("say: ") - 1  # a piece is a byte; one is the end
    fits, long = "x" * room, "x" * 20_000
    answers = list(asking.stream([fits, fits + "yz", long, long + "!" * 10**6], RULE))
    assert (
        len({(answer.text, answer.writers, answer.positions) for answer in answers}) == 1
    )  # as when the text is cut, and the end stays
    assert [answer.source_tokens for answer in answers[:3]] == [MAX_SOURCE, MAX_SOURCE + 2, 20_006]
    lines = [fits.encode(), long.encode(), b"x" * 5_000_000, *[long.encode()] * 40]
    status, found = write(monkeypatch, b"\n".join(lines), "--plain", "--account", "output")
    assert (status, set(found.splitlines()), found.count("\n")) == (0, {one_line(answers[0].text, None, {})}, 43)
    said = capsys.readouterr().err.splitlines()
    assert f"line 2 is long: 20006 pieces, of which the student reads the {MAX_SOURCE}" in "\n".join(said)
    assert "line 3 is too long: only its first 262144 bytes are read" in said
    assert len(said) < 10 and "long: 42 lines in all" in said


@pytest.mark.usefixtures("echo")
def test_arguments_are_treated_like_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["ab\udcffc", "ab\udcc3\udca9", "\ud800x", "", "two\nlines", "x" * 99]
    assert main(["run", "--rule", RULE, "--plain", "--text", *texts]) == 0
    found = capsys.readouterr()
    assert found.out.splitlines() == ["ab\ufffdc", "abé", "\ufffdx", "", "two\\nlines", "x" * 99]
    assert f"text 6 is long: 99 pieces, of which the student reads the {MAX_SOURCE}" in found.err


class Slow(io.BytesIO):
    """Bytes of which never more than some are asked for at a time."""

    most = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None and 0 < size < 200
        return super().readline(size)


@pytest.mark.parametrize("length", [98, 99, 100, 101, 102, 199, 200, 201, 202, 203, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_long_line_is_never_in_memory_as_a_whole(length: int, end: bytes) -> None:
    said: list[int] = []
    text = ("x" + "ä" * length).encode()[:length]  # cut within a character
    lines = list(read_lines(Slow(text + end + b"next" + end), lambda n, *_: said.append(n), longest=100))
    assert len(lines) == 2 and lines[1] == "next"
    half = (length - 1) % 2
    assert lines[0] == ("x" + "ä" * 49 if length > 100 else "x" + "ä" * (length // 2 - half) + "\ufffd" * half)
    assert said == [1] * (length > 100 or half)


@pytest.mark.parametrize("text", ["abc\ndef\n", "naïve", "你好,一一一\n世界\n", "一a\n", "\nab\n", "你\n好\n"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_text_of_several_bytes_a_character_is_refused_by_the_name_of_its_encoding(text: str, encoding: str) -> None:
    name = encoding.upper().replace("-", "").replace("UTF", "UTF-")  # as iconv writes it
    marked = codecs.lookup(encoding[:6]).name.upper()
    for head, said in (("", name), ("\ufeff", marked)):
        with pytest.raises(UserError, match=rf"^the text looks like {said}; .*iconv -f {said} -t UTF-8") as raised:
            list(read_lines(io.BytesIO((head + text).encode(encoding)), lambda *_: None))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeffabc\n\n", "naïve\n你好\0\n", "a\nb\nc\0"])
def test_utf_8_is_taken_for_nothing_else(text: str) -> None:
    expected = text.removeprefix("\ufeff").removesuffix("\n").split("\n") if text else []
    assert list(read_lines(io.BytesIO(text.encode()), lambda *_: None)) == expected


def test_a_stream_that_fails_is_named() -> None:
    class Failing(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(UserError, match="cannot read standard input: Input/output error"):
        list(read_lines(Failing(), lambda *_: None))


def test_sources_are_taken_as_needed_and_few_programs_compiled(
    asking: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, taken, wrapped = [], [], enforced.generate_with_help

    def traced(*args: Any, **more: Any) -> Any:
        shapes.append(args[3].shape)
        return wrapped(*args, **more)

    monkeypatch.setattr(enforced, "generate_with_help", traced)

    def sources() -> Iterator[str]:
        for length in [*range(33), *([1, 50] * 16), *[0] * 40, 30, 2]:
            taken.append(length)
            yield "x" * length

    written = asking.stream(sources(), RULE)
    next(written)
    assert len(taken) == 32
    rest = list(written)
    assert len(taken) == len(rest) + 1 == 107
    assert all(answer == Answer("", "") for answer in rest[64:103])
    assert set(shapes) <= {(32, 16), (32, 32), (32, MAX_SOURCE)} and len(shapes) == len(set(shapes))


def test_rules_that_differ_in_a_number_share_a_program(asking: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    traced, wrapped = [], enforced.generate_with_help

    def counted(*args: Any, **more: Any) -> Any:
        traced.append(more["rule"])
        return wrapped(*args, **more)

    monkeypatch.setattr(enforced, "generate_with_help", counted)
    fresh, texts = replace(asking, _programs={}), [f"number {i}" for i in range(20)]
    shares = {}
    for percent in (0, 10, 30, 60):
        answers = fresh(texts, rule=RULE.replace("20", str(percent)))
        assert all(answer.calls <= 0.01 * percent * len(answer.tokens) + 1e-6 for answer in answers)
        shares[percent] = answers.share
    assert len(traced) == 1 and shares[0] == 0 < shares[10] < shares[60]


def test_the_student_reads_words_that_it_was_trained_on(asking: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    said, encode = [], writing.word_tokens

    def noted(text: str, encoder: Any) -> list[int]:
        said.append(text)
        return encode(text, encoder)

    monkeypatch.setattr(writing, "word_tokens", noted)
    free = list(asking.stream(["abc", "x"], "No more than a fifth, please!"))
    assert free == list(asking.stream(["abc", "x"], RULE))
    list(asking.stream(["abc"], " Use the TEACHER for up to  20% of the words.; ;do not ask beyond 20% of it"))
    assert said == [RULE, RULE, f"Use the TEACHER for up to  20% of the words.; {RULE}"]


def test_what_can_be_refused_is_refused_before_a_model_is_loaded(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    for name in ("load_model", "read_teacher"):
        monkeypatch.setattr(writing, name, late)
    for arguments, message in (
        (
            {"rule": "at least 20% of the words"},
            '"at least 20% of the words" says how much is to be asked at the least',
        ),
        ({"rule": "at most 3 calls"}, '"at most 3 calls" is a rule on "calls", which is not among those known here'),
        ({"seed": 7}, "no student of seed 7 that learned to ask"),
        ({"run": tmp_path}, "is not a run's folder"),
        ({"run": run / "config.json"}, "is not a run's folder"),
    ):
        with pytest.raises(UserError, match=message):
            load(**{"run": run, "rule": RULE, **arguments})  # type: ignore[arg-type]
    for damaged in ({}, {"instruction": 3}):
        shutil.copytree(run, tmp_path / "damaged", dirs_exist_ok=True)
        write_json(tmp_path / "damaged" / "stages" / "data.json", damaged)
        with pytest.raises(UserError, match=r"data\.json is damaged: it has no instruction"):
            load(tmp_path / "damaged", rule=RULE)
