"""A user's sentence as a rule, and a rule as the words a student reads."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from kdtw_jax.constraints.record import Constraint, Rule
from kdtw_jax.constraints.wording import clauses, forms, phrase, understand
from kdtw_jax.errors import UserError


def parse_rule(text: str, known: Sequence[Constraint]) -> Rule:
    """The rule that `text` states in clauses joined by "and" or ";", in any template of the `known` constraints.

    Raises UserError for an empty text, a clause that is none of the forms understood (they are listed), a number
    that makes no sense, and two budgets for one constraint.
    """
    found: dict[str, tuple[Constraint, float, str]] = {}
    for clause in clauses(text):
        meanings = [(c, budget) for c in known if (budget := understand(c.wording, clause)) is not None]
        if not meanings:
            understood = "; ".join(f'"{form}"' for c in known for form in forms(c.wording))
            raise UserError(f'"{clause}" is not a rule that is understood; understood are: {understood}')
        constraint, budget = meanings[0]
        if constraint.name in found and found[constraint.name][1] != budget:
            raise UserError(f'"{found[constraint.name][2]}" and "{clause}" contradict each other; keep one of them')
        found[constraint.name] = (constraint, budget, clause)
    if not found:
        understood = "; ".join(f'"{form}"' for c in known for form in forms(c.wording))
        raise UserError(f"the rule is empty; understood are: {understood}")
    return Rule(tuple(c for c, _, _ in found.values()), tuple(jnp.float32(budget) for _, budget, _ in found.values()))


def word_rule(constraints: Sequence[Constraint], budgets: Sequence[float], templates: Sequence[int]) -> str:
    """The clauses of a rule, each in its constraint's template of that number (counted on past the templates: held
    out), joined by "; "."""
    said = []
    for constraint, budget, index in zip(constraints, budgets, templates, strict=True):
        wording = constraint.wording
        said.append(phrase(wording, budget, (*wording.templates, *wording.held_out)[index]))
    return "; ".join(said)
