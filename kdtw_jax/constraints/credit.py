"""Asking ahead: a rule that is kept at the end of an output, or of several, and not after every token.

An output is trusted to reach some length. While it is shorter, it may ask as if the student alone had written it to
there (`may_ask`). In turn it may not end before what it asked for is within the limit of what is written (`may_end`).
So the rule holds for every output that is finished, and for one that is cut off at the longest length, too: nobody is
trusted to go beyond that. What a constraint does not let tokens of the student's own repay (`Constraint.spent`) has to
hold after every token, as `Rule.allowed` says.

With a purse, outputs that are written together have one budget, and what was saved before: their debts and savings
are added up, in place of each being held to its own.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.history import History, advance, after_own
from kdtw_jax.constraints.record import Constraint, Rule

_ROUNDING = 1e-6  # of a limit: float32 cannot say 0.7, and 0.7 x 10 tokens must still allow 7


class Purse(NamedTuple):
    """What outputs that are written together may be over their limits, all in all."""

    saved: tuple[jax.Array, ...]  # float32 [], one for each constraint of the rule, of meaning where it has `spent`
    member_B: jax.Array  # bool; others, such as rows that fill up a batch, are held to their own limits


class Credit(NamedTuple):
    """How far B outputs may ask ahead."""

    length_B: jax.Array  # int32, tokens that an output is trusted to reach, at most those that there is room for
    purse: Purse | None = None  # None: each output is held to its own limits


def may_ask(rule: Rule, credit: Credit, history: History, wish_B: jax.Array, open_B: jax.Array) -> jax.Array:
    """Which of those rows that wish to may ask for their next token, bool [B]: the rule can be kept all the same.

    Args:
      rule: enforced.
      credit: how far it may be asked ahead.
      history: before that token.
      wish_B: bool; earlier rows are served first where a purse does not suffice for all.
      open_B: bool, the output is not finished.
    """
    everyone_B = jnp.ones(wish_B.shape, bool)
    asked = advance(history, history.last_B, everyone_B, everyone_B)
    for index, (constraint, budget) in enumerate(zip(rule.constraints, rule.budgets, strict=True)):
        if constraint.spent is None:
            wish_B &= constraint.allowed(history, budget)
            continue
        now_B = jnp.where(open_B, _due(constraint, budget, history, credit), debt(constraint, budget, history))
        wish_B &= _fits(credit.purse, index, now_B, _due(constraint, budget, asked, credit), wish_B)
    return wish_B & open_B


def may_end(rule: Rule, credit: Credit, history: History, ends_B: jax.Array, open_B: jax.Array) -> jax.Array:
    """Which of those rows that would end may do so, bool [B].

    Args:
      rule: enforced.
      credit: how far it may be asked ahead.
      history: with the last token.
      ends_B: bool, the output would end with that token.
      open_B: bool, the output was not finished before it.
    """
    for index, (constraint, budget) in enumerate(zip(rule.constraints, rule.budgets, strict=True)):
        if constraint.spent is not None:
            ended_B = debt(constraint, budget, history)
            now_B = jnp.where(open_B, _due(constraint, budget, history, credit), ended_B)
            ends_B &= _fits(credit.purse, index, now_B, ended_B, ends_B)
    return ends_B


def debt(constraint: Constraint, budget: jax.Array, history: History) -> jax.Array:
    """By how much outputs that ended with this history would be over the limit, float32 [B]; negative: within it.

    Args:
      constraint: one that has `spent`.
      budget: float32 [B] or [].
      history: of the outputs.
    """
    if constraint.spent is None:
        raise ValueError(f"{constraint.name} is not kept at the end")
    limit_B = jnp.asarray(constraint.limit(budget, history), jnp.float32)
    return constraint.spent(history, budget) - limit_B * (1 + _ROUNDING)


def _due(constraint: Constraint, budget: jax.Array, history: History, credit: Credit) -> jax.Array:
    """The debt of outputs if the student alone goes on until they are as long as they are trusted to become."""
    return debt(
        constraint, budget, after_own(history, jnp.maximum(credit.length_B - history.length_B, 0), history.last_B)
    )


def _fits(purse: Purse | None, index: int, now_B: jax.Array, then_B: jax.Array, wish_B: jax.Array) -> jax.Array:
    """Whether a debt may become another one, bool [B]."""
    if purse is None:
        return then_B <= 0
    more_B = jnp.where(wish_B & purse.member_B, jnp.maximum(then_B - now_B, 0), 0)
    left = purse.saved[index] - jnp.sum(jnp.where(purse.member_B, now_B, 0))
    return jnp.where(purse.member_B, (more_B == 0) | (jnp.cumsum(more_B) <= left), then_B <= 0)
