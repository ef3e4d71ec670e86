"""Which words of a solution are calculated, copied or said."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import solutions
from kdtw_jax.answers import Answer
from kdtw_jax.classroom.arithmetic import calculations, evaluate
from kdtw_jax.classroom.interests import draw_interest
from kdtw_jax.classroom.kinds import word_kinds
from kdtw_jax.classroom.problems import draw_specification, tell
from kdtw_jax.errors import UserError
from kdtw_jax.text.words import word_numbers
from tests.served import student


def test_every_word_of_a_solution_has_its_kind() -> None:
    solution = "Mia has 9 boxes of 3: 9 × 3 = 27. Mia puts them into bags of 5: 27 ÷ 5 = 5 remainder 2. Answer: 5 bags."
    kinds = dict.fromkeys(("calculated", "answer", "copied", "sign", "name"), "")
    for word, kind in zip(solution.split(), word_kinds(solution), strict=True):
        if kind != "word":
            kinds[kind] += f"{word} "
    assert kinds == {
        "calculated": "27. 5 2. ",
        "answer": "5 ",
        "copied": "9 3: 9 3 5: 27 5 ",
        "sign": "× = ÷ = ",
        "name": "Mia Mia ",
    }


def test_a_solution_calculates_as_many_numbers_as_its_problem_has_steps() -> None:
    rng = random.Random(1)
    for _ in range(200):
        interest = draw_interest(rng)
        problem = tell(draw_specification(rng, interest.name), rng, interest=interest)
        solution = problem.solution()
        kinds = word_kinds(solution)
        remainders = sum("remainder" in one.written for one in calculations(solution))
        assert kinds.count("calculated") == len(problem.specification.steps) + remainders
        assert "answer" in kinds
        assert len(kinds) == len(solution.split())


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("34 - 17", "17"),
        ("6 × 7", "42"),
        ("6 x 7", "42"),
        ("17 ÷ 5", "3 remainder 2"),
        ("20 : 5", "4"),
        ("3/4 of 24", "18"),
        ("2/3 of 5", "10/3"),
        ("25% of 80", "20"),
        ("23:50 + 20 min", "0:10"),
        ("7.50 + 2.25", "9.75"),
        ("2 × 3.75", "7.50"),
    ],
)
def test_calculations_are_carried_out_exactly(expression: str, result: str) -> None:
    assert evaluate(expression) == result
    (one,) = calculations(f"Mia knows: {expression} = {result}.")
    assert one.is_right


@pytest.mark.parametrize("expression", ["5 ÷ 0", "1/0 of 4", "17 - 34", "25:00 + 5 min", "2 + 2 + 2", "__import__", ""])
def test_what_is_no_calculation_has_no_result(expression: str) -> None:
    assert evaluate(expression) is None


@pytest.mark.parametrize(
    "text", ["5 + 34 - 17 = 17", "34 - 17 = 17,5", "34 - 17 = 17.5", "14:25 + 50 min = 14:75", "2 × 30 - 10 = 20"]
)
def test_what_goes_on_before_or_behind_is_part_of_a_calculation(text: str) -> None:
    assert [one.is_right for one in calculations(text)] == [False]


@pytest.mark.parametrize("written", ["18", "7", "170", "1", ""])
def test_a_wrong_result_is_not_right(written: str) -> None:
    (one,) = calculations(f"34 - 17 = {written}.")
    assert not one.is_right


@pytest.mark.parametrize(
    "data", ["classroom/write", "classroom/outline", "classroom:gsm_symbolic", "classroom/x", "cldr"]
)
def test_solutions_are_looked_at_in_runs_that_solve_word_problems(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solutions, "restore", lambda run: ("translation", SimpleNamespace(data=data)))
    with pytest.raises(
        UserError, match=rf"^some is of {data}; this is for runs of classroom, classroom/solve, [^\n]*$"
    ):
        solutions.main(solutions.Args(Path("some")))


def test_helpers_are_paid_by_the_word_and_a_teacher_that_writes_alone_for_all_of_its_own() -> None:
    own = student()
    marks = own.model.tokenizer.words
    ids = own.model.tokenizer.encode_target("1 + 2 = 33 or so")
    pieces = [own.pieces[i] for i in ids]
    words = word_numbers(marks, ids)
    tool, asked = [word == 4 for word in words], [word in (0, 5) for word in words]
    answer = Answer("", "", (*pieces, "</s>"), (*asked, False), calculated=(*tool, False))
    (use,) = solutions.helper_uses(own, [answer], 0.1, own="student")
    assert (use.words, use.words_K) == (7, (2, 1)) and use.cost == pytest.approx(2.1)
    (use,) = solutions.helper_uses(own, [answer], 0.1, own="teacher")  # and for the end of the text
    assert (use.words, use.words_K) == (7, (6, 1)) and use.cost == pytest.approx(7.1)
    assert [name for _, name in answer.writers].count("calculator") == 2
