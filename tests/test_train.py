"""Training: the same update on any number of devices, exact resumption, and what happens when things go wrong."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax import parallel
from kdtw_jax.data.batches import training_batches
from kdtw_jax.data.tokenizer import train_tokenizer
from kdtw_jax.duals import DualConfig
from kdtw_jax.errors import UserError
from kdtw_jax.losses.pcl import PCLConfig
from kdtw_jax.methods.mle import MLEConfig, mle
from kdtw_jax.methods.path_terms import coefficients, path_loss
from kdtw_jax.methods.pcl import pcl
from kdtw_jax.methods.tb import tb
from kdtw_jax.methods.word_kd import word_loss
from kdtw_jax.models import make_model
from kdtw_jax.replay import Sample
from kdtw_jax.runs import read_metrics
from kdtw_jax.training.checkpoint import Checkpoints
from kdtw_jax.training.fresh import TeacherForward
from kdtw_jax.training.loop import LoopConfig
from kdtw_jax.training.saved import load_model, save_model
from kdtw_jax.training.scoring import score_paths
from kdtw_jax.training.state import (
    Coefficient,
    OptimizerConfig,
    Rates,
    TrainState,
    init_state,
    make_optimizer,
    make_update,
)
from tests.world import DISTIL, FIT, TRAINING, WIDE, World, same


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def updated(world: World, devices: int, kind: str, accumulate: int = 1) -> tuple[Any, dict[str, float]]:
    """Parameters and metrics after two updates on the same rows, cut up as asked for."""
    chosen = parallel.select_devices(devices)
    weights: dict[str, Coefficient]
    iterator = training_batches(world.data, WIDE, seed=0) if kind == "mle" else None
    optimizer = make_optimizer(TRAINING.optimizer, 8, world.model.role)
    if iterator is not None:
        loss = word_loss(world.model, world.teacher[0], FIT, world.banned)
        weights = {"nll": 0.5, "kl": 0.5}
        batches: list[Any] = [next(iterator) for _ in range(2)]
    else:
        loss, weights = path_loss(world.model, DISTIL, world.banned), coefficients(DISTIL)
        batch = next(training_batches(world.data, WIDE, seed=0))
        rows = score_paths(*world.teacher, *map(jnp.asarray, batch), top_k=4, banned=world.banned)
        batches = [Sample(rows, jnp.arange(8) % 3)] * 2
    one_step = make_update(loss, weights, optimizer, target_decay=0.9, accumulate=accumulate)
    update = parallel.data_parallel(one_step, chosen)
    state = parallel.replicate(init_state(world.params, optimizer, 0, target=True), chosen)
    listener = TeacherForward(world.teacher, chosen)
    for batch in batches:
        sharded = parallel.shard(batch, chosen)
        rows = (sharded, listener(sharded.source_BxS, sharded.target_BxT)) if kind == "mle" else sharded
        state, metrics = update(state, rows)
    found = parallel.unreplicate(metrics)
    means = {k: float(v.total if k == "tokens" else v.mean()) for k, v in found.items()}
    return parallel.unreplicate(state).params, means


@pytest.mark.parametrize(
    "cuts", [((2, 2),), pytest.param(((2, 1), (4, 1), (1, 8)), marks=pytest.mark.long)], ids=["both", "either"]
)
@pytest.mark.parametrize("kind", ["mle", "pcl"])
def test_the_update_is_the_same_on_any_number_of_devices_and_in_any_number_of_parts(
    world: World, kind: str, cuts: tuple[tuple[int, int], ...]
) -> None:
    # Rows hold different numbers of tokens, so a mean of means, over devices or over parts, would differ.
    alone, numbers = updated(world, 1, kind)
    assert not same(alone, world.params)
    for devices, parts in cuts:
        params, means = updated(world, devices, kind, parts)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), alone, params)
        assert means == pytest.approx(numbers, rel=1e-4)


def train(world: World, folder: Path, kind: str, stop_after: int | None = None, devices: int = 1) -> Any:
    context = world.context(folder, devices, seed=3, stop_after=stop_after)
    return mle(context, world.params, FIT) if kind == "mle" else pcl(context, world.params, DISTIL)


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """What an uninterrupted training of a kind, on one device, ends with, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return cache(lambda kind: (train(world, folder / kind, kind), folder / kind))


@pytest.mark.parametrize("kind", ["mle", "pcl"])
def test_resuming_equals_never_having_stopped_bit_for_bit(
    world: World, whole: Callable[[str], tuple[Any, Path]], tmp_path: Path, kind: str
) -> None:
    uninterrupted, kept = whole(kind)
    train(world, tmp_path / "parts", kind, stop_after=6)  # two steps past the checkpoint of step 4: done again
    resumed = train(world, tmp_path / "parts", kind)
    assert same(uninterrupted, resumed)
    assert not same(uninterrupted, world.params)

    def numbers(folder: Path) -> list[dict[str, float]]:
        return [{k: v for k, v in line.items() if k != "tokens_per_s"} for line in read_metrics(folder)]

    assert [line["step"] for line in numbers(kept)] == [2, 4, 6, 8]
    assert numbers(kept) == numbers(tmp_path / "parts")


@pytest.mark.parametrize(
    ("kind", "before", "after"), [("mle", 1, 4), pytest.param("pcl", 4, 1, marks=pytest.mark.long)]
)
def test_a_checkpoint_moves_to_another_number_of_devices(
    world: World, whole: Callable[[str], tuple[Any, Path]], tmp_path: Path, kind: str, before: int, after: int
) -> None:
    stayed, kept = whole(kind) if before == 1 else (train(world, tmp_path, kind, devices=before), tmp_path)
    train(world, tmp_path / "moved", kind, stop_after=4, devices=before)
    moved = train(world, tmp_path / "moved", kind, devices=after)
    # Not bit for bit: sums over devices have another order. Adam makes much of what is left of a gradient near zero.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), stayed, moved)
    assert [line["step"] for line in read_metrics(tmp_path / "moved")] == [2, 4, 6, 8]
    for one, other in zip(read_metrics(kept), read_metrics(tmp_path / "moved"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)


def test_a_step_is_traced_once_a_shape(world: World, tmp_path: Path) -> None:
    traces = []

    def decode(*args: Any, **keywords: Any) -> Any:
        traces.append(args[2].shape)
        return world.model.decode(*args, **keywords)

    counting = world.model._replace(decode=decode)
    training = replace(TRAINING, loop=LoopConfig(steps=12, log_every=2, checkpoint_every=12))
    mle(world.context(tmp_path, student=counting, training=training), world.params, FIT)
    assert sorted(traces) == [(4, 12), (8, 8)]


def test_rates_are_by_kind_of_parameter(world: World) -> None:
    """At the first step of Adam every entry with a gradient moves by the learning rate of its kind."""
    rates = Rates(embedding=2.0, relative_bias=3.0, norm=5.0, query=7.0, value_head=11.0)
    optimizer = make_optimizer(OptimizerConfig(1e-2, warmup_steps=1, clip_norm=1e9, rates=rates), 100, world.model.role)
    state = optimizer.init(world.params)
    ones = jax.tree.map(jnp.ones_like, world.params)
    _, state = optimizer.update(ones, state, world.params)  # the rate of step 0 of a warm-up is 0
    moved, _ = optimizer.update(ones, state, world.params)
    decoder = moved["decoder"]["block_0"]
    for found, rate in (
        (moved["shared"]["embedding"], 2.0),
        (moved["encoder"]["relative_attention_bias"]["embedding"], 3.0),
        (decoder["cross_attention_norm"]["scale"], 5.0),
        (decoder["cross_attention"]["q"]["kernel"], 7.0),
        (moved["value"]["kernel"], 11.0),
        (moved["value"]["bias"], 11.0),
        (decoder["cross_attention"]["k"]["kernel"], 1.0),
        (decoder["feed_forward"]["wo"]["kernel"], 1.0),
    ):
        np.testing.assert_allclose(found, -1e-2 * rate, rtol=1e-3)


def test_a_nan_stops_the_run_and_names_step_examples_and_checkpoint(world: World, tmp_path: Path) -> None:
    def run(learning_rate: float, params: Any, stop_after: int | None = None) -> Any:
        training = replace(TRAINING, optimizer=OptimizerConfig(learning_rate, warmup_steps=1))
        return mle(world.context(tmp_path, training=training, stop_after=stop_after), params, FIT)

    nothing = jax.tree.map(lambda x: np.full_like(x, np.nan), world.params)
    with pytest.raises(UserError, match=r"loss and grad_norm not finite at step 1 \(examples \d+.*no checkpoint"):
        run(1e-2, nothing)
    assert Checkpoints(tmp_path / "checkpoints").latest is None
    run(1e-2, world.params, stop_after=4)
    with pytest.raises(UserError, match=r"not finite at step \d \(examples .*last good checkpoint is that of step 4"):
        run(1e30, world.params)
    assert Checkpoints(tmp_path / "checkpoints").latest == 4


def test_a_model_comes_back_as_it_was_and_misfits_are_named(world: World, tmp_path: Path) -> None:
    save_model(tmp_path / "model", world.config, world.params, world.tokenizer)
    loaded = load_model(tmp_path / "model", expect=world.config, tokenizer=world.tokenizer)
    assert same(loaded.params, world.params)
    with pytest.raises(UserError, match=r"another architecture: d_ff 24 \(asked for 48\)"):
        load_model(tmp_path / "model", expect=replace(world.config, d_ff=48))
    other = train_tokenizer(["x y z w v"], vocab_size=24, exact=False)
    with pytest.raises(UserError, match="another vocabulary"):
        load_model(tmp_path / "model", tokenizer=other)
    with pytest.raises(UserError, match="not a saved model"):
        load_model(tmp_path / "nothing")


def test_a_model_is_read_into_the_host_s_memory_and_on_no_device(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "model", world.config, world.params, world.tokenizer)

    def none(*_: Any, **__: Any) -> None:
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr("jax.local_devices", none)
    loaded = load_model(tmp_path / "model").params
    assert same(loaded, world.params) and all(type(x) is np.ndarray for x in jax.tree.leaves(loaded))


def test_a_checkpoint_of_another_architecture_is_refused(world: World, tmp_path: Path) -> None:
    train(world, tmp_path, "mle", stop_after=4)
    wider = make_model(replace(world.config, d_ff=48))
    params = jax.device_get(wider.init(jax.random.key(0)))
    with pytest.raises(UserError, match="does not fit this model or configuration"):
        mle(world.context(tmp_path, student=wider, seed=3), params, FIT)


# Threads of Orbax that were writing when it failed find their event loop closed: noise of its own, told to nobody.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_ends_a_run_in_one_line_and_nothing_is_lost(
    world: World, whole: Callable[[str], tuple[Any, Path]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(world, tmp_path / "run", "mle", stop_after=4)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    capfd.readouterr()
    # Not a stand-in: the system itself refuses to make a file larger than this, wherever in Orbax it is written.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"the checkpoint of step 8 to .*File too large; .*continues from step 4"):
            train(world, tmp_path / "run", "mle")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Traceback" not in capfd.readouterr().err
    # A thread of Orbax that is still at it may leave a folder of a temporary name, which the next start removes.
    left = [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()]
    assert [name for name in left if not name.endswith(".orbax-checkpoint-tmp")] == ["4"]
    assert same(whole("mle")[0], train(world, tmp_path / "run", "mle"))
    assert all(p.name.isdecimal() for p in (tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        # What Tensorstore appends to its own words stands in either order.
        (ValueError("OUT_OF_RANGE: file 4: [os_error_code='27'] [spec='{\"a\": {\"b\": 0}}']"), "File too large$"),
        (ValueError("OUT_OF_RANGE: file 4: [spec='{\"a\": {\"b\": 0}}'] [os_error_code='27']"), "File too large$"),
    ],
)
def test_a_failed_write_of_a_model_leaves_the_old_one(
    error: Exception, said: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "model", world.config, world.params, world.tokenizer)

    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("orbax.checkpoint.v1.save", full)
    with pytest.raises(UserError, match=f"cannot write the model to .*: {said}"):
        save_model(tmp_path / "model", world.config, world.teacher[1], world.tokenizer)
    assert same(load_model(tmp_path / "model").params, world.params)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_settings_that_cannot_work_are_refused(world: World, tmp_path: Path) -> None:
    for changes, message in (
        ({"student_share": 0.9}, "add to 1"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"demonstration_fraction": 0.0}, "demonstration_fraction must be too"),
        ({"rollout_fraction": 0.0}, "rollout_fraction must be too"),
        ({"updates_per_rollout": 0}, "at least 1"),
        ({"target_decay": 1.0}, r"target_decay must be in \[0, 1\)"),
        ({"teacher_temperature": 0.0}, "teacher_temperature must be above 0"),
        ({"reference_batches": 0}, "reference_batches must be at least 1"),
        ({"value_warmup": -1}, "value_warmup must be at least 0"),
    ):
        with pytest.raises(UserError, match=message):
            replace(DISTIL, **changes)
    with pytest.raises(UserError, match="z_loss must be at least 0 and finite, got inf"):
        MLEConfig(z_loss=float("inf"))
    with pytest.raises(UserError, match=r"pcl\.min_log_prob must be in \(-inf, 0\], got nan"):
        PCLConfig(min_log_prob=float("nan"))
    with pytest.raises(UserError, match=r"duals\.rate must be above 0, got nan"):
        DualConfig(rate=float("nan"))
    with pytest.raises(UserError, match="steps must be at least 1"):
        LoopConfig(steps=0)
    with pytest.raises(UserError, match="accumulate must be at least 1"):
        OptimizerConfig(accumulate=0)
    for accumulate, match in ((3, r"\d rows per device do not divide into accumulate=3"), (2, "compares the rows")):
        cut = replace(TRAINING, optimizer=replace(TRAINING.optimizer, accumulate=accumulate))
        run = pcl if accumulate == 3 else tb
        with pytest.raises(UserError, match=match):
            run(world.context(tmp_path, training=cut), world.params, DISTIL)
    with pytest.raises(UserError, match="learning_rate"):
        OptimizerConfig(learning_rate=-1.0)
    with pytest.raises(UserError, match=r"rates\.query must be above 0"):
        Rates(query=0.0)
    with pytest.raises(UserError, match="devices=9"):
        parallel.select_devices(9)
    assert len(parallel.dividing_devices(0, (42, 21))) == 7  # of eight
    with pytest.raises(UserError, match="begun with batches of 42, 21 rows, which do not divide over 2 devices"):
        parallel.dividing_devices(2, (42, 21))
    with pytest.raises(UserError, match="t learns from a teacher; give TrainContext one"):
        pcl(world.context(tmp_path, teacher=None), world.params, DISTIL)
    state = TrainState(jnp.zeros(()), {}, (), (), jnp.zeros(4, jnp.uint32))
    with pytest.raises(UserError, match="do not divide over 2 devices"):
        parallel.shard(state.key_data[:3], parallel.select_devices(2))
