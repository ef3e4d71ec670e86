"""Word problems to a person's wishes, and checks of their solutions: nothing is called right that is not."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from kdtw_jax.classroom.checking import check_solution
from kdtw_jax.classroom.interests import draw_interest
from kdtw_jax.classroom.problems import CHAINS, Problem, draw_specification, tell
from kdtw_jax.classroom.understanding import Understood, understand
from kdtw_jax.classroom.workings import WAYS, Way
from kdtw_jax.classroom.worksheet import MOST, Wishes, exercise_json, make_exercises, read_exercise
from kdtw_jax.data import cldr_names
from kdtw_jax.errors import UserError

TEXT = "Mia loves Minecraft and has 34 Minecraft stickers. She gives 17 of them to Ben. How many stickers are left?"
SHARED = (
    "Mia likes chess and buys 3 packs. There are 6 chess cards in every pack. She shares them equally among 4 friends. "
)


def drawn(count: int, seed: int = 0) -> Iterator[tuple[Problem, Understood]]:
    rng = random.Random(seed)
    for _ in range(count):
        interest = draw_interest(rng)
        problem = tell(draw_specification(rng, interest.name), rng, interest=interest, places=["Ürümqi", "N’Djamena"])
        asks = understand(problem.text)
        assert asks is not None, problem.text
        yield problem, asks


def by(way: Way) -> Callable[[Sequence[Way]], Way]:
    return lambda ways: way if way in ways else "head"


def test_what_a_problem_asks_for_is_read_back_from_its_words_alone() -> None:
    for problem, asks in drawn(400):
        assert asks.solution == problem.solution()
        assert asks.specification == problem.specification._replace(grade=0)
        assert asks.answer == problem.answer


def test_a_right_solution_is_right_whichever_way_it_goes_but_not_without_steps() -> None:
    for problem, asks in drawn(200):
        for way in WAYS:
            found = check_solution(problem.solution(by(way)), asks)
            assert found.is_right and not found.missing and all(span.verdict == "right" for span in found.spans)
        alone = f"Answer: {problem.answer}."
        head = check_solution(alone, asks)
        assert not head.is_right and head.missing == asks.expressions
        assert [span.verdict for span in head.spans] == ["right"]
        assert head.is_answer_alone and head.to_json()["is_answer_alone"] and not found.is_answer_alone
        for other in (alone + " Hm.", alone.replace(": ", ": 9"), "Hm.", ""):
            assert not check_solution(other, asks).is_answer_alone
        assert not check_solution(alone, None).is_answer_alone


def mutants(text: str, rng: random.Random) -> Iterator[str]:
    """A solution with a character changed, put in or left out, and with sentences dropped, swapped or said twice."""
    for _ in range(40):
        at = rng.randrange(len(text))
        yield text[:at] + rng.choice("0123456789.,:;/%=+-×÷$ abM") + text[at + rng.randrange(2) :]
        yield text[:at] + text[at + 1 :]
    parts = text.split(". ")
    for at in range(len(parts)):
        yield ". ".join(parts[:at] + parts[at + 1 :])
        yield ". ".join([*parts[:at], parts[at], *parts[at:]])
        yield ". ".join([*parts[:at], *reversed(parts[at:])])
    yield text + " 1 + 1 = 2."
    yield text.replace("Answer", "answer")
    for count in (0, 1):  # the words of all steps left out, and of the first one
        yield re.sub(r"(^|\. )(?!Answer)[^:]*: ", r"\1: ", text, count=count)


def test_nothing_is_called_right_but_the_right_solution() -> None:
    rng = random.Random(1)
    for problem, asks in drawn(60, seed=2):
        text = problem.solution()
        for mutant in mutants(text, rng):
            found = check_solution(mutant, asks)
            # What is left of a right one where spaces and its last full stop are not looked at is the same solution.
            if mutant.replace(" ", "") != text.replace(" ", ""):
                assert not found.is_right, mutant
                assert found.missing or any(span.verdict != "right" for span in found.spans), mutant
            for one, other in pairwise(found.spans):
                assert one.end <= other.start
            if all(span.verdict == "right" for span in found.spans):  # then nothing else stands beside them
                begins = [0, *(span.end for span in found.spans)]
                ends = [*(span.start for span in found.spans), len(mutant)]
                for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
                    is_behind_words = number > 0 and found.spans[number - 1].what == "words"
                    beside = mutant[begin:end]
                    assert beside == ": " if is_behind_words else not beside.strip(" ."), mutant
            for span in found.spans:
                said = mutant[span.start : span.end].replace(" ", "")
                if span.verdict == "right":  # each part that is called right stands in the right solution
                    assert said in text.replace(" ", ""), (mutant, span)
                else:
                    assert span.note or span.what == "words"


def test_an_answer_is_said_once_and_at_the_end() -> None:
    for problem, asks in drawn(40, seed=5):
        text = problem.solution()
        steps, answer = text.split(" Answer: ")
        assert not check_solution(steps, asks).is_right and check_solution(steps, asks).missing == ("the answer",)
        for more in (f"Answer: {answer}", steps, "Hm.", "1 + 1 = 2."):
            found = check_solution(f"{text} {more}", asks)
            assert not found.is_right and all(span.verdict != "right" for span in found.spans if span.start > len(text))
        assert not check_solution(f"Answer: {answer} {steps}", asks).is_right


def test_another_problems_solution_is_not_right() -> None:
    known = list(drawn(60, seed=3))
    for (_, asks), (other, _) in pairwise(known):
        if other.solution() != asks.solution:
            assert not check_solution(other.solution(), asks).is_right


def verdicts(text: str, problem: str = TEXT) -> list[tuple[str, str, str, str]]:
    found = check_solution(text, understand(problem)).spans
    return [(text[span.start : span.end], span.what, span.verdict, span.note) for span in found]


def test_a_calculation_is_wrong_or_not_the_one_that_is_asked_for() -> None:
    words = ("Mia gives 17 to Ben", "words", "right", "")
    assert verdicts("Mia gives 17 to Ben: 34 - 17 = 18. Answer: 18 stickers.") == [
        words,
        ("34 - 17 = 18", "calculation", "wrong", "right is 17"),
        ("Answer: 18 stickers.", "answer", "wrong", "right is 17 stickers"),
    ]
    asked = "the problem asks for 34 - 17 here"
    for other in ("34 + 17 = 51", "17 + 17 = 34", "35 - 17 = 18"):
        assert verdicts(f"Mia gives 17 to Ben: {other}.") == [words, (other, "calculation", "unexpected", asked)]
    for wrong in ("34 - 17 = 17.5", "34 - 17 = 17,5", "34 - 17 = 17%", "34 - 17 =", "34 - 17 = 17:00"):
        assert verdicts(f"Mia gives 17 to Ben: {wrong}.")[1][2] == "wrong"
    assert verdicts("Mia gives 17 to Ben: 5 + 34 - 17 = 17.")[1][2] == "wrong"
    assert verdicts("Mia gives 17 to Tom: 34 - 17 = 17.")[0][2:] == (
        "unexpected",
        'the problem says "Mia gives 17 to Ben"',
    )
    for other in ("34 - 20 = 14, 14 + 4 = 18", "30 - 20 = 10, 10 + 7 = 17", "34 - 20 = 14, 15 + 2 = 17"):
        assert "right" not in [found[2] for found in verdicts(f"Mia gives 17 to Ben: {other}.")[1:]]
    for solution in (": 34 - 17 = 17. Answer: 17 stickers.", "34 - 17 = 17. Answer: 17 stickers."):
        assert not check_solution(solution, understand(TEXT)).is_right
        assert [found[2] for found in verdicts(solution)].count("unexpected") == 1
    time = "Ben loves chess. The chess show begins at 14:35. It lasts 40 minutes. What time is it then?"
    assert [found[2] for found in verdicts("It lasts 40 minutes: 14:35 + 40 min = 14:75.", time)] == ["right", "wrong"]


def test_what_is_checked_while_it_is_written_is_never_taken_back() -> None:
    for problem, asks in drawn(15, seed=4):
        for text in (problem.solution(by("written")), problem.solution().replace("1", "2")):
            before = check_solution("", asks, finished=False)
            for end in range(len(text) + 1):
                found = check_solution(text[:end], asks, finished=False)
                assert found.checked_to >= before.checked_to and not found.is_right
                assert found.spans[: len(before.spans)] == before.spans
                assert all(span.end <= found.checked_to for span in found.spans)
                before = found
            whole = check_solution(text, asks)
            assert whole.spans[: len(before.spans)] == before.spans and whole.checked_to == len(text)


@pytest.mark.parametrize(
    "text",
    [
        "Mia loves Minecraft and has 34 Minecraft stickers. She gives 17 of them to Mia. How many stickers are left?",
        "Mia loves Minecraft and has 34 Minecraft stickers. He gives 17 of them to Ben. How many stickers are left?",
        "Mia loves Minecraft and has 34 Minecraft stickers. She gives 35 of them to Ben. How many stickers are left?",
        "Mia loves Minecraft and has 34 Minecraft stickers. She gives 17 of them to Ben. How many cards are left?",
        TEXT.replace("How many stickers are left?", "How many stickers does Ben have now?"),
        TEXT.replace("How", "Then Ben is ill. How"),
        TEXT.replace("How", "She has been to the market and sold all of them 3 times. How"),
        TEXT.replace("How", "She has been to Paris and sold all of them 3 times. How"),
        TEXT.replace("34", "034"),
        TEXT.replace("34", "3٤"),
        TEXT.replace("17", "33"),
        SHARED + "How many cards does each friend get?",
        SHARED + "How many cards are left?",
        SHARED + "She buys 3 more. How many cards does Mia have now?",
        TEXT + " " * 2000,
        "What is 3 + 4?",
        "",
    ],
)
def test_what_a_problem_means_is_not_guessed(text: str) -> None:
    assert read_exercise(text) is None
    found = check_solution("Mia gives 17 to Ben: 34 - 17 = 17. 2 + 2 = 5. Answer: 17 stickers.", None)
    assert not found.is_right and not found.is_understood
    assert [span.verdict for span in found.spans if span.what != "words"] == ["unchecked", "wrong", "unchecked"]


def test_a_problem_of_a_persons_own_is_understood_in_sentences_of_ours() -> None:
    asks = understand(SHARED + "How many cards does each friend get, and how many are left over?")
    assert asks is not None and asks.answer == "4 cards each, 2 left over"
    assert asks.solution.startswith(
        "Mia buys 3 packs of 6: 3 × 6 = 18. Mia shares them among 4 friends: 18 ÷ 4 = 4 rem"
    )


def test_every_city_may_be_named() -> None:
    cities = [slot.text("en", "") for slot in cldr_names.cities()]
    for city in (*cities, "Port-au-Prince", "Xi'an"):
        asks = understand(TEXT.replace("How", f"She has been to {city} 3 times. How"))
        assert asks is not None and asks.answer == "17 stickers", city
    assert len(cities) > 50


def test_problems_are_to_a_persons_wishes() -> None:
    wishes: dict[str, Any] = {"operations": ("subtract", "add"), "numbers": ("34", "17", "25")}
    for interest in ("Minecraft", "K-pop", "Beyoncé", "Formula 1", "and has 5 and", "R&B"):
        found = make_exercises(Wishes(interest, 4, **wishes, count=5, seed=3))
        assert len({one.text for one in found}) == 5
        for one in found:
            assert interest in one.text and one.answer.split()[0] == "42"
            assert one.specification.line.startswith(f"grade 4, interest: {interest}, ")
            assert exercise_json(one)["answer"] == one.answer
            assert check_solution(one.asks.solution, understand(one.text)).is_right
    assert len(make_exercises(Wishes("chess", count=MOST))) == MOST
    assert make_exercises(Wishes("chess", 5, count=3, seed=1)) == make_exercises(Wishes("chess", 5, count=3, seed=1))
    assert make_exercises(Wishes("chess", 5, seed=1)) != make_exercises(Wishes("chess", 5, seed=2))
    assert make_exercises(Wishes("chess", numbers=("14:35", "50", "20")))[0].answer == "15:45"
    for grade in range(2, 8):
        assert {one.specification.grade for one in make_exercises(Wishes("chess", grade, count=3))} == {grade}


def test_small_problems_are_of_things_with_numbers_that_small_models_learn() -> None:
    for grade in (None, *range(2, 8)):
        made = make_exercises(Wishes("chess", grade, count=8, seed=grade or 0, small=True))
        for one in made:
            about, kept = one.specification, {"1/2", "1/3", "2/3", "1/4", "3/4", "1/5", "2/5", "3/5", "4/5"}
            assert about.kind == "things" and len(about.steps) <= 2
            assert all(step.number in kept or int(step.number) <= 60 for step in about.steps) and int(about.start) <= 30
        if grade in (3, 4, 5):  # the grade's own
            assert {("things", one.specification.operations) for one in made} <= {*CHAINS[grade]}
    # What is asked for outright is had, be it small or not.
    (sums,) = make_exercises(Wishes("chess", 7, ("add", "add", "add"), small=True))
    assert sums.specification.kind == "money"
    (big,) = make_exercises(Wishes("chess", numbers=("340", "170", "250"), small=True))
    assert big.specification.kind == "things"


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"grade": 9}, "no grade 9; use 2 to 7"),
        ({"operations": ("sum",)}, "'sum' is no operation; use add, subtract"),
        ({"operations": ("divide", "add")}, "there are no problems that divide and then add; there are those that"),
        ({"operations": ("add", "divide"), "grade": 2}, "begin at grade 4, not 2"),
        ({"operations": ("subtract",), "numbers": ("34", "40")}, "subtract '40' does not go with 34: give less"),
        ({"operations": ("add",), "numbers": ("34", "1/2")}, "whole number from 1 to 9999"),
        ({"operations": ("add", "add"), "numbers": ("7.5", "2.00", "1.00")}, 'two decimals, such as "7.50"'),
        ({"operations": ("keep", "add"), "numbers": ("34", "1/3", "2")}, "comes to a whole number"),
        ({"operations": ("add",), "numbers": ("34", "1", "2")}, "3 numbers; give 2: the first, and one for each"),
        ({"operations": ("subtract",), "numbers": ("34", "33")}, "34 - 33 is 1: give numbers that do not come to 1"),
        ({"operations": ("divide",), "numbers": ("7", "5")}, "7 ÷ 5 is 1 remainder 2: give numbers that do not"),
        ({"operations": ("add",), "numbers": ("34", "1٣")}, "add '1٣' does not go with 34: give a whole number"),
        ({"operations": ("add",), "numbers": ("3٤", "13")}, "begins with a whole number"),
        ({"numbers": ("3.50", "2.25")}, "about money, and there are none such; there are those that "),
        (
            {"operations": ("add",), "numbers": ("14:35", "50")},
            "none such; there are those that add and then",
        ),
        ({"operations": ("keep",), "numbers": ("34", "1/٢")}, "give a part of the whole"),
        ({"operations": ("add", "add"), "numbers": ("7.5٠", "2.00", "1.00")}, 'two decimals, such as "7.50"'),
        ({"numbers": ("14:3٥", "5", "5")}, "a time from 1:00 to 23:59"),
        ({"numbers": ("25:00", "5", "5")}, "a time from 1:00 to 23:59"),
        ({"count": 0}, "1 to 20 problems, not 0"),
        ({"count": 21}, "1 to 20 problems, not 21"),
        ({"interest": "a, b"}, "beginning with a letter"),
        ({"interest": "St. John"}, "beginning with a letter"),
        ({"interest": "7 7"}, "beginning with a letter"),
        ({"interest": "x" * 41}, "up to 40"),
        ({"interest": ""}, "such as Minecraft"),
    ],
)
def test_what_cannot_be_had_is_said_with_what_can(wishes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        make_exercises(Wishes(**{"interest": "chess", **wishes}))
    assert said in str(refused.value) and "\n" not in str(refused.value)
