"""Rival methods: no gradient to the teacher, the same training on any number of devices and after an interruption, and
all of them from the command line."""

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

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch, training_batches
from kdtw_jax.decoding import generate
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.errors import UserError
from kdtw_jax.methods import METHODS
from kdtw_jax.methods.gkd import GKDConfig, divergence_loss, student_writes
from kdtw_jax.methods.minillm import MiniLLMConfig, mixture, rollout_loss
from kdtw_jax.methods.path_terms import path_loss
from kdtw_jax.methods.tb import replayed_balance
from kdtw_jax.methods.word_kd import WordKDConfig, word_loss
from kdtw_jax.models import T5Config, make_model, shift_right
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.replay import Sample
from kdtw_jax.runs import read_csv, read_metrics
from kdtw_jax.training.collect import Collector
from kdtw_jax.training.context import Chunks
from kdtw_jax.training.fresh import Sampler, TeacherForward
from kdtw_jax.training.saved import load_model
from kdtw_jax.training.scoring import STUDENT, score_paths
from kdtw_jax.training.state import PRNG, init_state, make_optimizer, make_update
from tests.commands import train as command
from tests.pictures import colours
from tests.world import DISTIL, FIT, TRAINING, WIDE, World, heard, same

GKD = GKDConfig()
MINILLM = MiniLLMConfig()
FIVE = Chunks(5)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def batch_of(world: World) -> Batch:
    return next(training_batches(world.data, WIDE, seed=0))


def rows_of(world: World, kind: str, target: Any = None) -> Any:
    """What the loss of a method takes; `target` instead of the batch's outputs."""
    batch = batch_of(world)
    given = batch if target is None else batch._replace(target_BxT=np.asarray(target))
    written = np.asarray(given.target_BxT)
    teacher = heard(*world.teacher, given)
    return (given, teacher) if kind == "gkd" else (batch, written, teacher)


def loss_of(world: World, kind: str, chunks: Chunks = FIVE) -> Callable[..., Any]:
    if kind == "gkd":
        return divergence_loss(world.model, world.teacher[0], GKD, world.banned, chunks)
    return rollout_loss(world.model, world.teacher[0], MINILLM, world.banned, chunks)


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
    run = {chunk: jax.jit(loss_of(world, kind, Chunks(chunk, chunk and 7))) for chunk in (0, 5)}
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
        loss = divergence_loss(model, model, GKD, (), Chunks(chunk))
        slope = jax.jit(jax.grad(lambda params, rows: loss(params, (), rows, jax.random.key(0))["jsd"].total))
        return int(slope.lower(params, rows).compile().memory_analysis().temp_size_in_bytes)

    one = 8 * 64 * 2000 * 4  # bytes of one [B, T, V]
    assert memory(0) - memory(8) > 2 * one


def updated(world: World, devices: int, kind: str) -> tuple[Any, dict[str, float]]:
    """Parameters and metrics after two updates on the same rows."""
    chosen = parallel.select_devices(devices)
    optimizer = make_optimizer(TRAINING.optimizer, 8, world.model.role)
    batch = batch_of(world)
    listener = TeacherForward(world.teacher, chosen)
    weights: dict[str, Any] = {"gkd": {"jsd": 1.0}, "minillm": {"single": 1.0, "long": 1.0, "nll": 1.0}}.get(
        kind, {"tb": 0.1, "kl": 1.0}
    )
    state = parallel.replicate(init_state(world.params, optimizer, 0), chosen)
    if kind == "tb":
        scored = score_paths(*world.teacher, *map(jnp.asarray, batch), top_k=4, banned=world.banned)
        rows = parallel.shard(Sample(scored, jnp.arange(8) % 3), chosen)
        loss = replayed_balance(world.model, DISTIL, world.banned)
    else:
        if kind == "minillm":
            author = mixture(world.model, world.teacher[0], 0.2, world.banned)
            write = Sampler(author, world.banned, chosen, listener.teacher)
        else:
            write = Sampler(world.model, world.banned, chosen)
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


@pytest.mark.parametrize("kind", ["gkd", *(pytest.param(name, marks=pytest.mark.long) for name in ("minillm", "tb"))])
def test_one_and_four_devices_write_the_same_and_give_the_same_update(world: World, kind: str) -> None:
    alone, numbers = updated(world, 1, kind)
    assert not same(alone, world.params)
    params, means = updated(world, 4, kind)
    # Where a gradient is all but zero Adam makes much of its rounding: updates are of 1e-2 and more.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-4, atol=2e-4), alone, params)
    assert means == pytest.approx(numbers, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", ["gkd", "word_kd", "pcl"])
def test_a_sharper_teacher_is_matched_by_a_student_as_much_sharper(world: World, kind: str) -> None:
    model, params = world.teacher
    sharp = model._replace(unembed=lambda *given: model.unembed(*given) / 0.5)

    def left(student: Any) -> float:
        if kind == "gkd":
            loss = divergence_loss(student, model, replace(GKD, alpha=0.5), world.banned)
            return float(objective(loss, params, rows_of(world, kind)))
        if kind == "word_kd":
            loss = word_loss(student, model, FIT, world.banned, alpha=0.5)
            return float(loss(params, (), rows_of(world, "gkd"), jax.random.key(0))["kl"].mean())
        config = replace(DISTIL, target_decay=0.0)
        collected = Collector(student, world.teacher, config, world.banned, parallel.select_devices(1), alpha=0.5)
        rows = collected.scored(jax.tree.map(jnp.asarray, batch_of(world)))
        terms = path_loss(student, config, world.banned)(
            params, (), Sample(rows, jnp.zeros(8, jnp.int32)), jax.random.key(0)
        )
        return float(terms["kl"].mean())

    assert left(sharp) < 1e-4 < 1e-3 < left(model)


def test_alpha_sharpens_what_the_teacher_demonstrates_and_its_rewards_and_the_students_rows_not(world: World) -> None:
    """Towards 0 the demonstrations are greedy ones."""
    devices, batch = parallel.select_devices(1), batch_of(world)
    params, key = parallel.replicate(world.params, devices), jax.random.key_data(jax.random.key(0, impl=PRNG))

    def collector(alpha: float, temperature: float = 1.0, **changes: Any) -> Collector:
        config = replace(DISTIL, teacher_temperature=temperature, **changes)
        return Collector(world.model, world.teacher, config, world.banned, devices, alpha=alpha)

    usual, sharp, as_sharp, least = (collector(*given) for given in ((1.0,), (0.5,), (1.0, 0.5), (1e-4,)))
    shown = [np.asarray(one.demonstrated(batch, key, 0).tokens_BxT) for one in (usual, sharp, as_sharp, least)]
    np.testing.assert_array_equal(shown[1], shown[2])
    assert (shown[0] != shown[1]).any()
    write = jax.jit(partial(generate, world.teacher[0], noise_BxT=None, max_len=12, banned=world.banned))
    greedy = write(jax.tree.map(jnp.asarray, world.teacher[1]), source_BxS=batch.source_BxS)
    np.testing.assert_array_equal(shown[3], greedy.tokens_BxT)

    alone = {"teacher_share": 0.0, "reference_share": 0.0, "student_share": 1.0}
    before, after = (collector(alpha, **alone)(params, batch, key, 0)[STUDENT] for alpha in (1.0, 0.5))
    np.testing.assert_array_equal(before.tokens_BxT, after.tokens_BxT)
    np.testing.assert_array_equal(before.teacher_log_prob_BxT, after.teacher_log_prob_BxT)
    first = [np.asarray(rows.top.log_prob_BxTxK)[..., 0] for rows in (before, after)]
    assert (first[1] > first[0]).mean() > 0.9


def test_balance_is_zero_where_the_student_is_the_teacher(world: World) -> None:
    scored = score_paths(*world.teacher, *map(jnp.asarray, batch_of(world)), top_k=4, banned=world.banned)
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
    key = init_state(world.params, make_optimizer(TRAINING.optimizer, 8, world.model.role), 0).key_data
    for share in (0.0, 0.3, 1.0):
        drawn = [student_writes(replace(GKD, student_share=share), key, step) for step in range(200)]
        assert abs(np.mean(drawn) - share) < 0.1 * (0 < share < 1) + 1e-9
        assert drawn == [student_writes(replace(GKD, student_share=share), key, step) for step in range(200)]


def train(world: World, folder: Path, kind: str, stop_after: int | None = None, **changes: Any) -> Any:
    config = replace({"gkd": GKD, "minillm": MINILLM}.get(kind, DISTIL), **changes)  # type: ignore[type-var]
    training = replace(TRAINING, chunk=5 if kind in ("gkd", "minillm") else None)
    context = world.context(folder, seed=3, training=training, stop_after=stop_after)
    return METHODS[kind].train(context, world.params, config)


@pytest.mark.long
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


@pytest.mark.long
def test_balance_trains_on_the_rows_of_path_consistency(world: World, tmp_path: Path) -> None:
    only_kl = {"pcl_weight": 0.0, "value_weight": 0.0}
    pcl, tb = (train(world, tmp_path / kind, kind, **only_kl) for kind in ("pcl", "tb"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), pcl, tb)
    moved = max(
        float(np.abs(a - b).max()) for a, b in zip(jax.tree.leaves(tb), jax.tree.leaves(world.params), strict=True)
    )
    assert moved > 1e-2
    assert all(line["tb"] > 0 and line["counted"] > 0.5 for line in read_metrics(tmp_path / "tb"))


def test_settings_that_cannot_work_are_refused() -> None:
    for config, changes, message in (
        (GKD, {"student_share": 1.5}, r"gkd\.student_share must be in \[0, 1\]"),
        (GKD, {"beta": -0.1}, r"gkd\.beta must be in \[0, 1\]"),
        (GKD, {"alpha": 0.0}, r"gkd\.alpha must be above 0"),
        (WordKDConfig(), {"alpha": 0.0}, r"alpha must be above 0"),
        (TRAINING, {"chunk": -1}, r"chunk must be at least 0, got -1"),
        (TRAINING, {"vocab_chunk": -1}, r"vocab_chunk must be at least 0, got -1"),
        (MINILLM, {"teacher_mix": 1.0}, r"minillm\.teacher_mix must be in \[0, 1\)"),
        (MINILLM, {"reference_weight": -1.0}, r"minillm\.reference_weight must be at least 0"),
    ):
        with pytest.raises(UserError, match=message):
            replace(config, **changes)  # type: ignore[type-var]


@pytest.mark.long
def test_all_rivals_from_the_command_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [" ".join("".join(rng.choice(list("abcdefgh"), 3)) for _ in range(rng.integers(2, 7))) for _ in range(300)]
    for side, text in (("en", lines), ("de", [line[::-1] for line in lines])):
        (tmp_path / f"a.{side}").write_text("\n".join(text) + "\n", encoding="utf8")
    out, methods = tmp_path / "run", ["seqkd", "gkd", "minillm", "tb"]
    arguments = ["--preset", "tiny", "--data", "files", "--out", str(out), "--text.folder", str(tmp_path / "data")]
    arguments += ["--text.files.train-source", str(tmp_path / "a.en"), "--devices", "1"]
    arguments += ["--text.files.train-target", str(tmp_path / "a.de"), "--methods", *methods]
    assert command([*arguments, "mle", "--beam-targets", "mle"]) == 0
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
    assert {METHODS[method].color for method in ("mle", *methods)} <= colours(out / "distil.png")
    assert not {METHODS["pcl"].color, METHODS["word_kd"].color} & colours(out / "distil.png")
    # Likelihood of the teacher's beam outputs is sequence-level distillation; of the references it is another student.
    models = [load_model(out / "seed0" / method / "model").params for method in ("mle", "seqkd")]
    assert jax.tree.all(jax.tree.map(np.array_equal, *models))
    assert command([*arguments, "mle"]) == 2


def test_every_preset_gives_balance_the_rows_of_path_consistency() -> None:
    for preset in PRESETS.values():
        pcl, tb = preset.of("pcl"), preset.of("tb")
        assert replace(tb, pcl=pcl.pcl, value_warmup=pcl.value_warmup) == pcl
        assert tb.pcl.huber is None
        with pytest.raises(UserError, match="vocab_chunk must be 0 where a student asks"):
            replace(preset, methods=("ask",), training=replace(preset.training, vocab_chunk=5))
