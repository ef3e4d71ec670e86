"""A run whose teacher and students' start are published models: what is given is not trained. And plans."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from published import MT5, ROWS, TEXTS, V10, V11, write_folder

from kdtw_jax.cli import main as kdtw
from kdtw_jax.data.batches import Bucket
from kdtw_jax.models import T5Config, count_params, make_model
from kdtw_jax.pipeline.plan import forward_flops, parameters, plan, sizes, states
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.pretrained.load import open_published
from kdtw_jax.training.saved import load_model
from tests.commands import train


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a teacher of v1.1 and a smaller student of v1.0."""
    folder = tmp_path_factory.mktemp("place")
    for side in ("source", "target"):
        (folder / side).write_text("\n".join(text[:40] for text in TEXTS) + "\n", encoding="utf8")
    write_folder(folder / "teacher", V11)
    write_folder(folder / "student", {**V10, "num_layers": 1, "num_decoder_layers": 1})
    return folder


def arguments(place: Path, out: Path) -> list[str]:
    files = [f"--text.files.train-{side}={place / side}" for side in ("source", "target")]
    models = [f"--{name}-model={place / name}" for name in ("teacher", "student")]
    steps = ["--training.loop.steps=4"]
    common = ["--preset=tiny", "--data=files", f"--text.folder={place / 'data'}", f"--out={out}", "--devices=1"]
    return [*common, *files, *models, *steps, "--methods", "ask", "--ask.constraints", "calls"]


@pytest.mark.long
def test_a_run_from_published_models_to_a_published_student(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(arguments(place, run)) == 0
    assert not (run / "teacher" / "checkpoints").exists() and not (run / "seed0" / "warmup").exists()
    model, params, tokenizer = load_model(run / "seed0" / "ask" / "model")
    sizes = {"d_kv": 6, "num_layers": 1, "vocab_size": ROWS, "dropout_rate": 0.0, "tie_embeddings": True}
    assert {name: getattr(model.config, name) for name in sizes} == sizes
    assert tokenizer == open_published(place / "teacher").tokenizer
    assert {"value", "gate"} <= params.keys()
    stages = json.loads((run / "results.json").read_text())["stages"]
    assert stages.keys() == {"seed0/ask"}
    assert restore(run)[1].student_model == str(place / "student")
    capsys.readouterr()
    rule = "at most 2 calls to the teacher"
    assert kdtw(["write", str(run), "--rule", rule, "--text", TEXTS[0]]) == 0
    assert "the teacher wrote" in capsys.readouterr().err
    assert kdtw(["export", str(run), "--method", "ask", "--out", str(tmp_path / "out")]) == 0
    assert "left out: value, gate" in capsys.readouterr().out
    assert open_published(tmp_path / "out").tokenizer == tokenizer


def test_models_of_different_vocabularies_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "other", MT5)
    words = [*arguments(place, tmp_path / "run"), f"--student-model={tmp_path / 'other'}"]
    assert train(words) == 2
    assert "was trained with another vocabulary (148 pieces" in capsys.readouterr().err


def test_a_run_is_told_by_what_its_stages_depend_on() -> None:
    plain = PRESETS["tiny"]
    assert dataclasses.replace(plain, student_model="x").identity()["student_model"] == "x"
    beams = dataclasses.replace(plain, methods=("mle", "pcl", "seqkd"), beam_targets=("pcl",))
    assert [beams.learns_from_beams(m) for m in beams.methods] == [False, True, True]
    assert dataclasses.replace(plain, offline=True).identity() == plain.identity()


def test_planned_parameters_are_those_of_the_model(place: Path) -> None:
    config = dataclasses.replace(
        PRESETS["tiny"], teacher_model=str(place / "teacher"), student_model=str(place / "student")
    )
    models = sizes(config)
    assert (models.teacher.vocab_size, models.student.num_layers) == (ROWS, 1)
    for model in (*models, T5Config.toy(50, gate_width=3), dataclasses.replace(models.student, value_heads=False)):
        assert parameters(model) == count_params(make_model(model).init(jax.random.key(0)))
    (stage,) = plan(dataclasses.replace(config, methods=("mle",)), models)
    assert stage.states == 16 * parameters(models.student) and stage.teacher == 0
    (stage,) = plan(dataclasses.replace(config, methods=("pcl",)), models)
    assert stage.teacher == 4 * parameters(models.teacher)
    assert states(models.student, 1) == 20 * parameters(models.student)
    names = [s.name for s in plan(dataclasses.replace(PRESETS["tiny"], methods=("mle", "pcl")), sizes(PRESETS["tiny"]))]
    assert names == ["teacher", "warmup", "mle", "pcl"]


def test_planned_flops_are_those_that_the_compiler_counts() -> None:
    """XLA counts a little more: softmax, norms. The encoder is fed once, each product is counted."""
    config = T5Config.toy(2000, d_model=64, d_ff=256, d_kv=16, num_heads=4, feed_forward="gated-gelu")
    bucket = Bucket(24, 16, 4)
    model = make_model(config)

    def forward(params: object, source: jax.Array, inputs: jax.Array) -> jax.Array:
        return model.decode(params, model.encode(params, source), inputs).logits_BxTxV

    like = jax.eval_shape(model.init, jax.random.key(0))
    shapes = [jax.ShapeDtypeStruct((bucket.rows, n), np.int32) for n in (bucket.source, bucket.target)]
    counted = jax.jit(forward).lower(like, *shapes).compile().cost_analysis()["flops"]
    assert 1.0 <= counted / forward_flops(config, bucket) < 1.15


def test_a_plan_is_said_and_nothing_is_done(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", *arguments(place, tmp_path / "run"), "--tflops=100", "--utilization", "0.5"]
    assert kdtw(words) == 0
    said = capsys.readouterr().out
    teacher = count_params(make_model(open_published(place / "teacher").config).init(jax.random.key(0)))
    assert f"teacher: {teacher:,} parameters, vocabulary {ROWS}, arithmetic in float32" in said
    assert "50% of 100 TFLOP/s" in said
    assert not (tmp_path / "run").exists()
    assert kdtw(["plan", *arguments(place, tmp_path / "run"), "--utilization=2"]) == 2
    assert "utilization in (0, 1], got 312.0 and 2.0" in capsys.readouterr().err
