"""A training whose loss is no number says whose scores are none: not every cure is a lower learning rate."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from published import TEXTS, V10, V11, tensors, write_folder
from rich.console import Console

from kdtw_jax import parallel
from kdtw_jax.data.batches import Ragged
from kdtw_jax.data.textfiles import FileSpec
from kdtw_jax.errors import UserError
from kdtw_jax.methods.mle import mle
from kdtw_jax.pipeline.prepare import look_up, prepare
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.pipeline.stages import train_students, train_teacher
from kdtw_jax.runs import open_run
from kdtw_jax.training.blame import blamed
from kdtw_jax.training.loop import Diverged
from tests.world import BUCKETS, FIT, World


def overflowing(params: Any) -> Any:
    """Finite weights whose products are not."""
    params = jax.tree.map(np.array, params)
    params["decoder"]["final_norm"]["scale"][:] = 3e38
    return params


@pytest.mark.parametrize("devices", [1, 2])
def test_the_first_model_whose_scores_are_none_is_named(devices: int) -> None:
    world = World()
    sound, broken = world.teacher, (world.model, overflowing(world.params))
    where: tuple[Any, ...] = (world.data, BUCKETS, (3, 5, 150), parallel.select_devices(devices))
    assert blamed({"a": sound, "b": sound}, *where) is None
    assert blamed({"a": sound, "b": broken, "c": broken}, *where) == "b"
    unanswered = dataclasses.replace(world.data, targets=Ragged.pack([] for _ in range(len(world.data))))
    nan = (world.model, jax.tree.map(lambda x: np.full_like(x, np.nan), world.params))
    full = unanswered.examples[unanswered.sources.lengths <= BUCKETS[0].source][
        : BUCKETS[0].rows
    ]  # no row is filled up
    assert blamed({"a": sound, "b": nan}, unanswered, BUCKETS, full.tolist(), where[-1]) == "b"


def test_a_loss_that_is_none_names_the_examples_of_its_batch(tmp_path: Path) -> None:
    world = World()
    start = overflowing(world.params)
    with pytest.raises(Diverged, match=r"step 1 .* a lower learning rate is the usual cure$") as raised:
        mle(world.context(tmp_path), start, FIT)
    examples = raised.value.examples
    assert examples and set(examples) <= {*world.data.examples.tolist()}
    assert f"(examples {', '.join(map(str, examples))})" in raised.value.said


@pytest.mark.long
def test_a_run_blames_the_model_that_is_to_blame(tmp_path: Path) -> None:
    for side in ("source", "target"):
        (tmp_path / side).write_text("\n".join(text[:40] for text in TEXTS[:60]) + "\n", encoding="utf8")
    weights = tensors(V11)
    weights["decoder.final_layer_norm.weight"][:] = 1.5e19
    weights["lm_head.weight"] = np.float32(1.5e19) * np.sign(weights["lm_head.weight"])
    models = {"teacher": (V11, weights), "student": (V10, tensors(V10))}
    names: dict[str, Any] = {f"{n}_model": str(write_folder(tmp_path / n, *model)) for n, model in models.items()}
    tiny = PRESETS["tiny"]
    files = FileSpec(train_source=tmp_path / "source", train_target=tmp_path / "target")
    text = dataclasses.replace(tiny.text, folder=tmp_path / "data", files=files)
    config = dataclasses.replace(
        tiny, data="files", text=text, devices=1, out=tmp_path / "run", methods=("word_kd",), **names
    )
    with open_run(config.out, json.loads(json.dumps(config.identity(), default=str))) as run:
        setup = prepare(config, run, Console(quiet=True), look_up(config))
        teacher = train_teacher(config, setup, run)
        with pytest.raises(UserError, match=r"step 1 .*; the scores of the teacher are not finite there") as raised:
            train_students(config, setup, teacher, 0, run)
    assert "learning rate" not in str(raised.value) and "\n" not in str(raised.value)
