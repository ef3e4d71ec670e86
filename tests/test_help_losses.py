"""Losses of asking: their minima are the exact optima, their values the definitions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.losses.help import asked_divergence, asked_path, constraint_value_loss, cost_to_go, help_logit, saving
from kdtw_jax.losses.kl import top_k_with_tail
from kdtw_jax.tabular.help_mdp import emitted, limited_optimum
from kdtw_jax.tabular.mdp import random_mdp

RNG = np.random.default_rng(0)
LOGP, MU = (jax.nn.log_softmax(jnp.asarray(RNG.normal(size=(3, 5, 9)) * 2, jnp.float32)) for _ in range(2))
MASK = jnp.asarray(np.arange(5)[None, :] < np.array([5, 3, 1])[:, None])


def test_the_log_odds_of_asking() -> None:
    logit = help_logit(LOGP, 4)
    np.testing.assert_allclose(jax.nn.sigmoid(logit), jnp.exp(LOGP[..., 4]), rtol=1e-5)
    banned = LOGP.at[..., 2].set(-jnp.inf)
    gradient = jax.grad(lambda x: help_logit(jax.nn.log_softmax(x), 4).sum())(banned)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[..., 2], 0.0)


def test_the_gate_of_a_limited_student_is_the_exact_optimum_of_its_mdp() -> None:
    """Where every path has ended after the next token, nothing lies ahead, and D is the KL alone."""
    mdp = random_mdp(3, 3, seed=6, spread=2.0)
    rows = [0, 1, 1, 3, 4, 5, 6]  # the two states of depth 1 share their logits
    price = 1.5
    log_pi = limited_optimum(mdp, price, tuple(rows))
    assert np.abs(emitted(mdp, log_pi).sum(1) - 1).max() < 1e-5
    with np.errstate(divide="ignore"):
        own = jnp.asarray(log_pi[1:3, :-1] - np.log1p(-np.exp(log_pi[1:3, -1:])), jnp.float32)[None]
    top = top_k_with_tail(jnp.asarray(mdp.log_mu_SxA[1:3], jnp.float32)[None], 3)
    worth = saving(own, top, "kl")
    logit = help_logit(jnp.asarray(log_pi[1:3], jnp.float32)[None], 3)
    np.testing.assert_allclose(logit, worth - price, atol=0.05)
    assert float(jnp.max(worth)) > 0.3


def test_savings_are_their_definitions_and_carry_no_gradient() -> None:
    full = top_k_with_tail(MU, 9)
    np.testing.assert_allclose(saving(LOGP, full, "kl"), (jnp.exp(LOGP) * (LOGP - MU)).sum(-1), rtol=1e-4, atol=1e-5)
    choice = LOGP.argmax(-1)
    regret = MU.max(-1) - jnp.take_along_axis(MU, choice[..., None], -1)[..., 0]
    np.testing.assert_allclose(saving(LOGP, full, "regret"), regret, atol=1e-6)
    few = saving(LOGP, top_k_with_tail(MU, 2), "regret")
    inside = (top_k_with_tail(MU, 2).ids_BxTxK == choice[..., None]).any(-1)
    assert 0 < inside.sum() < inside.size
    np.testing.assert_allclose(few[inside], regret[inside], atol=1e-6)
    assert (few <= regret + 1e-6).all()
    assert (few[~inside] > 0).all()
    for kind in ("kl", "regret"):
        assert not jax.grad(lambda x, kind=kind: saving(x, full, kind).sum())(LOGP).any()


@pytest.mark.parametrize("trace", [0.0, 0.6, 1.0])
def test_targets_of_the_constraint_value_are_those_of_a_slow_recursion(trace: float) -> None:
    cost, value = (RNG.normal(size=(3, 5)).astype(np.float32) for _ in range(2))
    found = cost_to_go(jnp.asarray(cost), MASK, jnp.asarray(value), trace)
    for row, length in enumerate((5, 3, 1)):
        later = 0.0
        for t in reversed(range(length)):
            after = value[row, t + 1] if t + 1 < length else 0.0
            later = cost[row, t] + (1 - trace) * after + trace * later
            assert found[row, t] == pytest.approx(later, abs=1e-5)
        np.testing.assert_array_equal(found[row, length:], 0.0)


@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
def test_the_constraint_value_becomes_the_expected_cost(trace: float) -> None:
    """A chain of two steps with random costs: whatever the trace, V_C at the root is the mean cost of a path."""
    rows = 4000
    cost = jnp.asarray(RNG.random((rows, 2)) < np.array([0.3, 0.8]), jnp.float32)
    mask, own = jnp.ones((rows, 2), bool), jnp.arange(rows) % 2 == 0

    def loss(value_2: jax.Array) -> jax.Array:
        return constraint_value_loss(jnp.tile(value_2, (rows, 1)), cost, mask, own, trace).mean()

    value = jax.jit(lambda v: jax.lax.fori_loop(0, 200, lambda _, v: v - 0.5 * jax.grad(loss)(v), v))(jnp.zeros(2))
    mean = np.asarray(cost)[::2].mean(0)
    np.testing.assert_allclose(value, [mean.sum(), mean[1]], atol=2e-3)


@pytest.mark.parametrize("normalize", [True, False])
def test_what_actions_cost_in_expectation_is_the_mean_over_them(normalize: bool) -> None:
    """Over asking and every token of the student's own, of log pi - reward as `asked_path` has them."""
    rng = np.random.default_rng(0)
    own, teacher = (jax.nn.log_softmax(jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)) for _ in range(2))
    odds, price = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32), jnp.asarray([[0.7], [-0.3]])
    ask = jax.nn.sigmoid(odds)

    def mean_cost(asked: bool) -> jax.Array:
        flags = jnp.full(odds.shape, asked)
        each = [asked_path(own[..., v], odds, teacher[..., v], flags, price, normalize=normalize) for v in range(5)]
        return jnp.stack([jnp.exp(own[..., v]) * (each[v][0] - each[v][1]) for v in range(5)]).sum(0)

    apart = jnp.sum(jnp.exp(own) * (own - teacher), axis=-1)
    found = asked_divergence(apart, odds, price, normalize=normalize)
    np.testing.assert_allclose(found, ask * mean_cost(True) + (1 - ask) * mean_cost(False), rtol=1e-5)
