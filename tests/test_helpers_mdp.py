"""Exact theorems on several helpers, each with its price, on MDPs small enough to enumerate."""

from __future__ import annotations

import numpy as np
import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.tabular.help_mdp import extended_optimum, extended_reward, use
from kdtw_jax.tabular.helpers_mdp import (
    HelperBudgets,
    TabularHelper,
    dual_prices,
    emitted_with_helpers,
    gate_over_helpers,
    helper_use,
    helpers_optimum,
    helpers_reward,
    savings,
    share_prices,
)
from kdtw_jax.tabular.mdp import EnumerableMDP, random_mdp

REWARDS = pytest.mark.parametrize("normalize", [True, False])


def blurred(mdp: EnumerableMDP, seed: int, spread: float = 1.0) -> TabularHelper:
    """A helper that is near the teacher: the smaller `spread`, the nearer."""
    noise = np.random.default_rng(seed).normal(size=mdp.log_mu_SxA.shape) * spread
    logits = mdp.log_mu_SxA + noise
    return TabularHelper(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


def declining(helper: TabularHelper, states: list[int]) -> TabularHelper:
    log_prob = helper.log_prob_SxA.copy()
    log_prob[states] = -np.inf
    return helper._replace(log_prob_SxA=log_prob)


def own_policy(log_pi_SxX: np.ndarray, helpers: int) -> np.ndarray:
    own = log_pi_SxX[:, :-helpers]
    return own - np.logaddexp.reduce(own, axis=1, keepdims=True)


@REWARDS
def test_one_helper_that_is_the_teacher_is_the_mdp_with_help(normalize: bool) -> None:
    mdp = random_mdp(3, 4, seed=0)
    teacher = [TabularHelper(mdp.log_mu_SxA)]
    for price, alpha, gamma in ((-1.5, 1.0, 1.0), (0.7, 0.5, 0.9), (3.0, 2.0, 1.0)):
        several = helpers_optimum(mdp, teacher, np.array([price]), alpha=alpha, gamma=gamma, normalize=normalize)
        one = extended_optimum(mdp, price, alpha=alpha, gamma=gamma, normalize=normalize)
        np.testing.assert_allclose(several.value_S, one.value_S, atol=1e-12)
        np.testing.assert_allclose(several.log_pi_SxA, one.log_pi_SxA, atol=1e-12)
        np.testing.assert_allclose(
            helpers_reward(mdp, teacher, np.array([price]), normalize=normalize),
            extended_reward(mdp, price, normalize=normalize),
            atol=1e-12,
        )
        found, known = helper_use(mdp, teacher, several.log_pi_SxA), use(mdp, one.log_pi_SxA)
        assert (found.calls_K[0], found.length) == pytest.approx((known.calls, known.length))


@REWARDS
def test_helpers_without_a_fault_leave_the_teachers_words_and_v_at_zero_where_normalised(normalize: bool) -> None:
    mdp = random_mdp(3, 4, seed=1)
    helpers = [TabularHelper(mdp.log_mu_SxA), declining(TabularHelper(mdp.log_mu_SxA), [0, 2])]
    best = helpers_optimum(mdp, helpers, np.array([0.5, 1.5]), normalize=normalize)
    same = np.allclose(emitted_with_helpers(helpers, best.log_pi_SxA), np.exp(mdp.log_mu_SxA), atol=1e-12)
    assert same == normalize and np.allclose(best.value_S, 0.0, atol=1e-12) == normalize


@REWARDS
def test_two_identical_helpers_share_evenly_and_are_one_that_is_cheaper_by_log_2(normalize: bool) -> None:
    """e^-p + e^-p = e^-(p - log 2); with another alpha, alpha log 2 under the literal reward."""
    mdp = random_mdp(3, 4, seed=2)
    helper = blurred(mdp, 0)
    for alpha in (1.0,) if normalize else (1.0, 0.5, 2.0):
        two = helpers_optimum(mdp, [helper, helper], np.array([0.8, 0.8]), alpha=alpha, normalize=normalize)
        np.testing.assert_allclose(two.log_pi_SxA[:, -1], two.log_pi_SxA[:, -2], atol=1e-12)
        price = np.array([0.8 - alpha * np.log(2)])
        one = helpers_optimum(mdp, [helper], price, alpha=alpha, normalize=normalize)
        np.testing.assert_allclose(two.value_S, one.value_S, atol=1e-12)
        np.testing.assert_allclose(np.exp(two.log_pi_SxA[:, -2:]).sum(1), np.exp(one.log_pi_SxA[:, -1]), atol=1e-12)


@REWARDS
def test_a_helper_at_an_infinite_price_is_as_absent(normalize: bool) -> None:
    mdp = random_mdp(3, 4, seed=3)
    cheap, dear = blurred(mdp, 1), blurred(mdp, 2)
    both = helpers_optimum(mdp, [cheap, dear], np.array([0.4, np.inf]), alpha=0.8, gamma=0.9, normalize=normalize)
    alone = helpers_optimum(mdp, [cheap], np.array([0.4]), alpha=0.8, gamma=0.9, normalize=normalize)
    np.testing.assert_allclose(both.value_S, alone.value_S, atol=1e-12)
    np.testing.assert_allclose(both.log_pi_SxA[:, :-1], alone.log_pi_SxA, atol=1e-12)
    assert (both.log_pi_SxA[:, -1] == -np.inf).all()


@REWARDS
def test_who_declines_is_not_asked_and_all_is_as_without_him_where_he_always_does(normalize: bool) -> None:
    mdp = random_mdp(3, 4, seed=4)
    helper, other = blurred(mdp, 3), blurred(mdp, 4)
    some = declining(other, [1, 4])
    best = helpers_optimum(mdp, [helper, some], np.array([0.2, 0.1]), normalize=normalize)
    asked = np.exp(best.log_pi_SxA[:, -1])
    assert (asked[[1, 4]] == 0).all() and (np.delete(asked, [1, 4]) > 0).all()
    never = declining(other, list(range(len(mdp.prefixes))))
    none = helpers_optimum(mdp, [helper, never], np.array([0.2, 0.1]), normalize=normalize)
    alone = helpers_optimum(mdp, [helper], np.array([0.2]), normalize=normalize)
    np.testing.assert_allclose(none.value_S, alone.value_S, atol=1e-12)
    np.testing.assert_allclose(none.log_pi_SxA[:, :-1], alone.log_pi_SxA, atol=1e-12)


@REWARDS
def test_backward_induction_is_optimal(normalize: bool) -> None:
    """No other policy is worth more at any state: the value of random policies, by the definition."""
    mdp = random_mdp(3, 3, seed=5)
    helpers, price, alpha, gamma = [blurred(mdp, 5), blurred(mdp, 6, 2.0)], np.array([0.7, 0.1]), 0.8, 0.9
    best = helpers_optimum(mdp, helpers, price, alpha=alpha, gamma=gamma, normalize=normalize)
    reward = helpers_reward(mdp, helpers, price, normalize=normalize)

    def worth(log_pi: np.ndarray) -> np.ndarray:
        pi = np.exp(log_pi)
        gain = np.where(pi > 0, np.where(pi > 0, reward, 0) - alpha * np.where(pi > 0, log_pi, 0), 0)
        value = np.zeros(len(mdp.prefixes))
        for _ in range(mdp.horizon):
            later = mdp.next_value(value)
            asked = [(np.exp(h.log_prob_SxA) * later).sum(1, keepdims=True) for h in helpers]
            value = (pi * (gain + gamma * np.concatenate([later, *asked], 1))).sum(1)
        return value

    np.testing.assert_allclose(worth(best.log_pi_SxA), best.value_S, atol=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = best.log_pi_SxA + 0.3 * rng.normal(size=best.log_pi_SxA.shape)
        other -= np.logaddexp.reduce(other, axis=1, keepdims=True)
        assert (worth(other) <= best.value_S + 1e-12).all() and worth(other)[0] < best.value_S[0] - 1e-6


def test_a_fault_is_the_divergence_from_the_teacher_and_one_who_is_trusted_has_none() -> None:
    mdp = random_mdp(3, 4, seed=6)
    helper = blurred(mdp, 7)
    allowed, p = mdp.allowed_SxA, np.exp(helper.log_prob_SxA)
    ratio = np.where(allowed, helper.log_prob_SxA, 0) - np.where(allowed, mdp.log_mu_SxA, 0)
    np.testing.assert_allclose(helper.fault_S(mdp.log_mu_SxA), (p * ratio).sum(1), atol=1e-12)
    assert (helper.fault_S(mdp.log_mu_SxA)[mdp.allowed_SxA.sum(1) > 1] > 0).all()
    assert (helper._replace(trusted=True).fault_S(mdp.log_mu_SxA) == 0).all()
    assert np.abs(TabularHelper(mdp.log_mu_SxA).fault_S(mdp.log_mu_SxA)).max() < 1e-12


def test_the_nearer_of_two_helpers_at_one_price_is_asked_more() -> None:
    mdp = random_mdp(4, 4, seed=7)
    near, far = blurred(mdp, 8, 0.3), blurred(mdp, 8, 1.5)
    calls = helper_use(mdp, [near, far], helpers_optimum(mdp, [near, far], np.ones(2)).log_pi_SxA).calls_K
    assert calls[0] > 1.1 * calls[1] > 0


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_dual_prices_meet_each_budget_that_binds_and_cost_nothing_where_none_does(alpha: float) -> None:
    mdp = random_mdp(3, 5, seed=8)
    helpers, units = [blurred(mdp, 9, 0.5), TabularHelper(mdp.log_mu_SxA)], np.array([1.0, 5.0])
    free = helper_use(
        mdp, helpers, helpers_optimum(mdp, helpers, np.zeros(2), alpha=alpha, normalize=False).log_pi_SxA
    ).calls_K
    for budgets in (
        HelperBudgets(np.array([0.2, 0.1]), units),
        HelperBudgets(np.array([np.inf, 0.1]), units),
        HelperBudgets(np.array([np.inf, np.inf]), units, 0.6),
        HelperBudgets(np.array([0.05, np.inf]), units, 0.6),
        HelperBudgets(np.array([0.3, 0.05]), units, 0.9),
        HelperBudgets(free * 2, units),
    ):
        found = dual_prices(mdp, helpers, budgets, alpha=alpha)
        calls = helper_use(mdp, helpers, found.solution.log_pi_SxA).calls_K
        used, bounds = np.append(calls, calls @ units), np.append(budgets.calls_K, budgets.cost)
        multipliers = np.append(found.multiplier_K, found.cost_multiplier)
        assert (used <= bounds + 1e-5).all() and (multipliers >= 0).all()
        np.testing.assert_allclose(used[multipliers > 1e-6], bounds[multipliers > 1e-6], atol=1e-5)
        np.testing.assert_allclose(found.price_K, found.multiplier_K + found.cost_multiplier * units)
    assert multipliers.max() < 1e-6  # twice of what is used at no price binds nothing
    with pytest.raises(UserError, match="budgets have to be above 0"):
        dual_prices(mdp, helpers, HelperBudgets(np.array([0.0, 1.0]), units))


def test_a_cost_budget_buys_the_cheap_helper_where_it_is_as_good_and_the_dear_one_where_it_is_not() -> None:
    mdp = random_mdp(3, 4, seed=9)
    teacher, units = TabularHelper(mdp.log_mu_SxA), np.array([1.0, 5.0])
    far = blurred(mdp, 10, 3.0).log_prob_SxA
    mixed = mdp.log_mu_SxA.copy()
    mixed[[1, 2]] = far[[1, 2]]  # in two states the cheap one knows little
    found = dual_prices(mdp, [TabularHelper(mixed), teacher], HelperBudgets(np.full(2, np.inf), units, 1.0))
    ask = np.exp(found.solution.log_pi_SxA[:, -2:])
    dearer = ask[:, 1] / ask[:, 0]
    assert dearer[[1, 2]].min() > 1.05 * np.delete(dearer, [1, 2]).max()


def test_share_prices_are_the_log_odds_where_no_helper_has_a_fault_and_meet_shares_where_they_have() -> None:
    mdp, share = random_mdp(3, 4, seed=10), np.array([0.3, 0.1])
    perfect = [TabularHelper(mdp.log_mu_SxA)] * 2
    np.testing.assert_allclose(share_prices(mdp, perfect, share), np.log(0.6 / share), atol=1e-9)
    helpers = [blurred(mdp, 11), declining(TabularHelper(mdp.log_mu_SxA), [0])]
    price = share_prices(mdp, helpers, share)
    np.testing.assert_allclose(
        helper_use(mdp, helpers, helpers_optimum(mdp, helpers, price).log_pi_SxA).share_K, share, atol=1e-8
    )
    for wrong in ([0.0, 0.1], [0.6, 0.5]):
        with pytest.raises(UserError, match="in sum below 1"):
            share_prices(mdp, helpers, np.array(wrong))


@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_the_gate_is_the_softmax_of_savings_less_prices(alpha: float) -> None:
    """By one-step savings where V does not depend on who writes, here since nothing later counts; always with V."""
    mdp, price = random_mdp(3, 4, seed=11), np.array([0.6, 1.1])
    helpers = [declining(blurred(mdp, 12), [1]), TabularHelper(mdp.log_mu_SxA)]
    for gamma in (0.0, 1.0):
        best = helpers_optimum(mdp, helpers, price, alpha=alpha, gamma=gamma)
        own = own_policy(best.log_pi_SxA, 2)
        write = np.logaddexp.reduce(best.log_pi_SxA[:, :-2], axis=1)
        optimum = np.exp(np.column_stack([write, best.log_pi_SxA[:, -2:]]))
        whole = savings(mdp, helpers, own, best.value_S, alpha=alpha, gamma=gamma)
        np.testing.assert_allclose(np.exp(gate_over_helpers(whole, price, alpha)), optimum, atol=1e-12)
        one_step = np.exp(gate_over_helpers(savings(mdp, helpers, own, alpha=alpha), price, alpha))
        assert np.allclose(one_step, optimum, atol=1e-12) == (gamma == 0.0)
