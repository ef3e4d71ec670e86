"""The script of the published pair: a teacher fitted to the task, students of some of its layers, asking and times."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.smollm import Args, commands, main
from kdtw_jax.models import CausalConfig
from kdtw_jax.runs import read_csv
from kdtw_jax.training.saved import load_model


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


def test_the_whole_of_it_fits_the_teacher_first_and_asks_with_all_methods(tmp_path: Path) -> None:
    fetch, fit, distil, share = commands(Args(out=tmp_path, dtype="bfloat16", results=tmp_path / "results"))
    assert fetch == ["fetch", "smollm2-135m"]
    assert fit[fit.index("--methods") + 1] == "mle" and "--student-from-teacher=0" in fit
    assert distil[distil.index("--teacher-model") + 1].startswith(fit[fit.index("--out") + 1])
    assert "--student.dtype=bfloat16" in distil and "--student-from-teacher=6" in distil
    assert distil[-2:] == share[-2:] == ["--results", str(tmp_path / "results")]
    assert commands(Args(model="folder"))[0][0] == "train"
