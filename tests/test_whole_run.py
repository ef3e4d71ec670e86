"""A whole run in small: from the command line through training and evaluation to tables, also when it is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from kdtw_jax.pipeline.experiment import COLUMNS
from kdtw_jax.runs import read_csv, read_metrics
from kdtw_jax.training.saved import load_model
from tests.commands import train
from tests.world import same

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("teacher", "seed0/warmup", "seed0/pcl")


def arguments(out: Path, corpus: Path) -> list[str]:
    words = ["--preset", "tiny", "--data", "files", "--out", str(out), "--text.folder", str(corpus / "kept")]
    words += ["--text.files.train-source", str(corpus / "en"), "--text.files.train-target", str(corpus / "de")]
    words += ["--text.max-source", "16", "--text.max-target", "16", "--text.batch-tokens", "128"]
    words += ["--text.vocab-size", "200", "--eval.limit", "8", "--devices", "1", "--methods", "pcl"]
    return [*words, "--results", str(out / "published")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words and their mirror images."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    lines = [" ".join("".join(rng.choice(list("abcdef"), 3)) for _ in range(rng.integers(2, 4))) for _ in range(200)]
    (folder / "en").write_text("\n".join(lines) + "\n", encoding="utf8")
    (folder / "de").write_text("\n".join(line[::-1] for line in lines) + "\n", encoding="utf8")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train(arguments(out, corpus)) == 0
    return out


def measured(folder: Path) -> list[dict[str, object]]:
    """All that is measured but the time."""
    return [dict(row) for row in read_csv(folder / "distil.csv") if row["metric"] != "tokens_per_s"]


def test_a_run_leaves_models_tables_and_how_they_came_about(whole: Path) -> None:
    rows = measured(whole)
    assert {row["method"] for row in rows} == {"teacher", "pcl"}
    assert all(tuple(row) == COLUMNS for row in rows)
    judged = [row for row in rows if row["metric"] in ("bleu", "chrf")]
    assert len(judged) == 4
    for row in judged:
        assert 0 <= float(str(row["low"])) <= float(str(row["value"])) <= float(str(row["high"])) <= 100
    parameters = {row["method"]: row["value"] for row in rows if row["metric"] == "parameters"}
    for stage in STAGES:
        losses = [line["loss"] for line in read_metrics(whole / stage)]
        assert np.isfinite(losses).all() and len(losses) == (10 if stage == "teacher" else 4)
    params = load_model(whole / "seed0" / "pcl" / "model").params
    assert parameters["pcl"] == sum(x.size for x in jax.tree.leaves(params)) < parameters["teacher"]  # type: ignore[operator]
    assert not same(params, load_model(whole / "seed0" / "warmup" / "model").params)
    published = json.loads((whole / "published" / "provenance.json").read_text(encoding="utf8"))
    assert published["stages"].keys() == set(STAGES)
    for name in ("distil.csv", "differences.csv"):
        assert (whole / "published" / name).read_bytes() == (whole / name).read_bytes()
    assert (whole / "distil.png").stat().st_size > 10_000


def test_a_run_that_was_killed_ends_as_an_uninterrupted_one(whole: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, str(ROOT / "experiments" / "translation.py"), *arguments(out, corpus)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # What is still being written has a longer name.
    while not any(path.name.isdecimal() for path in (out / "teacher" / "checkpoints").glob("*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "teacher" / "model").exists()

    assert train(arguments(out, corpus)) == 0
    for stage in STAGES:
        assert same(*(load_model(folder / stage / "model").params for folder in (whole, out))), stage
        lines = [
            [{k: v for k, v in line.items() if k != "tokens_per_s"} for line in read_metrics(folder / stage)]
            for folder in (whole, out)
        ]
        assert lines[0] == lines[1]
    assert measured(out) == measured(whole)
