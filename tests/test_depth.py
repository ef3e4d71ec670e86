"""A student made from its teacher: the same model with all its layers, a smaller one of its vocabulary with few."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.models import CausalConfig, T5Config, cut_teacher, make_model, parameter_shapes
from kdtw_jax.models.depth import kept_by_kind, spread
from kdtw_jax.models.two_ways import TwoWaysConfig
from kdtw_jax.pipeline.plan import plan, sizes
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.training.saved import load_model
from tests.commands import train

WINDOWED = {"sliding_window": 3, "full_every": 3}
CONFIGS: dict[str, Any] = {
    "t5": T5Config.toy(num_layers=5, num_decoder_layers=4, dropout_rate=0.0),
    "causal": CausalConfig.toy(num_layers=6),
    "windowed": CausalConfig.toy(num_layers=6, **WINDOWED),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_layers_that_do_nothing_can_be_left_out(kind: str) -> None:
    config = CONFIGS[kind]
    smaller, cut = cut_teacher(config, 3)
    params = make_model(config).init(jax.random.key(0))
    few = cut(params)
    shapes = jax.tree.map(lambda x: x.shape, parameter_shapes(smaller))
    assert jax.tree.map(np.shape, few) == shapes and jax.tree.map(np.shape, cut_teacher(smaller, 3)[1](few)) == shapes

    # All other layers add nothing to what passes through them.
    taken = {id(leaf) for leaf in jax.tree.leaves(few)}
    silent = jax.tree.map_with_path(
        lambda path, x: x if id(x) in taken or path[-2].key not in ("o", "wo", "o_proj", "down_proj") else 0 * x, params
    )
    source = jnp.asarray([[4, 5, 6, 7, 8, 9, 1], [8, 9, 1, 0, 0, 0, 0]])
    inputs = jnp.asarray([[0, 5, 9, 11, 3], [0, 3, 7, 20, 1]])
    found = []
    for one, its in ((config, silent), (smaller, few)):
        model = make_model(one)
        found.append(jax.jit(lambda p, m=model: m.decode(p, m.encode(p, source), inputs).logits_BxTxV)(its))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    whole, same = cut_teacher(config, 4 if kind == "t5" else 6)
    if kind != "t5":
        assert whole == config and all(
            a is b for a, b in zip(*map(jax.tree.leaves, (same(params), params)), strict=True)
        )


def test_kept_layers_are_spread_and_windows_stay_where_they_were() -> None:
    assert [spread(30, 6), spread(5, 5), spread(4, 1)] == [[0, 6, 12, 17, 23, 29], [0, 1, 2, 3, 4], [0]]
    assert kept_by_kind("wwFwwF", "wwF") == [0, 1, 5] and kept_by_kind("wwFwwF", "wwFwwF") == [0, 1, 2, 3, 4, 5]
    with pytest.raises(UserError, match="of several kinds; no 3 of them are in a student's order"):
        kept_by_kind("wwwF", "wFF")
    for config, layers, said in (
        (CONFIGS["t5"], 5, "the teacher has 4 layers; the student can have 1 to 4 of them, not 5"),
        (CONFIGS["causal"], 0, "can have 1 to 6 of them, not 0"),
        (TwoWaysConfig(), 1, "models of the family two_ways have no layers"),
    ):
        with pytest.raises(UserError, match=said):
            cut_teacher(config, layers)


def test_students_of_a_run_start_as_layers_of_its_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    options = ["--preset=tiny", "--methods", "mle", "pcl", f"--out={out}", "--teacher.num-layers=2"]
    options += ["--teacher.num-decoder-layers=2", "--training.loop.steps=1", "--training.optimizer.learning-rate=1e-12"]
    assert train([*options, "--student-from-teacher=3"]) == 2
    assert "the teacher has 2 layers; the student can have 1 to 2 of them, not 3" in capsys.readouterr().err
    assert not out.exists()
    assert train([*options, "--student-from-teacher=1", "--student-model=x"]) == 2
    assert "student_from_teacher and student_model both say what students start from" in capsys.readouterr().err
    assert train([*options, "--student-from-teacher=1"]) == 0
    teacher = load_model(out / "teacher" / "model")
    for method in ("mle", "pcl"):
        student = load_model(out / "seed0" / method / "model")
        smaller, cut = cut_teacher(teacher.model.config, 1)
        assert student.model.config.vocab_size == smaller.vocab_size and student.model.config.num_layers == 1  # type: ignore
        want = cut(teacher.params)
        for name in ("shared", "encoder", "decoder"):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), student.params[name], want[name])
    assert not (out / "seed0" / "warmup").exists()
    named = [f"--teacher-model={out / 'teacher' / 'model'}", f"--out={tmp_path / 'other'}", "--student-from-teacher=3"]
    assert train(["--preset=tiny", *named]) == 2
    assert "the teacher has 2 layers; the student can have 1 to 2 of them, not 3" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_plan_knows_no_warm_up_then() -> None:
    config = replace(PRESETS["base"], student_from_teacher=3)
    models = sizes(config)
    assert models.student.num_layers == 3 and models.student.d_model == models.teacher.d_model  # type: ignore
    assert [stage.name for stage in plan(config, models)] == ["teacher", *config.methods]
