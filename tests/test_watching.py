"""Learning curves: students are watched while they learn, and learn the same as when nobody looks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from kdtw_jax.evaluation.training_figure import draw_learning
from kdtw_jax.methods.mle import mle
from kdtw_jax.methods.pcl import pcl
from kdtw_jax.pipeline.experiment import CURVES
from kdtw_jax.pipeline.watching import curve_rows
from kdtw_jax.runs import read_csv, read_metrics
from tests.commands import train
from tests.world import DISTIL, FIT, World, same

_SLOW = 500  # seconds that a look takes


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.mark.parametrize("kind", ["mle", "pcl"])
def test_a_student_is_watched_at_its_start_and_at_every_checkpoint_and_learns_as_if_it_was_not(
    world: World, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    clock = itertools.count(1000)  # a second goes by whenever somebody looks at it, and many while a student is watched
    monkeypatch.setattr("kdtw_jax.training.loop.time", SimpleNamespace(monotonic=lambda: next(clock)))

    def watch(params: Any) -> Mapping[str, float]:
        seen.append(params)
        for _ in range(_SLOW):
            next(clock)
        return {"validation_bleu": float(len(seen))}

    def learn(folder: str, **how: Any) -> Any:
        context = world.context(tmp_path / folder, seed=3, **how)
        return mle(context, world.params, FIT) if kind == "mle" else pcl(context, world.params, DISTIL)

    def lines(folder: str) -> list[dict[str, float]]:
        return [line for line in read_metrics(tmp_path / folder) if "validation_bleu" in line]

    unwatched = learn("unwatched")
    assert not lines("unwatched")
    assert same(learn("watched", watch=watch), unwatched)
    assert same(seen[0], world.params) and same(seen[-1], unwatched) and not same(seen[1], seen[-1])
    found = lines("watched")
    steps = [line["step"] for line in found]
    assert steps == [0, 4, 8] and [line["validation_bleu"] for line in found] == [1, 2, 3]
    seconds = [line["seconds"] for line in found]
    assert 0 <= seconds[0] < seconds[1] < seconds[2] < _SLOW
    assert curve_rows({f"{kind} 7": read_metrics(tmp_path / "watched")}) == [
        {"seed": 7, "method": kind, "step": s, "seconds": t, "metric": "bleu", "value": i + 1}
        for i, (s, t) in enumerate(zip(steps, seconds, strict=True))
    ]
    # Cut off after a checkpoint it goes on: no look is lost or done twice, and its seconds go on, too.
    learn("parts", watch=watch, stop_after=6)
    before = lines("parts")
    assert same(learn("parts", watch=watch), unwatched)
    assert [line["step"] for line in lines("parts")] == steps and lines("parts")[: len(before)] == before
    assert before[-1]["seconds"] < lines("parts")[-1]["seconds"] < _SLOW


def test_lines_go_by_step_or_by_seconds() -> None:
    rows = [
        {"seed": s, "method": "mle", "step": 4 * i, "seconds": 2.0 * i + s, "metric": m, "value": 10.0 * i + s}
        for m in ("bleu", "chrf")
        for s in (0, 1)
        for i in (0, 1)
    ]
    for by, first in (("step", [0, 4]), ("seconds", [0, 2])):
        axes = plt.figure().add_subplot()
        draw_learning(axes, rows, "bleu", by)
        lines = axes.get_lines()
        assert len(lines) == 2 and list(lines[0].get_xdata()) == first and list(lines[1].get_ydata()) == [1, 11]


@pytest.mark.long
def test_a_run_keeps_its_learning_curves(tmp_path: Path) -> None:
    (tmp_path / "watch.yaml").write_text("preset: tiny\neval: {watch: 9}\n")
    words = ["--config", str(tmp_path / "watch.yaml"), "--out", str(tmp_path / "run"), "--methods", "mle", "ask"]
    assert train([*words, "--text.folder", str(tmp_path / "data"), "--results", str(tmp_path / "published")]) == 0
    rows = read_csv(tmp_path / "published" / "curves.csv")
    assert all(tuple(row) == CURVES for row in rows)
    assert {(row["method"], row["metric"]) for row in rows} == {
        (m, s) for m in ("mle", "ask") for s in ("bleu", "chrf", "exact_match")
    }
    start = {m: [r["value"] for r in rows if r["method"] == m and r["step"] == 0] for m in ("mle", "ask")}
    assert start["mle"] == start["ask"]  # from one warm-up, the one told not to ask
    values = np.array([row["value"] for row in rows], float)
    assert ((values >= 0) & (values <= 100)).all() and {row["step"] for row in rows} == {0, 8, 16}
