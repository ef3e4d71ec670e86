"""Exact theorems on asking for help, on MDPs small enough to enumerate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from kdtw_jax.errors import UserError
from kdtw_jax.tabular.help_mdp import (
    Use,
    dual_optimum,
    emitted,
    extended_optimum,
    extended_reward,
    limited_optimum,
    use,
)
from kdtw_jax.tabular.mdp import EnumerableMDP, random_mdp, soft_optimum

PRICES = (-1.5, 0.0, 1.0, 3.0)


def teacher_length(mdp: EnumerableMDP) -> float:
    return use(mdp, extended_optimum(mdp, 60.0).log_pi_SxA).length


@pytest.mark.parametrize("price", PRICES)
def test_the_normalised_optimum_is_the_extended_teacher_itself(price: float) -> None:
    mdp = random_mdp(3, 4, seed=0)
    best = extended_optimum(mdp, price)
    np.testing.assert_allclose(best.value_S, 0.0, atol=1e-12)
    np.testing.assert_allclose(np.exp(best.log_pi_SxA[:, -1]), 1 / (1 + np.exp(price)))
    np.testing.assert_allclose(emitted(mdp, best.log_pi_SxA), np.exp(mdp.log_mu_SxA), atol=1e-12)


@pytest.mark.parametrize("price", PRICES)
def test_normalised_lengths_are_the_teachers_and_literal_ones_are_longer(price: float) -> None:
    mdp = random_mdp(3, 5, seed=1)
    assert use(mdp, extended_optimum(mdp, price).log_pi_SxA).length == pytest.approx(teacher_length(mdp), rel=1e-9)
    literal = extended_optimum(mdp, price, normalize=False)
    assert use(mdp, literal.log_pi_SxA).length > teacher_length(mdp) * 1.01
    if price < 0:
        return
    # The end is put off the more, the cheaper asking is (below zero the teacher writes most tokens, the end too).
    dearer = extended_optimum(mdp, price + 1, normalize=False)
    assert use(mdp, dearer.log_pi_SxA).length < use(mdp, literal.log_pi_SxA).length


def test_an_infinite_price_is_the_problem_without_help() -> None:
    mdp = random_mdp(3, 4, seed=2)
    for alpha, gamma in ((1.0, 1.0), (0.5, 0.9)):
        alone = soft_optimum(mdp, alpha, gamma)
        dear = extended_optimum(mdp, 200.0, alpha=alpha, gamma=gamma)
        np.testing.assert_allclose(dear.value_S, alone.value_S, atol=1e-9)
        np.testing.assert_allclose(np.exp(dear.log_pi_SxA[:, :-1]), np.exp(alone.log_pi_SxA), atol=1e-9)


@pytest.mark.parametrize("normalize", [True, False])
def test_backward_induction_is_optimal(normalize: bool) -> None:
    """No other policy is worth more at any state: the value of random policies, by the definition."""
    mdp = random_mdp(3, 3, seed=3)
    price, alpha, gamma = 0.7, 0.8, 0.9
    best = extended_optimum(mdp, price, alpha=alpha, gamma=gamma, normalize=normalize)
    reward, mu = extended_reward(mdp, price, normalize=normalize), np.exp(mdp.log_mu_SxA)

    def worth(log_pi: np.ndarray) -> np.ndarray:
        pi = np.exp(log_pi)
        gain = np.where(pi > 0, np.where(pi > 0, reward, 0) - alpha * np.where(pi > 0, log_pi, 0), 0)
        value = np.zeros(len(mdp.prefixes))
        for _ in range(mdp.horizon):
            later = mdp.next_value(value)
            later = np.concatenate([later, (mu * later).sum(1, keepdims=True)], 1)
            value = (pi * (gain + gamma * later)).sum(1)
        return value

    np.testing.assert_allclose(worth(best.log_pi_SxA), best.value_S, atol=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = best.log_pi_SxA + 0.3 * rng.normal(size=best.log_pi_SxA.shape)
        other -= np.logaddexp.reduce(other, axis=1, keepdims=True)
        assert (worth(other) <= best.value_S + 1e-12).all()
        assert worth(other)[0] < best.value_S[0] - 1e-6


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.8])
def test_the_dual_optimum_is_the_log_odds_of_not_asking(share: float) -> None:
    """So budgets above one half need a price below zero."""
    mdp = random_mdp(4, 4, seed=4)
    price = dual_optimum(lambda p: use(mdp, extended_optimum(mdp, p).log_pi_SxA), share)
    assert price == pytest.approx(np.log((1 - share) / share), abs=1e-6)
    assert (price < 0) == (share > 0.5)


def test_the_literal_dual_optimum_keeps_the_budget_too_but_not_the_length() -> None:
    mdp = random_mdp(3, 5, seed=5)

    def solved(price: float) -> np.ndarray:
        return extended_optimum(mdp, price, normalize=False).log_pi_SxA

    price = dual_optimum(lambda p: use(mdp, solved(p)), 0.2)
    assert use(mdp, solved(price)).share == pytest.approx(0.2, abs=1e-9)
    assert use(mdp, solved(price)).length > 1.02 * teacher_length(mdp)
    with pytest.raises(UserError, match="strictly between 0 and 1"):
        dual_optimum(lambda p: use(mdp, solved(p)), 1.0)


def literal(mdp: EnumerableMDP) -> Callable[[float], Use]:
    """Use by price, of the optima of the literal reward."""
    return lambda price: use(mdp, extended_optimum(mdp, price, normalize=False).log_pi_SxA)


def test_of_a_share_that_is_not_monotone_in_the_price_the_highest_price_is_found() -> None:
    """Use rises up to a price of about -4.4 and falls below it, so the ends of the bracket lie on one side."""
    solve = literal(random_mdp(4, 5, seed=25))
    shares = [solve(price).share for price in (-2.4, -4.4, -30.0)]
    assert shares == pytest.approx([0.70, 0.73, 0.67], abs=0.005)
    price = dual_optimum(solve, 0.7)
    assert solve(price).share == pytest.approx(0.7, abs=1e-9)
    assert price == pytest.approx(-2.4, abs=0.1)  # and not the one between -4.4 and -30
    with pytest.raises(UserError, match=r"no price .* 0\.75: prices from -30 to 30 make shares of 0\.00 to 0\.73$"):
        dual_optimum(solve, 0.75)


@pytest.mark.parametrize(("vocabulary", "horizon", "seed"), [(2, 5, 2), (2, 4, 7), (3, 5, 1), (4, 5, 1), (4, 4, 3)])
def test_every_share_up_to_the_largest_has_its_price(vocabulary: int, horizon: int, seed: int) -> None:
    """The largest lies between two prices of any grid, and shares just short of it on either side of it."""
    solve = literal(random_mdp(vocabulary, horizon, seed=seed))
    prices = np.linspace(30, -30, 1201)
    shares = np.array([solve(price).share for price in prices])
    top = int(shares.argmax())
    bounds = (prices[min(top + 1, 1200)], prices[top - 1])
    best = minimize_scalar(lambda p: -solve(p).share, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    largest = max(-best.fun, shares[top])
    for share in (0.01, 0.2, 0.9 * largest, largest - 1e-3, largest - 1e-6, largest - 1e-9):
        price = dual_optimum(solve, share)
        assert solve(price).share == pytest.approx(share, abs=1e-10)
        assert (shares[prices > price + 1e-6] < share).all()
    for share in (largest + 1e-6, 0.5 * (1 + largest)):
        with pytest.raises(UserError, match=r"no price makes the share asked for .* prices from -30 to 30 make shares"):
            dual_optimum(solve, share)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, 1.7, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused_before_anything_is_solved(share: float) -> None:
    def never(price: float) -> Use:
        raise AssertionError(price)

    with pytest.raises(UserError, match="strictly between 0 and 1"):
        dual_optimum(never, share)


def test_a_limited_student_asks_where_it_cannot_express_the_teacher() -> None:
    """Two states of equal depth share the student's logits; the others have rows of their own."""
    mdp = random_mdp(3, 3, seed=6, spread=2.0)
    first, second = mdp.prefixes.index((1,)), mdp.prefixes.index((2,))
    rows = list(range(len(mdp.prefixes)))
    rows[second] = first
    price = 1.5
    log_pi = limited_optimum(mdp, price, tuple(rows))
    ask = np.exp(log_pi[:, -1])
    prior = 1 / (1 + np.exp(price))
    own = log_pi[:, :-1] - np.log1p(-ask)[:, None]
    for s in range(len(mdp.prefixes)):
        if s not in (first, second):
            assert ask[s] == pytest.approx(prior, abs=0.01)
    assert max(ask[first], ask[second]) > prior + 0.1
    # What it saves there is the KL of its own words: the gate is sigma(saving - price) where nothing lies ahead of it.
    with np.errstate(invalid="ignore"):
        kl = np.nansum(np.exp(own) * (own - mdp.log_mu_SxA), axis=1)
    for s in (first, second):
        assert ask[s] == pytest.approx(1 / (1 + np.exp(price - kl[s])), abs=0.02)
