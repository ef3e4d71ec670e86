"""What a word problem asks for: its calculations in order, the words that go with each, and the answer line.

`kdtw_jax.classroom.reading` says which numbers and operations there are. Here the persons are compared, too, and the
question with what was done: only where both fit is it known what a solution has to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from kdtw_jax.classroom.grammar import Grammar, Sharing
from kdtw_jax.classroom.languages import GRAMMARS
from kdtw_jax.classroom.people import Person
from kdtw_jax.classroom.reading import read_problem, sentence_pattern, sentences_of
from kdtw_jax.classroom.specification import Kind, Specification, Step, results

LONGEST = 2000  # characters of a problem: ours have about 250, and reading takes longer than in proportion
_WHOLE, _MONEY = "[1-9][0-9]{0,3}", r"(?:0|[1-9][0-9]{0,3})\.[0-9]{2}"  # no digits of other scripts
_CLOCK = "(?:[1-9]|1[0-9]|2[0-3]):[0-5][0-9]"
_PART = re.compile("([1-9][0-9]?)/([1-9][0-9]?)|([1-9][0-9]?)%")
STARTS: Mapping[Kind, str] = {"things": _WHOLE, "measure": _WHOLE, "money": _MONEY, "time": _CLOCK}
INTEREST = re.compile(r"[^\W\d_](?:(?:[^\W_]|[ '’&-]){0,38}[^\W_])?")  # of a person's own: up to 40 characters


class Understood(NamedTuple):
    """What a solution of a word problem has to say, in the language of the problem."""

    specification: Specification  # with grade 0
    clauses: tuple[str, ...]  # what stands before each calculation
    results: tuple[str, ...]  # of each
    answer: str  # without "Answer:" and the full stop
    language: str = "en"

    @property
    def grammar(self) -> Grammar:
        """Of the language."""
        return GRAMMARS[self.language]

    @property
    def expressions(self) -> tuple[str, ...]:
        """The calculations, without their results."""
        found, notation = self.specification, self.grammar.notation
        lefts = (found.start, *map(notation.plain, self.results))
        steps = zip(found.steps, lefts, strict=False)
        return tuple(notation.written(step.expression(left, found.kind)) for step, left in steps)

    @property
    def solution(self) -> str:
        """All of it, step by step."""
        parts = zip(self.clauses, self.expressions, self.results, strict=True)
        steps = [f"{clause}: {expression} = {result}." for clause, expression, result in parts]
        return " ".join([*steps, f"{self.grammar.answer} {self.answer}."])


def understand(text: str) -> Understood | None:
    """What a word problem asks for; None where a sentence, a number or who is meant is not understood.

    Args:
      text: of the problem, in any language of `kdtw_jax.classroom.languages.GRAMMARS`.
    """
    found = (_understand(text, grammar) for grammar in GRAMMARS.values() if len(text) <= LONGEST)
    return next((one for one in found if one is not None), None)


def _understand(text: str, grammar: Grammar) -> Understood | None:
    found = read_problem(text, grammar.language)
    if found is None or wrong_number(found) is not None or not INTEREST.fullmatch(found.interest):
        return None
    sentences = sentences_of(text)
    pupil = grammar.persons.get(sentences[0].partition(" ")[0])
    if pupil is None:
        return None
    begun = _begin(sentences, pupil, found, grammar)
    if begun is None:
        return None
    clauses, rest = begun
    sharing: Sharing | Literal[""] = ""
    for sentence in rest[:-1]:
        told = _step(sentence, pupil, found, grammar)
        if told is not None:
            clauses.append(told[0])
            sharing = told[1] or sharing
        elif not any(sentence_pattern(line, grammar, pupil=pupil).fullmatch(sentence) for line in grammar.distractors):
            return None
    reached = results(found)
    if reached is None or len(clauses) != len(found.steps):
        return None
    if not _is_asked(rest[-1], pupil, found, sharing, reached[-1], grammar):
        return None
    answer = grammar.answer_to(reached[-1], found, sharing)
    written = tuple(map(grammar.notation.written, reached))
    return Understood(found, tuple(clauses), written, answer, grammar.language)


def wrong_number(specification: Specification) -> str | None:
    """Why a problem of these numbers is none, with what would be right; None: it is one."""
    kind, left = specification.kind, specification.start
    if not re.fullmatch(STARTS[kind], left):
        return f"a problem about {specification.unit} begins with {_FORMS[kind]}, not with {left!r:.40}"
    if not specification.steps:
        return "a problem has at least one operation"
    if any(step.operation == "divide" for step in specification.steps[:-1]):
        return "a division comes last: what is shared or packed is not counted any more"
    for number, step in enumerate(specification.steps):
        known = GRAMMARS["en"].steps[kind]
        if step.operation not in known:
            return f"{specification.unit} cannot be used with {step.operation}; use {', '.join(known)}"
        wanted = _unfit(step, left, kind)
        if wanted is not None:
            return f"{step.operation} {step.number!r:.40} does not go with {left}: {wanted}"
        reached = results(specification._replace(steps=specification.steps[: number + 1]))
        if reached is None:
            return f"{step.expression(left, kind)} does not come out"
        before, left = left, reached[-1]
    if left.split(" ")[0] == "1":  # "1 stickers" is no English
        return f"the result of {step.expression(before, kind)} is {left}: give numbers that do not come to 1"
    return None


_FORMS: Mapping[Kind, str] = {
    "things": "a whole number from 1 to 9999",
    "measure": "a whole number from 1 to 9999",
    "money": 'an amount with two decimals, such as "7.50"',
    "time": 'a time from 1:00 to 23:59, such as "14:35"',
}


def _unfit(step: Step, left: str, kind: Kind) -> str | None:
    """What the number of a step would have to be; None: it is."""
    operation, number = step
    if operation == "keep":
        part = _PART.fullmatch(number)
        if part is None or (part[1] and int(part[1]) >= int(part[2])):
            return 'give a part of the whole, such as "3/4" or "25%"'
        top, bottom = (int(part[1]), int(part[2])) if part[1] else (int(part[3]), 100)
        return None if int(left) * top % bottom == 0 else "give a part that comes to a whole number"
    if kind == "money":
        if not re.fullmatch(_MONEY, number):
            return f"give {_FORMS[kind]}"
        if operation == "subtract" and float(number) >= float(left):
            return "give less than there is"
        return None if float(number) else "give more than nothing"
    if not re.fullmatch(_WHOLE, number):
        return "give minutes from 1 to 600" if kind == "time" else f"give {_FORMS['things']}"
    if kind == "time":
        return None if int(number) <= 600 else "give minutes from 1 to 600"
    if operation == "add":
        return None
    if operation == "multiply":
        return None if int(number) > 1 else "give at least 2"
    if int(number) >= int(left):
        return "give less than there are"
    return "give at least 2" if operation == "divide" and int(number) < 2 else None


def _begin(
    sentences: list[str], pupil: Person, found: Specification, grammar: Grammar
) -> tuple[list[str], list[str]] | None:
    """The clauses of how a problem begins, none or the one of its groups, and the sentences after it."""
    kind, plain = found.kind, grammar.notation.plain
    # Groups first, as "6 boxes of 4 hockey posters" might be 6 of something, too.
    for line, clause in (*grammar.groups, *((line, "") for line in grammar.starts[kind])):
        count = line.count(". ") + 1
        match = sentence_pattern(line, grammar, kind, pupil).fullmatch(" ".join(sentences[:count]))
        if match is None or len(sentences) <= count or plain(match["a"]) != found.start:
            continue
        if clause and (kind != "things" or found.steps[0] != ("multiply", match["b"])):
            continue
        return [_filled(clause, pupil, match)] if clause else [], sentences[count:]
    return None


def _step(
    sentence: str, pupil: Person, found: Specification, grammar: Grammar
) -> tuple[str, Sharing | Literal[""]] | None:
    """The clause of a step, and among whom or into what it divides."""
    unit = grammar.units.get(found.unit)
    for lines in grammar.steps[found.kind].values():
        for line, clause in lines:
            match = sentence_pattern(line, grammar, pupil=pupil).fullmatch(sentence)
            if match is not None and match.groupdict().get("u", unit) == unit:
                return _filled(clause, pupil, match), grammar.sharing_of(line)
    return None


def _is_asked(
    question: str, pupil: Person, found: Specification, sharing: Sharing | Literal[""], result: str, grammar: Grammar
) -> bool:
    """Whether a question is one about what was done."""
    rest = "remainder" in result
    asked = (grammar.left_over if rest else grammar.divided)[sharing] if sharing else ""
    known = (asked,) if sharing else grammar.questions[found.kind]
    words = {"n": pupil.name, "u": grammar.units.get(found.unit, "")}
    return question in [line.format_map(words) for line in known]


def _filled(clause: str, pupil: Person, match: re.Match[str]) -> str:
    words = {"n": pupil.name, "o": pupil.object, "p": pupil.subject, "s": pupil.possessive, **match.groupdict()}
    text = clause.format_map(words)
    return text[0].upper() + text[1:]
