"""The algorithm against exact optima: tabular Path Consistency Learning on MDPs that can be enumerated."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.losses import PCLConfig
from kdtw_jax.tabular.mdp import (
    EOS,
    EnumerableMDP,
    all_paths,
    occupancy,
    path_log_prob,
    policy_value,
    random_mdp,
    soft_optimum,
)
from kdtw_jax.tabular.student import STUDENT, Tabular, TabularStudent, train_expected, train_from_replay

Values = Literal["unified", "head"]
MDP = random_mdp(3, 4, seed=0)
LENGTHS = {"one": (1,), "mixed": (1, 2, 0), "full": (0,)}
# Shares of the student's own, the teacher's and uniform paths: on-policy, off-policy twice, mixed.
ON, TEACHER, MIX = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 0.0]), jnp.array([0.4, 0.3, 0.3])
SHARES = jnp.stack([ON, TEACHER, jnp.array([0.0, 0.0, 1.0]), MIX])


def random_policy(mdp: EnumerableMDP, seed: int) -> np.ndarray:
    logits = np.where(mdp.allowed_SxA, np.random.default_rng(seed).normal(size=mdp.log_mu_SxA.shape), -np.inf)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def test_states_are_prefixes_and_paths_are_all_there_are() -> None:
    mdp = random_mdp(4, 5, seed=1)
    assert len(mdp.prefixes) == 1 + 3 + 9 + 27 + 81 == len(set(mdp.prefixes))
    for s, prefix in enumerate(mdp.prefixes):
        assert mdp.next_state_SxA[s, EOS] == len(mdp.prefixes)
        for a in range(1, 4):
            if len(prefix) < 4:
                assert mdp.prefixes[mdp.next_state_SxA[s, a]] == (*prefix, a)
    paths = all_paths(mdp)
    said = {tuple(row[mask].tolist()) for row, mask in zip(paths.tokens_NxT, paths.mask_NxT, strict=True)}
    assert said == {(*prefix, EOS) for prefix in mdp.prefixes}
    for seed in range(3):
        log_prob = path_log_prob(jnp.asarray(random_policy(mdp, seed)), paths)
        np.testing.assert_allclose(jnp.exp(log_prob).sum(), 1.0, rtol=1e-5)


def test_without_discount_the_optimum_is_the_teacher_with_value_zero() -> None:
    best = soft_optimum(MDP)
    np.testing.assert_allclose(best.value_S, 0, atol=1e-12)
    np.testing.assert_allclose(np.exp(best.log_pi_SxA), np.exp(MDP.log_mu_SxA), atol=1e-12)


@pytest.mark.parametrize(("alpha", "gamma"), [(1.0, 1.0), (0.7, 0.9), (2.0, 1.0)])
def test_backward_induction_is_optimal(alpha: float, gamma: float) -> None:
    """Its policy attains its value, and no other policy attains more, at any state."""
    best = soft_optimum(MDP, alpha, gamma)
    np.testing.assert_allclose(policy_value(MDP, best.log_pi_SxA, alpha, gamma), best.value_S, atol=1e-12)
    for seed in range(20):
        assert (policy_value(MDP, random_policy(MDP, seed), alpha, gamma) <= best.value_S + 1e-12).all()
    assert (np.abs(best.value_S).max() > 0.1) == (alpha != 1)


def test_a_reward_for_stopping_is_worth_as_much_in_every_state() -> None:
    """Every path stops once, so the bonus is the value and changes no decision."""
    bonus_SxA = MDP.log_mu_SxA + 0.5 * (np.arange(3) == EOS)[None]
    best = soft_optimum(MDP, reward_SxA=bonus_SxA)
    np.testing.assert_allclose(best.value_S, 0.5, atol=1e-12)
    np.testing.assert_allclose(np.exp(best.log_pi_SxA), np.exp(MDP.log_mu_SxA), atol=1e-12)


def test_policy_value_is_minus_the_reverse_kl_to_go() -> None:
    """By enumeration: the divergence of whole continuations, from every state."""
    log_pi, paths = random_policy(MDP, 3), all_paths(MDP)
    value_S = policy_value(MDP, log_pi)
    for s, prefix in enumerate(MDP.prefixes):
        total = 0.0
        for n, other in enumerate(MDP.prefixes):
            if other[: len(prefix)] == prefix:
                steps = range(len(prefix), len(other) + 1)
                at = [(paths.states_NxT[n, t], paths.tokens_NxT[n, t]) for t in steps]
                p, q = (sum(table[where] for where in at) for table in (log_pi, MDP.log_mu_SxA))
                total += np.exp(p) * (p - q)
        np.testing.assert_allclose(value_S[s], -total, atol=1e-12)


def test_occupancy_is_the_share_of_paths_through_a_state() -> None:
    log_pi, paths = random_policy(MDP, 4), all_paths(MDP)
    prob = np.exp(path_log_prob(jnp.asarray(log_pi), paths))
    want = np.zeros(len(MDP.prefixes))
    for n in range(len(prob)):
        want[paths.states_NxT[n][paths.mask_NxT[n]]] += prob[n]
    np.testing.assert_allclose(occupancy(MDP, log_pi), want, atol=1e-6)


@pytest.mark.parametrize("values", ["unified", "head"])
def test_the_optimum_has_no_residual_on_any_path(values: Values) -> None:
    """For every enumerated path and length, whoever produced it, also with alpha and gamma other than 1."""
    paths = all_paths(MDP)
    source, weight = jnp.zeros(len(MDP.prefixes), jnp.int32), jnp.ones(len(MDP.prefixes))
    for alpha, gamma in ((1.0, 1.0), (1.0, 0.8), (0.7, 0.9)):
        best = soft_optimum(MDP, alpha, gamma)
        q_SxA = jnp.asarray(np.where(MDP.allowed_SxA, alpha * best.log_pi_SxA + best.value_S[:, None], 0.0))
        student = TabularStudent(q_SxA.astype(jnp.float32), jnp.asarray(best.value_S, jnp.float32))
        tabular = Tabular(MDP, PCLConfig(alpha=alpha, gamma=gamma, segment_lengths=(1, 2, 3, 0), values=values))
        loss = jax.jit(tabular.loss)
        assert max(tabular.distance(student)) < 1e-5
        assert float(loss(student, paths, source, weight)) < 1e-11
        other = student._replace(logits_RxA=student.logits_RxA.at[0, 0].add(0.1))
        assert float(loss(other, paths, source, weight)) > 1e-6


def train_on_each(tabular: Tabular, steps: int) -> list[TabularStudent]:
    """One student a row of SHARES."""
    students = jax.vmap(lambda shares: train_expected(tabular, shares, steps=steps))(SHARES)
    return [jax.tree.map(lambda x, i=i: x[i], students) for i in range(len(SHARES))]


@pytest.mark.parametrize("lengths", list(LENGTHS))
@pytest.mark.parametrize("values", ["unified", "head"])
def test_pcl_reaches_the_optimum(values: Values, lengths: str) -> None:
    tabular = Tabular(MDP, PCLConfig(segment_lengths=LENGTHS[lengths], values=values))
    for student in train_on_each(tabular, steps=400):
        assert max(tabular.distance(student)) < 1e-3


@pytest.mark.parametrize("lengths", list(LENGTHS))
@pytest.mark.parametrize("values", ["unified", "head"])
def test_pcl_reaches_the_optimum_of_another_temperature_and_discount(values: Values, lengths: str) -> None:
    """Here V* is not 0 and pi* is not mu, so that only the right recursion can get there."""
    tabular = Tabular(MDP, PCLConfig(alpha=0.7, gamma=0.9, segment_lengths=LENGTHS[lengths], values=values))
    for student in train_on_each(tabular, steps=1000):
        assert max(tabular.distance(student)) < 1e-3


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("values", ["unified", "head"])
def test_pcl_reaches_the_optimum_of_the_largest_mdp(values: Values, stop: bool) -> None:
    tabular = Tabular(random_mdp(4, 5, seed=0), PCLConfig(segment_lengths=(1, 2, 0), values=values, stop_far_end=stop))
    assert max(tabular.distance(train_expected(tabular, MIX, steps=600))) < 1e-3


@pytest.mark.parametrize("lengths", list(LENGTHS))
@pytest.mark.parametrize("values", ["unified", "head"])
def test_pcl_reaches_the_optimum_from_a_mixed_replay_buffer(values: Values, lengths: str) -> None:
    """Sampled paths, four fifths of the student's own ones stale."""
    tabular = Tabular(MDP, PCLConfig(segment_lengths=LENGTHS[lengths], values=values))
    student = train_from_replay(tabular, (24, 16, 8), steps=600, seed=1, capacity=80)
    assert max(tabular.distance(student)) < 1e-3


@pytest.mark.parametrize("shares", [(48, 0, 0), (0, 48, 0), (0, 0, 48)])
def test_pcl_reaches_the_optimum_from_sampled_paths_of_one_source(shares: tuple[int, int, int]) -> None:
    tabular = Tabular(MDP, PCLConfig(segment_lengths=(1, 2, 0), values="unified"))
    student = train_from_replay(tabular, shares, steps=1000, seed=1, capacity=16)
    assert max(tabular.distance(student)) < 1e-3


def tied(fit_value_on_policy: bool, shares: jax.Array) -> tuple[Tabular, TabularStudent]:
    """A student that sees only how many tokens have been said, with a value for every state."""
    rows = tuple(len(prefix) for prefix in MDP.prefixes)
    config = PCLConfig(segment_lengths=(1, 0), values="head")
    tabular = Tabular(MDP, config, row_S=rows, fit_value_on_policy=fit_value_on_policy)
    return tabular, train_expected(tabular, shares, steps=1000)


def test_a_limited_student_values_its_own_paths_at_minus_the_kl_to_go() -> None:
    tabular, student = tied(False, ON)
    value = policy_value(MDP, np.asarray(tabular.log_pi(student), np.float64))
    assert value.min() < -0.1  # it cannot express the teacher
    np.testing.assert_allclose(tabular.value(student), value, atol=2e-3)


def test_on_other_paths_the_value_is_not_the_kl_to_go_unless_only_own_paths_fit_it() -> None:
    """From teacher paths alone V is plus the forward KL-to-go; a mix lies between and can hide it."""
    tabular, student = tied(False, TEACHER)
    assert float(tabular.value(student).min()) > -1e-3 and float(tabular.value(student)[0]) > 0.1

    half = (ON + TEACHER) / 2
    for fit_value_on_policy in (False, True):
        tabular, student = tied(fit_value_on_policy, half)
        own = policy_value(MDP, np.asarray(tabular.log_pi(student), np.float64))
        error = np.abs(np.asarray(tabular.value(student)) - own).max()
        assert error < 2e-3 if fit_value_on_policy else error > 0.1


def test_a_limited_student_on_its_own_paths_minimises_the_reverse_kl() -> None:
    """Full-length on-policy path consistency is the policy gradient of -KL(pi || mu), V its baseline."""
    rows = tuple(len(prefix) for prefix in MDP.prefixes)
    tabular = Tabular(MDP, PCLConfig(segment_lengths=(0,), values="head"), row_S=rows)
    student = train_expected(tabular, ON, steps=1500)
    paths = all_paths(MDP)
    log_mu = path_log_prob(jnp.asarray(MDP.log_mu_SxA, jnp.float32), paths)

    def kl(logits: jax.Array) -> jax.Array:
        log_pi = path_log_prob(tabular.log_pi(student._replace(logits_RxA=logits)), paths)
        return jnp.sum(jnp.exp(log_pi) * (log_pi - log_mu))

    assert float(jnp.abs(jax.grad(kl)(student.logits_RxA)).max()) < 5e-3
    assert float(jnp.abs(jax.grad(kl)(tabular.init().logits_RxA)).max()) > 0.05


def test_training_is_deterministic() -> None:
    tabular = Tabular(MDP, PCLConfig())
    a, b = (train_from_replay(tabular, (4, 4, 4), steps=20, seed=5, capacity=32) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_sources_are_the_policies_they_are_named_after() -> None:
    tabular = Tabular(MDP, PCLConfig(alpha=0.5))
    student = TabularStudent(jax.random.normal(jax.random.key(0), MDP.log_mu_SxA.shape), jnp.zeros(len(MDP.prefixes)))
    log_prob = tabular.behaviour(student, all_paths(MDP))
    np.testing.assert_allclose(jnp.exp(log_prob).sum(axis=1), 1.0, rtol=1e-5)
    # The prefix-free path (EOS at once): softmax(logits / alpha), mu, and one over the vocabulary.
    own = jax.nn.softmax(student.logits_RxA[0] / 0.5)[EOS]
    np.testing.assert_allclose(jnp.exp(log_prob[:, 0]), [own, np.exp(MDP.log_mu_SxA[0, EOS]), 1 / 3], rtol=1e-5)
    assert STUDENT == 0


@pytest.mark.parametrize(("vocabulary", "horizon"), [(1, 3), (5, 3), (3, 0), (3, 6)])
def test_too_large_to_enumerate(vocabulary: int, horizon: int) -> None:
    with pytest.raises(UserError, match="vocabulary"):
        random_mdp(vocabulary, horizon, seed=0)
