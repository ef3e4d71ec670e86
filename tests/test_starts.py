"""A method may go on from the finished student of another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.methods import METHODS
from kdtw_jax.pipeline.config import Experiment, parse
from kdtw_jax.pipeline.experiment import run_experiment
from kdtw_jax.pipeline.presets import TASKS, TRANSLATION
from kdtw_jax.runs import read_metrics
from kdtw_jax.training.saved import load_model

TINY = TRANSLATION["tiny"]
ON_PCL = TINY.with_settings(ask=replace(TINY.of("ask"), start="pcl", gate_alone=True, gate_calibration_steps=0))


def tiny(folder: Path) -> Experiment:
    rng = np.random.default_rng(0)
    lines = [" ".join("".join(rng.choice(list("abcdefgh"), 3)) for _ in range(rng.integers(2, 7))) for _ in range(300)]
    for side, text in (("en", lines), ("de", [line[::-1] for line in lines])):
        (folder / f"a.{side}").write_text("\n".join(text) + "\n", encoding="utf8")
    words = ["--preset", "tiny", "--data", "files", "--out", str(folder / "run"), "--devices", "1"]
    words += ["--text.folder", str(folder / "data"), "--text.files.train-source", str(folder / "a.en")]
    words += ["--text.files.train-target", str(folder / "a.de"), "--eval.metrics", "chrf", "--eval.limit", "8"]
    return parse({"tiny": replace(ON_PCL, methods=("ask", "pcl"))}, None, words)


@pytest.mark.long
def test_a_student_that_asks_goes_on_from_the_finished_one_of_another_method(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    run_experiment("translation", config)
    start, taught, asks = (
        load_model(config.out / "seed0" / name / "model").params  # type: ignore[operator]
        for name in ("warmup", "pcl", "ask")
    )
    kept = dict(jax.tree_util.tree_leaves_with_path(taught))
    gate = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(asks):
        if path in kept:
            np.testing.assert_array_equal(leaf, kept[path], str(path))
        else:
            gate[path] = leaf
    assert gate and all("gate" in jax.tree_util.keystr(path) for path in gate)
    assert any(np.any(leaf != kept[path]) for path, leaf in jax.tree_util.tree_leaves_with_path(start) if path in kept)
    assert len(read_metrics(config.out / "seed0" / "ask")) > 0  # type: ignore[operator]
    with pytest.raises(UserError, match="holds a run of another configuration"):
        run_experiment("translation", config.with_settings(ask=replace(config.of("ask"), start="")))
    pcl = replace(config.of("pcl"), kl_weight=0.5)
    with pytest.raises(UserError, match="holds a run of another configuration"):
        run_experiment("translation", replace(config.with_settings(pcl=pcl), methods=("pcl", "ask")))


def test_what_students_of_a_method_are_depends_on_where_they_go_on_from() -> None:
    other = ON_PCL.with_settings(pcl=replace(ON_PCL.of("pcl"), kl_weight=0.123))
    assert ON_PCL.identity_of("ask") != other.identity_of("ask")
    assert TINY.identity_of("ask") == TINY.with_settings(pcl=other.of("pcl")).identity_of("ask")
    # So that runs go on that are older than these fields.
    ask, shared = TINY.identity_of("ask")["ask"], replace(TINY.of("pcl"), likelihood_share=0.5)
    assert "start" not in ask and "likelihood_share" not in {**ask["distil"], **TINY.identity_of("pcl")["pcl"]}
    assert TINY.with_settings(pcl=shared).identity_of("pcl")["pcl"]["likelihood_share"] == 0.5


def test_one_method_of_a_run_comes_with_the_one_that_it_goes_on_from() -> None:
    assert (ON_PCL.only("ask").methods, TINY.only("ask").methods) == (("pcl", "ask"), ("ask",))
    beams = replace(ON_PCL, methods=("mle", "pcl", "ask"), beam_targets=("mle", "pcl"))
    assert beams.only("ask").beam_targets == ("pcl",) and beams.only("mle").beam_targets == ("mle",)
    for task in TASKS.values():
        for preset in task.values():
            assert preset.only("ask").methods[-1] == "ask"  # as `kdtw compare` wants it


def test_a_start_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="ask goes on from the student of pcl: add pcl to --methods"):
        replace(ON_PCL, methods=("mle", "ask"))
    with pytest.raises(UserError, match="which cannot be ask itself"):
        replace(ON_PCL.of("ask"), start="ask")
    monkeypatch.setitem(METHODS, "pcl", replace(METHODS["pcl"], start=lambda config: "mle"))
    with pytest.raises(UserError, match="ask cannot go on from the student of pcl, which itself goes on from another"):
        replace(ON_PCL, methods=("mle", "pcl", "ask"))
