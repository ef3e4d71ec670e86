"""Low-rank adapters: a change of rank R that is learned while all else rests, and what is saved in the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax import parallel
from kdtw_jax.data.batches import training_batches
from kdtw_jax.data.task import SOURCES, Task, TaskRequest, register_source
from kdtw_jax.errors import UserError
from kdtw_jax.methods.mle import likelihood_loss
from kdtw_jax.models import CausalConfig, Params, T5Config, cut_teacher, make_model, names_of
from kdtw_jax.models.lora import LEARNING, LoRAConfig, merged, with_adapters
from kdtw_jax.pipeline.plan import plan, sizes
from kdtw_jax.pipeline.prepare import look_up
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.training.saved import load_model, save_model
from kdtw_jax.training.state import init_state, make_optimizer, make_update, part_of
from tests.commands import train
from tests.world import FIT, TRAINING, WIDE, World

CONFIGS: dict[str, Any] = {
    "t5": T5Config.toy(dropout_rate=0.0),
    "causal": CausalConfig.toy(qkv_bias=True, tie_embeddings=False),
}
LORA = LoRAConfig(rank=3, alpha=6.0)
SOURCE, INPUTS = jnp.asarray([[4, 5, 6, 1], [8, 9, 1, 0]]), jnp.asarray([[0, 5, 9], [0, 3, 7]])


def logits(config: Any, params: Params) -> jax.Array:
    model = make_model(config)
    found: jax.Array = model.decode(params, model.encode(params, SOURCE), INPUTS).logits_BxTxV
    return found


def leaves(params: Params) -> dict[tuple[str, ...], Any]:
    return {names_of(path): leaf for path, leaf in jax.tree.leaves_with_path(params)}


def stirred(params: Params) -> Params:
    """With adapters that change something."""
    keys = iter(jax.random.split(jax.random.key(5), 1000))
    draw = lambda path, x: jax.random.normal(next(keys), x.shape) if path[-1].key == "lora_b" else x  # noqa: E731
    return jax.tree.map_with_path(draw, params)


@pytest.mark.parametrize("kind", CONFIGS)
def test_fresh_ones_change_nothing_and_learned_ones_a_matrix_by_their_product(kind: str) -> None:
    config = CONFIGS[kind]
    model = make_model(config)
    params = model.init(jax.random.key(0))
    fresh = with_adapters(model, params, LORA, jax.random.key(1))
    np.testing.assert_array_equal(logits(config, fresh), logits(config, params))
    learned = stirred(fresh)
    assert float(jnp.abs(logits(config, learned) - logits(config, params)).max()) > 0.1
    np.testing.assert_allclose(logits(config, learned), logits(config, merged(learned)), atol=2e-4, rtol=1e-4)

    before, after, parts = leaves(params), leaves(merged(learned)), leaves(learned)
    assert before.keys() == after.keys() and {x.dtype for x in after.values()} == {np.dtype("float32")}
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {(*path[:-1], "kernel") for path in parts if path[-1] == "lora_b"}
    own = {path[-2] for path in changed}
    names = {"t5": {"q", "k", "v", "o", "wi", "wo"}, "causal": {"q_proj", "k_proj", "v_proj", "o_proj"}}
    assert own == names[kind] | ({"gate_proj", "up_proj", "down_proj"} if kind == "causal" else set())
    for path in changed:
        down, up = (parts[*path[:-1], name] for name in ("lora_a", "lora_b"))
        assert down.shape[1] == up.shape[0] == 3
        np.testing.assert_allclose(after[path] - before[path], 6.0 / 3 * (down @ up), atol=1e-4)


def test_targets_are_layers_by_name_and_what_rests_is_kept_in_the_dtype_of_the_arithmetic() -> None:
    config = replace(CONFIGS["causal"], dtype="bfloat16", gate_width=4)
    model = make_model(config)
    params = model.init(jax.random.key(0))
    some = leaves(with_adapters(model, params, replace(LORA, targets=("q_proj", "down_proj")), jax.random.key(1)))
    assert {path[-2] for path in some if path[-1] == "lora_a"} == {"q_proj", "down_proj"}
    kept = {path: str(leaf.dtype) for path, leaf in some.items()}
    for path, dtype in kept.items():
        narrow = path[-1] in ("kernel", "embedding") and path[0] not in ("value", "gate")
        assert dtype == ("bfloat16" if narrow else "float32"), path
    np.testing.assert_array_equal(
        logits(config, with_adapters(model, params, LORA, jax.random.key(1))), logits(config, params)
    )
    with pytest.raises(UserError, match="no layer is called 'wq'; the student's are down_proj, gate_proj, k_proj, o_"):
        with_adapters(model, params, replace(LORA, targets=("q_proj", "wq")), jax.random.key(1))
    for field, value in (("rank", -1), ("alpha", 0.0)):
        with pytest.raises(UserError, match=rf"lora\.{field}"):
            LoRAConfig(**{field: value})  # type: ignore[arg-type]


def test_an_update_moves_adapters_and_heads_alone_and_computes_no_other_gradient() -> None:
    world = World()
    devices = parallel.select_devices(2)
    model = world.model
    adapted = stirred(with_adapters(model, world.params, LORA, jax.random.key(1)))
    batch = next(training_batches(world.data, WIDE, seed=0))
    optimizer = make_optimizer(TRAINING.optimizer, 8, model.role)
    loss = likelihood_loss(model, FIT)

    def after(learning: Any, params: Params, accumulate: int) -> tuple[Any, float]:
        part = part_of(model.role, learning)
        update = make_update(loss, {"nll": 1.0}, optimizer, part=part, accumulate=accumulate)
        mapped = parallel.data_parallel(update, devices)
        state = parallel.replicate(init_state(params, optimizer, 0, part=part), devices)
        rows = parallel.shard(batch, devices)
        alone = jax.tree.map(lambda x: jnp.asarray(x)[None], (init_state(params, optimizer, 0, part=part), batch))
        flops = jax.jit(jax.vmap(update, axis_name="devices")).lower(*alone).compile().cost_analysis()
        for _ in range(2):  # the first step of a warm-up has a rate of zero
            state, _ = mapped(state, rows)
        return parallel.unreplicate(state), float(flops["flops"]) if flops else 0.0

    for accumulate in (1, 2):
        state, flops = after(LEARNING, adapted, accumulate)
        for path, leaf in leaves(state.params).items():
            moved = not np.array_equal(leaf, leaves(adapted)[path])
            assert moved == (path[-1] in ("lora_a", "lora_b")), path  # likelihood has no use for V
        moments = sum(leaf.size for path, leaf in jax.tree.leaves_with_path(state.opt_state) if leaf.ndim)
        learning = [leaf for path, leaf in leaves(adapted).items() if model.role(path) in LEARNING]
        assert moments == 2 * sum(leaf.size for leaf in learning if leaf.ndim)
        if accumulate == 1:
            assert flops < 0.85 * after((), adapted, 1)[1]


def test_students_of_a_run_differ_from_their_start_by_a_change_of_that_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = ["--preset=tiny", "--methods", "mle", "ask", "--lora.rank=2", "--ask.unit=token"]
    options += ["--training.optimizer.learning-rate=0.01", "--ask.gate-calibration-steps=2"]
    assert train([*options, f"--out={out}"]) == 2
    assert "lora.rank is for students that start from a model" in capsys.readouterr().err
    assert not out.exists()
    assert train([*options, f"--out={out}", "--student-from-teacher=1"]) == 0
    teacher = load_model(out / "teacher" / "model")
    start = leaves(cut_teacher(teacher.model.config, 1)[1](teacher.params))
    for method in ("mle", "ask"):
        own = leaves(load_model(out / "seed0" / method / "model").params)
        ranks = []
        for path, leaf in own.items():
            if path[0] in ("value", "gate"):
                continue
            change = leaf - start[path]
            ranks += [np.linalg.matrix_rank(change, tol=1e-4 * np.abs(leaf).max())] if path[-1] == "kernel" else []
            assert path[-1] == "kernel" or not change.any(), path
        assert max(ranks) == 2, ranks


def test_a_plan_holds_the_state_of_adapters_alone() -> None:
    config = replace(PRESETS["base"], student_from_teacher=6, methods=("mle",))
    whole, adapted = (plan(c, sizes(c))[-1] for c in (config, replace(config, lora=LoRAConfig(rank=8))))
    assert adapted.states < 0.4 * whole.states and adapted.flops < whole.flops


def test_a_layer_that_no_student_has_is_said_before_any_text_is_read(tmp_path: Path) -> None:
    def unread(request: TaskRequest) -> Task:
        raise AssertionError(f"{request.name} was read")

    register_source("unread", unread)
    try:
        tiny = replace(PRESETS["tiny"], data="unread", methods=("mle",))
        world = World()
        save_model(tmp_path / "start", world.model.config, jax.device_get(world.params), world.tokenizer)
        for start in (dict[str, Any](student_from_teacher=1), {"student_model": str(tmp_path / "start")}):
            for targets, said in ((("q", "wq"), UserError), (("q",), AssertionError), ((), AssertionError)):
                config = replace(tiny, lora=LoRAConfig(rank=2, targets=targets), **start)
                with pytest.raises(said, match="no layer is called 'wq'; the student's are" if targets[1:] else "read"):
                    look_up(config)
    finally:
        del SOURCES["unread"]
