"""Writing with a teacher elsewhere: the same texts, in order, and the student alone where it does not answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kdtw_jax.cli import main as kdtw
from kdtw_jax.errors import UserError
from kdtw_jax.serving.engine import Engine
from kdtw_jax.serving.in_order import write_in_order
from kdtw_jax.serving.page import Curve, Page
from kdtw_jax.student import ALONE, Student, load
from tests.served import SHARE_RULE, TEXTS, OwnTeacher, student
from tests.test_writing import RULE
from tests.test_writing import run as run  # a fixture

ASKING = ("number 2 is here", "three three", "a fourth text, which is a bit longer", "7, 8")  # at which the run's asks
SOURCES = (*TEXTS[:3], "", *TEXTS[3:])


@pytest.fixture(scope="module")
def own() -> Student:
    return student("word")


@pytest.fixture(scope="module")
def teacher(own: Student) -> OwnTeacher:
    return OwnTeacher(own)


@pytest.fixture(scope="module")
def engine(own: Student, teacher: OwnTeacher) -> Iterator[Engine]:
    with closing(Engine(own, rows=2, queue=4, teacher=teacher, pause=0.0)) as made:
        yield made


def test_each_text_has_the_answer_that_a_teacher_here_leads_to_in_order(own: Student, engine: Engine) -> None:
    for rule in (SHARE_RULE, None):
        taken = []
        found = list(write_in_order(engine, (taken.append(text) or text for text in SOURCES), rule))
        here = list(own.stream(SOURCES, rule))
        assert [done.answer for done in found] == here and not any(done.degraded for done in found)
        assert taken == list(SOURCES)
    assert any(answer.helped for answer in own.stream(SOURCES, SHARE_RULE))


def test_what_all_lines_together_spend_is_within_the_rule(engine: Engine) -> None:
    for account in ("document", "auto"):
        answers = [done.answer for done in write_in_order(engine, SOURCES * 2, SHARE_RULE, account=account)]
        helped, length = (sum(getattr(answer, name) for answer in answers) for name in ("helped", "length"))
        assert 0 < helped <= 0.4 * length
        assert max(answer.share for answer in answers) > 0.4  # some spend what others have saved
    with pytest.raises(UserError, match="account"):
        list(write_in_order(engine, SOURCES, "at most 3 calls to the teacher", account="document"))


def test_where_the_teacher_does_not_answer_the_student_writes_all_and_says_so(
    own: Student, engine: Engine, teacher: OwnTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "fails", True)
    found = list(write_in_order(engine, SOURCES, SHARE_RULE))
    assert [done.answer.text for done in found] == [answer.text for answer in own.stream(SOURCES, ALONE)]
    assert any(done.degraded for done in found) and not any(done.answer.helped for done in found)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[Any], str]:
    assert kdtw(["write", *arguments, "--json"]) == 0
    found = capsys.readouterr()
    return [json.loads(line) for line in found.out.splitlines()], found.err


def test_the_command_needs_no_weights_of_the_teacher_where_another_process_has_them(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare, weights = tmp_path / "run", run / "teacher" / "model"
    kept = shutil.ignore_patterns("params*", "*.safetensors", "weights*", "*.msgpack", "d", "manifest*")
    shutil.copytree(run, bare)
    shutil.rmtree(bare / "teacher")
    shutil.copytree(weights, bare / "teacher" / "model", ignore=kept)
    assert {p.name for p in (bare / "teacher" / "model").rglob("*")} < {p.name for p in weights.rglob("*")}
    words = [
        "--rule",
        "ask the teacher for at most 50% of the words",
        "--account",
        "output",
        *(word for text in ASKING for word in ("--text", text)),
    ]
    here, _ = said(capsys, str(run), *words)
    there, error = said(capsys, str(bare), *words, "--teacher", str(weights))
    assert here == there and any(one["calls"] for one in there) and "did not answer" not in error
    with pytest.raises(UserError, match="without its teacher's weights"):
        load(bare, with_teacher=False)("one", RULE)


def test_a_teacher_that_is_not_there_is_said_in_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for where, what in (("http://127.0.0.1:9", "serve-teacher"), ("ftp://x", "no teacher's address")):
        assert kdtw(["write", str(run), "--rule", RULE, "--text", "one", "--teacher", where]) == 2
        found = capsys.readouterr()
        assert found.out == "" and what in found.err and len(found.err.splitlines()) == 1


def test_the_page_asks_the_teacher_elsewhere_too(own: Student, teacher: OwnTeacher) -> None:
    class Writes(OwnTeacher):
        def generate(self, prefixes: Any, max_len: int, banned: Any = ()) -> list[list[int]]:
            assert prefixes[0].source == tuple(own.encode("two")[0]) and set(banned) == set(self.banned)
            return [own.model.tokenizer.encode("zwei")]

    page = Page(own, Curve(), teacher=Writes(own))
    assert page.teacher_writes({"text": "two"}) == "zwei"
