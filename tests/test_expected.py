"""Path consistency in expectation: its gradients against enumerated MDPs, and what it leaves alone."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.losses.expected import expected_path_loss
from kdtw_jax.tabular.limited import expected_gradient, tables, train_limited, two_ways
from kdtw_jax.tabular.mdp import all_paths, path_log_prob, policy_value, random_mdp

MDP = random_mdp(3, 4, seed=1)
PATHS = all_paths(MDP)
LOGITS = jnp.asarray(np.random.default_rng(2).normal(size=MDP.log_mu_SxA.shape), jnp.float32)
VALUE = jnp.asarray(np.random.default_rng(3).normal(size=len(MDP.prefixes)), jnp.float32)


def sequence_kl(logits: jax.Array) -> jax.Array:
    log_pi = path_log_prob(tables(MDP, logits).log_pi_SxA, PATHS)
    log_mu = path_log_prob(jnp.asarray(np.where(MDP.allowed_SxA, MDP.log_mu_SxA, 0.0), jnp.float32), PATHS)
    return jnp.sum(jnp.exp(log_pi) * (log_pi - log_mu))


@pytest.mark.parametrize("values", ["zero", "wrong"])
def test_lambda_1_to_the_end_is_the_gradient_of_the_sequences_whatever_v_is(values: str) -> None:
    value = VALUE if values == "wrong" else jnp.zeros_like(VALUE)
    np.testing.assert_allclose(expected_gradient(MDP, LOGITS, 1.0, value), jax.grad(sequence_kl)(LOGITS), atol=2e-5)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_with_the_right_v_any_segment_is_as_good(d: int) -> None:
    """V is then what the rest will cost, so that one step tells as much as all."""
    right = jnp.asarray(policy_value(MDP, np.asarray(tables(MDP, LOGITS).log_pi_SxA, np.float64)), jnp.float32)
    whole = jax.grad(sequence_kl)(LOGITS)
    np.testing.assert_allclose(expected_gradient(MDP, LOGITS, 1.0, right, (d,)), whole, atol=2e-5)
    assert np.abs(expected_gradient(MDP, LOGITS, 1.0, VALUE, (d,)) - whole).max() > 1e-2  # with a wrong one it is not


def test_lambda_0_matches_distributions_where_the_paths_lead() -> None:
    """The states are taken as they come: their probabilities have no gradient."""
    reach = jnp.exp(path_log_prob(tables(MDP, LOGITS).log_pi_SxA, PATHS))
    counts = jnp.zeros(len(MDP.prefixes)).at[PATHS.states_NxT].add(jnp.where(PATHS.mask_NxT, reach[:, None], 0.0))
    want = jax.grad(lambda logits: jnp.sum(counts * tables(MDP, logits).divergence_S))(LOGITS)
    np.testing.assert_allclose(expected_gradient(MDP, LOGITS, 0.0, VALUE), want, atol=2e-5)
    assert np.abs(want - jax.grad(sequence_kl)(LOGITS)).max() > 1e-2


def test_a_student_that_cannot_follow_everywhere_goes_where_it_can_only_with_lambda_1() -> None:
    """After either first word it has one and the same distribution. With lambda 0 its first token is the teacher's, a
    coin toss; with lambda 1 it is that times exp(-KL of the rest), the optimum of the sequences."""
    task = two_ways()
    mdp, trained = task.mdp, jax.jit(partial(train_limited, task))
    mu_A = np.exp(mdp.log_mu_SxA[0])
    matched, planned = (np.asarray(trained(jnp.float32(x)), np.float64) for x in (0.0, 1.0))
    np.testing.assert_allclose(np.exp(matched[0]), mu_A, atol=1e-4)
    rest_A = mdp.next_value(policy_value(mdp, planned))[0]
    best_A = mu_A * np.exp(rest_A)
    np.testing.assert_allclose(np.exp(planned[0]), best_A / best_A.sum(), atol=1e-4)
    assert np.abs(np.exp(planned[0]) - mu_A).max() > 0.3
    assert policy_value(mdp, planned)[0] > policy_value(mdp, matched)[0] + 0.1
    halfway = policy_value(mdp, np.asarray(trained(jnp.float32(0.5)), np.float64))[0]
    assert policy_value(mdp, matched)[0] < halfway < policy_value(mdp, planned)[0]


@pytest.mark.parametrize("segment_lengths", [(1,), (2,), (0,), (1, 0)])
def test_v_is_fitted_to_minus_the_kl_of_the_rest_and_moves_nothing_else(segment_lengths: tuple[int, ...]) -> None:
    """At V of the student the expected slope is zero, and only there."""
    found = tables(MDP, LOGITS)
    weight = jnp.exp(path_log_prob(found.log_pi_SxA, PATHS))

    def losses(logits: jax.Array, value_S: jax.Array) -> tuple[jax.Array, jax.Array]:
        at = tables(MDP, logits)

        def one(states: jax.Array, tokens: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
            row = (at.log_pi_SxA[states, tokens], at.divergence_S[states], value_S[states], mask)
            policy, value, _ = expected_path_loss(
                *(x[None] for x in row), jnp.ones(1, bool), segment_lengths=segment_lengths
            )
            return policy.total, value.total

        rows = (jnp.asarray(x) for x in (PATHS.states_NxT, PATHS.tokens_NxT, PATHS.mask_NxT))
        return tuple(jnp.sum(weight * each) for each in jax.vmap(one)(*rows))  # type: ignore[return-value]

    right = jnp.asarray(policy_value(MDP, np.asarray(found.log_pi_SxA, np.float64)), jnp.float32)
    slope = jax.grad(lambda value: losses(LOGITS, value)[1])
    np.testing.assert_allclose(slope(right), 0.0, atol=2e-5)
    assert jnp.abs(slope(right + 0.1)).max() > 1e-3
    assert not jnp.any(jax.grad(lambda logits: losses(logits, VALUE)[1])(LOGITS))
    assert not jnp.any(jax.grad(lambda value: losses(LOGITS, value)[0])(VALUE))


def rows(finished: bool) -> tuple[jax.Array, ...]:
    mask = jnp.arange(6)[None] < jnp.asarray([[6], [4]])
    log_pi, divergence, value = (
        jnp.where(mask, jax.random.normal(jax.random.key(i), (2, 6)), jnp.nan) for i in range(3)
    )
    return -jnp.abs(log_pi), jnp.abs(divergence), value, mask, jnp.full(2, finished)


def test_what_is_outside_the_mask_is_not_read_and_the_last_token_of_a_cut_path_is_in_no_residual() -> None:
    for finished in (True, False):
        log_pi, *others = rows(finished)
        policy, value, diagnostics = expected_path_loss(log_pi, *others)
        assert jnp.isfinite(policy.total) and jnp.isfinite(value.total)
        assert (policy.weight, value.weight) == (10, 10 if finished else 8)
        slope = jax.grad(lambda x, others=others: expected_path_loss(x, *others)[0].total)(log_pi)
        assert jnp.isfinite(slope).all() and not slope[1, 4:].any()
        assert bool(slope[1, 3]) == finished
        np.testing.assert_allclose(diagnostics["value"].mean(), others[1][others[2]].mean(), rtol=1e-5)


def test_residuals_beyond_the_bound_pull_as_much_as_the_bound() -> None:
    log_pi, divergence, value, mask, finished = rows(True)
    how = {"huber": 0.5, "bound": 0.7}
    at = partial(expected_path_loss, divergence_BxT=divergence, mask_BxT=mask, finished_B=finished, **how)
    far = jnp.where(mask, value - 100.0, value)
    slope = jax.grad(lambda x: at(x, value_BxT=far)[0].total)(log_pi)
    np.testing.assert_allclose(slope, jnp.where(mask, -0.7, 0.0))
    of_value = jax.grad(lambda v: at(log_pi, value_BxT=v)[1].total)(far)
    np.testing.assert_allclose(of_value, jnp.where(mask, -0.5, 0.0))
