"""Slips in a user's files that are easily overlooked: each is mended, said, or refused by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdtw_jax.data.json_texts import json_texts
from kdtw_jax.data.lines import lines_of_file
from kdtw_jax.data.prompts import read_prompts
from kdtw_jax.data.textfiles import FileSpec, file_pairs
from kdtw_jax.errors import UserError
from kdtw_jax.text.normal import is_blank

GOOD = '{"source": "x", "target": "y"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"source": "x", "target": "y", "source": "z"}', r"line 2: the key 'source' stands twice in an object"),
        ('{"source": "x", "target": "y", "of": {"a": 1, "a": 1}}', r"line 2: the key 'a' stands twice"),
        ('{"source": 12, "target": "y"}', r"line 2: 'source' is 12, and must be a text, in quotes"),
        ('{"source": "x", "target": NaN}', r"line 2: 'target' is NaN, and must be a text"),
        ('{"source": "x", "target": null}', r"line 2: 'target' is null, and"),
        ('{"source": ["x"], "target": "y"}', r"""line 2: 'source' is \["x"\], and"""),
        ('{"source": {"en": "x"}, "target": "y"}', r"line 2: 'source' is an object, and"),
        ('{"source": "x", "target": true}', r"line 2: 'target' is true, and"),
        ('{"source": "x", "target": ' + "[1" + ", 1" * 999 + "]}", r"line 2: 'target' is \[1, 1.{30,40}\.\.\., and"),
        ('{"translation": {"en": "x"}}', r"line 2: 'source' must be a text .* the object has translation"),
    ],
)
def test_what_stands_for_a_text_is_said(line: str, message: str, tmp_path: Path) -> None:
    for name, content in (("a.jsonl", f"{GOOD}\n{line}\n"), ("a.json", f"[{GOOD},\n{line}]")):
        (tmp_path / name).write_text(content, encoding="utf8")
        with pytest.raises(UserError, match=rf"{name} {message}"):
            json_texts(tmp_path / name, ("source", "target"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_with_byte_order_marks_can_be_joined(end: str, tmp_path: Path) -> None:
    part = f"\ufeffa\ufeffb{end}c{end}"
    (tmp_path / "a").write_bytes((part * 3).encode())
    assert lines_of_file(tmp_path / "a") == ["a\ufeffb", "c"] * 3
    (tmp_path / "a.jsonl").write_bytes((f"\ufeff{GOOD}{end}{GOOD}{end}" * 2).encode())
    assert json_texts(tmp_path / "a.jsonl", ("source", "target")) == [("x", "y")] * 4


@pytest.mark.parametrize("text", ["one\rtwo\rthree\r", "one\rtwo", GOOD + "\r" + GOOD])
def test_lines_that_end_in_carriage_returns_alone_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(text.encode())
    with pytest.raises(UserError, match=r"a\.jsonl: its lines end in carriage returns alone; convert it"):
        json_texts(tmp_path / "a.jsonl", ("source", "target"))
    (tmp_path / "a").write_bytes(b"one\r")
    assert lines_of_file(tmp_path / "a") == ["one"]


@pytest.mark.parametrize("text", ["\u200b", "\ufeff\ufeff", "\u00ad \u200f", "\u2060\ufe0f", "\u3164", "\u034f"])
def test_a_text_that_shows_nothing_is_an_empty_one(text: str, tmp_path: Path) -> None:
    assert is_blank(text) and not is_blank(text + "a") and not is_blank("a" + text)
    (tmp_path / "a").write_text(f"one\n{text}\n", encoding="utf8")
    (tmp_path / "b").write_text("eins\nzwei\n", encoding="utf8")
    (tmp_path / "c.jsonl").write_text(f"{GOOD}\n{json.dumps({'source': 'x', 'target': text})}\n", encoding="utf8")
    for spec in (FileSpec(tmp_path / "a", tmp_path / "b"), FileSpec(tmp_path / "b", tmp_path / "a")):
        with pytest.raises(UserError, match=r"a line 2: the line is empty"):
            file_pairs(spec)
    with pytest.raises(UserError, match=r"c\.jsonl line 2: 'target' must be a text that is not empty"):
        file_pairs(FileSpec(tmp_path / "c.jsonl"))
    assert read_prompts(tmp_path / "a", "source") == ["one"]


@pytest.mark.parametrize("text", ["\u0301", "\ufffd", "۝", "．", "\U0001f600", "\u00b4", "0"])
def test_whatever_shows_is_a_text(text: str) -> None:
    assert not is_blank(text)


def test_targets_that_are_all_their_sources_are_remarked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As when a packed copy of the sources is named by mistake; a student may be meant to copy, too."""
    for name in "ab":
        (tmp_path / name).write_text("".join(f"text {i}\n" for i in range(40)), encoding="utf8")
    file_pairs(FileSpec(tmp_path / "a", tmp_path / "b"))
    assert f"every target in {tmp_path / 'b'} for train is its source" in capsys.readouterr().err
    (tmp_path / "b").write_text("".join(f"text {i // 39}\n" for i in range(1, 41)), encoding="utf8")
    file_pairs(FileSpec(tmp_path / "a", tmp_path / "b"))
    assert not capsys.readouterr().err


def test_why_sources_are_too_few_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a b\nA b\na  B\n", encoding="utf8")
    (tmp_path / "b").write_text("1\n2\n3\n", encoding="utf8")
    with pytest.raises(UserError, match=r"^1 distinct training sources are too few .*case and spacing alone make no"):
        file_pairs(FileSpec(tmp_path / "a", tmp_path / "b"))
