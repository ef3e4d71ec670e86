"""Reads a word problem back: which numbers it has, and what is done with them.

A problem is understood sentence by sentence, by the sentences of `kdtw_jax.classroom.grammar` with anything in their
blanks. What is in none of them is not understood, so that nothing wrong passes as right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from kdtw_jax.classroom import grammar
from kdtw_jax.classroom.people import PEOPLE
from kdtw_jax.classroom.specification import MEASURES, Kind, Operation, Specification, Step

_NAMES = "|".join(person.name for person in PEOPLE)
_SUBJECTS, _OBJECTS, _POSSESSIVES = ("|".join(sorted({p[i] for p in PEOPLE})) for i in (1, 2, 3))
_UNITS = "|".join(grammar.UNITS)
# A city's name, so that nothing of what is done can stand there: up to four words that begin with a capital, or stand
# small within such a name ("Dar es Salaam").
_CITY_WORD = r"[A-ZÀ-ÖØ-Þ][^\W\d_]*(?:[-’'][^\W\d_]+)*"
PLACE = rf"{_CITY_WORD}(?: (?:{_CITY_WORD}|(?:da|de|del|do|dos|es|la|las|los) {_CITY_WORD})){{0,3}}"
_BLANKS = {
    "n": f"(?:{_NAMES})",
    "f": f"(?:{_NAMES})",
    "p": f"(?:{_SUBJECTS})",
    "P": f"(?:{_SUBJECTS.title()})",
    "o": f"(?:{_OBJECTS})",
    "s": f"(?:{_POSSESSIVES})",
    "u": "[a-z]+",
    "d": "[0-9]+",
    "place": PLACE,
    "thing": "[a-z]+",
    "interest": "(?P<interest>.+)",
    "short": "(?P<short>.+)",
    "a": r"(?P<a>[\d.:]+)",
    "b": r"(?P<b>[\d./]+%?)",
    "items": rf"(?P<items>.+ (?:{_UNITS}))",
}
_MEASURED = rf"(?P<items>(?:{'|'.join(MEASURES)}) of .+ (?:{'|'.join(MEASURES.values())}))"
_SENTENCE = re.compile(r"(?<=[.?]) +(?=[A-Z])")


class _Start(NamedTuple):
    pattern: re.Pattern[str]
    kind: Kind
    grouped: bool
    sentences: int


def read_problem(text: str) -> Specification | None:
    """What a word problem is about, with grade 0; None where a sentence of it is not understood."""
    sentences = _SENTENCE.split(text.strip())
    begun = _begin(sentences)
    if begun is None or len(sentences) < 2:
        return None
    start, match, rest = begun
    unit, short = _item(match, start.kind)
    interest = match["interest"]
    # What is loved is many ("jazz bands"), what stands before a noun is one ("jazz band").
    if not _is_the_same(interest, short or match.groupdict().get("short") or interest):
        return None
    steps = [Step("multiply", match["b"])] if start.grouped else []
    for sentence in rest[:-1]:
        step = _step(sentence, start.kind)
        if step is not None:
            steps.append(step)
        elif not any(pattern.fullmatch(sentence) for pattern in _distractors()):
            return None
    if not steps or not any(pattern.fullmatch(rest[-1]) for pattern in _questions()):
        return None
    return Specification(0, interest, unit, match["a"], tuple(steps))


def _begin(sentences: list[str]) -> tuple[_Start, re.Match[str], list[str]] | None:
    for start in _starts():
        match = start.pattern.fullmatch(" ".join(sentences[: start.sentences]))
        if match is not None:
            return start, match, sentences[start.sentences :]
    return None


def _item(match: re.Match[str], kind: Kind) -> tuple[str, str]:
    """The unit, and what stands before it."""
    if kind in ("money", "time"):
        return kind, ""
    words = match["items"].split(" ")
    if kind == "measure":
        return words[0], " ".join(words[2:-1])
    return words[-1], " ".join(words[:-1])


def _is_the_same(several: str, one: str) -> bool:
    return several in (one, f"{one}s", f"{one}es", f"{one.removesuffix('y')}ies")


def _step(sentence: str, kind: Kind) -> Step | None:
    for operation, pattern in _steps(kind):
        if (match := pattern.fullmatch(sentence)) is not None:
            return Step(operation, match["b"])
    return None


@cache
def _starts() -> list[_Start]:
    found = [_Start(_pattern(line), "things", True, line.count(". ") + 1) for line, _ in grammar.GROUPS]
    for kind, lines in grammar.STARTS.items():
        blanks = _BLANKS | ({"items": _MEASURED} if kind == "measure" else {})
        found += [_Start(_pattern(line, blanks), kind, False, line.count(". ") + 1) for line in lines]
    return found


@cache
def _steps(kind: Kind) -> list[tuple[Operation, re.Pattern[str]]]:
    return [(operation, _pattern(line[0])) for operation, lines in grammar.STEPS[kind].items() for line in lines]


@cache
def _distractors() -> list[re.Pattern[str]]:
    return [_pattern(line) for line in grammar.DISTRACTORS]


@cache
def _questions() -> list[re.Pattern[str]]:
    pairs: Iterator[str] = (line for lines in grammar.QUESTIONS.values() for line in lines)
    return [_pattern(line) for line in (*pairs, *grammar.DIVIDED.values(), *grammar.LEFT_OVER.values())]


def _pattern(template: str, blanks: Mapping[str, str] = _BLANKS) -> re.Pattern[str]:
    """A sentence with anything in its blanks; a blank that comes again is not compared."""
    seen = set[str]()

    def blank(match: re.Match[str]) -> str:
        found = blanks[match[1]]
        if match[1] in seen:
            found = re.sub(r"\?P<\w+>", "?:", found)
        seen.add(match[1])
        return found

    parts = re.split(r"(\{[A-Za-z]+\})", template)
    text = "".join(re.sub(r"\{([A-Za-z]+)\}", blank, x) if x.startswith("{") else re.escape(x) for x in parts)
    if template.startswith("{s}"):
        text = text.replace(_BLANKS["s"], f"(?:{_POSSESSIVES.title()})", 1)
    return re.compile(text[0].upper() + text[1:] if text[0].isalpha() else text)
