"""A user's sentence as a rule, and a rule as the words a student reads."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import jax.numpy as jnp

from kdtw_jax.constraints.free_words import vague
from kdtw_jax.constraints.plain_words import finer_clauses, free_clauses, plain_text
from kdtw_jax.constraints.record import Constraint, Rule
from kdtw_jax.constraints.refusals import refusal
from kdtw_jax.constraints.wording import (
    clauses,
    forms,
    phrase,
    quoted,
    student_words,
    understand,
    understand_freely,
    understand_loosely,
)
from kdtw_jax.errors import UserError

_LONGEST = 1000  # characters of a rule
_NEAREST = 6  # forms that a message shows of many


class Read(NamedTuple):
    """A rule that was understood."""

    rule: Rule
    words: str  # what a student is to read
    assumed: tuple[str, ...] = ()  # clauses that were vague, and what they are taken for, in a line each


class _Clause(NamedTuple):
    constraint: Constraint
    budget: float
    clause: str  # as it was said
    words: str  # as a student reads it
    vague: bool = False


def read_rule(text: str, known: Sequence[Constraint]) -> Read:
    """The rule that `text` states in clauses joined by "and" or ";".

    A clause in a template of the `known` constraints is read by students as it is. Another one may be in free words
    where its constraint's wording understands such; students, trained on templates, read it in one of those.

    Raises:
      UserError: an empty text; a clause that is not understood, may mean several things or is on a constraint that is
        not known (what is understood is listed); a number that makes no sense; two budgets for one constraint.
    """
    if len(text) > _LONGEST:
        raise UserError(f"a rule of {len(text)} characters; say it in at most {_LONGEST}: {_understood(known)}")
    found = [_in_template(clause, known) for clause in clauses(text)]
    if not found:
        raise UserError(f"the rule is empty; {_understood(known)}")
    stated = [one for one in found if one is not None]
    if len(stated) < len(found):
        stated = [one for clause in free_clauses(text) for one in _stated(clause, known)]
    budgets: dict[str, _Clause] = {}
    for one in stated:
        other = budgets.setdefault(one.constraint.name, one)
        if other.budget != one.budget:
            raise UserError(f"{quoted(other.clause)} and {quoted(one.clause)} contradict each other; keep one of them")
    kept = budgets.values()
    rule = Rule(tuple(one.constraint for one in kept), tuple(jnp.float32(one.budget) for one in kept))
    assumed = tuple(f"{quoted(one.clause)} is vague, and taken for {quoted(one.words)}" for one in stated if one.vague)
    return Read(rule, "; ".join(one.words for one in stated), assumed)


def parse_rule(text: str, known: Sequence[Constraint]) -> Rule:
    """The rule that `text` states, as `read_rule` finds it.

    Raises:
      UserError: as `read_rule` does.
    """
    return read_rule(text, known).rule


def word_rule(constraints: Sequence[Constraint], budgets: Sequence[float], templates: Sequence[int]) -> str:
    """A rule in words: a clause for each constraint, joined by "; ".

    Args:
      constraints: of the rule.
      budgets: one for each constraint, in its units.
      templates: the number of the template that says it, for each; those past `Wording.templates` are held out.
    """
    said = []
    for constraint, budget, index in zip(constraints, budgets, templates, strict=True):
        wording = constraint.wording
        said.append(phrase(wording, budget, (*wording.templates, *wording.held_out)[index]))
    return "; ".join(said)


def _in_template(clause: str, known: Sequence[Constraint]) -> _Clause | None:
    for constraint in known:
        if (budget := understand(constraint.wording, clause)) is not None:
            return _Clause(constraint, budget, clause, clause)
    return None


def _stated(clause: str, known: Sequence[Constraint]) -> list[_Clause]:
    """What a clause states, or several that commas join; raises UserError if it is not understood."""
    if found := _understand(clause, known):
        return [found]
    parts = finer_clauses(clause)
    finer = [_understand(part, known) for part in parts] if len(parts) > 1 else []
    if stated := [one for one in finer if one is not None]:
        if len(stated) == len(parts):
            return stated
        clause = parts[finer.index(None)]
    raise UserError(f"{quoted(clause)} {refusal(plain_text(clause))}; {_understood(known, clause)}")


def _understand(clause: str, known: Sequence[Constraint]) -> _Clause | None:
    if found := _in_template(clause, known):
        return found
    for understood in (understand_loosely, understand_freely):
        meanings = [(c, budget) for c in known if (budget := understood(c.wording, clause)) is not None]
        said = [student_words(constraint.wording, budget) for constraint, budget in meanings]
        if len(meanings) > 1:
            raise UserError(f"{quoted(clause)} may mean {' or '.join(map(quoted, said))}; say which")
        if meanings:
            return _Clause(*meanings[0], clause, said[0], vague(plain_text(clause)) is not None)
    return None


def _understood(known: Sequence[Constraint], clause: str = "") -> str:
    """What can be said; of many forms those that are nearest to a clause."""
    said = [form for constraint in known for form in forms(constraint.wording)]
    if clause and len(said) > _NEAREST:
        plain = plain_text(clause)
        words = set(plain.split())

        def near(form: str) -> tuple[int, float]:
            other = plain_text(form)
            return len(words & set(other.split())), SequenceMatcher(None, plain, other, autojunk=False).ratio()

        said.sort(key=near, reverse=True)
        return "understood are, for example: " + "; ".join(f'"{form}"' for form in said[:_NEAREST])
    return "understood are: " + "; ".join(f'"{form}"' for form in said)
