"""Asking as one more action, trained: Path Consistency Learning against the exact optima of `help_mdp`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdtw_jax.duals import DualConfig
from kdtw_jax.losses import PCLConfig
from kdtw_jax.losses.help import asked_path
from kdtw_jax.tabular.help_mdp import Use, dual_optimum, emitted, extended_optimum, limited_optimum, use
from kdtw_jax.tabular.help_tabular import Asking, PricedStudents, asked_paths, train_priced
from kdtw_jax.tabular.mdp import all_paths, occupancy, random_mdp
from kdtw_jax.tabular.student import STUDENT, TabularStudent, train_expected, train_from_replay

Values = Literal["unified", "head"]
Controller = Literal["pi", "ascent"]
MDP = random_mdp(3, 4, seed=0)
LENGTHS = {"one": (1,), "mixed": (1, 2, 0), "full": (0,)}
# Shares of the student's own, the teacher's and uniform paths: on-policy, off-policy twice, mixed.
ON, TEACHER, UNIFORM, MIX = jnp.asarray([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.4, 0.3, 0.3]])
PRICE = 0.5
SHARES = jnp.stack([ON, TEACHER, UNIFORM, MIX])


@cache
def trained(
    lengths: str, values: Values = "head", *, normalize: bool, exact_answer: bool, stop_far_end: bool = True
) -> tuple[Asking, list[TabularStudent]]:
    """What is trained, and the students that come of it, one a row of SHARES."""
    config = PCLConfig(segment_lengths=LENGTHS[lengths], values=values, stop_far_end=stop_far_end)
    asking = Asking(MDP, config, price=PRICE, normalize=normalize, exact_answer=exact_answer)
    students = jax.vmap(lambda shares: train_expected(asking, shares, steps=400))(SHARES)
    return asking, [jax.tree.map(lambda x, i=i: x[i], students) for i in range(len(SHARES))]


def trained_use(asking: Asking, student: TabularStudent) -> Use:
    return use(asking.mdp, np.asarray(asking.log_pi(student), np.float64))


def exact_student(asking: Asking) -> TabularStudent:
    """The optimum, as parameters."""
    best, alpha = asking.optimum(), asking.config.alpha
    q_SxX = alpha * best.log_pi_SxA + best.value_S[:, None]
    q_SxA = jnp.asarray(np.where(asking.mdp.allowed_SxA, q_SxX[:, :-1], 0.0), jnp.float32)
    return TabularStudent(q_SxA, jnp.asarray(best.value_S, jnp.float32), jnp.asarray(q_SxX[:, -1], jnp.float32))


def test_a_path_s_actions_and_rewards_by_hand() -> None:
    """Two rows with a price each, one token that the teacher forbids, and gradients that stay finite."""
    own, odds = jnp.log(jnp.asarray([[0.5, 0.2], [0.7, 0.0]])), jnp.asarray([[0.0, 1.0], [-2.0, 0.5]])
    teacher, price = jnp.log(jnp.asarray([[0.25, 0.5], [0.0, 0.1]])), jnp.asarray([[1.0], [-0.5]])
    asked = jnp.asarray([[False, True], [False, True]])
    log_pi, reward = asked_path(own, odds, teacher, asked, price)
    g, rate = 1 / (1 + np.exp(-np.asarray(odds))), 1 / (1 + np.exp(np.asarray(price[:, 0])))
    np.testing.assert_allclose(np.exp(log_pi), [[0.5 * 0.5, g[0, 1]], [0.7 * (1 - g[1, 0]), g[1, 1]]], rtol=1e-6)
    np.testing.assert_allclose(np.exp(reward), [[0.25 * (1 - rate[0]), rate[0]], [0.0, rate[1]]], rtol=1e-6)
    literal = asked_path(own, odds, teacher, asked, price, normalize=False)
    np.testing.assert_array_equal(literal[0], log_pi)
    np.testing.assert_allclose(literal[1], [[np.log(0.25), -1.0], [-np.inf, 0.5]], rtol=1e-6)
    gradients = jax.grad(lambda *x: asked_path(x[0], x[1], teacher, asked, price)[0].sum(), argnums=(0, 1))(own, odds)
    np.testing.assert_allclose(gradients[0], ~asked)
    np.testing.assert_allclose(gradients[1], np.where(asked, 1 - g, -g), rtol=1e-6)


def test_paths_with_their_flags_are_all_there_are() -> None:
    paths = asked_paths(MDP)
    seen = {(*row[mask].tolist(), *asked[mask].tolist()) for _, row, mask, asked in zip(*paths, strict=True)}
    assert len(seen) == len(paths.mask_NxT) == sum(2 ** int(mask.sum()) for mask in all_paths(MDP).mask_NxT)
    assert not paths.asked_NxT[~paths.mask_NxT].any()
    asking = Asking(MDP, PCLConfig(alpha=0.7), price=0.3, normalize=False)
    student = exact_student(asking)
    np.testing.assert_allclose(jnp.exp(asking.behaviour(student, paths)).sum(axis=1), 1.0, rtol=1e-5)
    assert float(asking.share(student)) == pytest.approx(use(MDP, asking.optimum().log_pi_SxA).share, rel=1e-5)


def test_at_the_literal_optimum_the_loss_is_the_variance_of_what_follows_an_answer() -> None:
    """Half of E Var_y V(s.y) a step; nothing with the expectation, for any d; nothing under the normalised reward."""
    paths = asked_paths(MDP)
    literal = Asking(MDP, PCLConfig(values="head"), price=PRICE, normalize=False)
    every = replace(literal, config=replace(literal.config, segment_lengths=(1, 2, 0)))
    weight_N = jnp.exp(literal.behaviour(exact_student(literal), paths))[STUDENT]

    def loss(asking: Asking) -> float:
        source_N = jnp.zeros(len(weight_N), jnp.int32)
        return float(jax.jit(asking.loss)(exact_student(asking), paths, source_N, weight_N))

    best, mu_SxA = literal.optimum(), np.exp(MDP.log_mu_SxA)
    later_SxA = MDP.next_value(best.value_S)
    variance_S = (mu_SxA * later_SxA**2).sum(axis=1) - (mu_SxA * later_SxA).sum(axis=1) ** 2
    with np.errstate(divide="ignore"):
        reach_S = occupancy(MDP, np.log(emitted(MDP, best.log_pi_SxA)))
    want = 0.5 * reach_S @ (np.exp(best.log_pi_SxA[:, -1]) * variance_S) / reach_S.sum()
    assert want > 0.01
    assert loss(literal) == pytest.approx(want, rel=1e-4)
    assert loss(every) > 0.01
    for config in (every.config, replace(every.config, alpha=0.7, gamma=0.9)):
        assert loss(replace(every, exact_answer=True, config=config)) < 1e-11
    assert loss(replace(every, normalize=True)) < 1e-11


@pytest.mark.parametrize(("lengths", "values"), [("one", "unified"), ("mixed", "unified"), ("full", "head")])
def test_pcl_with_asking_reaches_the_extended_teacher(lengths: str, values: Values) -> None:
    """V* = 0 and pi* = mu_price, from on-policy, off-policy and mixed data, without any cure."""
    asking, students = trained(lengths, values, normalize=True, exact_answer=False)
    np.testing.assert_allclose(asking.optimum().value_S, 0.0, atol=1e-12)
    for student in students:
        assert max(asking.distance(student)) < 1e-3
        np.testing.assert_allclose(jnp.exp(asking.log_pi(student))[:, -1], jax.nn.sigmoid(-PRICE), atol=1e-3)


def test_pcl_with_asking_reaches_the_extended_teacher_from_a_mixed_replay_buffer() -> None:
    """Sampled paths, four fifths of the student's own ones stale."""
    asking = Asking(MDP, PCLConfig(segment_lengths=(1, 2, 0)), price=PRICE)
    student = train_from_replay(asking, (32, 16, 16), steps=500, seed=1, capacity=80)
    assert max(asking.distance(student)) < 1e-3


@pytest.mark.parametrize(("lengths", "values"), [("mixed", "unified"), ("full", "head")])
def test_the_expected_answer_takes_the_bias_away(lengths: str, values: Values) -> None:
    """Literal reward: V* differs from answer to answer, so that off-policy the optimum is missed without the cure."""
    asking, students = trained(lengths, values, normalize=False, exact_answer=True)
    for student in students:
        assert max(asking.distance(student)) < 1e-3
    _, (own, *others) = trained(lengths, values, normalize=False, exact_answer=False)
    assert max(asking.distance(own)) < 1e-3  # a policy gradient: the answers' noise is zero on average
    assert min(max(asking.distance(student)) for student in others) > 4e-3


@pytest.mark.long
def test_for_single_steps_a_far_end_without_gradient_is_cure_enough() -> None:
    """With one, even the student's own paths lead astray, unless the answer is the expected one."""
    asking, students = trained("one", normalize=False, exact_answer=False)
    assert max(max(asking.distance(student)) for student in students) < 1e-3
    asking, students = trained("one", normalize=False, exact_answer=False, stop_far_end=False)
    assert min(max(asking.distance(student)) for student in students) > 0.2
    asking, students = trained("one", normalize=False, exact_answer=True, stop_far_end=False)
    assert max(max(asking.distance(student)) for student in students) < 1e-3


def test_trained_lengths_are_the_teachers_with_the_normalised_reward_alone() -> None:
    teacher = use(MDP, extended_optimum(MDP, 60.0).log_pi_SxA).length
    for asking, students in (
        trained("mixed", "unified", normalize=True, exact_answer=False),
        trained("mixed", "unified", normalize=False, exact_answer=True),
    ):
        for student in students:
            length = trained_use(asking, student).length
            assert length == pytest.approx(use(MDP, asking.optimum().log_pi_SxA).length, abs=1e-3)
            assert length == pytest.approx(teacher, abs=1e-3) if asking.normalize else length > 1.1 * teacher


BUDGETS = (0.1, 0.3, 0.5, 0.7)


def priced(
    asking: Asking, config: DualConfig, shares: jax.Array, steps: int, optimizer: optax.GradientTransformation
) -> PricedStudents:
    """From a price of 1 for every budget and students that know nothing."""
    budget_K, start_K = jnp.asarray(config.knots), jnp.ones(len(config.knots))
    return train_priced(asking, budget_K, config, shares, start_K=start_K, steps=steps, optimizer=optimizer)


@pytest.mark.parametrize(("normalize", "controller"), [(True, "ascent"), (False, "pi")])
def test_learned_prices_are_the_dual_optimum(normalize: bool, controller: Controller) -> None:
    """One student a budget; at the end its price, its use and its policy are those of the constrained optimum."""
    asking = Asking(MDP, PCLConfig(), normalize=normalize, exact_answer=not normalize)
    config = DualConfig(knots=BUDGETS, controller=controller, rate=0.1, proportional=2.0, memory=0.5)
    found = priced(asking, config, MIX, 1500, optax.adam(0.02))

    def solved(price: float) -> Use:
        return use(MDP, extended_optimum(MDP, price, normalize=normalize).log_pi_SxA)

    for k, budget in enumerate(BUDGETS):
        best = dual_optimum(solved, budget)
        assert float(found.price_LxK[-1, k]) == pytest.approx(best, abs=0.01)
        student = jax.tree.map(lambda x, k=k: x[k], found.students)
        assert trained_use(asking, student).share == pytest.approx(budget, abs=1e-3)
        assert max(replace(asking, price=best).distance(student)) < 0.01


@pytest.mark.long
def test_with_a_student_that_lags_pi_settles_sooner_and_overshoots_less_than_ascent() -> None:
    """Plain gradient descent follows a price slowly. (`test_duals` sets a lag; here it is the training's own.)"""
    settled, overshoot = {}, {}
    for controller in get_args(Controller):
        config = DualConfig(knots=BUDGETS, controller=controller, rate=0.3, proportional=6.0, memory=0.5)
        found = priced(Asking(MDP, PCLConfig(segment_lengths=(1, 2, 0))), config, ON, 600, optax.sgd(1.0))
        off_LxK = np.asarray(found.share_LxK) - np.asarray(BUDGETS)
        settled[controller] = np.array([np.flatnonzero(np.abs(off_L) > 0.01).max() for off_L in off_LxK.T])
        overshoot[controller] = (-np.sign(off_LxK[0]) * off_LxK).max(axis=0)
        np.testing.assert_allclose(found.price_LxK[-1], np.log(1 / np.asarray(BUDGETS) - 1), atol=0.02)
    assert (settled["pi"] < settled["ascent"]).all()
    assert settled["pi"].sum() < 0.7 * settled["ascent"].sum()
    assert (overshoot["pi"] < overshoot["ascent"]).all()
    assert overshoot["pi"].max() < 0.3 * overshoot["ascent"].max()


LIMITED = random_mdp(3, 4, seed=7, spread=2.0)
TIED = tuple(len(prefix) for prefix in LIMITED.prefixes)  # it sees only how many tokens have been said


@cache
def limited_best(price: float) -> np.ndarray:
    return limited_optimum(LIMITED, price, TIED)


def limited(lengths: tuple[int, ...]) -> tuple[Asking, list[TabularStudent]]:
    """Trained on its own paths, and on the teacher's."""
    asking = Asking(LIMITED, PCLConfig(segment_lengths=lengths, values="head"), price=1.5, row_S=TIED)
    students = jax.vmap(lambda shares: train_expected(asking, shares, steps=800))(SHARES[:2])
    return asking, [jax.tree.map(lambda x, i=i: x[i], students) for i in range(2)]


def chances(asking: Asking, student: TabularStudent) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of asking, [S]; of each token if it does not ask, [SxA]; and KL(own || mu), [S]."""
    pi_SxX, mu_SxA = np.exp(np.asarray(asking.log_pi(student), np.float64)), np.exp(asking.mdp.log_mu_SxA)
    own_SxA = pi_SxX[:, :-1] / pi_SxX[:, :-1].sum(axis=1, keepdims=True)
    ratio_SxA = np.divide(own_SxA, mu_SxA, out=np.ones_like(mu_SxA), where=own_SxA > 0)
    return pi_SxX[:, -1], own_SxA, np.sum(own_SxA * np.log(ratio_SxA), axis=1)


@pytest.mark.parametrize("lengths", [(1,), (0,)])
def test_a_limited_student_learns_to_ask_where_it_cannot_express_the_teacher(lengths: tuple[int, ...]) -> None:
    """From its own paths: PCL is a policy gradient there, and finds the best policy among those it can express."""
    asking, (student, astray) = limited(lengths)
    best, prior = limited_best(1.5), 1 / (1 + np.exp(1.5))
    assert 0.5 * np.abs(np.exp(asking.log_pi(student)) - np.exp(best)).sum(axis=1).max() < 2e-3

    # The gate is sigma(D - price), D the divergence of its own token and the change in what lies ahead.
    ask_S, own_SxA, kl_S = chances(asking, student)
    later_SxA, depth_S = LIMITED.next_value(np.asarray(asking.value(student))), np.asarray(TIED)
    change_S = np.sum((np.exp(LIMITED.log_mu_SxA) - own_SxA) * later_SxA, axis=1)
    np.testing.assert_allclose(ask_S, 1 / (1 + np.exp(1.5 - kl_S - change_S)), atol=3e-3)

    np.testing.assert_allclose(ask_S[depth_S == 3], prior, atol=1e-3)  # only the end is left to write: no conflict
    conflict_S = kl_S > 0.1
    assert (ask_S[conflict_S & (depth_S == 2)] > prior + 0.02).all() and (conflict_S & (depth_S == 2)).sum() == 3
    assert ask_S.max() > 3 * prior and ask_S.argmax() == kl_S.argmax()
    # Where an answer leads on to states that are harder still, it asks less than a student without conflict.
    assert (ask_S[conflict_S & (change_S < -kl_S)] < prior - 2e-3).sum() == 1

    # From the teacher's paths alone it asks least where it is hardest: what it writes itself looks too good there, by
    # KL(mu || own) where it is worse by KL(own || mu).
    ask_S, _, kl_S = chances(asking, astray)
    assert ask_S[kl_S.argmax()] < prior - 0.03


def test_the_learned_price_of_a_limited_student_is_the_dual_optimum_among_its_like() -> None:
    """It is not that of a student equal to its teacher, which would not keep the budget."""
    asking, budget = Asking(LIMITED, PCLConfig(values="head"), row_S=TIED), 0.5
    config = DualConfig(knots=(budget,), rate=0.1, proportional=2.0, memory=0.5)
    found = priced(asking, config, ON, 1500, optax.adam(0.02))
    assert float(found.share_LxK[-1, 0]) == pytest.approx(budget, abs=1e-3)
    learned, equal = (use(LIMITED, limited_best(price)).share for price in (float(found.price_LxK[-1, 0]), 0.0))
    assert learned == pytest.approx(budget, abs=1e-3)
    assert equal > budget + 0.01
