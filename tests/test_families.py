"""A second family of models, of which the package knows nothing: registered, it is trained, decodes and helps, is
saved, loaded and planned as T5 is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax import parallel
from kdtw_jax.constraints import histories, known_constraints
from kdtw_jax.data.batches import Bucket, training_batches
from kdtw_jax.decoding import beam_search, generate, generate_with_help
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.view import gate_features, prefixes_and_history
from kdtw_jax.errors import UserError
from kdtw_jax.methods.mle import likelihood_loss, mle
from kdtw_jax.methods.path_terms import path_loss
from kdtw_jax.methods.pcl import pcl
from kdtw_jax.models import (
    FAMILIES,
    Costs,
    Family,
    Fields,
    Memory,
    Model,
    Network,
    Params,
    Size,
    T5Config,
    count_params,
    make_model,
    register_family,
    shift_right,
    split_axis,
)
from kdtw_jax.models.gate import GateNetwork
from kdtw_jax.pipeline.config_file import configure
from kdtw_jax.pipeline.plan import Sizes, forward_flops, plan
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.pretrained.export import export_model
from kdtw_jax.pretrained.named import find_config, find_model, read_student, read_teacher, student_config
from kdtw_jax.replay import Sample
from kdtw_jax.training.distribution import distribution
from kdtw_jax.training.saved import load_model, save_model
from kdtw_jax.training.scoring import score_paths
from kdtw_jax.training.state import OptimizerConfig, Rates, joined, make_optimizer, part_of
from tests.commands import train
from tests.world import DISTIL, FIT, TRAINING, WIDE, World, same


@dataclass(frozen=True)
class RecurrentConfig(Fields):
    vocab_size: int
    d_model: int = 12
    dtype: str = "float32"
    dropout_rate: float = 0.0
    value_heads: bool = True
    gate_width: int = 0
    rule_in_source: bool = False


class Trail(NamedTuple):
    """Every state so far, so that a row may go back."""

    source_BxD: jax.Array
    state_BxUxD: jax.Array  # before the first input, and after each


def recurrent(config: RecurrentConfig) -> Network:
    """A bag of words is read, a recurrent network writes."""
    v, d = config.vocab_size, config.d_model
    shapes = {"words": (v, d), "again": (d, d), "from_source": (d, d), "say": (d, v)}

    def init(key: jax.Array) -> dict[str, Any]:
        keys = jax.random.split(key, len(shapes))
        return {name: jax.random.normal(k, shape) / 2 for k, (name, shape) in zip(keys, shapes.items(), strict=True)}

    def encode(params: Params, source_BxS: jax.Array, dropout_key: jax.Array | None = None) -> dict[str, jax.Array]:
        return {"words": params["words"][source_BxS], "there": source_BxS != 0}

    def start(params: Params, encoded: dict[str, jax.Array], max_len: int) -> Trail:
        there = encoded["there"][..., None]
        mean_BxD = jnp.sum(encoded["words"] * there, axis=1) / jnp.maximum(jnp.sum(there, axis=1), 1)
        return Trail(mean_BxD @ params["from_source"], jnp.zeros((len(mean_BxD), max_len + 1, d)))

    def extend(params: Params, trail: Trail, tokens_BxN: jax.Array, position: Any) -> tuple[jax.Array, Trail]:
        row_B = jnp.arange(len(tokens_BxN))
        position_B = jnp.broadcast_to(position, row_B.shape)

        def step(h_BxD: jax.Array, word_BxD: jax.Array) -> tuple[jax.Array, jax.Array]:
            h_BxD = jnp.tanh(h_BxD @ params["again"] + word_BxD + trail.source_BxD)
            return h_BxD, h_BxD

        words_NxBxD = params["words"][tokens_BxN].swapaxes(0, 1)
        hidden_BxNxD = jax.lax.scan(step, trail.state_BxUxD[row_B, position_B], words_NxBxD)[1].swapaxes(0, 1)
        place_BxN = position_B[:, None] + 1 + jnp.arange(tokens_BxN.shape[1])[None, :]
        states_BxUxD = trail.state_BxUxD.at[row_B[:, None], place_BxN].set(hidden_BxNxD)
        return hidden_BxNxD, trail._replace(state_BxUxD=states_BxUxD)

    def decode(params: Params, encoded: Any, inputs_BxT: jax.Array, dropout_key: Any = None) -> jax.Array:
        return extend(params, start(params, encoded, inputs_BxT.shape[1]), inputs_BxT, 0)[0]

    return Network(
        init=init,
        encode=encode,
        decode=decode,
        start=start,
        extend=extend,
        reorder=lambda trail, index_B: trail._replace(state_BxUxD=trail.state_BxUxD[index_B]),
        unembed=lambda params, hidden_BxTxD: hidden_BxTxD @ params["say"],
        output_layer=lambda params: {"say": params["say"]},
        memory=lambda encoded: Memory(encoded["words"], encoded["there"]),
        embedding=lambda params: params["words"],
        vocabulary_axis={"words": 0, "say": -1}.get,
        role=lambda path: "embedding" if path == ("words",) else "matrix",
    )


def recurrent_costs(config: RecurrentConfig) -> Costs:
    squared, head = config.d_model**2, config.d_model * config.vocab_size
    kept = 4.0 * config.d_model
    return Costs(0, squared + head, lambda s, t: 0.0, lambda s, t: kept * (s + 2 * t), lambda s, t: kept * (t + 2))


def recurrent_sized(size: Size) -> RecurrentConfig:
    return RecurrentConfig(V, size.d_model, dtype=size.dtype)


RECURRENT = Family("recurrent", RecurrentConfig, recurrent, recurrent_costs, recurrent_sized, ("d_model",))
V, BANNED, LENGTH, ROWS = 24, (0, 2, 3), 19, 6  # longer than two spans of the lazy teacher
SOURCE = jnp.asarray(np.random.default_rng(0).integers(4, V, (ROWS, 7)), jnp.int32).at[:3, 5:].set(0)


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    register_family(RECURRENT)
    yield
    del FAMILIES[RECURRENT.name]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def pair(config: Any, seed: int) -> tuple[Model, Params]:
    model = make_model(config)
    params = jax.tree.map(lambda x: 1.5 * x, model.init(jax.random.key(seed)))
    if config.gate_width:  # one that says now yes, now no
        params["gate"]["saving_out"] = {"kernel": 30 * params["gate"]["saving_out"]["kernel"], "bias": jnp.ones(1)}
    return model, params


def uncached(model: Model, params: Params, tokens_BxT: jax.Array, banned: tuple[int, ...] = BANNED) -> jax.Array:
    """Log-policy before every token."""
    decoded = model.decode(params, model.encode(params, SOURCE), shift_right(tokens_BxT))
    return log_policy(decoded.logits_BxTxV, banned)


def test_it_decodes_greedily_and_by_beams_as_without_a_cache() -> None:
    model, params = pair(RecurrentConfig(V), 0)
    banned = (*BANNED, 1)  # nothing ends, so that beams have time to change places
    greedy = jax.jit(lambda: generate(model, params, SOURCE, None, max_len=LENGTH, banned=banned))()
    beams = jax.jit(
        lambda: beam_search(model, params, SOURCE, beam_size=4, max_len=LENGTH, length_penalty=0.0, banned=banned)
    )()
    for found in (greedy, beams):
        policy = uncached(model, params, found.tokens_BxT, banned)
        taken = jnp.take_along_axis(policy, found.tokens_BxT[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(taken, found.log_prob_BxT, rtol=1e-4, atol=1e-5)
        if found is greedy:
            np.testing.assert_array_equal(policy.argmax(axis=-1), found.tokens_BxT)
    gain_B = (beams.log_prob_BxT - greedy.log_prob_BxT).sum(axis=1)
    assert np.any(gain_B > 0.1)  # it went other ways


@pytest.mark.parametrize(
    ("of_student", "of_teacher"),
    [(RecurrentConfig, RecurrentConfig), (RecurrentConfig, T5Config.toy), (T5Config.toy, RecurrentConfig)],
    ids=["helped_by_its_like", "helped_by_t5", "helps_t5"],
)
def test_it_asks_and_helps(of_student: Any, of_teacher: Any) -> None:
    student, teacher = pair(of_student(V, gate_width=8), 2), pair(of_teacher(V), 1)
    level = 0.5
    helped = jax.jit(
        lambda: generate_with_help(
            student, teacher, SOURCE, SOURCE, None, None, banned=BANNED, max_len=LENGTH, threshold=level
        )
    )()
    (model, params), tokens, asked = student, helped.tokens_BxT, helped.asked_BxT
    written = np.asarray(helped.mask_BxT)
    assert 0.1 < asked[written].mean() < 0.9
    own, other = (uncached(*one, tokens).argmax(axis=-1) for one in (student, teacher))
    assert (own != other)[written].mean() > 0.5
    np.testing.assert_array_equal(jnp.where(written, jnp.where(asked, other, own), 0), tokens)

    @jax.jit
    def wishes() -> jax.Array:
        encoded = model.encode(params, SOURCE)
        decoded = model.decode(params, encoded, shift_right(tokens))
        states = prefixes_and_history(tokens, histories(SOURCE, tokens, asked))
        view = gate_features(log_policy(decoded.logits_BxTxV, BANNED), decoded.hidden_BxTxD, *states)
        return jax.nn.sigmoid(model.apply_gate(params, model.read_rule(params, encoded), view).logit())

    np.testing.assert_allclose(jnp.where(written, wishes(), 0), helped.score_BxT, rtol=1e-3, atol=1e-4)


def test_a_slice_of_its_vocabulary_at_a_time_is_the_whole() -> None:
    model, params = pair(RecurrentConfig(V), 0)
    hidden = jax.random.normal(jax.random.key(1), (2, 3, model.config.d_model))
    tokens = jnp.asarray([[4, 5, 23], [1, 9, 7]])
    whole, cut = (
        distribution(model, model.output_layer(params), hidden, BANNED, vocab_chunk=n).token_stats(tokens)
        for n in (0, 7)
    )
    for found, want in zip(cut[:2], whole[:2], strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-5)


def test_a_teacher_is_spread_over_devices() -> None:
    model, params = pair(RecurrentConfig(V), 0)
    devices = parallel.select_devices(2)
    spread = parallel.shard_params(params, devices, 2, partial(split_axis, model.role))
    parts = {name: spread[name].addressable_shards[0].data.shape for name in params if name != "value"}
    assert parts == {"words": (V // 2, 12), "again": (12, 6), "from_source": (12, 6), "say": (12, V // 2)}
    held = parallel.place_params(spread, devices)
    found = parallel.map_batch(lambda params, source: model.encode(params, source)["words"], held)(SOURCE)
    np.testing.assert_array_equal(found, params["words"][SOURCE])


def test_its_parameters_learn_at_the_rates_of_the_roles_that_it_states() -> None:
    model, params = pair(RecurrentConfig(V, gate_width=4), 0)
    rates = Rates(embedding=3.0, query=1.0, norm=1.0, relative_bias=1.0, value_head=5.0, gate=7.0)
    config = OptimizerConfig(1e-2, warmup_steps=0, clip_norm=1e9, rates=rates)
    ones = jax.tree.map(jnp.ones_like, params)

    optimizer = make_optimizer(config, 10, model.role)
    moved = optimizer.update(ones, optimizer.init(params), params)[0]
    scale = {"words": 3.0, "again": 1.0, "from_source": 1.0, "say": 1.0, "value": 5.0, "gate": 7.0}
    for name, branch in moved.items():
        for leaf in jax.tree.leaves(branch):
            np.testing.assert_allclose(leaf, -1e-2 * scale[name], rtol=1e-3)
    learning, resting = part_of(model.role, ("gate",))(params)
    assert [name for name, part in learning.items() if jax.tree.leaves(part)] == ["gate"]
    assert [name for name, part in resting.items() if jax.tree.leaves(part)] == [
        name for name in params if name != "gate"
    ]
    assert same(joined(learning, resting), params)


@pytest.mark.parametrize("method", ["mle", "pcl"])
def test_it_is_trained(world: World, method: str, tmp_path: Path) -> None:
    student, teacher = (make_model(RecurrentConfig(world.config.vocab_size, width)) for width in (12, 20))
    params = jax.device_get(student.init(jax.random.key(0)))
    held = (teacher, jax.device_get(teacher.init(jax.random.key(1))))
    loop = replace(TRAINING.loop, steps=40, checkpoint_every=20)
    training = replace(TRAINING, loop=loop, optimizer=OptimizerConfig(0.05, rates=Rates(embedding=1.0)))
    context = world.context(tmp_path, student=student, teacher=held, training=training)
    batch = next(training_batches(world.data, WIDE, seed=1))
    rows = score_paths(teacher, jax.device_put(held[1]), *map(jnp.asarray, batch), top_k=4, banned=world.banned)

    @jax.jit
    def left(params: Params) -> jax.Array:
        if method == "mle":
            return likelihood_loss(student, FIT)(params, (), batch, jax.random.key(0))["nll"].mean()
        sample = Sample(rows, jnp.zeros(8, jnp.int32))
        return path_loss(student, DISTIL, world.banned)(params, params, sample, jax.random.key(0))["pcl"].mean()

    found = mle(context, params, FIT) if method == "mle" else pcl(context, params, DISTIL)
    assert left(found) < 0.8 * left(params)
    assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, params)


def test_it_is_saved_and_found_again_with_a_gate_and_more_rows(world: World, tmp_path: Path) -> None:
    config = RecurrentConfig(world.tokenizer.vocab_size)
    params = jax.device_get(make_model(config).init(jax.random.key(3)))
    folder = tmp_path / "model"
    save_model(folder, config, params, world.tokenizer)
    saved = load_model(folder, expect=config)
    assert same(saved.params, params) and saved.model.config == config == find_config(str(folder))
    assert same(read_teacher(find_model(str(folder)), dtype="bfloat16").params, params)
    with pytest.raises(UserError, match=r"another architecture: family recurrent \(asked for t5\)$"):
        load_model(folder, expect=world.config)
    found = find_model(str(folder)).padded_to(40)
    wanted = student_config(found.config, T5Config.toy(40, gate_width=4, dropout_rate=0.0))
    larger = read_student(found, wanted, jax.random.key(0))
    assert larger["words"].shape == (40, config.d_model) and larger["say"].shape == (config.d_model, 40)
    np.testing.assert_array_equal(larger["words"][: config.vocab_size], params["words"])
    assert not larger["say"][:, config.vocab_size :].any()
    like = jax.eval_shape(make_model(wanted).init, jax.random.key(0))
    assert jax.tree.map(np.shape, larger) == jax.tree.map(lambda x: x.shape, like)
    with pytest.raises(UserError, match="family recurrent have no Hugging Face layout"):
        export_model(tmp_path / "out", config, params, world.tokenizer)


@pytest.mark.parametrize("family", ["eloquent", ["t5"], None])
def test_a_family_that_nobody_has_registered_is_refused(world: World, family: Any, tmp_path: Path) -> None:
    save_model(tmp_path / "model", world.config, world.params, world.tokenizer)
    file = tmp_path / "model" / "config.json"
    stated = json.loads(file.read_text())
    assert stated.pop("family") == "t5"
    file.write_text(json.dumps(stated))
    assert load_model(tmp_path / "model").model.config == world.config  # as before there were families
    file.write_text(json.dumps({**stated, "family": family}))
    with pytest.raises(
        UserError, match=r"config.json: unknown family .*; known are t5, causal, recurrent; .*register_family"
    ):
        load_model(tmp_path / "model")


def test_families_are_told_apart() -> None:
    assert register_family(RECURRENT) is RECURRENT
    with pytest.raises(UserError, match="there is a family of models t5 already"):
        register_family(RECURRENT._replace(name="t5"))
    with pytest.raises(UserError, match="RecurrentConfig is the config of the family recurrent; give yours"):
        register_family(RECURRENT._replace(name="other"))
    assert list(FAMILIES) == ["t5", "causal", "recurrent"]

    class Other(RecurrentConfig):
        pass

    with pytest.raises(UserError, match=r"Other is the config of no family of models; .*register_family"):
        make_model(Other(V))


def test_it_is_planned() -> None:
    config = replace(PRESETS["tiny"], methods=("mle", "ask"), teacher_model="a", student_model="b")
    models = Sizes(RecurrentConfig(500, 20), RecurrentConfig(500))
    stages = {stage.name: stage for stage in plan(config, models)}
    count = count_params(make_model(models.student).init(jax.random.key(0)))
    assert stages["mle"].states == 16 * count and stages["ask"].states > 16 * count  # it has a gate
    assert stages["mle"].teacher == 0 < stages["ask"].teacher
    assert stages["ask"].working > stages["mle"].working > 0
    assert forward_flops(models.student, Bucket(9, 5, 4)) == 2 * 4 * 5 * (12 * 12 + 12 * 500)
    (compute,) = known_constraints(["compute"], models.teacher)
    assert compute.high == pytest.approx(32 * 2e-9 * (20 * 20 + 20 * 500))


def test_the_gate_beside_a_network_begins_as_the_gate_of_a_network() -> None:
    """So that runs begun when it was a part of T5 go on."""

    class Nest(nn.Module):
        def setup(self) -> None:
            self.shared, self.gate = nn.Embed(30, 16), GateNetwork(16, 5)

        def __call__(self, tokens_BxS: jax.Array) -> Any:
            from kdtw_jax.models import Facts, GateInputs

            x = self.shared(tokens_BxS)
            view = GateInputs(x, jnp.zeros((1, 1, 2), jnp.int32), jnp.zeros((1, 1, len(Facts._fields))))
            return self.gate.apply_gate(self.gate.read(Memory(x, tokens_BxS == 0)), view, self.shared.embedding)

    nested = Nest().init(jax.random.key(7), jnp.zeros((1, 1), jnp.int32))["params"]["gate"]
    assert same(make_model(T5Config.toy(30, gate_width=5)).init(jax.random.key(7))["gate"], nested)
    assert same(make_model(RecurrentConfig(9, 16, gate_width=5)).init(jax.random.key(7))["gate"], nested)


@pytest.mark.long
def test_a_run_from_models_of_it(world: World, tmp_path: Path) -> None:
    for side in ("source", "target"):
        rows = ["a b c d e", "c d", "e f g a", "b b a", "g"] * 12
        text = "\n".join(f"{row} {number % 7 * 'a'}".strip() for number, row in enumerate(rows))
        (tmp_path / side).write_text(text + "\n")
    for name, width in (("teacher", 16), ("student", 8)):
        config = RecurrentConfig(world.tokenizer.vocab_size, width)
        params = jax.device_get(make_model(config).init(jax.random.key(width)))
        save_model(tmp_path / name, config, params, world.tokenizer)
    files = [f"--text.files.train-{side}={tmp_path / side}" for side in ("source", "target")]
    models = [f"--{name}-model={tmp_path / name}" for name in ("teacher", "student")]
    common = ["--preset=tiny", "--data=files", f"--text.folder={tmp_path / 'data'}", f"--out={tmp_path / 'run'}"]
    methods = ["--training.loop.steps=4", "--devices=1", "--methods", "mle", "ask", "--ask.constraints", "calls"]
    assert train([*common, *files, *models, *methods]) == 0
    assert load_model(tmp_path / "run" / "seed0" / "ask" / "model").model.config == RecurrentConfig(
        world.tokenizer.vocab_size, 8, gate_width=PRESETS["tiny"].of("ask").gate_width
    )


def test_it_is_trained_from_scratch_by_the_command_line(tmp_path: Path) -> None:
    common = ["--preset=tiny", "--family=recurrent", f"--out={tmp_path / 'run'}", "--devices=1", "--eval.limit=8"]
    fewer = [f"--{part}.loop.steps=8" for part in ("teacher-fit", "warmup", "training")]
    words = [*common, *fewer, f"--text.folder={tmp_path / 'data'}", "--student.d-model=24", "--methods", "mle"]
    assert train(words) == 0
    config = restore(tmp_path / "run")[1]
    assert (config.family, config.teacher, config.student) == (
        "recurrent",
        RecurrentConfig(V, 32),
        RecurrentConfig(V, 24),
    )
    saved = load_model(tmp_path / "run" / "seed0" / "mle" / "model").model.config
    assert saved == RecurrentConfig(saved.vocab_size, 24)
    found = configure(PRESETS["tiny"], {"family": "recurrent", "teacher": {"d_model": 9}})
    assert (found.teacher, found.student) == (RecurrentConfig(V, 9), RecurrentConfig(V, 16))


def test_a_family_that_nobody_has_registered_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["--preset=tiny", "--family=eloquent"]) == 2
    assert "unknown family of models 'eloquent'; known are t5, causal, recurrent" in capsys.readouterr().err
