"""The main job, killed at any moment and started again, ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from kdtw_jax.evaluation.training_figure import distil_figure
from kdtw_jax.pipeline.experiment import COLUMNS
from kdtw_jax.runs import read_csv, read_metrics
from tests.mirrored import mirrored
from tests.pictures import alike

ROOT = Path(__file__).resolve().parents[1]


def start(out: Path, data: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "experiments" / "translation.py"), "--preset", "tiny", "--data", "files"]
    command += ["--out", str(out), "--text.folder", str(data), "--devices", "1", "--methods", "mle", "pcl"]
    command += ["--text.files.train-source", str(data / "a.en"), "--text.files.train-target", str(data / "a.de")]
    command += ["--results", str(out / "published")]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"XLA_FLAGS": ""}
    )


def parameters(folder: Path) -> dict[str, np.ndarray]:
    import jax

    leaves = jax.tree.leaves_with_path(ocp.load(folder / "model" / "params"))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirrored(tmp_path_factory.mktemp("data"))


@pytest.mark.long
def test_a_run_killed_at_any_moment_ends_as_an_uninterrupted_one(tmp_path: Path, corpus: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    output, errors = start(whole, corpus).communicate()
    assert "run folder" in output, errors

    # Killed once inside the teacher's training and once inside PCL, each time past a checkpoint.
    for stage in ("teacher", "seed0/pcl"):
        process = start(killed, corpus)
        # What is still being written has a longer name.
        while not any(path.name.isdecimal() for path in (killed / stage / "checkpoints").glob("*")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (killed / stage / "model").exists()
    output, errors = start(killed, corpus).communicate()
    assert "run folder" in output, errors
    # Killed between saving the teacher and noting that it is done.
    (killed / "stages" / "teacher.json").unlink()
    output, errors = start(killed, corpus).communicate()
    assert "run folder" in output, errors

    for stage in ("teacher", "seed0/warmup", "seed0/mle", "seed0/pcl"):
        one, other = parameters(whole / stage), parameters(killed / stage)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one), stage
        lines = [
            [{k: v for k, v in line.items() if k != "tokens_per_s"} for line in read_metrics(folder / stage)]
            for folder in (whole, killed)
        ]
        assert lines[0] == lines[1]

    def measured(folder: Path) -> list[dict[str, object]]:
        rows = read_csv(folder / "distil.csv")
        return [row for row in rows if row["metric"] != "tokens_per_s"]

    assert measured(whole) == measured(killed)
    rows = measured(whole)
    assert {row["method"] for row in rows} == {"teacher", "mle", "pcl"}
    assert all(tuple(row) == COLUMNS for row in rows)
    for row in rows:
        if row["metric"] in ("bleu", "chrf"):
            assert 0 <= float(str(row["low"])) <= float(str(row["value"])) <= float(str(row["high"])) <= 100
    published = json.loads((whole / "published" / "provenance.json").read_text(encoding="utf8"))
    assert published["stages"].keys() == {"teacher", "seed0/warmup", "seed0/mle", "seed0/pcl"}
    assert str(Path.home()) + "/" not in json.dumps(published["command"])
    for name in ("distil.csv", "differences.csv"):
        assert (whole / "published" / name).read_bytes() == (whole / name).read_bytes()
    curves = {f"{method} 0": read_metrics(whole / "seed0" / method) for method in ("mle", "pcl")}
    for name, drawn, lines_drawn in (("same", rows, curves), ("less", rows, {}), ("fewer", rows[1:], curves)):
        distil_figure(drawn, lines_drawn, "bleu", tmp_path / f"{name}.png")
        assert alike(whole / "distil.png", tmp_path / f"{name}.png") == (name == "same")
