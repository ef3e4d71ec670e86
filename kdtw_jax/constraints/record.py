"""A constraint on asking the teacher, and a rule: constraints with their budgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.history import History, before_unit, called, histories
from kdtw_jax.constraints.unit import TOKENS, Unit
from kdtw_jax.constraints.wording import Wording


class Constraint(NamedTuple):
    """Pure functions; a `make_*` bundles them. Costs and limits are float32 [B], budgets float32 [B] or [].

    cost(history, asked_B, budget): what a call costs, at least 0; `history` is that before the unit it is made in.
    limit(budget, history): the most that the costs of an output may add up to, given its history at the end.
    allowed(history, budget): bool [B], whether the next unit may be asked for so that, were the output to end there,
      its costs would be within the limit. Not asking must always keep within it.
    low, high: the range that training draws budgets from, evenly.
    wording: the constraint in words, and back.
    spent(history, budget): what the costs have added up to, where every token of the student's own makes more room
      within `limit` and costs nothing, and the order of tokens is of no consequence: then the constraint may be kept
      at the end (`kdtw_jax.constraints.credit`). None: it holds after every token, by `allowed`.
    total(history, budget): likewise, where costs are not those of calls alone, and the order of tokens may matter.
    price(budget): nats, what a unit of the cost is worth, where the rule itself says it. None: what keeps the limit on
      average, which training finds (`kdtw_jax.duals`).
    """

    name: str
    cost: Callable[[History, jax.Array, jax.Array], jax.Array]
    limit: Callable[[jax.Array, History], jax.Array]
    allowed: Callable[[History, jax.Array], jax.Array]
    low: float
    high: float
    wording: Wording
    spent: Callable[[History, jax.Array], jax.Array] | None = None
    total: Callable[[History, jax.Array], jax.Array] | None = None
    price: Callable[[jax.Array], jax.Array] | None = None


class Rule(NamedTuple):
    """Constraints that hold together, and the budget of each."""

    constraints: tuple[Constraint, ...]
    budgets: tuple[jax.Array, ...]  # float32 [B] or [], one per constraint

    def allowed(self, history: History, unit: Unit = TOKENS) -> jax.Array:
        """Whether a call may be made for the next token, bool [B]: the hard mask.

        Whether that token begins a unit is not known before it is written, so both has to be allowed: one unit more,
        and help with the one under way.
        """
        may_B = self._holds(history)
        return may_B if unit.one_token else may_B & self._holds(before_unit(history, unit))

    def lets_go_on(self, history: History, unit: Unit) -> jax.Array:
        """Whether the running answer may have one token more, bool [B]: the call is paid for, that token may not be."""
        return self._holds(before_unit(history, unit, answer=True))

    def _holds(self, history: History) -> jax.Array:
        may_B = jnp.ones(history.length_B.shape, bool)
        for constraint, budget in zip(self.constraints, self.budgets, strict=True):
            may_B &= constraint.allowed(history, budget)
        return may_B


def total_cost(
    constraint: Constraint,
    budget: jax.Array,
    source_BxS: jax.Array,
    tokens_BxT: jax.Array,
    asked_BxT: jax.Array,
    unit: Unit = TOKENS,
    end: History | None = None,
) -> jax.Array:
    """Sum of the costs of finished outputs, float32 [B], in units of the constraint.

    Args:
      constraint: whose costs.
      budget: float32 [B] or [], which a cost may depend on.
      source_BxS: as in `histories`; what stands after the end costs nothing.
      tokens_BxT: as in `histories`; what stands after the end costs nothing.
      asked_BxT: as in `histories`; what stands after the end costs nothing.
      unit: what is counted.
      end: the history at the end as it was seen while writing; by default as the tokens show it.
    """
    before = histories(source_BxS, tokens_BxT, asked_BxT, unit)
    told = constraint.total or constraint.spent
    if told is not None and not unit.one_token:
        end = History(*(leaf[-1] for leaf in before)) if end is None else end
        return jnp.asarray(told(end, budget), jnp.float32)
    steps = History(*(leaf[:-1] for leaf in before))

    def cost(history: History, token_B: jax.Array, asked_B: jax.Array) -> jax.Array:
        call_B = called(history, token_B, asked_B, unit)
        if not unit.one_token:
            anew_B, within = unit.begins(token_B, history.last_B), before_unit(history, unit)
            history = History(*(jnp.where(anew_B, x, y) for x, y in zip(history, within, strict=True)))
        return constraint.cost(history, call_B, budget)

    cost_TxB = jax.vmap(cost)(steps, tokens_BxT.T, asked_BxT.T)
    return jnp.sum(jnp.where(tokens_BxT.T != 0, cost_TxB, 0.0), axis=0)


def excess(
    constraint: Constraint,
    budget: jax.Array,
    source_BxS: jax.Array,
    tokens_BxT: jax.Array,
    asked_BxT: jax.Array,
    unit: Unit = TOKENS,
    seen: History | None = None,
) -> jax.Array:
    """By how much the costs of finished outputs exceed what `budget` allows them, float32 [B]; negative: within it.

    Args:
      constraint: as in `total_cost`.
      budget: as in `total_cost`.
      source_BxS: as in `total_cost`.
      tokens_BxT: as in `total_cost`.
      asked_BxT: as in `total_cost`.
      unit: as in `total_cost`.
      seen: as `end` in `total_cost`.
    """
    end = History(*(leaf[-1] for leaf in histories(source_BxS, tokens_BxT, asked_BxT, unit)))
    return total_cost(constraint, budget, source_BxS, tokens_BxT, asked_BxT, unit, seen) - constraint.limit(budget, end)
