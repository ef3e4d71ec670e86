"""Distillation: fresh rows, what path residuals teach policy and value, shares of a minibatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax import parallel
from kdtw_jax.data.batches import training_batches
from kdtw_jax.decoding.policy import without_banned
from kdtw_jax.errors import UserError
from kdtw_jax.losses.pcl import PCLConfig, pcl_loss, policy_and_value
from kdtw_jax.methods.path_terms import coefficients, path_loss
from kdtw_jax.methods.pcl import pcl
from kdtw_jax.methods.pcl_config import DistilConfig
from kdtw_jax.methods.tb import replayed_balance
from kdtw_jax.models import shift_right
from kdtw_jax.replay import Sample
from kdtw_jax.training.collect import Collector, minibatch_shares
from kdtw_jax.training.scoring import REFERENCE, STUDENT, TEACHER, finished, score_paths
from kdtw_jax.training.state import (
    OptimizerConfig,
    init_state,
    make_optimizer,
    make_update,
)
from tests.world import DISTIL, TRAINING, WIDE, World


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_fresh_rows_do_not_depend_on_the_number_of_devices(world: World) -> None:
    batch = next(training_batches(world.data, WIDE, seed=0))
    key = init_state(world.params, make_optimizer(TRAINING.optimizer, 8, world.model.role), 0).key_data
    found = []
    for devices in (1, 4):
        chosen = parallel.select_devices(devices)
        some = replace(DISTIL, rollout_fraction=0.7)  # the student answers six of eight, the teacher two
        collect = Collector(world.model, world.teacher, some, world.banned, chosen)
        found.append(collect(parallel.replicate(world.params, chosen), batch, key, 0))
    assert {source: len(rows.example_B) for source, rows in found[0].items()} == {STUDENT: 6, TEACHER: 2, REFERENCE: 8}
    for source, rows in found[0].items():
        assert np.array_equal(rows.example_B, batch.example_B[: len(rows.example_B)])
        assert np.array_equal(rows.tokens_BxT, found[1][source].tokens_BxT)
        np.testing.assert_allclose(
            rows.teacher_log_prob_BxT, found[1][source].teacher_log_prob_BxT, rtol=1e-5, atol=1e-5
        )
    assert np.array_equal(found[0][REFERENCE].tokens_BxT, batch.target_BxT)
    assert not np.array_equal(found[0][STUDENT].tokens_BxT, batch.target_BxT[:6])


@pytest.mark.long
def test_the_teacher_is_asked_once_a_path_and_its_numbers_are_replayed(world: World, tmp_path: Path) -> None:
    scored: list[int] = []
    model, params = world.teacher

    def decode(*args: Any, **keywords: Any) -> Any:
        jax.debug.callback(lambda: scored.append(1))
        return model.decode(*args, **keywords)

    config = replace(DISTIL, updates_per_rollout=4, reference_batches=3)
    teacher = (model._replace(decode=decode), params)
    pcl(world.context(tmp_path, teacher=teacher), world.params, config)
    jax.effects_barrier()
    assert len(scored) == (3 + 2) * 8 // 4  # three sources and two batches more, every fourth of the eight updates


@pytest.mark.parametrize("values", ["head", "unified"])
def test_nothing_is_left_to_learn_where_the_student_is_the_teacher(world: World, values: Any) -> None:
    config = replace(DISTIL, pcl=PCLConfig(values=values, segment_lengths=(1, 2, 0)), target_decay=0.0)
    model, params = world.teacher
    if values == "unified":  # logits are Q there, so V = logsumexp has to be 0 as well: normalise them

        def unembed(*args: Any) -> Any:
            answer = world.model.unembed(*args)
            keep = jnp.where(jnp.isin(jnp.arange(answer.shape[-1]), jnp.array(world.banned)), -1e30, 0.0)
            return jax.nn.log_softmax(answer + keep[None, None, :], axis=-1)

        model = model._replace(unembed=unembed)
    batch = next(training_batches(world.data, WIDE, seed=0))
    rows = score_paths(*world.teacher, *map(jnp.asarray, batch), top_k=4, banned=world.banned)
    loss = jax.jit(path_loss(model, config, world.banned))
    terms = loss(params, (), Sample(rows, jnp.zeros(8, jnp.int32)), jax.random.key(0))
    assert float(terms["pcl"].mean()) == pytest.approx(0.0, abs=1e-9)
    assert float(terms["kl"].mean()) == pytest.approx(0.0, abs=1e-5)
    other = jax.jit(path_loss(world.model, config, world.banned))(
        world.params, (), Sample(rows, jnp.zeros(8, jnp.int32)), jax.random.key(0)
    )
    assert float(other["pcl"].mean()) > 1e-3
    assert float(other["kl"].mean()) > 1e-3


def replayed(world: World) -> Sample:
    batch = next(training_batches(world.data, WIDE, seed=0))
    rows = score_paths(*world.teacher, *map(jnp.asarray, batch), top_k=4, banned=world.banned)
    return Sample(rows, jnp.arange(8) % 3)


@pytest.mark.parametrize("values", ["head", "unified"])
def test_what_policy_and_value_learn_adds_up_to_the_whole_residual(world: World, values: Any) -> None:
    config = replace(DISTIL, pcl=PCLConfig(values=values, segment_lengths=(1, 2, 0)), target_decay=0.0)
    loss, sample = path_loss(world.model, config, world.banned), replayed(world)
    # A head as initialised, zero, would hide what V taught the rest of the network.
    head = jax.tree.map(lambda x: x + 0.1, world.params["value"])
    params = {**world.params, "value": head}

    @jax.jit
    def gradient(weight_2: jax.Array) -> Any:
        def total(params: Any) -> jax.Array:
            terms = loss(params, (), sample, jax.random.key(0))
            return weight_2[0] * terms["pcl"].mean() + weight_2[1] * terms["value_error"].mean()

        return jax.grad(total)(params)

    def whole(params: Any) -> jax.Array:
        rows = sample.rows
        decoded = world.model.decode(params, world.model.encode(params, rows.source_BxS), shift_right(rows.tokens_BxT))
        logits = without_banned(decoded.logits_BxTxV, world.banned)
        log_pi, value = policy_and_value(logits, decoded.value_BxT, rows.tokens_BxT, **config.pcl.of_values)
        ended = finished(rows.tokens_BxT)
        own = sample.source_X == STUDENT
        return pcl_loss(
            log_pi, rows.teacher_log_prob_BxT, value, rows.tokens_BxT != 0, ended, fit_value_B=own, **config.pcl.of_loss
        )[0].mean()

    both, expected = gradient(jnp.ones(2)), jax.jit(jax.grad(whole))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), both, expected)
    of_policy, of_value = gradient(jnp.array([1.0, 0.0])), gradient(jnp.array([0.0, 1.0]))
    assert np.any(of_policy["shared"]["embedding"])
    if values == "head":  # neither touches what is the other's
        assert not np.any(of_policy["value"]["bias"])
        assert np.any(of_value["value"]["bias"])
        assert not np.any(of_value["shared"]["embedding"])
    else:
        assert np.any(of_value["shared"]["embedding"])


@pytest.mark.parametrize("kind", ["sampled", "expected", "balance"])
def test_each_row_teaches_what_it_is_for_and_changes_nothing_else(world: World, kind: str) -> None:
    """Paths on the student's own rows, distributions on the others: terms are those of these rows alone."""
    apart = replace(DISTIL, path_rows="student", kl_rows="others", target_decay=0.0)
    if kind == "expected":
        apart = replace(apart, residuals="expected", path_lambda=0.7)
    make = replayed_balance if kind == "balance" else path_loss
    sample = replayed(world)
    own = np.asarray(sample.source_X == STUDENT)
    judged = over_one_device(make(world.model, apart, world.banned), world.params)
    found = judged(sample)
    paths = ("tb",) if kind == "balance" else ("pcl", "value_error")
    for rows, names in ((own, paths), (~own, ("kl",))):
        part = Sample(jax.tree.map(lambda x, rows=rows: x[rows], sample.rows), sample.source_X[rows])
        together = replace(apart, kl_rows="all") if kind == "expected" else replace(DISTIL, target_decay=0.0)
        alone = over_one_device(make(world.model, together, world.banned), world.params)(part)
        for name in names:
            np.testing.assert_allclose(found[name].mean(), alone[name].mean(), rtol=1e-5)
            assert found[name].weight == alone[name].weight > 0


@pytest.mark.parametrize("make", [path_loss, replayed_balance])
def test_a_part_of_what_distributions_teach_goes_to_the_tokens_of_others(world: World, make: Any) -> None:
    """It is their negative log-likelihood; nothing else changes but the weights."""
    config = replace(DISTIL, target_decay=0.0)
    sample = replayed(world)

    def judged(config: DistilConfig) -> Any:
        return over_one_device(make(world.model, config, world.banned), world.params)(sample)

    tokens_BxT = np.asarray(sample.rows.tokens_BxT)
    memory = world.model.encode(world.params, sample.rows.source_BxS)
    logits = world.model.decode(world.params, memory, shift_right(sample.rows.tokens_BxT)).logits_BxTxV
    log_pi = np.asarray(jax.nn.log_softmax(without_banned(logits, world.banned)))
    said = np.take_along_axis(log_pi, tokens_BxT[..., None], axis=-1)[..., 0]
    others = (tokens_BxT != 0) & (np.asarray(sample.source_X) != STUDENT)[:, None]
    plain, shared = judged(config), judged(replace(config, likelihood_share=0.25))
    nll = shared.pop("nll")
    assert float(nll.mean()) == pytest.approx(-said[others].mean(), rel=1e-5) and nll.weight == others.sum()
    jax.tree.map(np.testing.assert_array_equal, shared, plain)
    weights = coefficients(replace(config, kl_weight=2.0, likelihood_share=0.25))
    assert (weights["kl"], weights["nll"]) == (1.5, 0.5)
    assert "nll" not in coefficients(config) and "kl" not in coefficients(replace(config, likelihood_share=1.0))


def over_one_device(loss: Callable[..., Any], params: Any) -> Callable[[Sample], Any]:
    over = jax.vmap(lambda rows: loss(params, (), rows, jax.random.key(0)), axis_name=parallel.AXIS)
    return lambda sample: jax.tree.map(lambda x: x[0], over(jax.tree.map(lambda x: x[None], sample)))


def test_expected_residuals_are_of_the_reverse_kl_whatever_direction_is_matched(world: World) -> None:
    """On the student's own rows with lambda 0 the path loss is that divergence, of the stored outcomes."""
    expected = replace(DISTIL, path_rows="student", residuals="expected", path_lambda=0.0, target_decay=0.0)
    sample = replayed(world)._replace(source_X=jnp.full(8, STUDENT))
    forward, reverse = (
        over_one_device(path_loss(world.model, replace(expected, kl_direction=name), world.banned), world.params)(
            sample
        )
        for name in ("forward", "reverse")
    )
    assert float(forward["pcl"].mean()) == pytest.approx(float(reverse["kl"].mean()), rel=1e-6)
    assert abs(float(forward["kl"].mean()) - float(reverse["kl"].mean())) > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residuals": "expected"}, 'path_rows must be "student"'),
        ({"residuals": "expected", "path_rows": "student", "top_k": 0, "kl_weight": 0.0}, "top_k must be at least 1"),
        ({"residuals": "expected", "path_rows": "student", "pcl": PCLConfig(clip=1.0)}, "pcl.clip must be None"),
        ({"path_lambda": 1.5}, "path_lambda"),
        ({"likelihood_share": 1.5}, "likelihood_share"),
        ({"likelihood_share": 0.5, "kl_weight": 0.0}, "likelihood_share, a part of it, must be 0"),
    ],
)
def test_residuals_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(DISTIL, **changes)


def test_the_policy_waits_for_the_value(world: World) -> None:
    config = replace(DISTIL, pcl_weight=0.5, value_weight=0.25, value_warmup=3)
    weights = coefficients(config)
    policy = weights["pcl"]
    assert callable(policy)
    assert [float(policy(jnp.int32(step))) for step in range(5)] == [0, 0, 0, 0.5, 0.5]
    assert (weights["value_error"], weights["kl"]) == (0.25, 1.0)

    devices = parallel.select_devices(1)
    rows = parallel.shard(replayed(world), devices)

    def stepping(changed: DistilConfig) -> Callable[[int], Any]:
        optimizer = make_optimizer(
            OptimizerConfig(1e-2, warmup_steps=0), 8, world.model.role
        )  # without warm-up of the rate: the first update moves something
        update = parallel.data_parallel(
            make_update(path_loss(world.model, changed, world.banned), coefficients(changed), optimizer), devices
        )

        def stepped(step: int) -> Any:
            state = init_state(world.params, optimizer, 0)._replace(step=jnp.int32(step))
            return parallel.unreplicate(update(parallel.replicate(state, devices), rows)[0]).params

        return stepped

    config = replace(config, target_decay=0.0)
    once, never = stepping(config), stepping(replace(config, pcl_weight=0.0))

    def gap(step: int) -> float:
        pairs = zip(jax.tree.leaves(once(step)), jax.tree.leaves(never(step)), strict=True)
        return max(float(np.abs(a - b).max()) for a, b in pairs)

    assert gap(2) < 1e-6 < 1e-4 < gap(3)


def test_shares_of_a_minibatch_are_exact_and_whole(world: World) -> None:
    assert minibatch_shares(DISTIL, 64) == (32, 16, 16)
    for student, teacher in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (0.3, 0.3)):
        config = replace(DISTIL, student_share=student, teacher_share=teacher, reference_share=1 - student - teacher)
        for rows in (1, 2, 7, 64):
            shares = minibatch_shares(config, rows)
            assert sum(shares) == rows
            assert min(shares) >= 0
            for share, wanted in zip(shares, (student, teacher, 1 - student - teacher), strict=True):
                assert abs(share - wanted * rows) <= 1
                assert wanted > 1e-9 or share == 0
