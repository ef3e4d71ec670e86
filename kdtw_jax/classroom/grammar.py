"""What a language has of its own in word problems: its sentences, words and persons, in one frozen table.

A line is a sentence of the problem and the clause that a solution has for it. In braces: {n} the pupil, {p} and {P} the
pronoun, {o} and {s} its object and possessive form, {f} the friend; {b} the step's number, {u} the unit, {thing} one of
them, {interest} what is loved and {short} the same before another noun. Every sentence says what is done by its own
words alone, so that `kdtw_jax.classroom.reading` can read it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from kdtw_jax.classroom.notation import NOTATIONS, Notation
from kdtw_jax.classroom.people import Person
from kdtw_jax.classroom.specification import Kind, Operation, Specification

Line = tuple[str, str]
Sharing = Literal["friends", "bags"]
SHARINGS: tuple[Sharing, ...] = ("friends", "bags")  # what the lines of a division do, in order


@dataclass(frozen=True, eq=False)
class Grammar:
    """The sentences and words of a language."""

    language: str
    """a code: "en" """
    people: tuple[Person, ...] = field(repr=False)
    starts: Mapping[Kind, tuple[str, ...]] = field(repr=False)
    """how a quantity comes into a problem: {items} is what there is of"""
    groups: tuple[Line, ...] = field(repr=False)
    """likewise where the first step multiplies: the quantity comes in groups"""
    steps: Mapping[Kind, Mapping[Operation, tuple[Line, ...]]] = field(repr=False)
    """those of a division are in the order of `SHARINGS`; of time, the first one is that of the first step"""
    questions: Mapping[Kind, tuple[str, str]] = field(repr=False)
    """what is asked at the end: otherwise, and after what takes away"""
    divided: Mapping[Sharing, str] = field(repr=False)
    """what is asked after a division, of which there is no more to do"""
    left_over: Mapping[Sharing, str] = field(repr=False)
    """likewise, where something is left over"""
    distractors: tuple[str, ...] = field(repr=False)
    """sentences with numbers that nothing is done with"""
    units: Mapping[str, str] = field(repr=False)
    """words for what is counted and measured, by the specification's"""
    stuff: Mapping[str, str] = field(repr=False)
    """what is measured, by the unit"""
    items: str
    """things of an interest: {short} and {unit}"""
    measured: str
    """likewise what is measured: {unit}, {short} and {stuff}"""
    answers: Mapping[str, str] = field(repr=False)
    """what answers a question, by `Kind` and `Sharing`: {x} of {u}; and the "rest" of what is shared: {each}, {rest}"""
    answer: str
    """what an answer line begins with"""
    drill: str
    """what a drill begins with"""
    word: str = "[a-z]+"
    """a pattern of one word for things"""

    @property
    def notation(self) -> Notation:
        """How calculations and numbers are written."""
        return NOTATIONS[self.language]

    @cached_property
    def persons(self) -> Mapping[str, Person]:
        """The people by name."""
        return {person.name: person for person in self.people}

    def things_of(self, specification: Specification) -> str:
        """What there is of at the beginning of a problem, with {short} open: "{short} stickers"; "" of money and time.

        Args:
          specification: of the problem.
        """
        unit = specification.unit
        if specification.kind == "measure":
            return self.measured.replace("{unit}", self.units[unit]).replace("{stuff}", self.stuff[unit])
        return self.items.replace("{unit}", self.units[unit]) if specification.kind == "things" else ""

    def sharing_of(self, sentence: str) -> Sharing | Literal[""]:
        """What a sentence of a step, with its braces, divides into; "" where it does not.

        Args:
          sentence: one of `steps`.
        """
        lines = self.steps["things"]["divide"]
        return next((sharing for sharing, line in zip(SHARINGS, lines, strict=True) if line[0] == sentence), "")

    def question(self, kind: Kind, last: Operation, sharing: Sharing | Literal[""], *, left_over: bool) -> str:
        """What is asked at the end of a problem, with its braces.

        Args:
          kind: of the quantity.
          last: the operation of the last step.
          sharing: what it divides into.
          left_over: whether something is.
        """
        if sharing:
            return (self.left_over if left_over else self.divided)[sharing]
        return self.questions[kind][last in ("subtract", "keep")]

    def answer_to(self, result: str, specification: Specification, sharing: Sharing | Literal[""]) -> str:
        """What answers the question, without the mark of an answer and the full stop.

        Args:
          result: of the last step, in the plain notation.
          specification: of the problem.
          sharing: what the last step divides into.
        """
        unit = self.units.get(specification.unit, "")
        whole, _, rest = self.notation.written(result).partition(f" {self.notation.remainder} ")
        each = self.answers[sharing or specification.kind].format(x=whole, u=unit)
        return self.answers["rest"].format(each=each, rest=rest) if rest else each
