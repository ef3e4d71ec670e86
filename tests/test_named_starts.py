"""Students of several seeds that start from models of another run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from kdtw_jax.pipeline.presets import TINY
from kdtw_jax.training.saved import load_model
from tests.commands import train

ways = partial(train, task="ways")


def test_the_name_of_a_start_may_say_the_seed() -> None:
    named = replace(TINY, seeds=(3, 5), student_model="runs/seed{seed}/warmup/model").named_students()
    assert named == {3: "runs/seed3/warmup/model", 5: "runs/seed5/warmup/model"}
    assert replace(TINY, seeds=(3, 5), student_model="a").named_students() == {3: "a", 5: "a"}
    assert replace(TINY, seeds=(3, 5)).named_students() == {}


@pytest.mark.long
def test_students_go_on_from_the_warm_ups_of_another_run_as_they_would_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--preset", "tiny", "--text.folder", str(tmp_path / "data"), "--methods", "mle"]
    common += ["--seeds", "0", "1"]
    assert ways([*common, "--out", str(tmp_path / "first")]) == 0
    starts = str(tmp_path / "first" / "seed{seed}" / "warmup" / "model")
    assert ways([*common, "--out", str(tmp_path / "second"), "--student-model", starts]) == 0
    there, here = (
        [load_model(tmp_path / run / f"seed{seed}" / "mle" / "model").params for seed in (0, 1)]
        for run in ("first", "second")
    )
    for seed in (0, 1):
        assert there[seed].keys() == here[seed].keys()
        jax.tree.map(np.testing.assert_array_equal, there[seed], here[seed])
    assert any(not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, here), strict=True))
    capsys.readouterr()
    assert ways([*common, "--out", str(tmp_path / "third"), "--student-model", f"{tmp_path}/gone/seed{{seed}}"]) == 2
    assert "gone/seed0 is not a saved model" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()
