"""Worksheets: word problems to a teacher's wishes, each with what it asks for read back from its own words."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from kdtw_jax.classroom.interests import named
from kdtw_jax.classroom.languages import GRAMMARS
from kdtw_jax.classroom.problems import CHAINS, SMALL, Chain, draw_specification, is_small, tell
from kdtw_jax.classroom.specification import GRADES, MEASURES, UNITS, Kind, Operation, Specification, Step
from kdtw_jax.classroom.understanding import INTEREST, Understood, understand, wrong_number
from kdtw_jax.errors import UserError

MOST = 20  # problems of a worksheet
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
_SHOWN = 6  # operations that an error names
_TRIES = 100  # at words that are new, and can be read back


@dataclass(frozen=True)
class Wishes:
    """What problems are to be like."""

    interest: str
    """what they are about: "Minecraft", "horses" """
    grade: int | None = None
    """2 to 7; None: any"""
    operations: tuple[str, ...] = ()
    """what is done, in order; none: as the grade has it"""
    numbers: tuple[str, ...] = ()
    """the first number and that of each operation, as they are written; none: they are drawn"""
    count: int = 1
    """how many problems"""
    seed: int = 0
    """of what is drawn"""
    small: bool = False
    """what is drawn are one or two steps with things, and numbers up to 30, as small models learn them"""
    language: str = "en"
    """of the problems"""


@dataclass(frozen=True)
class Exercise:
    """A word problem, and what it asks for."""

    text: str
    specification: Specification
    asks: Understood
    """read back from the text"""

    @property
    def answer(self) -> str:
        """What is right, without a full stop."""
        return self.asks.answer


def make_exercises(wishes: Wishes, places: Sequence[str] = ()) -> list[Exercise]:
    """Word problems to a person's wishes; the same ones for the same wishes.

    Args:
      wishes: what they are to be like.
      places: cities, of which one may be named.

    Raises:
      UserError: what of the wishes cannot be had, and what can.
    """
    interest = " ".join(wishes.interest.split())
    if not INTEREST.fullmatch(interest):
        raise UserError(
            f"the interest {wishes.interest!r:.60} cannot be told of: give up to 40 letters, digits, spaces, ' & or -, "
            "beginning with a letter, such as Minecraft"
        )
    if wishes.grade is not None and wishes.grade not in GRADES:
        raise UserError(f"there is no grade {wishes.grade}; use {GRADES.start} to {GRADES.stop - 1}")
    if not 1 <= wishes.count <= MOST:
        raise UserError(f"a worksheet has 1 to {MOST} problems, not {wishes.count}")
    rng = random.Random(f"{wishes.seed}")
    known = _chains(wishes)
    if wishes.numbers:
        fitting = list(_with_numbers(wishes, known, interest))
    found: dict[str, Exercise] = {}
    for _ in range(_TRIES * wishes.count):
        if wishes.numbers:
            drawn = rng.choice(fitting)
            drawn = drawn._replace(unit=_another_unit(drawn, rng))
        else:
            grade, chain = rng.choice(known)
            drawn = _draw(rng, interest, grade, chain, small=wishes.small)
            drawn = drawn._replace(grade=wishes.grade or grade)
        about = named(interest, wishes.language)
        text = tell(drawn, rng, interest=about, places=places, language=wishes.language).text
        asks = understand(text)
        if asks is not None and asks.specification == drawn._replace(grade=0):
            found.setdefault(text, Exercise(text, drawn, asks))
        if len(found) == wishes.count:
            return list(found.values())
    raise UserError(f"a problem about {interest!r} cannot be read back: take another name for it")


def _draw(rng: random.Random, interest: str, grade: int, chain: Chain, *, small: bool) -> Specification:
    if small and is_small(chain):  # as `classroom/quick` has it
        return draw_specification(rng, interest, grade=len(chain[1]) + 2, chain=chain, numbers=SMALL)
    return draw_specification(rng, interest, grade=grade, chain=chain)


def read_exercise(text: str) -> Exercise | None:
    """A problem that a person wrote, with what it asks for; None: it is not understood."""
    asks = understand(text)
    return None if asks is None else Exercise(text, asks.specification, asks)


def chains_until(grade: int | None) -> dict[tuple[str, ...], list[tuple[int, Chain]]]:
    """What can be done at a grade: the operations, and for which quantities, of the grade and those below it.

    Args:
      grade: 2 to 7; None: any.
    """
    found: dict[tuple[str, ...], list[tuple[int, Chain]]] = {}
    for known, chains in CHAINS.items():
        for chain in chains if grade is None or known <= grade else ():
            found.setdefault(chain[1], []).append((known, chain))
    return found


def _chains(wishes: Wishes) -> list[tuple[int, Chain]]:
    """What may be drawn, each with the grade that it is of; small ones where there are some and they are wished for."""
    known = _all_chains(wishes)
    small = [one for one in known if is_small(one[1])] if wishes.small else []
    if wishes.small and not small and not wishes.operations:  # of the grades below
        small = [one for chains in chains_until(wishes.grade).values() for one in chains if is_small(one[1])]
    return small or known


def _all_chains(wishes: Wishes) -> list[tuple[int, Chain]]:
    if not wishes.operations:
        own = [(grade, chain) for grade, chains in CHAINS.items() for chain in chains]
        return [(grade, chain) for grade, chain in own if wishes.grade in (None, grade)]
    for one in wishes.operations:
        if one not in OPERATIONS:
            raise UserError(f"{one!r:.40} is no operation; use {', '.join(OPERATIONS)}")
    known = chains_until(wishes.grade)
    for operations, chains in known.items():
        if operations == wishes.operations:
            return chains
    grades = [grade for grade, _ in chains_until(None).get(wishes.operations, ())]
    said = " and then ".join(wishes.operations)
    if grades:
        raise UserError(f"problems that {said} begin at grade {min(grades)}, not {wishes.grade}")
    near = [one for one in known if one[0] == wishes.operations[0]] or list(known)
    near.sort(key=lambda one: abs(len(one) - len(wishes.operations)))
    others = "; ".join(" and then ".join(one) for one in near[:_SHOWN])
    raise UserError(f"there are no problems that {said}; there are those that {others}")


def _with_numbers(wishes: Wishes, known: Sequence[tuple[int, Chain]], interest: str) -> Iterator[Specification]:
    """Problems of the numbers that are wished for, of each kind of quantity that they fit."""
    start, *numbers = map(GRAMMARS[wishes.language].notation.plain, wishes.numbers)
    wanted = [(grade, chain) for grade, chain in known if len(chain[1]) == len(numbers)]
    if not wanted:
        counts = sorted({len(chain[1]) + 1 for _, chain in known})
        said = " or ".join(map(str, counts))
        raise UserError(f"{len(wishes.numbers)} numbers; give {said}: the first, and one for each operation")
    likely = _likely(start)
    if not any(chain[0] in likely for _, chain in wanted) and (such := _chains_of(likely)):
        shown = (f"{' and then '.join(operations)} (from grade {grade})" for operations, grade in such[:_SHOWN])
        raise UserError(
            f"{wishes.numbers[0]!r} begins problems about {' or '.join(likely)}, and there are none such; there are "
            f"those that {'; '.join(shown)}, with a number for each operation after the first"
        )
    wrong: list[str] = []
    fits = False
    # What is wrong is said of quantities that the first number is one of, if there are any.
    for _, (kind, operations) in sorted(wanted, key=lambda one: one[1][0] not in likely):
        unit = {"things": "stickers", "measure": next(iter(MEASURES))}.get(kind, kind)
        steps = tuple(Step(operation, number) for operation, number in zip(operations, numbers, strict=True))
        made = Specification(wishes.grade or 0, interest, unit, start, steps)
        why = wrong_number(made)
        if why is None:
            fits = True
            yield made
        else:
            wrong.append(why)
    if not fits:
        raise UserError(wrong[0])


def _likely(start: str) -> tuple[Kind, ...]:
    """The quantities that a person means who begins with a number."""
    return ("time",) if ":" in start else ("money",) if set(start) & set(".,$") else ("things", "measure")


def _chains_of(kinds: Sequence[Kind]) -> list[tuple[tuple[str, ...], int]]:
    """What can be done with such quantities, and the first grade of each, the shortest and earliest first."""
    found = [(operations, grade) for grade, chains in CHAINS.items() for kind, operations in chains if kind in kinds]
    return sorted({one[0]: one for one in reversed(found)}.values(), key=lambda one: (len(one[0]), one[1]))


def _another_unit(specification: Specification, rng: random.Random) -> str:
    if specification.kind == "things":
        return rng.choice(UNITS)
    return rng.choice(tuple(MEASURES)) if specification.kind == "measure" else specification.unit


def exercise_json(exercise: Exercise) -> Mapping[str, object]:
    """Plain values of a problem: its text, what it is about, and what is right."""
    about = exercise.specification
    return {
        "text": exercise.text,
        "specification": {
            "line": about.line,
            "grade": about.grade or None,
            "interest": about.interest,
            "unit": about.unit,
            "start": about.start,
            "steps": [{"operation": step.operation, "number": step.number} for step in about.steps],
        },
        "solution": exercise.asks.solution,
        "answer": exercise.answer,
    }
