"""Exact theorems on asking for help, on MDPs small enough to enumerate."""

from __future__ import annotations

import numpy as np
import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.help_mdp import dual_optimum, emitted, extended_optimum, extended_reward, limited_optimum, use
from kdtw_jax.mdp import EnumerableMDP, random_mdp, soft_optimum

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
