"""Budgets in words, and words back into budgets: one template serves both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from kdtw_jax.errors import UserError

_NUMBER = r"(-?\d+(?:\.\d+)?)"


class Wording(NamedTuple):
    """How a constraint's budget is said.

    Templates hold one "{}" for the number and never " and " or ";", which join clauses.
    """

    templates: tuple[str, ...]  # used in training
    held_out: tuple[str, ...]  # never used in training: whether words are understood is tested on these
    write: Callable[[float], str]  # a budget as the number in the text
    read: Callable[[str], float]  # and back; UserError (without the clause) for a number that makes no sense
    fixed: Mapping[str, float]  # sentences without a number, such as "do not ask the teacher"


def phrase(wording: Wording, budget: float, template: str) -> str:
    """The budget in the words of `template`."""
    return template.format(wording.write(budget))


def understand(wording: Wording, clause: str) -> float | None:
    """The budget that a clause states, in whatever template; None if it is none of this constraint's.

    Raises UserError for a number outside what the constraint knows.
    """
    said = _plain(clause)
    for sentence, budget in wording.fixed.items():
        if said == _plain(sentence):
            return budget
    for template in (*wording.templates, *wording.held_out):
        before, after = map(_plain_inside, template.split("{}"))
        if match := re.fullmatch(re.escape(before) + _NUMBER + re.escape(after), said):
            try:
                return wording.read(match[1])
            except UserError as error:
                raise UserError(f'"{clause.strip()}": {error}') from None
    return None


def clauses(text: str) -> list[str]:
    """The parts of a rule, which " and " or ";" joins."""
    return [part.strip() for part in re.split(r";|\band\b", text) if part.strip(" .")]


def forms(wording: Wording) -> list[str]:
    """What can be said, for a message: the first template with N for its number, and the fixed sentences."""
    return [wording.templates[0].format("N"), *wording.fixed]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".:")


def _plain_inside(text: str) -> str:
    return re.sub(r"\s+", " ", text.casefold())
