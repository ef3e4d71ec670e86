"""Multipliers find prices that are known, PI without the swings of plain ascent, and stay within their bounds."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.duals import DualConfig, Duals, price, prices, start_duals, update_duals
from kdtw_jax.errors import UserError
from kdtw_jax.tabular.help_mdp import dual_optimum, extended_optimum, use
from kdtw_jax.tabular.mdp import random_mdp

BUDGETS = jnp.asarray([0.05, 0.2, 0.5, 0.7])
CONFIG = DualConfig(knots=(0.05, 0.2, 0.5, 0.7), rate=0.3, proportional=6.0, memory=0.5)
MDP = random_mdp(3, 4, seed=0)


def literal_use(price: float) -> float:
    """Share asked for by the optimum of the literal Lagrangian: what is used is not known in closed form there."""
    return use(MDP, extended_optimum(MDP, price, normalize=False).log_pi_SxA).share


BEST = np.array(
    [dual_optimum(lambda p: use(MDP, extended_optimum(MDP, p, normalize=False).log_pi_SxA), float(b)) for b in BUDGETS]
)


def trajectory(config: DualConfig, steps: int, lag: float) -> np.ndarray:
    """Prices over time, [steps, K], for a student that follows them with a lag and whose use is the exact one."""
    grid = jnp.linspace(-9, 9, 400)
    share = jnp.asarray([literal_use(float(p)) for p in grid])

    def step(carry: tuple[Duals, jax.Array], _: None) -> tuple[tuple[Duals, jax.Array], jax.Array]:
        duals, follows_K = carry
        now_K = price(config, duals, BUDGETS)
        follows_K = follows_K + (now_K - follows_K) / lag
        used_K = jnp.interp(follows_K, grid, share)
        return (update_duals(config, duals, BUDGETS, used_K - BUDGETS), follows_K), now_K

    start = start_duals(config, jnp.zeros(4))
    return np.asarray(jax.lax.scan(step, (start, jnp.zeros(4)), length=steps)[1])


@pytest.mark.parametrize("controller", ["pi", "ascent"])
def test_prices_reach_the_dual_optimum(controller: str) -> None:
    config = replace(CONFIG, controller=controller)  # type: ignore[arg-type]
    np.testing.assert_allclose(trajectory(config, 3000, lag=5.0)[-1], BEST, atol=0.02)
    assert BEST.min() < 0 < BEST.max()


def test_pi_settles_sooner_and_swings_less_than_plain_ascent() -> None:
    """At the same rate, against a student that lags."""
    swings, settled = {}, {}
    for controller in ("pi", "ascent"):
        config = replace(CONFIG, controller=controller, rate=1.0)  # type: ignore[arg-type]
        error = np.abs(trajectory(config, 1500, lag=20.0) - BEST)
        overshoot = trajectory(config, 1500, lag=20.0) - BEST
        swings[controller] = int((np.diff(np.sign(overshoot), axis=0) != 0).sum())
        settled[controller] = int(np.flatnonzero((error > 0.1).any(axis=1)).max())
    assert swings["pi"] < swings["ascent"] / 2
    assert settled["pi"] < settled["ascent"]


def test_a_price_is_interpolated_and_rows_move_the_knots_around_them_alone() -> None:
    duals = start_duals(CONFIG, jnp.asarray([4.0, 2.0, 1.0, -1.0]))
    np.testing.assert_allclose(
        price(CONFIG, duals, jnp.asarray([0.0, 0.05, 0.125, 0.6, 0.9])), [4, 4, 3, 0, -1], atol=1e-6
    )
    moved = update_duals(CONFIG, duals, jnp.asarray([0.3, 0.3]), jnp.asarray([0.1, 0.3]))
    change = np.asarray(prices(CONFIG, moved) - prices(CONFIG, duals))
    assert change[0] == change[3] == 0
    assert (change[1:3] > 0).all()
    # By the mean violation of the rows near them, the one with less than a row's weight by that much less.
    np.testing.assert_allclose(moved.integral_K[1:3] - duals.integral_K[1:3], [0.3 * 0.2, 0.3 * 0.2 * 2 / 3], rtol=1e-5)
    np.testing.assert_allclose(moved.violation_K, [0, 0.5 * 0.2, 0.5 * 0.2 * 2 / 3, 0], rtol=1e-5)
    slow = update_duals(CONFIG, duals, jnp.asarray([0.3, 0.3]), jnp.asarray([0.1, 0.3]), pace=0.5)
    np.testing.assert_allclose(slow.integral_K - duals.integral_K, (moved.integral_K - duals.integral_K) / 2, rtol=1e-4)


def test_the_integral_does_not_wind_up() -> None:
    config = replace(CONFIG, high=2.0)
    duals = start_duals(config, jnp.full(4, 1.9))
    for _ in range(50):
        duals = update_duals(config, duals, BUDGETS, jnp.full(4, 0.9))
    np.testing.assert_allclose(prices(config, duals), 2.0)
    for _ in range(8):  # it comes down at once, not after having undone 50 steps
        duals = update_duals(config, duals, BUDGETS, jnp.full(4, -0.3))
    assert (prices(config, duals) < 1.0).all()


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="rising"):
        DualConfig(knots=(0.2, 0.1))
    with pytest.raises(UserError, match=r"duals\.low must be below duals\.high"):
        DualConfig(low=1.0, high=1.0)
