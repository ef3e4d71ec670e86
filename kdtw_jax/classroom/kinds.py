"""Which kinds of words a solution has: what is calculated, what is copied, and what is said; and which way it goes."""

from __future__ import annotations

from typing import Literal, get_args

from kdtw_jax.classroom.arithmetic import calculations, evaluate
from kdtw_jax.classroom.languages import GRAMMARS, language_of
from kdtw_jax.classroom.people import NAMES
from kdtw_jax.classroom.workings import SO, Way, workings

Kind = Literal["calculated", "answer", "copied", "sign", "name", "word"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_SIGNS = frozenset("+-−×÷=")


def word_kinds(solution: str) -> list[Kind]:
    """The kind of each word of a solution, where words are what white space divides.

    "calculated": a number that stands right after an equals sign, with its remainder; "answer": a number of the answer
    line; "copied": any other number, from the problem or from the calculation before; "sign": a sign of arithmetic;
    "name": a person; "word": anything else.

    Args:
      solution: in the language that `language_of` says.
    """
    grammar = GRAMMARS[language_of(solution)]
    signs = _SIGNS | {grammar.notation.times, grammar.notation.divided}
    results = [range(one.start, one.start + len(one.written)) for one in calculations(solution, grammar.language)]
    answer = solution.rfind(grammar.answer)
    kinds: list[Kind] = []
    at = 0
    for word in solution.split():
        at = solution.index(word, at)
        if any(at in result for result in results) and any(c.isdigit() for c in word):
            kinds.append("calculated")
        elif any(c.isdigit() for c in word):
            kinds.append("answer" if 0 <= answer <= at else "copied")
        elif word in signs:
            kinds.append("sign")
        else:
            kinds.append("name" if word.strip(":.,") in NAMES else "word")
        at += len(word)
    return kinds


def ways_taken(solution: str, language: str = "") -> list[tuple[Way, bool]]:
    """The way in which each step of a solution is calculated, and whether that is done rightly, all its parts included.

    What begins like none of the ways counts as written out, and is wrong.

    Args:
      solution: with or without an answer line.
      language: of the solution; "": what `language_of` says.
    """
    found, grammar = list[tuple[Way, bool]](), GRAMMARS[language or language_of(solution)]
    for sentence in solution.partition(grammar.answer)[0].split(". "):
        # In the plain notation first, in which ":" is no sign of a calculation.
        body = grammar.notation.plain(sentence).rpartition(": ")[2].strip().removesuffix(".")
        expression, _, parts = body.partition(SO if SO in body else " = ")
        known = workings(expression) if evaluate(expression) is not None else {}
        begun = parts.partition(" = ")[0]
        if SO not in body:
            way: Way = "head"
        else:
            way = "round" if known.get("round", "").startswith(f"{expression}{SO}{begun} =") else "written"
        if body:
            found.append((way, known.get(way) == body))
    return found
