"""Training: the same update on any number of devices, exact resumption, and what happens when things go wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.data.batches import Bucket, EncodedSplit, encode_split, training_batches
from kdtw_jax.data.tokenizer import Tokenizer, train_tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.losses.pcl import PCLConfig
from kdtw_jax.models import Model, T5Config, make_model
from kdtw_jax.replay import Sample
from kdtw_jax.runs import read_metrics
from kdtw_jax.train import parallel
from kdtw_jax.train.checkpoint import Checkpoints, load_model, save_model
from kdtw_jax.train.distil import Collector, DistilConfig, distil, minibatch_shares, path_loss
from kdtw_jax.train.fit import FitConfig, fit, likelihood_loss
from kdtw_jax.train.loop import LoopConfig
from kdtw_jax.train.scoring import STUDENT, TEACHER, TRUTH, score
from kdtw_jax.train.state import OptimizerConfig, TrainState, init_state, make_optimizer, make_update

BUCKETS = (Bucket(8, 8, 8), Bucket(12, 12, 4))
WIDE = (Bucket(12, 12, 8),)
LOOP = LoopConfig(steps=8, log_every=2, checkpoint_every=4)
FIT = FitConfig(loop=LOOP, optimizer=OptimizerConfig(1e-2, warmup_steps=1))
DISTIL = DistilConfig(
    loop=LOOP,
    optimizer=OptimizerConfig(1e-2, warmup_steps=1),
    pcl=PCLConfig(values="head", lengths=(1, 2, 0)),
    updates_per_rollout=2,
    capacity=16,
    top_k=4,
    target_decay=0.9,
)


class World:
    """A reversal task, its vocabulary, a teacher and a student with other weights."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        words = [rng.choice(list("abcdefg"), size=rng.integers(1, 9)) for _ in range(200)]
        pairs = [{"source": " ".join(w), "target": " ".join(w[::-1]), "group": ""} for w in words]
        task: Any = SimpleNamespace(name="toy", splits={"train": pairs}, instruction="{source}")
        self.tokenizer: Tokenizer = train_tokenizer((p["source"] for p in pairs), vocab_size=30, exact=False)
        self.banned = self.tokenizer.banned_ids
        self.data: EncodedSplit = encode_split(
            task, "train", self.tokenizer, max_source=12, max_target=12, on_long="drop", instruct=False
        )
        self.config = T5Config.toy(self.tokenizer.vocab_size, dropout_rate=0.0)
        self.model: Model = make_model(self.config)
        self.params = jax.device_get(self.model.init(jax.random.key(0)))
        self.teacher = (self.model, jax.device_get(self.model.init(jax.random.key(1))))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def same(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ) and jax.tree.structure(a) == jax.tree.structure(b)


def updated(world: World, devices: int, kind: str) -> tuple[Any, dict[str, float]]:
    """Parameters and metrics after two updates on the same rows."""
    chosen = parallel.select_devices(devices)
    iterator = training_batches(world.data, WIDE, seed=0) if kind == "fit" else None
    optimizer = make_optimizer(FIT.optimizer, 8)
    if iterator is not None:
        loss = likelihood_loss(world.model, FIT, world.banned, world.teacher[0])
        coefficients = {"nll": 0.5, "kl": 0.5}
        batches: list[Any] = [next(iterator) for _ in range(2)]
    else:
        loss, coefficients = path_loss(world.model, DISTIL, world.banned), {"pcl": 1.0, "kl": 1.0}
        batch = next(training_batches(world.data, WIDE, seed=0))
        rows = score(*world.teacher, *map(jnp.asarray, batch), top_k=4, banned=world.banned)
        batches = [Sample(rows, jnp.arange(8) % 3)] * 2
    update = parallel.data_parallel(make_update(loss, coefficients, optimizer, target_decay=0.9), chosen)
    state = parallel.replicate(init_state(world.params, optimizer, 0, target=True), chosen)
    teacher = parallel.replicate(world.teacher[1], chosen)
    for batch in batches:
        sharded = parallel.shard(batch, chosen)
        state, metrics = update(state, (sharded, teacher) if kind == "fit" else sharded)
    found = parallel.unreplicate(metrics)
    means = {k: float(v.total if k == "tokens" else v.mean()) for k, v in found.items()}
    return parallel.unreplicate(state).params, means


@pytest.mark.parametrize("kind", ["fit", "pcl"])
def test_one_two_and_four_devices_give_the_same_update(world: World, kind: str) -> None:
    # Rows hold different numbers of tokens, so a mean of per-device means would differ.
    alone, numbers = updated(world, 1, kind)
    assert not same(alone, world.params)
    for devices in (2, 4):
        params, means = updated(world, devices, kind)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), alone, params)
        assert means == pytest.approx(numbers, rel=1e-4)


def test_fresh_rows_do_not_depend_on_the_number_of_devices(world: World) -> None:
    batch = next(training_batches(world.data, WIDE, seed=0))
    key = init_state(world.params, make_optimizer(FIT.optimizer, 8), 0).key_data
    found = []
    for devices in (1, 4):
        chosen = parallel.select_devices(devices)
        collect = Collector(world.model, world.teacher, replace(DISTIL, teacher_rows=0.5), world.banned, chosen)
        found.append(collect(parallel.replicate(world.params, chosen), batch, key, 0))
    assert set(found[0]) == {STUDENT, TEACHER, TRUTH}
    for source, rows in found[0].items():
        assert np.array_equal(rows.tokens_BxT, found[1][source].tokens_BxT)
        np.testing.assert_allclose(
            rows.teacher_log_prob_BxT, found[1][source].teacher_log_prob_BxT, rtol=1e-5, atol=1e-5
        )
    assert np.array_equal(found[0][TRUTH].tokens_BxT, batch.target_BxT)
    assert not np.array_equal(found[0][STUDENT].tokens_BxT, batch.target_BxT)


def train(world: World, folder: Path, kind: str, stop_after: int | None = None) -> Any:
    common: dict[str, Any] = {"seed": 3, "devices": parallel.select_devices(1), "stop_after": stop_after}
    if kind == "fit":
        return fit("t", folder, world.model, world.params, world.data, BUCKETS, FIT, **common)
    return distil(
        "t",
        folder,
        world.model,
        world.params,
        world.teacher,
        world.data,
        BUCKETS,
        DISTIL,
        banned=world.banned,
        **common,
    )


@pytest.mark.parametrize("kind", ["fit", "pcl"])
def test_resuming_equals_never_having_stopped_bit_for_bit(world: World, tmp_path: Path, kind: str) -> None:
    whole = train(world, tmp_path / "whole", kind)
    train(world, tmp_path / "parts", kind, stop_after=6)  # two steps past the checkpoint of step 4: done again
    resumed = train(world, tmp_path / "parts", kind)
    assert same(whole, resumed)
    assert not same(whole, world.params)

    def numbers(folder: str) -> list[dict[str, float]]:
        lines = read_metrics(tmp_path / folder)
        return [{k: v for k, v in line.items() if k != "tokens_per_s"} for line in lines]

    assert [line["step"] for line in numbers("whole")] == [2, 4, 6, 8]
    assert numbers("whole") == numbers("parts")


def test_a_step_is_traced_once_a_shape(world: World, tmp_path: Path) -> None:
    traces = []

    def decode(*args: Any, **keywords: Any) -> Any:
        traces.append(args[2].shape)
        return world.model.decode(*args, **keywords)

    counting = world.model._replace(decode=decode)
    config = replace(FIT, loop=LoopConfig(steps=12, log_every=2, checkpoint_every=12))
    fit("t", tmp_path, counting, world.params, world.data, BUCKETS, config, seed=0, devices=parallel.select_devices(1))
    assert sorted(traces) == [(4, 12), (8, 8)]


def test_the_teacher_is_asked_once_a_path_and_its_numbers_are_replayed(world: World, tmp_path: Path) -> None:
    scored: list[int] = []
    model, params = world.teacher

    def decode(*args: Any, **keywords: Any) -> Any:
        jax.debug.callback(lambda: scored.append(1))
        return model.decode(*args, **keywords)

    config = replace(DISTIL, updates_per_rollout=4)
    teacher = (model._replace(decode=decode), params)
    distil(
        "t", tmp_path, world.model, world.params, teacher, world.data, BUCKETS, config,
        seed=0, devices=parallel.select_devices(1), banned=world.banned,
    )  # fmt: skip
    jax.effects_barrier()
    assert len(scored) == 3 * 8 // 4  # three sources, every fourth of the eight updates


@pytest.mark.parametrize("values", ["head", "unified"])
def test_nothing_is_left_to_learn_where_the_student_is_the_teacher(world: World, values: Any) -> None:
    config = replace(DISTIL, pcl=PCLConfig(values=values, lengths=(1, 2, 0)), target_decay=0.0)
    model, params = world.teacher
    if values == "unified":  # logits are Q there, so V = logsumexp has to be 0 as well: normalise them

        def decode(*args: Any) -> Any:
            answer = world.model.decode(*args)
            keep = jnp.where(jnp.isin(jnp.arange(answer.logits_BxTxV.shape[-1]), jnp.array(world.banned)), -1e30, 0.0)
            return answer._replace(logits_BxTxV=jax.nn.log_softmax(answer.logits_BxTxV + keep[None, None, :], axis=-1))

        model = model._replace(decode=decode)
    batch = next(training_batches(world.data, WIDE, seed=0))
    rows = score(*world.teacher, *map(jnp.asarray, batch), top_k=4, banned=world.banned)
    loss = path_loss(model, config, world.banned)
    terms = loss(params, (), Sample(rows, jnp.zeros(8, jnp.int32)), jax.random.key(0))
    assert float(terms["pcl"].mean()) == pytest.approx(0.0, abs=1e-9)
    assert float(terms["kl"].mean()) == pytest.approx(0.0, abs=1e-5)
    other = path_loss(world.model, config, world.banned)(
        world.params, (), Sample(rows, jnp.zeros(8, jnp.int32)), jax.random.key(0)
    )
    assert float(other["pcl"].mean()) > 1e-3
    assert float(other["kl"].mean()) > 1e-3


def test_shares_of_a_minibatch_are_exact_and_whole(world: World) -> None:
    assert minibatch_shares(DISTIL, 64) == (32, 16, 16)
    for student, teacher in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (0.3, 0.3)):
        config = replace(DISTIL, student_share=student, teacher_share=teacher, truth_share=1 - student - teacher)
        for rows in (1, 2, 7, 64):
            shares = minibatch_shares(config, rows)
            assert sum(shares) == rows
            assert min(shares) >= 0
            for share, wanted in zip(shares, (student, teacher, 1 - student - teacher), strict=True):
                assert abs(share - wanted * rows) <= 1
                assert wanted > 1e-9 or share == 0


def test_a_nan_stops_the_run_and_names_step_examples_and_checkpoint(world: World, tmp_path: Path) -> None:
    def run(learning_rate: float, params: Any, stop_after: int | None = None) -> Any:
        config = replace(FIT, optimizer=OptimizerConfig(learning_rate, warmup_steps=1))
        return fit("teacher", tmp_path, world.model, params, world.data, BUCKETS, config,
                   seed=0, devices=parallel.select_devices(1), stop_after=stop_after)  # fmt: skip

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


def test_a_checkpoint_of_another_architecture_is_refused(world: World, tmp_path: Path) -> None:
    train(world, tmp_path, "fit", stop_after=4)
    wider = make_model(replace(world.config, d_ff=48))
    params = jax.device_get(wider.init(jax.random.key(0)))
    with pytest.raises(UserError, match="does not fit this model or configuration"):
        fit("t", tmp_path, wider, params, world.data, BUCKETS, FIT, seed=3, devices=parallel.select_devices(1))


def test_a_failed_write_of_a_model_leaves_the_old_one(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "model", world.config, world.params, world.tokenizer)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdtw_jax.train.checkpoint.ocp.save", full)
    with pytest.raises(UserError, match="cannot write the model"):
        save_model(tmp_path / "model", world.config, world.teacher[1], world.tokenizer)
    assert same(load_model(tmp_path / "model").params, world.params)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_settings_that_cannot_work_are_refused(world: World, tmp_path: Path) -> None:
    for changes, message in (
        ({"student_share": 0.9}, "add to 1"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"teacher_rows": 0.0}, "teacher_rows must be too"),
        ({"updates_per_rollout": 0}, "at least 1"),
        ({"target_decay": 1.0}, r"target_decay must be in \[0, 1\)"),
    ):
        with pytest.raises(UserError, match=message):
            replace(DISTIL, **changes)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="steps must be at least 1"):
        LoopConfig(steps=0)
    with pytest.raises(UserError, match="learning_rate"):
        OptimizerConfig(learning_rate=-1.0)
    with pytest.raises(UserError, match="devices=9"):
        parallel.select_devices(9)
    with pytest.raises(UserError, match="multiple of updates_per_rollout"):
        distil("t", tmp_path, world.model, world.params, world.teacher, world.data, BUCKETS,
               replace(DISTIL, updates_per_rollout=3), seed=0, devices=parallel.select_devices(1),
               banned=world.banned)  # fmt: skip
    state = TrainState(jnp.zeros(()), {}, (), (), jnp.zeros(4, jnp.uint32))
    with pytest.raises(UserError, match="do not divide over 2 devices"):
        parallel.shard(state.key_data[:3], parallel.select_devices(2))
