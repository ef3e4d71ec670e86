"""Rival methods: divergences and policy gradients against exact values, no gradient to the teacher, the same training
on any number of devices and after an interruption, and all of them from the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.translation import PRESETS
from kdtw_jax.data.batches import Batch, Bucket, training_batches
from kdtw_jax.decoding import generate
from kdtw_jax.decoding.beam import beam_search
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.errors import UserError
from kdtw_jax.experiment import main
from kdtw_jax.losses.balance import balance_loss, log_ratio
from kdtw_jax.losses.jsd import generalized_jsd
from kdtw_jax.losses.masked import kl_divergence
from kdtw_jax.losses.pcl import PCLConfig
from kdtw_jax.losses.policy_gradient import importance_weights, later_rewards, sequence_kl_surrogate
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.mdp import all_paths, path_log_prob, random_mdp
from kdtw_jax.models import T5Config, make_model, shift_right
from kdtw_jax.replay import Sample
from kdtw_jax.runs import read_csv, read_metrics
from kdtw_jax.train import parallel
from kdtw_jax.train.balance import balance, replayed_balance
from kdtw_jax.train.checkpoint import load_model
from kdtw_jax.train.collect import Collector
from kdtw_jax.train.distil import distil, path_loss
from kdtw_jax.train.fresh import Listener, Writer
from kdtw_jax.train.gkd import GKDConfig, divergence_loss, gkd, student_writes
from kdtw_jax.train.minillm import MiniLLMConfig, minillm, mixture, rollout_loss
from kdtw_jax.train.scoring import score
from kdtw_jax.train.seqkd import BeamConfig, beam_buckets, write_outputs
from kdtw_jax.train.state import init_state, make_optimizer, make_update
from tests.world import BUCKETS, DISTIL, FIT, LOOP, WIDE, World, heard, same

B, T, V = 3, 5, 11
GKD = GKDConfig(loop=LOOP, optimizer=FIT.optimizer, chunk=5)
MINILLM = MiniLLMConfig(loop=LOOP, optimizer=FIT.optimizer, chunk=5)
jsd = jax.jit(generalized_jsd, static_argnums=2)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


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
def balanced(log_pi: jax.Array, log_mu: jax.Array, mask: jax.Array, config: PCLConfig) -> Any:
    ratio, counted = log_ratio(log_pi, log_mu, mask, config)
    centre = jnp.sum(jnp.where(counted, ratio, 0.0)) / jnp.sum(counted)
    return balance_loss(ratio, counted, centre, mask, config)


def test_balance_is_half_the_variance_of_the_log_ratio() -> None:
    _, log_pi, log_mu, mask = path_numbers()
    config = PCLConfig(floor=None)
    found = balanced(log_pi, log_mu, mask, config)
    sums = [float(np.nansum((log_pi - log_mu)[row])) for row in range(B)]
    assert float(found.total) == pytest.approx(0.5 * B * np.var(sums), rel=1e-5)
    assert float(found.weight) == 9
    # A teacher out by one factor for all sequences is the same teacher; one out by a factor for some is not.
    first = jnp.arange(T)[None] == 0
    scaled = balanced(log_pi, log_mu + jnp.where(first, 7.0, 0.0), mask, config)
    assert float(scaled.total) == pytest.approx(float(found.total), rel=1e-4)
    assert float(balanced(log_pi, jnp.where(first, -7.0, log_mu), mask, config).total) != pytest.approx(
        float(found.total), rel=0.1
    )
    assert float(balanced(log_mu, log_mu, mask, config).total) == 0.0

    def variance(log_pi: jax.Array) -> jax.Array:  # differentiated through the mean as well
        ratio = jnp.sum(jnp.where(mask, log_pi - log_mu, 0.0), axis=1)
        return 0.5 * jnp.sum(jnp.square(ratio - jnp.mean(ratio)))

    slope = jax.grad(lambda x: balanced(x, log_mu, mask, config).total)(log_pi)
    np.testing.assert_allclose(slope, jax.grad(variance)(log_pi), rtol=1e-5, atol=1e-6)
    assert np.abs(slope).max() > 0.1


def test_balance_leaves_out_what_the_student_cannot_write_and_floors_the_teacher() -> None:
    _, log_pi, log_mu, mask = path_numbers()
    config = PCLConfig(floor=-20.0)
    never = log_pi.at[2, 1].set(-jnp.inf)
    value, slope = jax.value_and_grad(lambda x: balanced(x, log_mu, mask, config).total)(never)
    two = balanced(log_pi[:2], log_mu[:2], mask[:2], config)
    assert float(value) == pytest.approx(float(two.total), rel=1e-5)
    assert float(balanced(never, log_mu, mask, config).weight) == 6
    assert np.isfinite(slope).all() and not slope[2].any() and slope[0].any()
    far, floored = (balanced(log_pi, log_mu.at[0, 0].set(x), mask, config).total for x in (-jnp.inf, -20.0))
    assert float(far) == float(floored) > 1
    endless = balanced(log_pi, log_mu.at[0, 0].set(-jnp.inf), mask, PCLConfig(floor=None))
    assert np.isfinite(endless.total) and float(endless.weight) == 4


def batch_of(world: World) -> Batch:
    return next(training_batches(world.data, WIDE, seed=0))


def rows_of(world: World, kind: str, target: Any = None) -> Any:
    """What the loss of a method takes; `target` instead of the batch's outputs."""
    batch = batch_of(world)
    given = batch if target is None else batch._replace(target_BxT=np.asarray(target))
    written = np.asarray(given.target_BxT)
    teacher = heard(*world.teacher, given)
    return (given, teacher) if kind == "gkd" else (batch, written, teacher)


def loss_of(world: World, kind: str, **changes: Any) -> Callable[..., Any]:
    if kind == "gkd":
        return divergence_loss(world.model, world.teacher[0], replace(GKD, **changes), world.banned)
    return rollout_loss(world.model, world.teacher[0], replace(MINILLM, **changes), world.banned)


def objective(loss: Callable[..., Any], params: Any, rows: Any) -> jax.Array:
    terms = loss(params, (), rows, jax.random.key(0))
    return sum(terms[name].mean() for name in ("jsd", "single", "long") if name in terms)


@pytest.mark.parametrize("kind", ["gkd", "minillm"])
def test_nothing_is_left_to_learn_where_the_student_is_the_teacher_and_nothing_reaches_the_teacher(
    world: World, kind: str
) -> None:
    loss = loss_of(world, kind)
    slope = jax.jit(jax.value_and_grad(partial(objective, loss)))
    rows = rows_of(world, kind)
    # The largest of the value and its slopes.
    largest = lambda params: max(float(jnp.abs(g).max()) for g in jax.tree.leaves(slope(params, rows)))  # noqa: E731
    assert largest(world.teacher[1]) < 1e-5 < 1e-2 < largest(world.params)

    def of_teacher(teacher_params: Any) -> jax.Array:
        given = (*rows[:-1], heard(world.teacher[0], teacher_params, batch_of(world)))
        return objective(loss, jax.tree.map(jnp.asarray, world.params), given)

    assert not any(np.any(g) for g in jax.tree.leaves(jax.jit(jax.grad(of_teacher))(world.teacher[1])))


@pytest.mark.parametrize("kind", ["gkd", "minillm"])
def test_padding_splits_and_chunks_change_nothing(world: World, kind: str) -> None:
    rows = rows_of(world, kind)
    run = {chunk: jax.jit(loss_of(world, kind, chunk=chunk)) for chunk in (0, 5)}
    numbers = lambda terms: {(k, i): float(x) for k, v in terms.items() for i, x in enumerate(v)}  # noqa: E731
    key = jax.random.key(0)
    want = numbers(run[0](world.params, (), rows, key))

    def cut(tree: Any, part: slice) -> Any:
        return (
            *jax.tree.map(lambda x: x[part], tree[:-1]),
            tree[-1]._replace(hidden_BxTxD=tree[-1].hidden_BxTxD[part]),
        )

    halves = [run[0](world.params, (), cut(rows, part), key) for part in (slice(0, 4), slice(4, 8))]
    merged = {k: v.merge(halves[1][k]) for k, v in halves[0].items() if k != "tokens"}
    assert numbers(merged) == pytest.approx({k: x for k, x in want.items() if k[0] != "tokens"}, rel=2e-4, abs=1e-4)

    wide = jax.tree.map(lambda x: np.pad(x, ((0, 0), (0, 4))) if x.ndim == 2 else x, rows[:-1])
    longer = rows[-1]._replace(hidden_BxTxD=np.pad(rows[-1].hidden_BxTxD, ((0, 0), (0, 4), (0, 0))))
    assert numbers(run[5](world.params, (), (*wide, longer), key)) == pytest.approx(want, rel=2e-4, abs=1e-4)


def test_chunks_save_the_memory_of_whole_distributions(world: World) -> None:
    model = make_model(T5Config.toy(2000, dropout_rate=0.0))
    params = jax.eval_shape(model.init, jax.random.key(0))
    ints = jax.ShapeDtypeStruct((8, 64), jnp.int32)
    batch = Batch(jax.ShapeDtypeStruct((8,), jnp.int32), ints, ints)  # type: ignore[arg-type]
    rows = (batch, jax.eval_shape(partial(heard, model), params, batch))

    def memory(chunk: int) -> int:
        loss = divergence_loss(model, model, replace(GKD, chunk=chunk), ())
        slope = jax.jit(jax.grad(lambda params, rows: loss(params, (), rows, jax.random.key(0))["jsd"].total))
        return int(slope.lower(params, rows).compile().memory_analysis().temp_size_in_bytes)

    one = 8 * 64 * 2000 * 4  # bytes of one [B, T, V]
    assert memory(0) - memory(8) > 2 * one


def updated(world: World, devices: int, kind: str) -> tuple[Any, dict[str, float]]:
    """Parameters and metrics after two updates on the same rows."""
    chosen = parallel.select_devices(devices)
    optimizer = make_optimizer(FIT.optimizer, 8)
    batch = batch_of(world)
    listener = Listener(world.teacher, chosen)
    weights: dict[str, Any] = {"gkd": {"jsd": 1.0}, "minillm": {"single": 1.0, "long": 1.0, "nll": 1.0}}.get(
        kind, {"tb": 0.1, "kl": 1.0}
    )
    state = parallel.replicate(init_state(world.params, optimizer, 0), chosen)
    if kind == "tb":
        scored = score(*world.teacher, *map(jnp.asarray, batch), top_k=4, banned=world.banned)
        rows = parallel.shard(Sample(scored, jnp.arange(8) % 3), chosen)
        loss = replayed_balance(world.model, DISTIL, world.banned)
    else:
        if kind == "minillm":
            author = mixture(world.model, world.teacher[0], 0.2, world.banned)
            write = Writer(author, world.banned, chosen, listener.teacher)
        else:
            write = Writer(world.model, world.banned, chosen)
        written = write(state.params, batch, jax.random.key(5))
        sharded = parallel.shard(batch, chosen)
        teacher = listener(sharded.source_BxS, written)
        rows = (sharded, written, teacher) if kind == "minillm" else (sharded._replace(target_BxT=written), teacher)
        loss = loss_of(world, kind)
    update = parallel.data_parallel(make_update(loss, weights, optimizer), chosen)
    for _ in range(2):
        state, metrics = update(state, rows)
    found = parallel.unreplicate(metrics)
    return parallel.unreplicate(state).params, {
        k: float(v.total if k == "tokens" else v.mean()) for k, v in found.items()
    }


@pytest.mark.parametrize("kind", ["gkd", "minillm", "tb"])
def test_one_and_four_devices_write_the_same_and_give_the_same_update(world: World, kind: str) -> None:
    alone, numbers = updated(world, 1, kind)
    assert not same(alone, world.params)
    params, means = updated(world, 4, kind)
    # Where a gradient is all but zero Adam makes much of its rounding: updates are of 1e-2 and more.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-4, atol=2e-4), alone, params)
    assert means == pytest.approx(numbers, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", ["gkd", "pcl"])
def test_a_sharper_teacher_is_matched_by_a_student_as_much_sharper(world: World, kind: str) -> None:
    model, params = world.teacher
    sharp = model._replace(logits=lambda *given: model.logits(*given) / 0.5)

    def left(student: Any) -> float:
        if kind == "gkd":
            loss = divergence_loss(student, model, replace(GKD, teacher_temperature=0.5), world.banned)
            return float(objective(loss, params, rows_of(world, kind)))
        config = replace(DISTIL, reward_temperature=0.5, target_decay=0.0)
        collected = Collector(student, world.teacher, config, world.banned, parallel.select_devices(1))
        rows = collected.scored(jax.tree.map(jnp.asarray, batch_of(world)))
        terms = path_loss(student, config, world.banned)(
            params, (), Sample(rows, jnp.zeros(8, jnp.int32)), jax.random.key(0)
        )
        return max(float(terms["pcl"].mean()), float(terms["kl"].mean()))

    assert left(sharp) < 1e-4 < 1e-3 < left(model)


def test_balance_is_zero_where_the_student_is_the_teacher(world: World) -> None:
    scored = score(*world.teacher, *map(jnp.asarray, batch_of(world)), top_k=4, banned=world.banned)
    loss = replayed_balance(world.model, DISTIL, world.banned)
    over = jax.jit(
        jax.vmap(lambda params, rows: loss(params, (), rows, None), in_axes=(None, 0), axis_name=parallel.AXIS)
    )
    rows = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), Sample(scored, jnp.zeros(8, jnp.int32)))
    terms, others = over(world.teacher[1], rows), over(world.params, rows)
    assert float(terms["tb"].total.sum()) == pytest.approx(0.0, abs=1e-6)
    assert float(others["tb"].total.sum()) > 1
    assert float(terms["kl"].total.sum()) == pytest.approx(0.0, abs=1e-4)


def test_the_mixture_draws_from_the_mean_of_both_policies(world: World) -> None:
    mixed = mixture(world.model, world.teacher[0], 0.3, world.banned)
    batch, both = batch_of(world), (world.params, world.teacher[1])
    noise = jax.random.uniform(jax.random.key(0), batch.target_BxT.shape)
    written = jax.jit(partial(generate, mixed, max_len=12, banned=world.banned))(both, batch.source_BxS, noise)
    inputs = shift_right(written.tokens_BxT)
    pi, mu = (
        log_policy(world.model.decode(p, world.model.encode(p, batch.source_BxS), inputs).logits_BxTxV, world.banned)
        for p in both
    )
    drawn = jnp.log(0.3 * jnp.exp(mu) + 0.7 * jnp.exp(pi))
    taken = jnp.take_along_axis(drawn, written.tokens_BxT[..., None], axis=-1)[..., 0]
    mask = np.asarray(written.mask_BxT)
    assert mask.sum() > 20
    np.testing.assert_allclose(np.asarray(written.log_prob_BxT)[mask], np.asarray(taken)[mask], rtol=1e-4, atol=1e-4)


def test_who_writes_is_drawn_from_the_key_of_the_step(world: World) -> None:
    key = init_state(world.params, make_optimizer(FIT.optimizer, 8), 0).key_data
    for share in (0.0, 0.3, 1.0):
        drawn = [student_writes(replace(GKD, student_share=share), key, step) for step in range(200)]
        assert abs(np.mean(drawn) - share) < 0.1 * (0 < share < 1) + 1e-9
        assert drawn == [student_writes(replace(GKD, student_share=share), key, step) for step in range(200)]


def train(world: World, folder: Path, kind: str, stop_after: int | None = None, **changes: Any) -> Any:
    method: Any = {"gkd": gkd, "minillm": minillm, "tb": balance, "pcl": distil}[kind]
    config: Any = replace({"gkd": GKD, "minillm": MINILLM}.get(kind, DISTIL), **changes)
    return method(
        "t", folder, world.model, world.params, world.teacher, world.data, BUCKETS, config,
        seed=3, devices=parallel.select_devices(1), banned=world.banned, stop_after=stop_after,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["gkd", "minillm"])
def test_resuming_equals_never_having_stopped_bit_for_bit(world: World, tmp_path: Path, kind: str) -> None:
    whole = train(world, tmp_path / "whole", kind)
    train(world, tmp_path / "parts", kind, stop_after=6)  # two steps past the checkpoint of step 4: done again
    assert same(whole, train(world, tmp_path / "parts", kind))
    assert not same(whole, world.params)
    numbers = [
        [{k: v for k, v in line.items() if k != "tokens_per_s"} for line in read_metrics(tmp_path / folder)]
        for folder in ("whole", "parts")
    ]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 4


def test_balance_trains_on_the_rows_of_path_consistency(world: World, tmp_path: Path) -> None:
    only_kl = {"pcl_weight": 0.0, "value_weight": 0.0}
    pcl, tb = (train(world, tmp_path / kind, kind, **only_kl) for kind in ("pcl", "tb"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), pcl, tb)
    moved = max(
        float(np.abs(a - b).max()) for a, b in zip(jax.tree.leaves(tb), jax.tree.leaves(world.params), strict=True)
    )
    assert moved > 1e-2
    assert all(line["tb"] > 0 and line["counted"] > 0.5 for line in read_metrics(tmp_path / "tb"))


def test_beam_outputs_are_written_once_and_continued(world: World, tmp_path: Path) -> None:
    beam = BeamConfig(2, 0.6)

    def write(folder: str, devices: int = 1, **how: Any) -> Any:
        return write_outputs(
            "t", tmp_path / folder, world.teacher, world.data, BUCKETS, beam,
            banned=world.banned, devices=parallel.select_devices(devices), batches_a_file=7, **how,
        )  # fmt: skip

    whole = write("whole")
    write("parts", stop_after=1)
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    assert len(first) == 1
    (tmp_path / "parts" / ".00001.npz.left-by-a-kill.tmp").write_bytes(b"half")
    parts = write("parts")
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())
    for found in (parts, write("whole", devices=4)):
        assert np.array_equal(found.data.targets.values, whole.data.targets.values)
        assert np.array_equal(found.data.targets.offsets, whole.data.targets.offsets)
    assert np.array_equal(whole.data.sources.values, world.data.sources.values)
    assert beam_buckets(BUCKETS) == (Bucket(8, 12, 8), Bucket(12, 12, 4))

    model, params = world.teacher
    alone = jax.jit(partial(beam_search, model, beam_size=2, max_len=12, length_penalty=0.6, banned=world.banned))
    for i in (0, 17, 101):
        source = np.zeros((1, 12), np.int32)
        source[0, : len(world.data.sources[i])] = world.data.sources[i]
        want = np.asarray(alone(params, source).tokens_BxT[0])
        assert whole.data.targets[i].tolist() == want[want != 0].tolist()
    assert whole.unfinished == sum(int(whole.data.targets[i][-1]) != 1 for i in range(len(world.data)))

    (tmp_path / "parts" / "00000.npz").write_bytes(b"not an archive")
    with pytest.raises(UserError, match=r"00000\.npz is damaged"):
        write("parts")
    np.savez(tmp_path / "parts" / "00000.npz", example=np.array([object()]))
    with pytest.raises(UserError, match=r"00000\.npz is damaged"):  # nothing is ever unpickled
        write("parts")


def test_settings_that_cannot_work_are_refused() -> None:
    for config, changes, message in (
        (GKD, {"student_share": 1.5}, r"gkd\.student_share must be in \[0, 1\]"),
        (GKD, {"beta": -0.1}, r"gkd\.beta must be in \[0, 1\]"),
        (GKD, {"teacher_temperature": 0.0}, r"gkd\.teacher_temperature must be above 0"),
        (GKD, {"chunk": -1}, r"gkd\.chunk must be 0"),
        (MINILLM, {"teacher_mix": 1.0}, r"minillm\.teacher_mix must be at least 0 and below 1"),
        (MINILLM, {"truth_weight": -1.0}, r"minillm\.truth_weight must be at least 0"),
        (MINILLM, {"chunk": -1}, r"minillm\.chunk must be 0"),
    ):
        with pytest.raises(UserError, match=message):
            replace(config, **changes)  # type: ignore[type-var]


def test_all_rivals_from_the_command_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [" ".join("".join(rng.choice(list("abcdefgh"), 3)) for _ in range(rng.integers(2, 7))) for _ in range(300)]
    for side, text in (("en", lines), ("de", [line[::-1] for line in lines])):
        (tmp_path / f"a.{side}").write_text("\n".join(text) + "\n", encoding="utf8")
    out, methods = tmp_path / "run", ["seqkd", "gkd", "minillm", "tb"]
    arguments = ["--preset", "tiny", "--data", "files", "--out", str(out), "--text.folder", str(tmp_path / "data")]
    arguments += ["--text.files.train-source", str(tmp_path / "a.en"), "--devices", "1"]
    arguments += ["--text.files.train-target", str(tmp_path / "a.de"), "--methods", *methods]
    assert main("translation", PRESETS, None, [*arguments, "mle", "--beam-targets", "mle"]) == 0
    rows = read_csv(out / "distil.csv")
    assert {row["method"] for row in rows} == {"teacher", "mle", *methods}
    bleu = [row["value"] for row in rows if row["metric"] == "bleu"]
    assert len(bleu) == 6 and all(0 <= float(str(value)) <= 100 for value in bleu)
    for method, term in zip(methods, ("nll", "jsd", "single", "tb"), strict=True):
        assert all(np.isfinite(line[term]) for line in read_metrics(out / "seed0" / method))
    found = {(row["minus"], row["metric"]): row for row in read_csv(out / "differences.csv")}
    assert {minus for minus, _ in found} == {*methods[1:], "mle"}
    assert all(row["method"] == "seqkd" and str(row["seeds"]) == "0" for row in found.values())
    of_gkd = next(float(str(r["value"])) for r in rows if r["method"] == "gkd" and r["metric"] == "chrf")
    of_seqkd = next(float(str(r["value"])) for r in rows if r["method"] == "seqkd" and r["metric"] == "chrf")
    assert float(str(found["gkd", "chrf"]["value"])) == pytest.approx(of_seqkd - of_gkd, abs=1e-3)
    assert float(str(found["mle", "bleu"]["value"])) == 0
    assert (out / "stages" / "teacher" / "beam.json").exists()
    assert list((out / "teacher" / "beam").glob("*.npz"))
    assert (out / "distil.png").stat().st_size > 10_000
    # Likelihood of the teacher's beam outputs is sequence-level distillation; of the references it is another student.
    models = [load_model(out / "seed0" / method / "model").params for method in ("mle", "seqkd")]
    assert jax.tree.all(jax.tree.map(np.array_equal, *models))
    assert main("translation", PRESETS, None, [*arguments, "mle"]) == 2


def test_every_preset_gives_rivals_the_steps_and_rates_of_the_others() -> None:
    for preset in PRESETS.values():
        for method in (preset.seqkd, preset.gkd, preset.minillm, preset.tb):
            assert method.loop.steps == preset.mle.loop.steps == preset.pcl.loop.steps
            assert method.optimizer == preset.mle.optimizer == preset.pcl.optimizer
        shared = {"pcl": preset.pcl.pcl, "value_warmup": preset.pcl.value_warmup}
        assert replace(preset.tb, **shared) == preset.pcl  # type: ignore[arg-type]
        assert preset.tb.pcl.huber is None
