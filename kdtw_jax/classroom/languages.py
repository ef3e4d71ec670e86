"""The languages of word problems, and in which of them a solution is."""

from __future__ import annotations

from collections.abc import Mapping

from kdtw_jax.classroom.english import ENGLISH
from kdtw_jax.classroom.german import GERMAN
from kdtw_jax.classroom.grammar import Grammar

GRAMMARS: Mapping[str, Grammar] = {one.language: one for one in (ENGLISH, GERMAN)}


def language_of(solution: str) -> str:
    """The language of a solution, by the mark of its last answer line; "en" where it has none.

    Args:
      solution: with or without steps.
    """
    return max(GRAMMARS, key=lambda language: solution.rfind(GRAMMARS[language].answer))
