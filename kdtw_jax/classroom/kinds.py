"""Which kinds of words a solution has: calculated, copied, or said; and whether it has no steps at all."""

from __future__ import annotations

from typing import Literal, get_args

from kdtw_jax.classroom.arithmetic import calculations
from kdtw_jax.classroom.languages import GRAMMARS, language_of
from kdtw_jax.classroom.people import NAMES

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


def is_in_the_head(solution: str, language: str) -> bool:
    """Whether a solution begins with its answer, and so was found in one's head.

    Args:
      solution: right or wrong.
      language: of the solution.
    """
    return solution.lstrip().startswith(GRAMMARS[language].answer)
