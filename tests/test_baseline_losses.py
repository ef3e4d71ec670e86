"""Losses of the rival methods, as functions of arrays, against exact values: divergences, policy gradients, balance."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.losses.balance import balance_loss, log_ratio
from kdtw_jax.losses.jsd import generalized_jsd
from kdtw_jax.losses.masked import kl_divergence
from kdtw_jax.losses.policy_gradient import importance_weights, later_rewards, sequence_kl_surrogate
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.tabular.mdp import all_paths, path_log_prob, random_mdp

B, T, V = 3, 5, 11
jsd = jax.jit(generalized_jsd, static_argnums=2)


def log_probs(seed: int, banned: tuple[int, ...] = (), spread: float = 2.0) -> jax.Array:
    return log_policy(spread * jax.random.normal(jax.random.key(seed), (B, T, V)), banned)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_divergence_is_zero_for_equals_and_positive_otherwise(beta: float) -> None:
    p, q = log_probs(0), log_probs(1)
    assert np.abs(jsd(p, p, beta)).max() < 1e-6
    assert np.asarray(jsd(p, q, beta)).min() > 1e-3
    slope = jax.jit(jax.grad(lambda x: generalized_jsd(jax.nn.log_softmax(x), q, beta).sum()))
    assert np.abs(slope(q)).max() < 1e-6 < np.abs(slope(p)).max()


def test_the_divergence_against_its_definition_in_float64() -> None:
    student, teacher = log_probs(0), log_probs(1)
    pi, mu = (np.exp(np.asarray(x, np.float64)) for x in (student, teacher))
    for beta in (0.1, 0.5, 0.8):
        m = beta * mu + (1 - beta) * pi
        want = (beta * mu * np.log(mu / m) + (1 - beta) * pi * np.log(pi / m)).sum(-1)
        np.testing.assert_allclose(jsd(student, teacher, beta), want, rtol=1e-4, atol=1e-6)
        coin = -beta * np.log(beta) - (1 - beta) * np.log(1 - beta)
        assert want.max() < coin
        np.testing.assert_allclose(jsd(teacher, student, 1 - beta), want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jsd(student, teacher, 0.5), jsd(teacher, student, 0.5), rtol=1e-5)
    assert np.abs(jsd(student, teacher, 0.1) - jsd(teacher, student, 0.1)).max() > 1e-2


def test_the_divergence_tends_to_the_forward_and_the_reverse_kl() -> None:
    student, teacher = log_probs(0, spread=1.0), log_probs(1, spread=1.0)
    forward, reverse = kl_divergence(teacher, student), kl_divergence(student, teacher)
    assert np.abs(forward - reverse).max() > 0.1
    for beta, limit in ((0.002, forward), (0.998, reverse)):
        near = jsd(student, teacher, beta) / min(beta, 1 - beta)
        np.testing.assert_allclose(near, limit, rtol=0.03)
    np.testing.assert_allclose(jsd(student, teacher, 0.0), forward, rtol=1e-5)
    np.testing.assert_allclose(jsd(student, teacher, 1.0), reverse, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_the_divergence_survives_banned_tokens(beta: float) -> None:
    banned = (0, 4)
    kept = jnp.array([i for i in range(V) if i not in banned])
    x, y = jax.random.normal(jax.random.key(3), (2, B, T, V))

    def loss(logits: jax.Array, other: jax.Array, banned: tuple[int, ...]) -> jax.Array:
        return generalized_jsd(log_policy(logits, banned), log_policy(other, banned), beta).sum()

    both = jax.jit(jax.value_and_grad(loss), static_argnums=2)
    whole, small = both(x, y, banned), both(x[..., kept], y[..., kept], ())
    np.testing.assert_allclose(whole[0], small[0], rtol=1e-5)
    np.testing.assert_allclose(whole[1][..., kept], small[1], rtol=1e-4, atol=1e-6)
    assert not whole[1][..., jnp.array(banned)].any()


@pytest.mark.parametrize("chunk", [1, 2, T])
def test_chunks_of_positions_add_up_to_the_whole(chunk: int) -> None:
    table = jax.random.normal(jax.random.key(0), (4, V))
    hidden = jax.random.normal(jax.random.key(1), (B, T, 4))
    tokens = jax.random.randint(jax.random.key(2), (B, T), 0, V)

    def total(table: jax.Array, hidden: jax.Array, chunk: int) -> tuple[jax.Array, Any]:
        def part(hidden_BxXxD: jax.Array, tokens_BxX: jax.Array) -> tuple[jax.Array, jax.Array]:
            log_p = jax.nn.log_softmax(hidden_BxXxD @ table)
            return jnp.take_along_axis(log_p, tokens_BxX[..., None], -1)[..., 0], jnp.sum(log_p, -1)

        found = over_positions(part, (hidden, tokens), chunk)
        return jnp.sum(found[0] * jnp.arange(T)[None, :]) + jnp.sum(jnp.sin(found[1])), found

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True), static_argnums=2)
    (_, want), wants = run(table, hidden, 0)
    (_, found), grads = run(table, hidden, chunk)
    assert found[0].shape == (B, T)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), (found, grads), (want, wants))


def path_numbers(seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """KL, log pi and log mu of three paths, with NaN where they have ended, and the mask."""
    keys = jax.random.split(jax.random.key(seed), 3)
    mask = jnp.arange(T)[None] < jnp.array([5, 1, 3])[:, None]
    kl, log_pi, log_mu = (jnp.where(mask, jax.random.uniform(k, (B, T)), jnp.nan) for k in keys)
    return kl, -log_pi, -3 * log_mu, mask


@pytest.mark.parametrize("normalize", [False, True])
def test_rewards_to_go_against_a_loop(normalize: bool) -> None:
    reward, *_, mask = path_numbers()
    found = np.asarray(jax.jit(partial(later_rewards, length_normalize=normalize))(reward, mask))
    for row, length in enumerate((5, 1, 3)):
        for t in range(T):
            rest = np.asarray(reward)[row, t + 1 : length]
            want = (rest.mean() if normalize else rest.sum()) if len(rest) else 0.0
            assert found[row, t] == pytest.approx(want, abs=1e-6)


def test_importance_weights_are_those_of_the_mixture() -> None:
    pi, mu = log_probs(0), log_probs(1)
    for mix in (0.0, 0.2, 0.7):
        weight = importance_weights(pi, mu, mix)
        drawn = (1 - mix) * jnp.exp(pi) + mix * jnp.exp(mu)
        np.testing.assert_allclose(weight * drawn, jnp.exp(pi), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(jnp.sum(weight * drawn, -1), 1.0, rtol=1e-5)
        assert weight.max() <= 1 / (1 - mix) + 1e-5
    np.testing.assert_allclose(importance_weights(pi, pi, 0.2), 1.0, rtol=1e-5)


@pytest.mark.parametrize(("mix", "normalize"), [(0.0, False), (0.2, True)])
def test_the_policy_gradient_against_a_loop(mix: float, normalize: bool) -> None:
    kl, log_pi, log_mu, mask = path_numbers()

    def loss(kl: jax.Array, log_pi: jax.Array, log_mu: jax.Array) -> jax.Array:
        how = {"teacher_mix": mix, "length_normalize": normalize}
        return jnp.sum(sum(sequence_kl_surrogate(kl, log_pi, log_mu, mask, **how)))

    of_kl, of_pi, of_mu = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(kl, log_pi, log_mu)
    later = later_rewards(log_mu - log_pi, mask, length_normalize=normalize)
    for row, length in enumerate((5, 1, 3)):
        for t in range(T):
            pi, mu = np.exp(float(log_pi[row, t])), np.exp(float(log_mu[row, t]))
            weight = pi / (mix * mu + (1 - mix) * pi) if t < length else 0.0
            assert float(of_kl[row, t]) == pytest.approx(weight, rel=1e-5)
            want = -weight * float(later[row, t]) if t < length else 0.0
            assert float(of_pi[row, t]) == pytest.approx(want, rel=1e-5)
    assert not np.any(of_mu)


@pytest.mark.parametrize("horizon", [2, 4])
def test_the_expected_policy_gradient_is_that_of_the_sequence_kl(horizon: int) -> None:
    """Over all sequences of three tokens, nothing sampled: no length normalisation, no teacher in the sampling."""
    mdp = random_mdp(3, horizon, seed=1)
    paths = all_paths(mdp)
    states, tokens = jnp.asarray(paths.states_NxT), jnp.asarray(paths.tokens_NxT)
    mask, log_mu = jnp.asarray(paths.mask_NxT), jnp.asarray(mdp.log_mu_SxA, jnp.float32)
    logits = jax.random.normal(jax.random.key(0), log_mu.shape)

    def policy(logits: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(jnp.where(mdp.allowed_SxA, logits, -jnp.inf), axis=-1)

    def exact(logits: jax.Array) -> jax.Array:
        own, teacher = path_log_prob(policy(logits), paths), path_log_prob(log_mu, paths)
        return jnp.sum(jnp.exp(own) * (own - teacher))

    def expected(logits: jax.Array, normalize: bool) -> jax.Array:
        pi = policy(logits)
        parts = sequence_kl_surrogate(
            kl_divergence(pi, log_mu)[states],
            pi[states, tokens],
            log_mu[states, tokens],
            mask,
            teacher_mix=0.0,
            length_normalize=normalize,
        )
        return jnp.sum(jax.lax.stop_gradient(jnp.exp(path_log_prob(pi, paths))) * jnp.sum(sum(parts), axis=1))

    want, slope = jax.jit(jax.grad(exact))(logits), jax.jit(jax.grad(expected), static_argnums=1)
    assert np.abs(want).max() > 0.01
    np.testing.assert_allclose(slope(logits, False), want, rtol=1e-4, atol=1e-6)
    if horizon > 2:  # where there is a long term, its normalisation shows
        assert np.abs(slope(logits, True) - want).max() > 1e-3


@partial(jax.jit, static_argnums=3)
def balanced(log_pi: jax.Array, log_mu: jax.Array, mask: jax.Array, least: float | None) -> Any:
    ratio, counted = log_ratio(log_pi, log_mu, mask, min_log_prob=least)
    centre = jnp.sum(jnp.where(counted, ratio, 0.0)) / jnp.sum(counted)
    return balance_loss(ratio, counted, centre, mask)


def test_balance_is_half_the_variance_of_the_log_ratio() -> None:
    _, log_pi, log_mu, mask = path_numbers()
    found = balanced(log_pi, log_mu, mask, None)
    sums = [float(np.nansum((log_pi - log_mu)[row])) for row in range(B)]
    assert float(found.total) == pytest.approx(0.5 * B * np.var(sums), rel=1e-5)
    assert float(found.weight) == 9
    # A teacher out by one factor for all sequences is the same teacher; one out by a factor for some is not.
    first = jnp.arange(T)[None] == 0
    scaled = balanced(log_pi, log_mu + jnp.where(first, 7.0, 0.0), mask, None)
    assert float(scaled.total) == pytest.approx(float(found.total), rel=1e-4)
    assert float(balanced(log_pi, jnp.where(first, -7.0, log_mu), mask, None).total) != pytest.approx(
        float(found.total), rel=0.1
    )
    assert float(balanced(log_mu, log_mu, mask, None).total) == 0.0

    def variance(log_pi: jax.Array) -> jax.Array:  # differentiated through the mean as well
        ratio = jnp.sum(jnp.where(mask, log_pi - log_mu, 0.0), axis=1)
        return 0.5 * jnp.sum(jnp.square(ratio - jnp.mean(ratio)))

    slope = jax.grad(lambda x: balanced(x, log_mu, mask, None).total)(log_pi)
    np.testing.assert_allclose(slope, jax.grad(variance)(log_pi), rtol=1e-5, atol=1e-6)
    assert np.abs(slope).max() > 0.1


def test_balance_leaves_out_what_the_student_cannot_write_and_floors_the_teacher() -> None:
    _, log_pi, log_mu, mask = path_numbers()
    least = -20.0
    never = log_pi.at[2, 1].set(-jnp.inf)
    value, slope = jax.value_and_grad(lambda x: balanced(x, log_mu, mask, least).total)(never)
    two = balanced(log_pi[:2], log_mu[:2], mask[:2], least)
    assert float(value) == pytest.approx(float(two.total), rel=1e-5)
    assert float(balanced(never, log_mu, mask, least).weight) == 6
    assert np.isfinite(slope).all() and not slope[2].any() and slope[0].any()
    far, floored = (balanced(log_pi, log_mu.at[0, 0].set(x), mask, least).total for x in (-jnp.inf, -20.0))
    assert float(far) == float(floored) > 1
    endless = balanced(log_pi, log_mu.at[0, 0].set(-jnp.inf), mask, None)
    assert np.isfinite(endless.total) and float(endless.weight) == 4
