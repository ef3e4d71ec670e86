"""What a word problem is about: interest, numbers and what is done with them, in a line that can be read back."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args

from kdtw_jax.classroom.arithmetic import evaluate

Kind = Literal["things", "measure", "money", "time"]
Operation = Literal["add", "subtract", "multiply", "divide", "keep"]
GRADES = range(2, 8)
_SIGNS: dict[str, str] = {"add": "+", "subtract": "-", "multiply": "×", "divide": "÷"}
_LINE = re.compile(r"(?:grade (\d), )?interest: ([^,]+), ([a-z][a-z ]*): ([\d.:]+)((?:, [a-z]+ [\d./:%]+)+)")


class Step(NamedTuple):
    """Something that happens to a quantity."""

    operation: Operation
    number: str
    """as it is written: "17", "3/4" or "25%" (of what there is, to keep), "3.75", minutes"""

    def expression(self, left: str, kind: Kind) -> str:
        """The calculation that it takes, of a quantity `left` of a `kind`."""
        if self.operation == "keep":
            return f"{self.number} of {left}"
        return f"{left} {_SIGNS[self.operation]} {self.number}{' min' * (kind == 'time')}"


class Specification(NamedTuple):
    """A word problem without its words."""

    grade: int  # 2 to 7; 0: not said
    interest: str
    unit: str  # "stickers", "metres", "money" or "time"
    start: str  # the first number
    steps: tuple[Step, ...]

    @property
    def kind(self) -> Kind:
        """What the quantity is."""
        if self.unit in ("money", "time"):
            return "money" if self.unit == "money" else "time"
        return "measure" if self.unit in MEASURES else "things"

    @property
    def line(self) -> str:
        """As a model reads it."""
        grade = f"grade {self.grade}, " if self.grade else ""
        steps = "".join(f", {step.operation} {step.number}" for step in self.steps)
        return f"{grade}interest: {self.interest}, {self.unit}: {self.start}{steps}"

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What its steps do."""
        return tuple(step.operation for step in self.steps)


# Things that are counted, one and several; what a language calls them is in its grammar.
_THINGS = (
    "sticker card poster badge pin book picture magnet stamp comic coin figure mug bookmark postcard puzzle ball cap "
    "model button photo ring shirt pen"
)
THINGS = tuple(_THINGS.split())
UNITS = tuple(f"{thing}s" for thing in THINGS)
MEASURES = {"metres": "rope", "grams": "clay", "litres": "paint", "pages": "paper"}  # and what is measured


def parse_specification(line: str) -> Specification | None:
    """Reads `Specification.line`; None: it is none."""
    match = _LINE.fullmatch(line.strip())
    if match is None:
        return None
    steps = []
    for text in match[5].split(", ")[1:]:
        operation, number = text.split(" ")
        if operation not in get_args(Operation):
            return None
        steps.append(Step(operation, number))  # type: ignore[arg-type]  # it was looked up
    return Specification(int(match[1] or 0), match[2], match[3], match[4], tuple(steps))


def results(specification: Specification) -> list[str] | None:
    """What each step comes to, in order; None where a step cannot be done, or a remainder is used further."""
    left, found = specification.start, []
    for step in specification.steps:
        result = evaluate(step.expression(left, specification.kind))
        if result is None or "remainder" in left or "/" in result:
            return None
        found.append(result)
        left = result
    return found
