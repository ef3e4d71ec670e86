"""Budgets in words, and words back into budgets: one template serves both directions.

Templates become patterns by hand. With the library `parse` this module was longer: a field of it is any text unless a
pattern for numbers is registered, and templates have to be made plain before they are compared all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

from kdtw_jax.constraints.plain_words import plain_text
from kdtw_jax.errors import UserError

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_STAND_IN = "987654321"  # for a template's number while its words are made plain
_SHOWN = 100  # characters of a clause


class Wording(NamedTuple):
    """How a constraint's budget is said.

    Templates hold one "{}" for the number and never " and " or ";", which join clauses.
    """

    templates: tuple[str, ...]  # used in training
    held_out: tuple[str, ...]  # never used in training: whether words are understood is tested on these
    write: Callable[[float], str]  # a budget as the number in the text
    read: Callable[[str], float]  # and back; UserError (without the clause) for a number that makes no sense
    fixed: Mapping[str, float]  # sentences without a number, such as "do not ask the teacher"
    # In words of one's own, as `plain_words.plain_text` gives them: the number as it stands in the templates, or None.
    free: Callable[[str], str | None] = lambda said: None


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
            return _read(wording, match[1], clause)
    return None


def understand_loosely(wording: Wording, clause: str) -> float | None:
    """The budget that a clause states in a template but for number words, other signs and polite words.

    None and UserError as `understand`.
    """
    said = plain_text(clause)
    for sentence, budget in wording.fixed.items():
        if said == plain_text(sentence):
            return budget
    for template in (*wording.templates, *wording.held_out):
        if match := re.fullmatch(_plain_pattern(template), said):
            return _read(wording, match[1], clause)
    return None


def understand_freely(wording: Wording, clause: str) -> float | None:
    """The budget that a clause states in words of its own, where the constraint understands such.

    None and UserError as `understand`.
    """
    number = wording.free(plain_text(clause))
    return None if number is None else _read(wording, number, clause)


def student_words(wording: Wording, budget: float) -> str:
    """The budget as training said it: in the sentence without a number for it, or the first template."""
    return next(
        (text for text, b in wording.fixed.items() if b == budget), phrase(wording, budget, wording.templates[0])
    )


def quoted(clause: str) -> str:
    """A clause for a message: on one line, cut where it is long."""
    said = "".join(c if c.isprintable() else " " for c in clause)
    said = " ".join(said.split())
    return f'"{said}"' if len(said) <= _SHOWN else f'"{said[:_SHOWN]} ..."'


def clauses(text: str) -> list[str]:
    """The parts of a rule, which " and " or ";" joins."""
    return [part.strip() for part in re.split(r";|\band\b", text) if part.strip(" .")]


def forms(wording: Wording) -> list[str]:
    """What can be said, for a message: the first two templates with N for the number, and the fixed sentences."""
    return [*(template.format("N") for template in wording.templates[:2]), *wording.fixed]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".:")


def _plain_inside(text: str) -> str:
    return re.sub(r"\s+", " ", text.casefold())


def _read(wording: Wording, number: str, clause: str) -> float:
    try:
        return wording.read(number)
    except UserError as error:
        raise UserError(f"{quoted(clause)}: {error}") from None


@cache
def _plain_pattern(template: str) -> str:
    return re.escape(plain_text(template.replace("{}", _STAND_IN))).replace(_STAND_IN, _NUMBER)
