"""Asking ahead: a rule that is kept at the end of an output, or of several, and not after every token.

An output is trusted to reach some length. While it is shorter, it may ask as if the student alone had written it to
there (`turns`). In turn it may not end before what it asked for is within the limit of what is written (`may_end`).
So the rule holds for every output that is finished, and for one that is cut off at the longest length, too: nobody is
trusted to go beyond that. What a constraint does not let units of the student's own repay (`Constraint.spent`) has to
hold after every token, as `Rule.allowed` says.

Where words are counted, a token need not be one. So no more words are trusted to come than the tokens that are left
can begin, and where one token more without a new word would be too many, the next one has to begin a word of the
student's own (`Turns.idle_B`, `keeping`).

With a purse, outputs that are written together have one budget, and what was saved before: their debts and savings
are added up, in place of each being held to its own.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.history import History, advance, after_own, before_unit
from kdtw_jax.constraints.record import Constraint, Rule
from kdtw_jax.constraints.unit import TOKENS, Unit

_ROUNDING = 1e-6  # of a limit: float32 cannot say 0.7, and 0.7 x 10 tokens must still allow 7


class Purse(NamedTuple):
    """What outputs that are written together may be over their limits, all in all; or each of them by itself."""

    # One for each constraint of the rule, of meaning where it has `spent`: float32 [], of all members together; or
    # float32 [B], of each member, which shares it with nobody
    saved: tuple[jax.Array, ...]
    member_B: jax.Array  # bool; others, such as rows that fill up a batch, are held to their own limits


class Credit(NamedTuple):
    """How far B outputs may ask ahead."""

    length_B: jax.Array  # int32, units that an output is trusted to reach, at most those that there is room for
    purse: Purse | None = None  # None: each output is held to its own limits


class Room(NamedTuple):
    """What is counted, and how much of it there is room for."""

    unit: Unit = TOKENS
    # int32 [] or [B], tokens that may still be written; of no consequence where tokens are counted
    left: jax.Array | int = 0

    def most(self, history: History) -> jax.Array | None:
        """Units that can still be begun, int32 [B]; None: as many as an output is trusted with."""
        if self.unit.marks is None:
            return None
        return self.unit.most(jnp.asarray(self.left), self.unit.blank(history.last_B))

    def less(self) -> Room:
        """One token later."""
        return self._replace(left=self.left - 1)

    def most_later(self, blank: bool) -> jax.Array | None:
        """The same after one token more, which is blank or is not; none can begin fewer than after one that is not."""
        return None if self.unit.marks is None else self.unit.most(jnp.asarray(self.left - 1), jnp.asarray(blank))


TOKEN_ROOM = Room()  # tokens are counted


class Turns(NamedTuple):
    """What may happen at the next token, the rule being kept all the same; bool [B] each."""

    ask_B: jax.Array  # a call may be made for it
    on_B: jax.Array  # the answer that runs may go on with it
    idle_B: jax.Array  # it need not be one of those that `keeping` allows


def turns(
    rule: Rule, credit: Credit, history: History, wish_B: jax.Array, open_B: jax.Array, room: Room = TOKEN_ROOM
) -> Turns:
    """Says for each output what may happen at its next token.

    Args:
      rule: enforced.
      credit: how far it may be asked ahead.
      history: before that token.
      wish_B: bool, who would ask; earlier rows are served first where a purse does not suffice for all.
      open_B: bool, the output is not finished.
      room: that token included.
    """
    unit, idle_B = room.unit, open_B
    kept = list(enumerate(zip(rule.constraints, rule.budgets, strict=True)))
    if unit.marks is not None:
        for index, (constraint, budget) in kept:
            if constraint.spent is not None:
                now_B = _due(constraint, budget, history, credit, room.most(history))
                then_B = _due(constraint, budget, history, credit, room.most_later(False))
                now_B = jnp.where(open_B, now_B, debt(constraint, budget, history))
                idle_B &= _fits(credit.purse, index, now_B, jnp.where(open_B, then_B, now_B), idle_B)
    wish_B, on_B = wish_B & idle_B, idle_B & (history.owed_B > 0)
    unpaid_B = unit.unpaid(history.owed_B)
    within, before = before_unit(history, unit), before_unit(history, unit, answer=True)
    for index, (constraint, budget) in kept:
        if constraint.spent is None:
            wish_B &= constraint.allowed(history, budget)
            if not unit.one_token:
                wish_B &= constraint.allowed(within, budget)
                on_B &= constraint.allowed(before, budget)
            continue
        now_B = _due(constraint, budget, history, credit, room.most(history))
        then_B = _due(constraint, budget, _helped(history), credit, room.most_later(False))
        if unit.marks is not None:
            now_B = jnp.where(idle_B, _due(constraint, budget, history, credit, room.most_later(False)), now_B)
            # It is not known whether the token begins a word.
            inside_B = _due(constraint, budget, _helped(within), credit, room.most_later(False))
            then_B = jnp.maximum(then_B, inside_B)
        now_B = jnp.where(open_B, now_B, debt(constraint, budget, history))
        granted_B = _fits(credit.purse, index, now_B, then_B, wish_B | (on_B & unpaid_B))
        wish_B, on_B = wish_B & granted_B, on_B & (granted_B | ~unpaid_B)
    return Turns(wish_B & open_B, on_B, idle_B)


def keeping(rule: Rule, credit: Credit, history: History, room: Room) -> tuple[jax.Array, jax.Array]:
    """Which tokens of the student's own let a debt be repaid as before: such as begin a word, and blank ones, bool [B].

    Args:
      rule: enforced.
      credit: how far it may be asked ahead.
      history: before the token.
      room: that token included.
    """
    begins_B = blank_B = jnp.ones(history.length_B.shape, bool)
    for constraint, budget in zip(rule.constraints, rule.budgets, strict=True):
        if constraint.spent is not None:
            now_B = _due(constraint, budget, history, credit, room.most(history))
            word = after_own(history, jnp.ones_like(history.length_B), history.last_B)
            begins_B &= _due(constraint, budget, word, credit, room.most_later(False)) <= now_B
            blank_B &= _due(constraint, budget, history, credit, room.most_later(True)) <= now_B
    return begins_B, blank_B


def may_end(
    rule: Rule, credit: Credit, history: History, ends_B: jax.Array, open_B: jax.Array, room: Room = TOKEN_ROOM
) -> jax.Array:
    """Which of those rows that would end may do so, bool [B].

    Args:
      rule: enforced.
      credit: how far it may be asked ahead.
      history: with the last token.
      ends_B: bool, the output would end with that token.
      open_B: bool, the output was not finished before it.
      room: after that token.
    """
    for index, (constraint, budget) in enumerate(zip(rule.constraints, rule.budgets, strict=True)):
        if constraint.spent is not None:
            ended_B = debt(constraint, budget, history)
            now_B = jnp.where(open_B, _due(constraint, budget, history, credit, room.most(history)), ended_B)
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


def _due(
    constraint: Constraint, budget: jax.Array, history: History, credit: Credit, most_B: jax.Array | None
) -> jax.Array:
    """The debt of outputs if the student alone goes on until they are as long as they are trusted to become."""
    more_B = jnp.maximum(credit.length_B - history.length_B, 0)
    more_B = more_B if most_B is None else jnp.minimum(more_B, most_B)
    return debt(constraint, budget, after_own(history, more_B, history.last_B))


def _helped(history: History) -> History:
    """After one unit more, which the teacher was called for."""
    everyone_B = jnp.ones(history.length_B.shape, bool)
    return advance(history._replace(owed_B=0 * history.owed_B), history.last_B, everyone_B, everyone_B)


def _fits(purse: Purse | None, index: int, now_B: jax.Array, then_B: jax.Array, wish_B: jax.Array) -> jax.Array:
    """Whether a debt may become another one, bool [B]."""
    if purse is None:
        return then_B <= 0
    # Where a constraint is not active, both debts are -inf (`as_rule`): nothing is added, and nothing lent to others.
    more_B = jnp.where(wish_B & purse.member_B & (then_B > now_B), then_B - now_B, 0)
    if jnp.ndim(purse.saved[index]):
        return jnp.where(purse.member_B, (more_B == 0) | (more_B <= purse.saved[index] - now_B), then_B <= 0)
    left = purse.saved[index] - jnp.sum(jnp.where(purse.member_B & jnp.isfinite(now_B), now_B, 0))
    return jnp.where(purse.member_B, (more_B == 0) | (jnp.cumsum(more_B) <= left), then_B <= 0)
