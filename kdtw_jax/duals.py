"""Lagrange multipliers of a constraint: one price per region of budgets, moved until what is used is what is allowed.

A policy that reads its budget needs a price for each budget, so one scalar will not do: prices are kept at knots over
the budget's range and interpolated in between. Two controllers:

- "ascent": price += rate * violation, the plain dual ascent. The policy follows a price with a lag, so it oscillates;
- "pi": price = integral + proportional * violation (Stooke et al. 2020, arXiv 2007.03964, without their derivative).
  The proportional part damps, and the integral stops where the price would leave its bounds (anti-windup).

Prices may be negative: with the normalised reward the price of a budget above one half is
(`kdtw_jax.tabular.help_mdp`). Violations come from fresh costs of the policy itself, measured as it decodes at test
time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.errors import UserError
from kdtw_jax.ranges import check_ranges


@dataclass(frozen=True)
class DualConfig:
    """How prices move.

    Raises:
      UserError: knots that do not rise, or numbers out of their range.
    """

    knots: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # budgets that have a price of their own
    controller: Literal["pi", "ascent"] = "pi"
    rate: float = 0.1  # of the integral, per unit of violation and update
    proportional: float = 2.0  # of the "pi" controller
    memory: float = 0.9  # decay of the moving average of violations that "pi" looks at; 0: the newest only
    low: float = -8.0  # bounds of prices
    high: float = 8.0

    def __post_init__(self) -> None:
        if len(self.knots) < 1 or any(a >= b for a, b in zip(self.knots, self.knots[1:], strict=False)):
            raise UserError(f"knots must be at least one budget, rising, got {self.knots}")
        check_ranges(self, "duals.", rate="(0, inf)", proportional="[0, inf)", memory="[0, 1)")
        check_ranges(self, "duals.", low="(-inf, inf)", high="(-inf, inf)")
        if not self.low < self.high:
            raise UserError(f"duals.low must be below duals.high, got {self.low} and {self.high}")


class Duals(NamedTuple):
    """Frozen; goes into a checkpoint as it is. K knots."""

    integral_K: jax.Array  # float32
    violation_K: jax.Array  # float32, moving average


def start_duals(config: DualConfig, price_K: jax.Array) -> Duals:
    """The state to begin with, at the prices `price_K`, brought within the bounds."""
    clipped_K = jnp.clip(jnp.asarray(price_K, jnp.float32), config.low, config.high)
    return Duals(jnp.broadcast_to(clipped_K, (len(config.knots),)), jnp.zeros(len(config.knots)))


def prices(config: DualConfig, duals: Duals) -> jax.Array:
    """The prices at the knots, [K]."""
    push_K = config.proportional * duals.violation_K if config.controller == "pi" else 0.0
    return jnp.clip(duals.integral_K + push_K, config.low, config.high)


def price(config: DualConfig, duals: Duals, budget_B: jax.Array) -> jax.Array:
    """The price of each budget of `budget_B`, [B]: linear between knots, constant beyond the outermost."""
    return jnp.interp(budget_B, jnp.asarray(config.knots), prices(config, duals))


def update_duals(
    config: DualConfig,
    duals: Duals,
    budget_B: jax.Array,
    violation_B: jax.Array,
    counts_B: jax.Array | None = None,
    *,
    pace: float | jax.Array = 1.0,
) -> Duals:
    """Moves the prices by fresh violations.

    A row counts for the two knots around its budget, as they count for its price. A knot with rows of less than one
    row's weight moves by that much less, and one without any stays.

    Args:
      config: how prices move.
      duals: the state so far.
      budget_B: of the rows.
      violation_B: cost minus what is allowed, in units of the budget.
      counts_B: bool, rows that count; by default all.
      pace: scales the rate: slower towards the end of a training, prices keep less of the rows' noise.
    """
    weight_BxK = _weights(jnp.asarray(config.knots), budget_B)
    if counts_B is not None:
        weight_BxK = weight_BxK * counts_B[:, None]
    rows_K = weight_BxK.sum(axis=0)
    fresh_K = weight_BxK.T @ violation_B / jnp.maximum(rows_K, 1.0)
    forget_K = (1 - (config.memory if config.controller == "pi" else 0.0)) * jnp.minimum(rows_K, 1.0)
    moved_K = jnp.clip(duals.integral_K + pace * config.rate * fresh_K, config.low, config.high)
    mean_K = fresh_K / jnp.where(rows_K > 0, jnp.minimum(rows_K, 1.0), 1.0)
    return Duals(moved_K, duals.violation_K + forget_K * (mean_K - duals.violation_K))


def _weights(knot_K: jax.Array, budget_B: jax.Array) -> jax.Array:
    """Weights of the knots in the linear interpolation at each budget, [B, K]: the hat functions."""
    return jax.vmap(lambda unit_K: jnp.interp(budget_B, knot_K, unit_K), out_axes=1)(jnp.eye(len(knot_K)))
