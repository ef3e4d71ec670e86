"""A teacher by the address that a user gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from kdtw_jax.cli import COMMANDS, main
from kdtw_jax.data.tokenizer import load_tokenizer
from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.errors import UserError
from kdtw_jax.teachers import Prefix, TeacherUnavailable, named
from kdtw_jax.teachers.named import open_teacher
from kdtw_jax.teachers.resilience import Patience
from kdtw_jax.teachers.server import make_app
from tests.bridge import bridged
from tests.simple_teacher import SimpleTeacher

BYTES = load_tokenizer("byt5")


@pytest.mark.parametrize(
    "name",
    ["ftp://x", "http://", "http:///x", "llama+http://x", "+http://x", "vllm+ftp://x", "http://x:99999", "http://u@x/"],
)
def test_what_is_no_address_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="address"):
        open_teacher(name, tokenizer=BYTES)


@pytest.mark.parametrize("engine", named.ENGINES)
def test_an_engine_needs_a_tokenizer(engine: str) -> None:
    with pytest.raises(UserError, match="name the tokenizer"):
        open_teacher(f"{engine}+http://localhost:1")


def test_ours_is_opened_and_one_of_another_vocabulary_is_not() -> None:
    for vocabulary in (vocabulary_hash(BYTES), "other"):
        with bridged(make_app(SimpleTeacher(vocabulary))) as bridge:
            if vocabulary != "other":
                teacher = open_teacher("http://localhost:1", tokenizer=BYTES, transport=bridge)
                assert len(teacher.next_token([Prefix((5,))], 2)) == 1
                teacher.close()
                with pytest.raises(TeacherUnavailable):
                    teacher.next_token([Prefix((5,))], 2)
            else:
                with pytest.raises(UserError, match="another vocabulary"):
                    open_teacher("http://localhost:1", tokenizer=BYTES, transport=bridge)


@pytest.mark.parametrize("name", ["http://x", "llama.cpp+http://x", "vllm+http://x"])
def test_nobody_there_means_unavailable(name: str) -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    more: dict[str, Any] = {"transport": httpx.MockTransport(nobody), "patience": Patience(attempts=1)}
    with pytest.raises(TeacherUnavailable, match="refused"):
        open_teacher(name, tokenizer=BYTES, **more)


def test_a_model_is_opened_here() -> None:
    teacher = open_teacher("ways:program", tokenizer=BYTES)
    assert teacher.about.vocabulary == vocabulary_hash(BYTES)
    assert len(teacher.generate([Prefix((*BYTES.encode("1+2"), 1))], 4)[0]) <= 4


def test_a_missing_package_is_told_of_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(named, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install '\.\[serve\]'"):
        open_teacher("http://localhost:1")
    assert main(["serve-teacher", "ways:program"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "0"], "--rows"),
        (["--port", "70000"], "--port"),
        (["--rows", "9", "--waiting", "8"], "--waiting"),
        (["--host", "192.0.2.1"], "cannot listen"),
    ],
)
def test_options_that_cannot_be_are_refused(options: list[str], said: str, capsys: Any) -> None:
    assert "serve-teacher" in COMMANDS
    assert main(["serve-teacher", "ways:program", *options]) == 2
    assert said in capsys.readouterr().err


def test_what_is_no_model_is_refused(tmp_path: Path, capsys: Any) -> None:
    assert main(["serve-teacher", str(tmp_path)]) == 2
    assert "not a saved model" in capsys.readouterr().err
