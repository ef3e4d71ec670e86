"""Reads a word problem back: which numbers it has, and what is done with them.

A problem is understood sentence by sentence, by the sentences of a language (`kdtw_jax.classroom.grammar`) with
anything in their blanks. What is in none of them is not understood, so that nothing wrong passes as right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from kdtw_jax.classroom.grammar import Grammar
from kdtw_jax.classroom.interests import are_one
from kdtw_jax.classroom.languages import GRAMMARS
from kdtw_jax.classroom.people import Person
from kdtw_jax.classroom.specification import MEASURES, UNITS, Kind, Operation, Specification, Step

# A city's name, so that nothing of what is done can stand there: up to four words that begin with a capital, or stand
# small within such a name ("Dar es Salaam").
_CITY_WORD = r"[A-ZÀ-ÖØ-Þ][^\W\d_]*(?:[-’'][^\W\d_]+)*"
_PLACE = rf"{_CITY_WORD}(?: (?:{_CITY_WORD}|(?:da|de|del|do|dos|es|la|las|los) {_CITY_WORD})){{0,3}}"
_SENTENCE = re.compile(r"(?<=[.?]) +(?=[A-Z])")


class _Start(NamedTuple):
    pattern: re.Pattern[str]
    kind: Kind
    grouped: bool
    sentences: int


def sentences_of(text: str) -> list[str]:
    """The sentences of a problem.

    Args:
      text: of the problem.
    """
    return _SENTENCE.split(text.strip())


def read_problem(text: str, language: str = "") -> Specification | None:
    """What a word problem is about, with grade 0; None where a sentence of it is not understood.

    Args:
      text: of the problem.
      language: that it is in; "": any of `kdtw_jax.classroom.languages.GRAMMARS`.
    """
    for grammar in [GRAMMARS[language]] if language else GRAMMARS.values():
        found = _read(text, grammar)
        if found is not None:
            return found
    return None


def _read(text: str, grammar: Grammar) -> Specification | None:
    sentences = sentences_of(text)
    begun = _begin(sentences, grammar)
    if begun is None or len(sentences) < 2:
        return None
    start, match, rest = begun
    interest, found, plain = match["interest"], match.groupdict(), grammar.notation.plain
    # What is loved is many ("jazz bands"), what stands before a noun is one ("jazz band").
    if found.get("short") and not are_one(interest, found["short"], grammar.language):
        return None
    steps = [Step("multiply", match["b"])] if start.grouped else []
    for sentence in rest[:-1]:
        step = _step(sentence, start.kind, grammar)
        if step is not None:
            steps.append(step)
        elif not any(pattern.fullmatch(sentence) for pattern in _patterns(grammar.distractors, grammar)):
            return None
    if not steps or not any(pattern.fullmatch(rest[-1]) for pattern in _questions(grammar)):
        return None
    unit = _units(grammar)[found["unit"]] if "unit" in found else start.kind
    return Specification(0, interest, unit, plain(match["a"]), tuple(steps))


def _begin(sentences: list[str], grammar: Grammar) -> tuple[_Start, re.Match[str], list[str]] | None:
    for start in _starts(grammar):
        match = start.pattern.fullmatch(" ".join(sentences[: start.sentences]))
        if match is not None:
            return start, match, sentences[start.sentences :]
    return None


def _step(sentence: str, kind: Kind, grammar: Grammar) -> Step | None:
    for operation, pattern in _steps(kind, grammar):
        if (match := pattern.fullmatch(sentence)) is not None:
            return Step(operation, grammar.notation.plain(match["b"]))
    return None


@cache
def _units(grammar: Grammar) -> dict[str, str]:
    return {word: unit for unit, word in grammar.units.items()}


@cache
def _starts(grammar: Grammar) -> list[_Start]:
    # Groups first, as "6 boxes of 4 hockey posters" might be 6 of something, too.
    lines: Iterator[tuple[str, Kind, bool]] = ((line, "things", True) for line, _ in grammar.groups)
    others = ((line, kind, False) for kind, lines in grammar.starts.items() for line in lines)
    return [
        _Start(sentence_pattern(line, grammar, kind), kind, grouped, line.count(". ") + 1)
        for line, kind, grouped in (*lines, *others)
    ]


@cache
def _steps(kind: Kind, grammar: Grammar) -> list[tuple[Operation, re.Pattern[str]]]:
    found = grammar.steps[kind].items()
    return [(operation, sentence_pattern(line, grammar)) for operation, lines in found for line, _ in lines]


@cache
def _patterns(lines: tuple[str, ...], grammar: Grammar) -> list[re.Pattern[str]]:
    return [sentence_pattern(line, grammar) for line in lines]


def _questions(grammar: Grammar) -> Iterable[re.Pattern[str]]:
    asked = (line for lines in grammar.questions.values() for line in lines)
    return _patterns((*asked, *grammar.divided.values(), *grammar.left_over.values()), grammar)


@cache
def sentence_pattern(
    line: str, grammar: Grammar, kind: Kind = "things", pupil: Person | None = None
) -> re.Pattern[str]:
    """A sentence with what it leaves open as groups, by the names of its blanks.

    Args:
      line: with blanks in braces.
      grammar: of its language.
      kind: of what there is, for {items}.
      pupil: whom it is about, with whom the friend is not compared; None: anybody, and persons are not compared.
    """
    line = line.replace("{items}", grammar.measured if kind == "measure" else grammar.items)
    people = grammar.people if pupil is None else (pupil,)
    persons = {blank: sorted({person[at] for person in people}) for at, blank in enumerate("npos")}
    persons["P"] = [word.capitalize() for word in persons["p"]]
    units = [grammar.units[unit] for unit in (MEASURES if kind == "measure" else UNITS)]
    point, percent = re.escape(grammar.notation.point), grammar.notation.percent.replace(" ", " ?")
    open_ = {"f": "|".join(person.name for person in grammar.people if person != pupil)}
    open_ |= {"a": rf"[\d{point}:]+", "b": rf"[\d{point}/]+(?:{percent})?", "d": "[0-9]+", "place": _PLACE}
    open_ |= {
        "u": grammar.word,
        "thing": grammar.word,
        "unit": "|".join(units),
        "stuff": "|".join(grammar.stuff.values()),
    }
    open_ |= {"interest": ".+", "short": ".+"}
    made, seen = "", set[str]()
    for part in re.split(r"(\{\w+\})", line):
        name = part[1:-1]
        if not part.startswith("{"):
            made += re.escape(part)
        elif name in persons:
            made += f"(?:{'|'.join(persons[name] if made else [word.capitalize() for word in persons[name]])})"
        else:
            made += f"(?P={name})" if name in seen else f"(?P<{name}>{open_[name]})"
            seen.add(name)
    return re.compile(made)
