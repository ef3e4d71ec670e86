"""German word problems: what is drawn reads back and is solved rightly, and English ones are as they were before."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from kdtw_jax.classroom.arithmetic import calculations
from kdtw_jax.classroom.checking import check_solution
from kdtw_jax.classroom.grammar import SHARINGS
from kdtw_jax.classroom.interests import are_one, draw_interest, named
from kdtw_jax.classroom.kinds import word_kinds
from kdtw_jax.classroom.languages import GRAMMARS, language_of
from kdtw_jax.classroom.notation import NOTATIONS
from kdtw_jax.classroom.problems import CHAINS, Problem, answer_of, draw_specification, tell
from kdtw_jax.classroom.reading import read_problem
from kdtw_jax.classroom.specification import results
from kdtw_jax.classroom.understanding import understand
from kdtw_jax.classroom.workings import WAYS
from kdtw_jax.classroom.worksheet import Wishes, make_exercises, read_exercise
from kdtw_jax.data import cldr_names
from kdtw_jax.data.classroom import classroom_pairs
from kdtw_jax.helpers import calculate
from kdtw_jax.metrics.scores import score
from kdtw_jax.serving.classroom import language_of as language_of_run
from kdtw_jax.serving.classroom import places, problems_of
from tests.test_classroom_command import Solver, said
from tests.test_worksheets import by, mutants

TEXT = "Mia liebt Minecraft und hat 34 Minecraft-Sticker. Sie gibt Ben 17 davon. Wie viele Sticker bleiben übrig?"
SHARED = "Mia mag Schach sehr und kauft 3 Packungen. In jeder Packung sind 6 Schach-Karten. "
ENGLISH = {
    "quick": "0454f0fcc909b760",
    "solve": "ccbd7c2dc19be685",
    "ways": "dac51f6e5ceca665",
    "large": "9e6ef99c47980f9a",
    "write": "4faa333bedf0aaaa",
}


@cache
def drawn() -> list[Problem]:
    """Problems of every chain of operations, and of all grades."""
    rng, problems = random.Random(7), list[Problem]()
    chains = [(grade, chain) for grade, chains in CHAINS.items() for chain in chains]
    for grade, chain in 5 * chains:
        interest = draw_interest(rng, "de")
        specification = draw_specification(rng, interest.name, grade=grade, chain=chain)
        problems.append(tell(specification, rng, interest=interest, places=("Ürümqi",), language="de"))
    return problems


@pytest.mark.parametrize("name", ENGLISH)
def test_english_problems_and_solutions_are_what_they_were(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained on them stays comparable. Cities are CLDR's, and differ by its release."""
    monkeypatch.setattr(cldr_names, "cities", lambda: [cldr_names.plain("Cairo", "Kairo")])
    text = json.dumps(classroom_pairs(name, limit=80), ensure_ascii=False)
    assert hashlib.blake2b(text.encode(), digest_size=8).hexdigest() == ENGLISH[name]


def test_what_a_problem_asks_for_is_read_back_from_its_words_alone() -> None:
    for problem in drawn():
        meant = problem.specification._replace(grade=0)
        assert read_problem(problem.text) == read_problem(problem.text, "de") == meant, problem.text
        assert read_problem(problem.text, "en") is None
        asks = understand(problem.text)
        assert asks is not None and asks.language == "de" and asks.specification == meant
        assert asks.solution == problem.solution() and asks.answer == problem.answer
        assert "{" not in problem.text + problem.solution()


def test_solutions_are_right_in_the_notation_of_german_schools() -> None:
    signs = set[str]()
    for problem in drawn():
        asks, reached = understand(problem.text), results(problem.specification) or []
        for way in WAYS:
            solution = problem.solution(by(way))
            signs |= set(solution)
            found = calculations(solution, "de")
            assert found and all(one.is_right and one.result == one.written for one in found), solution
            assert check_solution(solution, asks).is_right, solution
            assert answer_of(solution) == problem.answer and language_of(solution) == "de"
            assert re.search(r"\d\.\d|[×÷$]|\bof\b|remainder|[aA]nswer|\d%", solution) is None, solution
            assert len(word_kinds(solution)) == len(solution.split())
        assert [one.written for one in calculations(problem.solution(), "de")] == list(asks.results if asks else ())
        number = re.split("[ :]", reached[-1])[0].replace(".", ",")
        assert problem.answer.startswith(number)
    assert {"·", ":", "€", "%", ","} <= signs


def test_every_word_of_a_german_solution_has_its_kind() -> None:
    solution = (
        "Mia hat 9 Kisten mit je 3: 9 · 3 = 27. Mia packt immer 5 in eine Tüte: 27 : 5 = 5 Rest 2. Antwort: 5 Tüten."
    )
    kinds = dict.fromkeys(("calculated", "answer", "copied", "sign", "name"), "")
    for word, kind in zip(solution.split(), word_kinds(solution), strict=True):
        if kind != "word":
            kinds[kind] += f"{word} "
    assert kinds == {
        "calculated": "27. 5 2. ",
        "answer": "5 ",
        "copied": "9 3: 9 3 5 27 5 ",
        "sign": "· = : = ",
        "name": "Mia Mia ",
    }


def test_nothing_is_called_right_but_the_right_solution() -> None:
    rng = random.Random(1)
    for problem in drawn()[::6]:
        text, asks = problem.solution(), understand(problem.text)
        for mutant in (*mutants(text, rng), text.replace("Antwort", "Answer"), text.replace("Rest", "remainder")):
            if mutant.replace(" ", "") != text.replace(" ", ""):
                found = check_solution(mutant, asks)
                assert not found.is_right, mutant
                assert found.missing or any(span.verdict != "right" for span in found.spans), mutant


def test_what_is_checked_while_it_is_written_is_never_taken_back() -> None:
    for problem in drawn()[::50]:
        for asks in (understand(problem.text), None):
            text = problem.solution(by("written"))
            before = check_solution("", asks, finished=False, language="de")
            for end in range(len(text) + 1):
                found = check_solution(text[:end], asks, finished=False, language="de")
                assert found.checked_to >= before.checked_to and found.spans[: len(before.spans)] == before.spans
                before = found


def test_of_a_problem_that_is_not_understood_only_wrong_calculations_are_found() -> None:
    text = "Dann: 2 · 3,50 = 7,00. Dann: 17 : 5 = 3 Rest 2. Dann: 25 % von 8 = 3. Antwort: 7."
    found = check_solution(text, None, language="de")
    judged = [(text[span.start : span.end], span.verdict, span.note) for span in found.spans if span.what != "words"]
    assert [verdict for _, verdict, _ in judged] == ["unchecked", "unchecked", "wrong", "unchecked"]
    assert judged[2] == ("25 % von 8 = 3", "wrong", "right is 2")


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("Ben", "Mia"),
        TEXT.replace("Sie gibt", "Er gibt"),
        TEXT.replace("17", "35"),
        TEXT.replace("Wie viele Sticker", "Wie viele Karten"),
        TEXT.replace("Wie viele Sticker bleiben übrig?", "Wie viele Sticker hat Ben jetzt?"),
        TEXT.replace("Minecraft-Sticker", "Pferde-Sticker"),
        TEXT.replace("Wie", "Dann ist Ben krank. Wie"),
        TEXT.replace("Sie gibt Ben 17 davon.", "She gives 17 of them to Ben."),
        "Mia liebt Schach und hat 34 Meter Schach-Seil. Sie kauft 3 Gramm dazu. Wie viele Meter hat Mia jetzt?",
        SHARED + "Sie verteilt sie gleichmäßig an 4 Kinder. Wie viele Karten bekommt jedes Kind?",
        SHARED + "Sie verteilt sie gleichmäßig an 4 Kinder. Wie viele Karten bleiben übrig?",
    ],
)
def test_what_a_problem_means_is_not_guessed(text: str) -> None:
    assert read_exercise(text) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kauft", "verkauft"),
        ("gibt", "nimmt"),
        ("verliert", "findet"),
        ("behält", "verschenkt"),
        ("bekommt", "verliert"),
        ("verdient", "verliert"),
        ("gleichmäßig", "beliebig"),
        ("kleinere", "größere"),
        ("Minuten", "Stunden"),
        ("Wie viele", "Wie viel"),
    ],
)
def test_another_word_is_another_problem_or_none(old: str, new: str) -> None:
    changed = 0
    for problem in drawn():
        if re.search(rf"\b{old}\b", problem.text):
            changed += 1
            text = re.sub(rf"\b{old}\b", new, problem.text)
            assert read_problem(text) != problem.specification._replace(grade=0), text
    assert changed >= 5


def test_an_interest_is_one_thing_before_a_noun_and_several_when_it_is_loved() -> None:
    rng = random.Random(3)
    several = 0
    for language in GRAMMARS:
        for _ in range(500):
            one, other = draw_interest(rng, language), draw_interest(rng, language)
            assert are_one(one.name, one.short, language)
            assert one.name == other.name or not are_one(one.name, other.short, language)
            several += one.name != one.short
    assert several > 400
    assert named("Taylor Swift", "de").short == "Taylor-Swift" and are_one("Taylor Swift", "Taylor-Swift", "de")


def test_every_city_may_be_named() -> None:
    for city in places("de"):
        asks = understand(TEXT.replace("Wie", f"Sie hat schon 12 Briefe aus {city} bekommen. Wie"))
        assert asks is not None and asks.answer == "17 Sticker", city
    assert "Kairo" in places("de") and "Cairo" in places()


def test_grammars_have_the_same_kinds_operations_units_and_blanks() -> None:
    english = GRAMMARS["en"]
    for grammar in GRAMMARS.values():
        assert grammar.starts.keys() == english.starts.keys() == grammar.questions.keys()
        assert all(grammar.steps[kind].keys() == english.steps[kind].keys() for kind in english.steps)
        assert grammar.divided.keys() == grammar.left_over.keys() == set(SHARINGS)
        assert all(grammar.divided[one] != grammar.left_over[one] for one in SHARINGS)
        assert grammar.units.keys() == english.units.keys() and len(set(grammar.units.values())) == len(grammar.units)
        assert [person.name for person in grammar.people] == [person.name for person in english.people]
        for line, clause in _lines(grammar.language):
            assert set(re.findall(r"\{(\w+)\}", clause)) - {"n", "o"} <= set(re.findall(r"\{(\w+)\}", line)), clause
            assert "{b}" in line and "{b}" in clause


def _lines(language: str) -> Iterator[tuple[str, str]]:
    grammar = GRAMMARS[language]
    yield from grammar.groups
    for operations in grammar.steps.values():
        for lines in operations.values():
            yield from lines


def test_a_notation_goes_there_and_back() -> None:
    plain = "7.50 + 2.25 = 9.75, 17 ÷ 5, so 3 × 5 = 15, 25% of 80 = 20, 3/4 of 24 = 18, 17 ÷ 5 = 3 remainder 2"
    for notation in NOTATIONS.values():
        assert notation.plain(notation.written(plain)) == plain
    assert NOTATIONS["en"].written(plain) == plain
    assert NOTATIONS["de"].plain("2,5 + 1,250") == "2,5 + 1,250"
    assert NOTATIONS["de"].written("2 × 3.75 = 7.50") == "2 · 3,75 = 7,50"
    wrong = ("7,5 + 3 = 8", "17 : 5 = 3 Rest 1", "34 - 17 = 17,5", "1 + 7,50 + 2,25 = 9,75", "25 % von 80 = 25")
    assert not any(one.is_right for text in wrong for one in calculations(text, "de"))


def test_the_calculator_says_what_german_solutions_are_checked_by() -> None:
    for problem in drawn():
        solution = problem.solution(by("written"))
        for one in calculations(solution, "de"):
            assert calculate(solution[: one.start], "de") == one.written, solution
    assert calculate("Mia bezahlt 7,50 € + 2,25 =", "de") is None
    for doubtful in ("1.000 + 5 =", "3 · 1.200 =", "12,345 + 1 =", "1,500 + 2 =", "0.5 + 0.5 =", "7,5 + 1 ="):
        assert calculate(doubtful, "de") is None
    assert calculate("Sie hat 5. 3 + 4 =", "de") == "7"
    assert calculate("7,50 + 2,25 =") is None and calculate("7.50 + 2.25 =") == "9.75"


def test_metrics_judge_german_solutions() -> None:
    problems = drawn()[:200]
    references = [problem.solution() for problem in problems]
    assert score("right", references, references, resamples=1).value == 100
    assert score("calculations", references, references, resamples=1).value == 100
    assert score("in_head", references, references, resamples=1).value == 0
    wrong = [re.sub(r"= (\d)", r"= 1\1", text) for text in references]
    assert score("calculations", wrong, references, resamples=1).value == 0
    assert score("right", [text.replace("Antwort: ", "Antwort: 1") for text in references], references).value == 0
    english = [text.replace("Antwort:", "Answer:") for text in references]
    assert score("calculations", english, references, resamples=1).value == 100  # by the language that was wanted
    alone = [problem.answer_line for problem in problems]
    assert [score(name, alone, references, resamples=1).value for name in ("in_head", "right")] == [100, 100]
    assert score("in_head", ["Answer: 3"], references[:1], resamples=1).value == 0  # the wrong language's
    assert score("specification", [p.text for p in problems], [p.text for p in problems], resamples=1).value == 100


def test_problems_are_to_a_persons_wishes() -> None:
    wishes = ("subtract", "add"), ("34", "17", "25")
    for interest in ("Minecraft", "K-Pop", "Taylor Swift", "Formel 1", "und hat 5 und", "Pferde", "Märchenbücher"):
        for one in make_exercises(Wishes(interest, 4, *wishes, count=5, language="de"), places("de")):
            assert interest in one.text and one.answer.split()[0] == "42" and one.asks.language == "de"
    for grade in range(2, 8):
        made = make_exercises(Wishes("Schach", grade, count=5, seed=grade, language="de"))
        assert all(check_solution(one.asks.solution, understand(one.text)).is_right for one in made)
    for numbers in (("7,50", "2,25", "1,00"), ("7.50", "2.25", "1.00")):
        (one,) = make_exercises(Wishes("Schach", 5, ("add", "subtract"), numbers, language="de"))
        assert "7,50 €" in one.text and one.answer == "8,75 €"


def test_the_language_of_problems_follows_the_run(tmp_path: Path) -> None:
    for data, language in (
        ("classroom", "en"),
        ("classroom/solve", "en"),
        ("classroom/solve-de", "de"),
        ("classroom/quick-de", "de"),
        ("classroom/ways-de", "de"),
        ("debian/en-de", "en"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"data": data}))
        assert language_of_run(tmp_path) == language
    body = {"interest": "Minecraft", "operations": ["subtract"], "numbers": ["34", "17"]}
    (made,) = problems_of(body, "all", "de")["problems"]
    assert "Minecraft-" in made["text"] and "34 - 17 = 17. Antwort: 17 " in made["solution"]
    assert made["specification"]["line"].startswith("interest: Minecraft, ")


def test_the_command_makes_german_problems_for_a_run_of_german_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"data": "classroom/solve-de"}))
    wishes = ("--interest", "Taylor Swift", "--operations", "subtract", "add", "--numbers", "34", "17", "25")
    lines, told = said(tmp_path, Solver(), monkeypatch, capsys, *wishes, "--plain")
    assert "Taylor-Swift-" in lines[0] and re.fullmatch(r"  Antwort: 42 \w+\. ✓", lines[-1])
    assert len(lines) == 4 and "1 of 1 solutions are right" in told
