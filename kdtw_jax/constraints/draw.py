"""Rules for training: budgets drawn row by row, worded, and kept as arrays beside the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.constraints.history import History
from kdtw_jax.constraints.record import Constraint, Rule
from kdtw_jax.constraints.wording import phrase
from kdtw_jax.errors import UserError

Encode = Callable[[str], Sequence[int]]


class Terms(NamedTuple):
    """The rules of B rows over C known constraints, of which each row is under some."""

    budget_BxC: Any  # float32; of no meaning where not active
    active_BxC: Any  # bool


class Drawn(NamedTuple):
    """Rules of a batch, and their words as tokens, padded with 0."""

    terms: Terms
    words_BxR: np.ndarray  # int32


def as_rule(constraints: Sequence[Constraint], terms: Terms) -> Rule:
    """Rows under different constraints as one rule: what is not active allows everything."""

    def relaxed(index: int, constraint: Constraint) -> Constraint:
        def allowed(history: History, budget: jax.Array) -> jax.Array:
            may_B: jax.Array = constraint.allowed(history, budget) | ~terms.active_BxC[:, index]
            return may_B

        def spent(history: History, budget: jax.Array) -> jax.Array:
            assert constraint.spent is not None
            spent_B: jax.Array = jnp.where(terms.active_BxC[:, index], constraint.spent(history, budget), -jnp.inf)
            return spent_B

        return constraint._replace(allowed=allowed, spent=None if constraint.spent is None else spent)

    budgets = tuple(terms.budget_BxC[:, index] for index in range(len(constraints)))
    return Rule(tuple(relaxed(i, c) for i, c in enumerate(constraints)), budgets)


def sayings(constraint: Constraint) -> list[str]:
    """A constraint in all its words, with numbers from all over its range and in all their digits."""
    wording = constraint.wording
    numbers = [constraint.low + (constraint.high - constraint.low) * i / 27 for i in range(28)]
    templates = (*wording.templates, *wording.held_out)
    return [*wording.fixed, *(phrase(wording, number, template) for template in templates for number in numbers)]


def words_room(constraints: Sequence[Constraint], encode: Encode, *, together: int = 1) -> int:
    """Tokens that the words of a rule of `together` constraints take at the most, rounded up to a multiple of 4."""
    longest = [max(len(encode(f"{text}; :")) for text in sayings(c)) for c in constraints]
    return -(-sum(sorted(longest)[-together:]) // 4) * 4


def word_tokens(text: str, encode: Encode) -> list[int]:
    """A rule in words as the tokens that stand before a source."""
    return list(encode(f"{text}:"))


def pad_words(rows: Sequence[Sequence[int]], room: int) -> np.ndarray:
    """Rules in words as one array.

    Args:
      rows: the tokens of each rule.
      room: tokens that a row of the result has.

    Returns:
      int32 [B, room], padded with 0.

    Raises:
      UserError: a rule of more tokens than there is room for.
    """
    words_BxR = np.zeros((len(rows), room), np.int32)
    for row, words in enumerate(rows):
        if len(words) > room:
            raise UserError(f"a rule of {len(words)} pieces; there is room for {room}: say it in fewer words")
        words_BxR[row, : len(words)] = words
    return words_BxR


def draw_rules(
    constraints: Sequence[Constraint],
    rows: int,
    encode: Encode,
    rng: np.random.Generator,
    *,
    room: int,
    held_out: Sequence[float] = (),
    fixed_share: float = 0.15,
    joint_share: float = 0.25,
) -> Drawn:
    """One rule per row: one constraint, or two for `joint_share` of the rows where several are known.

    Budgets come from a constraint's whole range, small ones more often. Two thirds of them are rounded to one or two
    digits, as people say them, and none is within 0.005 of `held_out`, unless it is the only one. `fixed_share` of the
    rows get a sentence without a number, where there are any ("do not ask the teacher") and more than one budget. The
    row's budget is what its words say.

    Args:
      constraints: those that are known, C of them.
      rows: how many rules, B.
      encode: from a text to its tokens.
      rng: where chance comes from.
      room: tokens that the words of a rule may take.
      held_out: budgets that are not drawn.
      fixed_share: chance of a sentence without a number.
      joint_share: chance of two constraints.

    Raises:
      UserError: as `pad_words` does.
    """
    budget_BxC = np.zeros((rows, len(constraints)), np.float32)
    active_BxC = np.zeros((rows, len(constraints)), bool)
    tokens: list[list[int]] = []
    for row in range(rows):
        together = 2 if len(constraints) > 1 and rng.random() < joint_share else 1
        clauses = []
        for index in rng.choice(len(constraints), together, replace=False):
            budget, clause = _draw(constraints[index], rng, held_out, fixed_share)
            budget_BxC[row, index], active_BxC[row, index] = budget, True
            clauses.append(clause)
        tokens.append(word_tokens("; ".join(clauses), encode))
    return Drawn(Terms(budget_BxC, active_BxC), pad_words(tokens, room))


def _draw(
    constraint: Constraint, rng: np.random.Generator, held_out: Sequence[float], fixed_share: float
) -> tuple[float, str]:
    wording = constraint.wording
    if wording.fixed and constraint.low < constraint.high and rng.random() < fixed_share:
        sentence = list(wording.fixed)[rng.integers(len(wording.fixed))]
        return wording.fixed[sentence], sentence
    template = wording.templates[rng.integers(len(wording.templates))]
    while True:
        wish = constraint.low + (constraint.high - constraint.low) * rng.random() ** 1.5
        digits = rng.integers(1, 4)
        one = constraint.low == constraint.high
        number = wording.write(float(f"{wish:.{digits}g}") if digits < 3 and not one else wish)
        budget = wording.read(number)
        if one or all(abs(budget - other) > 0.005 for other in held_out):
            return budget, template.format(number)
