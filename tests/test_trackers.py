"""Where numbers of trainings go: what each tracker is told, and what happens where one cannot be had."""

from __future__ import annotations

import math
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.runs import MetricsLog, open_run, read_metrics, write_text
from kdtw_jax.runs.trackers import check_trackers, logging_to
from tests.commands import train


class Recorder(types.ModuleType):
    """In the place of a tracker's library: keeps what is asked of it. Its runs have the id r1."""

    def __init__(self, name: str):
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.id = self.run_id = "r1"
        self.info = self

    def __getattr__(self, name: str) -> Any:
        def called(*args: Any, **options: Any) -> Recorder:
            self.calls.append((name, args, options))
            return self

        return called


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Recorder]:
    def install(name: str) -> Recorder:
        module = Recorder(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return install


TRACKED = {
    "trackio": [
        ("init", (), {"project": "kdtw_jax", "name": "run/seed0/pcl", "resume": "never"}),
        ("log", ({"loss": 2.0},), {"step": 5}),
        ("finish", (), {}),
    ],
    "wandb": [
        ("init", (), {"project": "kdtw_jax", "name": "run/seed0/pcl", "id": None, "resume": "allow", "dir": "pcl"}),
        ("log", ({"loss": 2.0},), {"step": 5}),
        ("finish", (), {}),
    ],
    "mlflow": [
        ("set_experiment", ("kdtw_jax",), {}),
        ("start_run", (), {"run_id": None, "run_name": "run/seed0/pcl"}),
        ("log_metrics", ({"loss": 2.0},), {"step": 5}),
        ("end_run", (), {}),
    ],
}


@pytest.mark.parametrize("tracker", TRACKED)
def test_a_tracker_gets_what_is_finite_and_finds_the_run_that_goes_on(
    tmp_path: Path, recorder: Callable[[str], Recorder], tracker: str
) -> None:
    library, folder = recorder(tracker), tmp_path / "run" / "seed0" / "pcl"

    def calls(resume: int | None) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        library.calls.clear()
        with logging_to((tracker,), tmp_path / "run"), MetricsLog(folder, resume) as log:
            log.write(5, {"loss": 2, "norm": math.nan})
        assert read_metrics(folder)[-1]["loss"] == 2
        assert not (folder / "tensorboard").exists()  # which was not asked for
        plain = [(n, a, {k: v if k != "dir" else Path(v).name for k, v in o.items()}) for n, a, o in library.calls]
        return plain

    assert calls(None) == TRACKED[tracker]
    (opening,) = (options for _, _, options in calls(4) if {"resume", "run_id"} & options.keys())
    assert {**opening} == {
        "trackio": {"project": "kdtw_jax", "name": "run/seed0/pcl", "resume": "allow"},
        "wandb": {"project": "kdtw_jax", "name": "run/seed0/pcl", "id": "r1", "resume": "allow", "dir": "pcl"},
        "mlflow": {"run_id": "r1", "run_name": "run/seed0/pcl"},
    }[tracker]
    assert calls(None) == TRACKED[tracker]  # a new start is a run of its own
    with open_run(tmp_path / "other", {}) as run:
        write_text(run.path / "teacher" / f".id-of-{tracker}", "r1")
        if tracker == "wandb":
            write_text(run.path / "teacher" / "wandb" / "run-r1" / "log", "")
        assert not run.begun()  # an id and logs are nothing to lose


def test_a_tracker_that_fails_at_its_start_leaves_nothing_open(
    tmp_path: Path, recorder: Callable[[str], Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = recorder("trackio"), recorder("wandb")
    monkeypatch.setattr(second, "init", lambda **_: 1 / 0, raising=False)
    with logging_to(("trackio", "wandb")), pytest.raises(ZeroDivisionError):
        MetricsLog(tmp_path)
    assert [name for name, _, _ in first.calls] == ["init", "finish"]


def test_trackers_that_cannot_be_had_are_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    words = ["--preset", "tiny", "--out", str(tmp_path / "run"), "--log-to", "tensorboard", "wandb"]
    assert train(words) == 2
    assert capsys.readouterr().err == "error: --log-to wandb needs the library wandb: pip install wandb\n"
    assert not (tmp_path / "run").exists()
    for names, message in (("excel",), "'excel'; known are tensorboard"), (("tensorboard",) * 2, "tensorboard twice"):
        with pytest.raises(UserError, match=message):
            check_trackers(names)
    tiny = PRESETS["tiny"]
    assert replace(tiny, log_to=("wandb",)).identity() == tiny.identity()


def test_the_library_of_tensorboard_waits_for_a_training() -> None:
    """It imports torch where that is installed."""
    code = "import sys, kdtw_jax.pipeline.experiment as _; sys.exit(bool({'tensorboardX', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
