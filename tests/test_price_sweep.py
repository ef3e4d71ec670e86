"""Students for several prices of a call: where each starts, what is judged, and what is done twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from kdtw_jax.cli import main
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.price_figure import draw_prices
from kdtw_jax.pipeline.ask_report import COLUMNS
from kdtw_jax.pipeline.presets import TASKS
from kdtw_jax.pipeline.price_sweep import SWEEP_COLUMNS, parts
from kdtw_jax.runs import read_csv

WAYS = replace(TASKS["ways"]["tiny"], out=Path("sweep"), seeds=(0, 1))


def test_all_students_start_where_the_one_without_help_started_and_the_gate_alone_where_it_ended() -> None:
    runs = parts("ways", WAYS, (1.0, 2.5))
    assert list(runs) == ["without_help", "price_1", "price_2.5", "gate_alone"]
    assert {name: run.out for name, run in runs.items()} == {name: Path("sweep") / name for name in runs}
    there = runs["without_help"].out
    starts = {f"price_{price}": f"{there}/seed{{seed}}/warmup/model" for price in ("1", "2.5")}
    starts["gate_alone"] = f"{there}/seed{{seed}}/pcl/model"
    assert {name: run.student_model for name, run in runs.items()} == {"without_help": None, **starts}
    assert {run.teacher_model for run in runs.values()} == {"ways:program"}
    assert [runs[name].of("ask").constraints for name in starts] == [("price=1",), ("price=2.5",), ("price",)]
    assert [runs[name].of("ask").gate_alone for name in starts] == [False, False, True]
    trained = parts("ways", replace(WAYS, teacher_model=None), (1.0,))
    assert trained["without_help"].teacher_model is None
    assert trained["price_1"].teacher_model == trained["gate_alone"].teacher_model == f"{there}/teacher/model"


@pytest.mark.parametrize(
    "prices", [(), (1.0, 1.0), (-1.0,), (float("nan"),), (float("inf"),), (1.0, 1.0000001), (1e-9,), (1e9,)]
)
def test_prices_that_are_none_are_refused(prices: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="--prices must be distinct numbers of at least 0"):
        parts("ways", WAYS, prices)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prices", "a"], "--prices takes numbers, in nats, got 'a'"),
        (["--prices", "1", "--methods", "mle"], "leave --methods out"),
        (["--prices", "nan"], "--prices must be distinct numbers of at least 0, at least one, of at most six digits"),
        (["--prices", "1", "--ask.constraints", "share"], "leave --ask.constraints out"),
        (["--prices", "1", "--task", "cooking"], "unknown task 'cooking'"),
    ],
)
def test_bad_words_end_with_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_what_a_sweep_would_write_over_or_could_not_write_is_told_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "file").touch()
    base = ["prices", "--task", "ways", "--preset", "tiny", "--prices", "1"]
    for words, message in (
        (["--out", str(tmp_path / "run")], "run holds a run, and a sweep needs a folder of its own"),
        (["--out", str(tmp_path / "new"), "--results", str(tmp_path / "file")], "file is no folder to write in"),
    ):
        assert main([*base, *words]) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "file", "run"]


def test_lines_are_of_rows_with_a_price_and_of_words_that_training_had() -> None:
    def row(price: float, value: float, **changes: Any) -> dict[str, Any]:
        at = {"rule": "price", "phrasing": "seen", "metric": "answer", "unit": "token", "used": 0.25}
        return {**at, "asked": price, "value": value, **changes}

    rows = [row(1, 50.0), row(1, 70.0), row(2, 20.0), row(1, 0.0, rule="share"), row(1, 0.0, phrasing="unseen")]
    rows += [{name: value for name, value in row(1, 0.0).items() if name != "rule"}]  # of a table before there were any
    axes = plt.figure().add_subplot()
    draw_prices(axes, rows)
    lines = {
        line.get_label(): line.get_ydata() for line in axes.get_lines() if not str(line.get_label()).startswith("_")
    }
    assert {name: list(y) for name, y in lines.items()} == {
        "right answers": [60.0, 20.0],
        "tokens from the teacher": [25.0, 25.0],
    }


@pytest.mark.long
def test_a_sweep_is_trained_judged_and_not_done_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prices", "--task", "ways", "--preset", "tiny", "--teacher-model", "ways:hasty", "--prices", "1", "3"]
    words += ["--out", str(tmp_path / "run"), "--results", str(tmp_path / "published"), "--devices", "1"]
    words += ["--text.folder", str(tmp_path / "data")]
    assert main(words) == 0
    rows = read_csv(tmp_path / "published" / "asking.csv")
    assert all(tuple(row) == SWEEP_COLUMNS for row in rows)
    assert {row["asked"] for row in rows if row["student"] == "together"} == {1, 3}
    assert len({row["asked"] for row in rows if row["student"] == "apart"}) == 11
    assert {row["metric"] for row in rows} == {"answer", "long_way"} and {row["rule"] for row in rows} == {"price"}
    for row in rows:
        assert 0 <= float(str(row["used"])) <= 1 and 0 <= float(str(row["low"])) <= float(str(row["high"])) <= 100
    for name in ("asking.csv", "asking-provenance.json", "prices.png"):
        assert (tmp_path / "run" / name).exists() and (tmp_path / "published" / name).exists()
    one = read_csv(tmp_path / "run" / "price_1" / "asking.csv")
    assert all(tuple(row) == COLUMNS for row in one) and "price of a call" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*/seed0/*/model/config.json")}
    assert len(before) == 5  # the warm-up, and a student of each run
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert read_csv(tmp_path / "published" / "asking.csv") == rows
