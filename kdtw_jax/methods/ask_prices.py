"""Prices of asking: what a unit of each rule's cost is worth today, and how rows as at test time move that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints import TOKENS, Constraint, Drawn, History, Terms, Unit, histories, total_cost
from kdtw_jax.constraints.history import before_unit
from kdtw_jax.duals import DualConfig, Duals, price, prices, start_duals, update_duals
from kdtw_jax.methods.ask_config import first_prices

_LAST_PACE = 0.4  # of the prices when the student has learned: slow, but students still change
_REST = 15.0  # how far the pace falls from there at rest: steps of 1, 1/2, 1/3 .. average what they see


def unit_costs(constraints: Sequence[Constraint], terms: Terms, history: History, unit: Unit = TOKENS) -> jax.Array:
    """Computes what asking would cost now, [B, C], 0 where a constraint is not active; leaves of `history` [B].

    Where it is not known whether the answer belongs to the word under way, it is what costs more.
    """
    costs = []
    within = before_unit(history, unit)
    for index, constraint in enumerate(constraints):
        budget_B = terms.budget_BxC[:, index]
        cost_B = constraint.cost(history, jnp.ones(budget_B.shape, bool), budget_B)
        if not unit.one_token:
            cost_B = jnp.maximum(cost_B, constraint.cost(within, jnp.ones(budget_B.shape, bool), budget_B))
        costs.append(jnp.where(terms.active_BxC[:, index], cost_B, 0.0))
    return jnp.stack(costs, axis=-1)


def learning_pace(step: int, steps: int) -> float:
    """Says how fast prices move at a `step` of the `steps` in which the student learns: ever more slowly."""
    return 1 - (1 - _LAST_PACE) * min(step / steps, 1)


def resting_pace(step: int, steps: int) -> float:
    """Says how fast prices move at a `step` of the `steps` at rest: still more slowly, averaging what they see."""
    return _LAST_PACE / (1 + _REST * step / steps)


class Quotes(NamedTuple):
    """Q further rules with their prices: the reader of rules needs to see more words than paths are written under."""

    rule_QxR: jax.Array  # int32
    terms: Terms  # leaves [Q, C]
    price_QxC: jax.Array  # float32, nats per unit of each constraint's cost
    place_Q: jax.Array  # float32 in [0, 1), where in a path each is quoted


@dataclass(frozen=True)
class Prices:
    """How the prices of C constraints move; what they are is a table each, which goes from step to step."""

    constraints: tuple[Constraint, ...]
    duals: tuple[DualConfig, ...]
    unit: Unit = TOKENS  # what they count

    def start(self) -> tuple[Duals, ...]:
        """Makes the first prices, one table per constraint."""
        pairs = zip(self.duals, self.constraints, strict=True)
        return tuple(start_duals(dual, first_prices(dual, c)) for dual, c in pairs)

    def without_push(self) -> Prices:
        """Drops the proportional part of the controller, which would go on wavering with the newest rows."""
        return replace(self, duals=tuple(replace(dual, controller="ascent") for dual in self.duals))

    def frozen(self, tables: tuple[Duals, ...]) -> tuple[Duals, ...]:
        """Makes tables of the same prices whose proportional part is 0: where `without_push` starts from."""
        pairs = zip(self.duals, tables, strict=True)
        return tuple(start_duals(dual, prices(dual, jax.tree.map(jnp.asarray, one))) for dual, one in pairs)

    def quote(self, tables: tuple[Duals, ...], terms: Terms) -> jax.Array:
        """Looks up the price of a unit of each constraint's cost in nats, [B, C]."""
        prices = []
        for i, constraint in enumerate(self.constraints):
            budget_B = terms.budget_BxC[:, i]
            said = constraint.price
            prices.append(jnp.exp(price(self.duals[i], tables[i], budget_B)) if said is None else said(budget_B))
        return jnp.stack(prices, axis=1)

    def draw_quotes(self, tables: tuple[Duals, ...], bank: Drawn, count: int, key: jax.Array) -> Quotes:
        """Draws rules with today's prices and a random place each.

        Args:
          tables: today's prices.
          bank: the rules to draw from.
          count: how many, Q.
          key: where chance comes from.
        """
        which, where = jax.random.split(key)
        chosen_Q = jax.random.randint(which, (count,), 0, len(bank.words_BxR))
        terms = Terms(*(jnp.asarray(x)[chosen_Q] for x in bank.terms))
        words_QxR = jnp.asarray(bank.words_BxR)[chosen_Q]
        return Quotes(words_QxR, terms, self.quote(tables, terms), jax.random.uniform(where, (count,)))

    def move(
        self,
        tables: tuple[Duals, ...],
        source_BxS: jax.Array,
        tokens_BxT: jax.Array,
        asked_BxT: jax.Array,
        terms: Terms,
        pace: jax.Array,
    ) -> tuple[Duals, ...]:
        """Moves the prices by how far rows overstep their rules, or do not use them up (`duals.update_duals`).

        Args:
          tables: the prices so far.
          source_BxS: of rows that were written as at test time.
          tokens_BxT: what was written.
          asked_BxT: bool, the tokens that the teacher was asked for.
          terms: the rules they were written under.
          pace: scales the rate of the prices.
        """
        end = History(*(leaf[-1] for leaf in histories(source_BxS, tokens_BxT, asked_BxT, self.unit)))
        moved = []
        for i, constraint in enumerate(self.constraints):
            if constraint.price is not None:
                moved.append(tables[i])
                continue
            budget_B = terms.budget_BxC[:, i]
            spent_B = total_cost(constraint, budget_B, source_BxS, tokens_BxT, asked_BxT, self.unit)
            # By the mean length and not by each output's: long outputs count as their tokens or words do.
            violation_B = (spent_B - constraint.limit(budget_B, end)) / jnp.maximum(jnp.mean(end.length_B), 1.0)
            active_B = terms.active_BxC[:, i]
            moved.append(update_duals(self.duals[i], tables[i], budget_B, violation_B, active_B, pace=pace))
        return tuple(moved)
