"""`kdtw classroom`: problems and solutions on a terminal, with whose words they are and what of them is right."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdtw_jax.answers import Answer
from kdtw_jax.classroom.checking import check_solution
from kdtw_jax.classroom.understanding import understand
from kdtw_jax.cli import classroom, demo, main, serve
from kdtw_jax.serving.job import Done
from kdtw_jax.student import Student
from tests.served import SHARE_RULE, student

OWN = "Mia loves Minecraft and has 34 Minecraft stickers. She gives 17 of them to Ben. How many stickers are left?"
WISHES = ("--interest", "Minecraft", "--grade", "4", "--operations", "subtract", "add", "--numbers", "34", "17", "25")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"data": "classroom/solve"}))
    return tmp_path


class Solver:
    """A student that writes what it is given, or what is right; the teacher writes the last word of each sentence."""

    teacher, constraints, unit = object(), student().constraints, SimpleNamespace(noun="words")

    def __init__(self, solution: str = ""):
        self.solution, self.account, self.guard = solution, "", True

    def stream(self, sources: Sequence[str], rule: str | None, *, guard: bool, account: str) -> Iterator[Answer]:
        self.account, self.guard = account, guard
        for source in sources:
            asks = understand(source)
            text = self.solution or (asks.solution if asks else "Hm.")
            words = text.split(" ")
            tokens = tuple(f"▁{word}" for word in words)
            by_teacher = tuple(word.endswith(".") for word in words)
            yield Answer(source, text, tokens, by_teacher, unit="word", words=tuple(range(len(words))))


def said(
    run: Path, solver: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, *arguments: str
) -> tuple[list[str], str]:
    monkeypatch.setattr(classroom, "load", lambda *_, **__: solver)
    assert main(["classroom", str(run), *arguments]) == 0
    found = capsys.readouterr()
    return found.out.splitlines(), found.err


def test_each_line_has_its_mark_and_the_teachers_words_theirs(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, told = said(run, Solver(), monkeypatch, capsys, *WISHES, "--problems", "3", "--rule", SHARE_RULE)
    assert len(lines) == 3 * 4
    for at in range(0, len(lines), 4):
        problem, first, second, answer = lines[at : at + 4]
        assert "Minecraft" in problem
        assert re.fullmatch(r"  .+: 34 - 17 = ⟦17\.⟧ ✓", first) and re.fullmatch(r"  .+: 17 \+ 25 = ⟦42\.⟧ ✓", second)
        assert re.fullmatch(r"  Answer: 42 ⟦\w+\.⟧ ✓", answer)
    assert "3 of 3 solutions are right" in told and "the teacher wrote 9 of " in told


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        ("Mia gives 17 to Ben: 34 - 17 = 18. Answer: 17 stickers.", ["✗ right is 17", "✓"]),
        (
            "Mia gives 17 to Tom: 34 - 17 = 17. Answer: 18 stickers.",
            ['✗ the problem says "Mia gives 17 to Ben"', "✗ right is 17"],
        ),
        ("Answer: 17 stickers.", ["✓", "✗ the answer is right, its steps are missing: 34 - 17"]),
        ("Answer: 18 stickers.", ["✗ right is 17", "✗ missing: 34 - 17"]),
        ("Hm.", ["✗ the problem asks for 34 - 17 here", "✗ missing: 34 - 17; the answer"]),
    ],
)
def test_nothing_wrong_goes_without_a_mark(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], solution: str, expected: list[str]
) -> None:
    (run / "own.txt").write_text(f"{OWN}\n\n", encoding="utf-8")
    file = ("--problems-file", str(run / "own.txt"))
    lines, told = said(run, Solver(solution), monkeypatch, capsys, *file)
    assert lines[0] == OWN and len(lines) == 1 + len(expected)
    assert all(mark in line for line, mark in zip(lines[1:], expected, strict=True))
    assert "0 of 1 solutions are right" in told
    assert ("1 more have the right answer without its steps" in told) == (solution == "Answer: 17 stickers.")
    whole = "".join(re.sub(r" [✓✗].*", "", line).strip() for line in lines[1:] if "missing" not in line)
    assert re.sub(r"[⟦⟧ ]", "", whole) == solution.replace(" ", "")


@pytest.mark.parametrize(
    ("by_teacher", "expected"),
    [
        ("Answer:", ["Mia gives 17 to Ben: 34 - 17 = 17. ✓", "⟦Answer:⟧ 17 stickers. ✓"]),
        ("17. Answer:", ["Mia gives 17 to Ben: 34 - 17 = ⟦17.⟧ ✓", "⟦Answer:⟧ 17 stickers. ✓"]),
        (
            "Mia Ben: 17. Answer: stickers.",
            ["⟦Mia⟧ gives 17 to ⟦Ben:⟧ 34 - 17 = ⟦17.⟧ ✓", "⟦Answer:⟧ 17 ⟦stickers.⟧ ✓"],
        ),
    ],
)
def test_marks_are_whole_in_each_line(by_teacher: str, expected: list[str]) -> None:
    text = "Mia gives 17 to Ben: 34 - 17 = 17. Answer: 17 stickers."
    words = text.split(" ")
    teacher = tuple(word in by_teacher.split(" ") for word in words)
    tokens = tuple(f"▁{word}" for word in words)
    answer = Answer(OWN, text, tokens, teacher, unit="word", words=tuple(range(len(words))))
    found = classroom.solution_lines(answer, check_solution(text, understand(OWN)))
    assert list(found) == expected
    plain = classroom.solution_lines(answer, check_solution(text, understand(OWN)), plain=True)
    assert list(plain) == [re.sub("[⟦⟧]", "", line) for line in expected]


def test_the_calculators_words_have_marks_of_their_own_also_where_they_go_over_lines() -> None:
    text = "Mia gives 17 to Ben: 34 - 17 = 17. Answer: 17 stickers."
    words = text.split(" ")
    whose = [(word in ("Mia", "Ben:"), word in ("17.", "Answer:")) for word in words]
    answer = Answer(
        OWN,
        text,
        tuple(f"▁{word}" for word in words),
        tuple(teacher for teacher, _ in whose),
        unit="word",
        words=tuple(range(len(words))),
        calculated=tuple(tool for _, tool in whose),
    )
    assert answer.marked == "⟦Mia⟧ gives 17 to ⟦Ben:⟧ 34 - 17 = ⟨17. Answer:⟩ 17 stickers."
    assert (answer.helped, answer.by_calculator, answer.share) == (2, 2, 2 / 13)
    assert {who for _, who in answer.writers} == {"student", "teacher", "calculator"}
    assert answer.to_json()["calculated_words"] == 2
    lines = list(classroom.solution_lines(answer, check_solution(text, understand(OWN))))
    assert lines == ["⟦Mia⟧ gives 17 to ⟦Ben:⟧ 34 - 17 = ⟨17.⟩ ✓", "⟨Answer:⟩ 17 stickers. ✓"]
    alone = replace(answer, calculated=tuple(word == "Answer:" for word in words))
    lines = list(classroom.solution_lines(alone, check_solution(text, understand(OWN))))
    assert lines == ["⟦Mia⟧ gives 17 to ⟦Ben:⟧ 34 - 17 = 17. ✓", "⟨Answer:⟩ 17 stickers. ✓"]
    # Of a word in several tokens all is marked.
    parts = Answer("", "= 17.", ("▁=", "▁", "1", "7", "."), (False,) * 5, unit="word", words=(0, -1, 1, 1, 1))
    assert replace(parts, calculated=(False, True, True, True, False)).marked == "= ⟨17.⟩"
    page = answer._repr_html_()
    assert page.count("<span style=") == 3 and "⟨" not in page and "⟦" not in page


class Fixed:
    """In place of an engine."""

    def __init__(self, student: Student, **_: Any):
        self.student = student

    def close(self) -> None:
        pass


def test_the_calculator_and_the_teacher_alone_are_who_they_are_said_to_be(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = list[Any]()

    def write_in_order(engine: Fixed, texts: list[str], rule: str | None, **how: Any) -> Iterator[Done]:
        seen.append((engine.student, rule, how))
        for text in texts:
            asks = understand(text)
            words = "" if asks is None else asks.solution
            pieces = tuple(f"▁{word}" for word in words.split(" "))
            tools = tuple(before == "▁=" for before in ("", *pieces[:-1]))
            asked = (True,) + (False,) * (len(pieces) - 1)
            found = Answer(text, words, pieces, asked, unit="word", words=tuple(range(len(pieces))), calculated=tools)
            yield Done(found, True, False)

    monkeypatch.setattr("kdtw_jax.serving.engine.Engine", Fixed)
    monkeypatch.setattr("kdtw_jax.serving.in_order.write_in_order", write_in_order)
    own = student()
    rule = ("--rule", SHARE_RULE, "--calculator", "--problems", "2")
    lines, told = said(run, own, monkeypatch, capsys, *WISHES, *rule)
    assert re.fullmatch(r"  ⟦\w+⟧ .+: 34 - 17 = ⟨17\.⟩ ✓", lines[1]) and "2 of 2 solutions are right" in told
    assert re.search(
        r"^the teacher wrote 2 of \d+ words \([\d.]+%\), the calculator 4 \([\d.]+%\)$", told, re.MULTILINE
    )
    assert seen[-1] == (own, SHARE_RULE, {"guard": True, "account": "auto", "calculator": True})
    said(run, own, monkeypatch, capsys, *WISHES, *rule, "--no-guard")
    assert seen[-1][2]["guard"] is False
    lines, told = said(run, own, monkeypatch, capsys, *WISHES, "--calculator", "--teacher-alone", "--plain")
    writer, no_rule, _ = seen[-1]
    assert (writer.model, writer.teacher, no_rule, writer.unit.noun) == (own.teacher, None, None, "words")
    assert "the calculator wrote 2 of " in told and "the teacher wrote" not in told and "⟨" not in "".join(lines)
    # Without the calculator the teacher writes by itself, in tokens that its student has no part in.
    alone = replace(own, model=own.teacher, teacher=None, constraints=())
    lines, _ = said(run, own, monkeypatch, capsys, *WISHES, "--teacher-alone", "--json", "--seed", "3")
    found = json.loads(lines[0])
    assert found["solution"]["text"] == alone(found["problem"]["text"]).text != own(found["problem"]["text"]).text
    monkeypatch.setattr(classroom, "load", lambda *_, **__: alone)
    assert main(["classroom", str(run), *WISHES, "--teacher-alone"]) == 2
    assert "has no student that asks" in capsys.readouterr().err


def test_a_problem_that_is_not_understood_is_not_called_right(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "own.txt").write_text("What is 34 - 17?\n", encoding="utf-8")
    lines, _ = said(
        run, Solver("So: 34 - 17 = 17. Answer: 17."), monkeypatch, capsys, "--problems-file", str(run / "own.txt")
    )
    assert lines[1:] == ["  So: 34 - 17 = ⟦17.⟧ ? not checked", "  Answer: ⟦17.⟧ ? not checked"]


def test_json_says_problem_solution_and_check(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    solver = Solver()
    lines, _ = said(run, solver, monkeypatch, capsys, *WISHES, "--json", "--plain", "--seed", "7")
    (found,) = map(json.loads, lines)
    assert found["problem"]["answer"].startswith("42 ") and found["solution"]["text"] == found["problem"]["solution"]
    assert found["checked"] == check_solution(found["solution"]["text"], understand(found["problem"]["text"])).to_json()
    assert (
        found["checked"]["is_right"] and found["solution"]["writers"][0][1] == "student" and solver.account == "output"
    )
    assert solver.guard
    others, _ = said(run, solver, monkeypatch, capsys, *WISHES, "--json", "--seed", "8", "--no-guard")
    assert not solver.guard
    assert json.loads(others[0])["problem"]["text"] != found["problem"]["text"]


def test_a_students_own_words_are_marked_as_they_are_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, told = said(run, student(), monkeypatch, capsys, *WISHES, "--rule", SHARE_RULE, "--account", "output")
    assert len(lines) >= 3 and any("✗" in line for line in lines) and "0 of 1" in told


def test_what_is_wrong_is_said_before_a_model_is_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "none.txt").write_text("\n")
    (run / "other").mkdir()
    (run / "other" / "config.json").write_text(json.dumps({"data": "cldr"}))
    for folder, arguments, wrong in (
        (run, (), "--interest, or give your own"),
        (run, (*WISHES, "--problems-file", "x"), "--interest, or give your own"),
        (run, ("--problems-file", str(run / "missing")), "cannot be read"),
        (run, ("--problems-file", str(run / "none.txt")), "has no problems"),
        (run, ("--interest", "chess", "--grade", "1"), "there is no grade 1"),
        (run, ("--interest", "chess", "--problems", "0"), "1 to 20 problems"),
        (run, (*WISHES, "--teacher-alone", "--rule", "never ask"), "--rule does not go with --teacher-alone"),
        (run, (*WISHES, "--teacher-alone", "--method", "mle"), "--method does not go with --teacher-alone"),
        (run, (*WISHES, "--teacher-alone", "--no-guard"), "--no-guard does not go with --teacher-alone"),
        (run, (*WISHES, "--no-guard", "--account", "document"), "leave it or --no-guard out"),
        (run / "other", WISHES, "is no run of word problems"),
        (run / "none", WISHES, "is not a run's folder"),
    ):
        assert main(["classroom", str(folder), *arguments]) == 2
        error = capsys.readouterr().err
        assert wrong in error and error.count("\n") == 1


def test_problems_are_read_from_standard_input_where_there_is_one(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{OWN}\n".encode()), encoding="utf8"))
    lines, _ = said(run, Solver(), monkeypatch, capsys, "--problems-file", "-")
    assert lines[0] == OWN and len(lines) == 3
    monkeypatch.setattr("sys.stdin", None)
    assert main(["classroom", str(run), "--problems-file", "-"]) == 2
    error = capsys.readouterr().err
    assert "there is no standard input to read problems from" in error and error.count("\n") == 1


def test_demo_is_serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = list[Any]()
    monkeypatch.setattr(serve, "_serve", lambda options, _: seen.append(options))
    (tmp_path / "config.json").write_text("{}")
    demo.run([str(tmp_path), "--port", "0", "--open"])
    assert seen[0].open and seen[0].port == 0 and not serve.Serve(tmp_path).open
