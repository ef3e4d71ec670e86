"""Word problems: what they are about is drawn, then told in sentences, and solved in several ways."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from kdtw_jax.classroom.grammar import Sharing
from kdtw_jax.classroom.interests import Interest
from kdtw_jax.classroom.languages import GRAMMARS, language_of
from kdtw_jax.classroom.people import Person
from kdtw_jax.classroom.specification import MEASURES, THINGS, UNITS, Kind, Operation, Specification, Step, results
from kdtw_jax.classroom.workings import Way, workings

_ANY: tuple[Operation, ...] = ("add", "subtract")
# What is done at a grade: the kind of quantity, and operations in order.
Chain = tuple[Kind, tuple[Operation, ...]]
CHAINS: dict[int, tuple[Chain, ...]] = {
    2: (("things", ("add",)), ("things", ("subtract",)), ("measure", ("add",)), ("measure", ("subtract",))),
    3: (
        ("things", ("multiply",)),
        *(("things", (one, other)) for one in _ANY for other in _ANY),
        *(("measure", (one, other)) for one in _ANY for other in _ANY),
    ),
    4: (
        *(("things", ("multiply", other)) for other in _ANY),
        *(("things", (one, "divide")) for one in _ANY),
        *(("things", (one, "multiply")) for one in _ANY),
        ("things", ("multiply", "divide")),
        ("things", ("divide",)),
    ),
    5: (
        ("things", ("keep",)),
        *(("things", ("keep", other)) for other in (*_ANY, "multiply", "divide")),
        *(("things", (one, "keep")) for one in _ANY),
        *(("money", (one, other)) for one in _ANY for other in _ANY),
    ),
    6: (
        *(("measure", ("keep", other)) for other in _ANY),
        *(("measure", (one, "keep")) for one in _ANY),
        ("time", ("add", "add")),
        ("things", ("multiply", "keep")),
    ),
    7: (
        *(("things", ("multiply", one, other)) for one in _ANY for other in (*_ANY, "divide", "keep")),
        *(("things", (one, other, "divide")) for one in _ANY for other in _ANY),
        *(("measure", (one, other, "keep")) for one in _ANY for other in _ANY),
        *(("money", (one, other, third)) for one in _ANY for other in _ANY for third in _ANY),
    ),
}
SMALL = range(2, 31)  # numbers that small models learn to calculate with in minutes
_FRACTIONS = ("1/2", "1/3", "2/3", "1/4", "3/4", "1/5", "2/5", "3/5", "4/5")
_PERCENTS = ("10%", "20%", "25%", "50%", "75%")


class Problem(NamedTuple):
    """A word problem and its solutions."""

    specification: Specification
    text: str
    # Of a solution: the words before a calculation, and that without its result, in the plain notation.
    steps: tuple[tuple[str, str], ...]
    answer: str  # without the mark of an answer and the full stop
    language: str = "en"

    def solution(self, choose: Callable[[Sequence[Way]], Way] = lambda ways: "head") -> str:
        """Each step with its calculation, and the answer line.

        Args:
          choose: the way in which a calculation is carried out, of those that there are of it, "head" first; by default
            in one's head.
        """
        found, grammar = [], GRAMMARS[self.language]
        for clause, expression in self.steps:
            ways = workings(expression)
            found.append(f"{clause}: {grammar.notation.written(ways[choose(tuple(ways))])}.")
        return " ".join([*found, self.answer_line])

    @property
    def answer_line(self) -> str:
        """What every solution ends in, and all of one that is found in one's head."""
        return f"{GRAMMARS[self.language].answer} {self.answer}."


def is_small(chain: tuple[Kind, Sequence[str]]) -> bool:
    """Whether a chain (kind of quantity, operations) is one of those that small models are trained on."""
    return chain[0] == "things" and len(chain[1]) < 3


def answer_of(solution: str) -> str:
    """What a solution of any language says after "Answer:", without the full stop; "" where it says none."""
    mark = GRAMMARS[language_of(solution)].answer
    return solution.rpartition(mark)[2].strip().removesuffix(".") if mark in solution else ""


def draw_specification(
    rng: random.Random,
    interest: str,
    *,
    grade: int | None = None,
    chain: Chain | None = None,
    numbers: range = range(2, 100),
) -> Specification:
    """A problem's numbers.

    Args:
      rng: draws them.
      interest: what it is about.
      grade: 2 to 7; None: any.
      chain: kind of quantity and operations; None: one of the grade's.
      numbers: the first number, and what sums may come to.
    """
    grade = rng.choice(tuple(CHAINS)) if grade is None else grade
    kind, operations = rng.choice(CHAINS[grade]) if chain is None else chain
    unit = {"things": rng.choice(UNITS), "measure": rng.choice(tuple(MEASURES)), "money": "money"}.get(kind, "time")
    most = min(numbers.stop, 50) if grade == 2 else numbers.stop
    while True:
        steps = list[Step]()
        start = _start(rng, kind, operations[0], range(numbers.start, most))
        left: int | None = _units(start, kind)
        for operation in operations:
            if left is None:
                break
            drawn = _number(rng, kind, operation, left, most, first=not steps, percents=grade == 6)
            if drawn is None:
                left = None
                break
            number, left = drawn
            steps.append(Step(operation, number))
        found = Specification(grade, interest, unit, start, tuple(steps))
        reached = results(found) if left is not None else None
        if reached is not None and reached[-1].split(" ")[0] != "1":  # "1 stickers" is no English
            return found


def _start(rng: random.Random, kind: Kind, first: Operation, numbers: range) -> str:
    if kind == "time":
        return f"{rng.randrange(9, 20)}:{rng.randrange(0, 60, 5):02d}"
    if kind == "money":
        return _money(rng.randrange(8, 80) * 25)
    return str(rng.randrange(2, 11) if first == "multiply" else rng.choice(numbers))


def _units(number: str, kind: Kind) -> int:
    """A first number in things, cents or minutes."""
    if kind == "time":
        hour, minute = number.split(":")
        return 60 * int(hour) + int(minute)
    return round(100 * float(number)) if kind == "money" else int(number)


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def _number(
    rng: random.Random, kind: Kind, operation: Operation, left: int, most: int, *, first: bool, percents: bool
) -> tuple[str, int] | None:
    """The number of a step and what is there after it; None: there is no such step."""
    if kind == "time":
        more = rng.randrange(5, 120, 5)
        return str(more), left + more
    if kind == "money":
        cents = rng.randrange(2, 40) * 25
        after = left + cents if operation == "add" else left - cents
        return (_money(cents), after) if 0 < after < 4000 else None
    if operation == "add":
        number = rng.randrange(2, 60)
        return (str(number), left + number) if left + number <= most else None
    if operation == "subtract":
        number = rng.randrange(2, 60)
        return (str(number), left - number) if number < left else None
    if operation == "multiply":
        number = rng.randrange(2, 11 if first else 6)
        return (str(number), left * number) if left * number <= max(most, 100 * (most >= 100)) else None
    if operation == "divide":
        number = rng.randrange(2, 10)
        return (str(number), left // number) if left > number else None
    shares = _PERCENTS if percents else _FRACTIONS
    share = rng.choice(shares)
    top, bottom = (int(share[:-1]), 100) if percents else map(int, share.split("/"))
    return (share, left * top // bottom) if left * top % bottom == 0 else None


def tell(
    specification: Specification,
    rng: random.Random,
    *,
    interest: Interest,
    places: Sequence[str] = (),
    people: tuple[Person, Person] | None = None,
    distractors: float = 0.25,
    language: str = "en",
) -> Problem:
    """The problem in words.

    Args:
      specification: what it is about.
      rng: draws the sentences.
      interest: the specification's, in the forms that sentences need.
      places: cities, of which one may be named.
      people: the pupil and the friend; None: drawn.
      distractors: how often a number comes in that nothing is done with.
      language: one of `kdtw_jax.classroom.languages.GRAMMARS`.

    Raises:
      ValueError: a step of the specification cannot be carried out.
    """
    found, kind = results(specification), specification.kind
    if found is None:
        raise ValueError(f"{specification.line} cannot be carried out")
    grammar = GRAMMARS[language]
    pupil, friend = rng.sample(grammar.people, 2) if people is None else people
    unit, steps, written = specification.unit, specification.steps, grammar.notation.written
    words = {"n": pupil.name, "p": pupil.subject, "o": pupil.object, "s": pupil.possessive, "f": friend.name}
    words |= {"P": pupil.subject.capitalize(), "interest": interest.name, "short": interest.short}
    words |= {
        "u": grammar.units.get(unit, unit),
        "items": grammar.things_of(specification).format(short=interest.short),
    }
    words |= {"a": written(specification.start), "thing": rng.choice(THINGS)}
    words |= {"place": rng.choice(places) if places else "Paris", "d": str(rng.randrange(6, 30))}
    grouped = steps[0].operation == "multiply" and kind == "things" and _comes_in_groups(specification)
    clauses: list[str] = []
    if grouped:
        start, clause = rng.choice(grammar.groups)
        sentences = [_fill(start, words | {"b": steps[0].number})]
        clauses.append(_fill(clause, words | {"b": steps[0].number}))
    else:
        sentences = [_fill(rng.choice(grammar.starts[kind]), words)]
    if rng.random() < distractors:
        sentences.append(_fill(rng.choice(grammar.distractors), words))
    used = set[str]()
    sharing: Sharing | Literal[""] = ""
    for step in steps[grouped:]:
        lines = grammar.steps[kind][step.operation]
        if kind == "time":  # a show lasts before anything else is done
            lines = lines[1:] if used else lines[:1]
        line = rng.choice([line for line in lines if line[0] not in used] or lines)
        used.add(line[0])
        sentences.append(_fill(line[0], words | {"b": written(step.number)}))
        clauses.append(_fill(line[1], words | {"b": written(step.number)}))
        sharing = grammar.sharing_of(line[0]) or sharing
    question = grammar.question(kind, steps[-1].operation, sharing, left_over="remainder" in found[-1])
    sentences.append(_fill(question, words))
    lefts = [specification.start, *found]
    expressions = [step.expression(left, kind) for step, left in zip(steps, lefts, strict=False)]
    told, solved = " ".join(sentences), tuple(zip(clauses, expressions, strict=True))
    return Problem(specification, told, solved, grammar.answer_to(found[-1], specification, sharing), language)


def _comes_in_groups(specification: Specification) -> bool:
    """Whether the first number is one of boxes and the like, as `draw_specification` has it: small."""
    return int(specification.start) <= 10


def _fill(template: str, words: dict[str, str]) -> str:
    text = template.format_map(words)
    return text[0].upper() + text[1:]
