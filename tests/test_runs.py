"""Run folders: nothing half-written, nothing mixed up, nothing private, resumed equals uninterrupted."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.event_file_writer import EventFileWriter
from tensorboardX.proto.event_pb2 import Event

from kdtw_jax.errors import UserError
from kdtw_jax.runs import (
    MetricsLog,
    open_run,
    print_table,
    read_csv,
    read_metrics,
    write_csv,
    write_json,
    write_text,
)


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# Files


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file_whole_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(os, failing, no_space)
    with pytest.raises(UserError, match=r"results\.json: No space left on device"):
        write_json(path, {"a": 2})
    with pytest.raises(UserError, match=r"table\.csv"):
        write_csv(tmp_path / "table.csv", [{"a": 1}], ["a"])
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["results.json"]


def test_a_value_that_is_not_json_does_not_touch_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    for bad in ({"a": math.nan}, {"a": object()}):
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "a.json", bad)
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_parents_are_made_and_a_file_in_their_place_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "x" / "y" / "a.txt", "grün\r\n")
    assert (tmp_path / "x" / "y" / "a.txt").read_bytes() == "grün\r\n".encode()
    with pytest.raises(UserError, match=r"a\.txt"):
        write_text(tmp_path / "x" / "y" / "a.txt" / "b.txt", "")


# Tables


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"method": "pcl, d = 1", "seed": 0, "value": 23.5, "low": None},
        {"method": 'the "best"', "seed": -1, "value": 1e-7, "low": 2.0},
        {"method": "two\nlines", "seed": 2, "value": 0.125},
    ]
    columns = ["method", "seed", "value", "low"]
    write_csv(tmp_path / "t.csv", rows, columns)
    found = read_csv(tmp_path / "t.csv")
    assert found == [{c: row.get(c) for c in columns} for row in rows]
    assert all(isinstance(row["seed"], int) for row in found)  # 0 == 0.0, but a seed is no float
    before = (tmp_path / "t.csv").read_bytes()
    write_csv(tmp_path / "t.csv", read_csv(tmp_path / "t.csv"), columns)
    assert (tmp_path / "t.csv").read_bytes() == before


def test_the_order_of_columns_is_the_one_asked_for_and_floats_have_six_digits(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [{"b": 1 / 3, "a": 123456.789}], ["a", "b"])
    assert (tmp_path / "t.csv").read_text() == "a,b\n123457,0.333333\n"


def test_bad_tables_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'c'"):
        write_csv(tmp_path / "t.csv", [{"a": 1, "c": 2}], ["a", "b"])
    assert not (tmp_path / "t.csv").exists()
    with pytest.raises(UserError, match=r"read .*t\.csv"):
        read_csv(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a,b\n1\n")
    with pytest.raises(UserError, match="no table"):
        read_csv(tmp_path / "t.csv")


def test_a_printed_table_holds_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Results", [{"method": "pcl", "bleu": 23.456}, {"method": "mle", "bleu": None}], ["method", "bleu"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("Results", "method", "bleu", "pcl", "23.46", "mle"))


def test_no_printed_table_is_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    columns = ["method", *(f"exact_match{i}" for i in range(8))]
    print_table("Results", [{"method": "pcl", **dict.fromkeys(columns[1:], 1_175_425.0)}], columns)
    out = capsys.readouterr().out
    assert "…" not in out and out.count("Results") == 1
    assert max(map(len, out.splitlines())) <= 60
    lines = [line.replace("┃", "│").split("│")[1:-1] for line in out.splitlines() if "│" in line or "┃" in line]
    cells = [[cell.strip() for cell in line] for line in lines]
    shown = [dict(zip(head, row, strict=True)) for head, row in zip(cells[::2], cells[1::2], strict=True)]
    assert [name for table in shown for name in table if name != "method"] == columns[1:]
    assert all(table.pop("method") == "pcl" and set(table.values()) == {"1.18 M"} for table in shown)
    print_table("Results", [{"name": "x" * 100}], ["name"])  # not even what no terminal could hold
    assert capsys.readouterr().out.count("x") == 100


# Metrics


def numbers(step: int) -> dict[str, float]:
    return {"loss": 1 / (step + 3), "tokens": float(step)}


def log_steps(folder: Path, resume: int | None, first: int, last: int) -> None:
    with MetricsLog(folder, resume) as log:
        for step in range(first, last + 1):
            log.write(step, numbers(step))


@pytest.mark.parametrize("restored", [0, 4, 7])
@pytest.mark.parametrize("torn", [b"", b'{"step": 8, "lo'])
def test_an_interrupted_and_resumed_log_equals_an_uninterrupted_one(tmp_path: Path, restored: int, torn: bytes) -> None:
    log_steps(tmp_path / "whole", None, 1, 10)
    log_steps(tmp_path / "cut", None, 1, 7)
    with (tmp_path / "cut" / "metrics.jsonl").open("ab") as f:
        f.write(torn)
    log_steps(tmp_path / "cut", restored, restored + 1, 10)
    whole, cut = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut"))
    assert cut == whole
    assert read_metrics(tmp_path / "cut") == [{"step": s, **numbers(s)} for s in range(1, 11)]


def test_a_fresh_log_keeps_nothing_of_an_older_one(tmp_path: Path) -> None:
    log_steps(tmp_path, None, 0, 5)
    log_steps(tmp_path, None, 0, 2)
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2]


def test_each_line_is_on_disk_at_once_and_is_json_even_for_nan(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        log.write(1, {"loss": math.nan, "norm": math.inf, "ok": 2})
        line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name)) == {
        "step": 1, "loss": None, "norm": None, "ok": 2.0,
    }  # fmt: skip
    assert math.isnan(read_metrics(tmp_path)[0]["loss"])


def test_tensorboard_gets_the_scalars_and_the_purge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Event] = []
    monkeypatch.setattr(EventFileWriter, "add_event", lambda _, event: seen.append(event))
    log_steps(tmp_path, 3, 4, 5)
    scalars = [(e.step, v.tag) for e in seen for v in e.summary.value]
    assert scalars == [(4, "loss"), (4, "tokens"), (5, "loss"), (5, "tokens")]
    assert [e.step for e in seen if e.session_log.status == e.session_log.START] == [4]
    assert len(list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))) == 1


@pytest.mark.parametrize("line", ["loss 3\n", '{"loss": 3}\n', "3\n"])
def test_a_metrics_file_that_is_not_ours_is_named_and_kept(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(line)
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        MetricsLog(tmp_path, 3)
    assert (tmp_path / "metrics.jsonl").read_text() == line


# Folders


def test_a_stage_has_a_configuration_of_its_own(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {"a": 1}) as run:
        run.claim("seed0/pcl", {"pcl": {"steps": 3}})
        run.claim("seed0/mle", {"mle": {"steps": 4}})
        write_text(run.path / "seed0" / "pcl" / "checkpoints" / "8" / "state", "")
    with open_run(tmp_path / "run", {"a": 1}) as run:
        run.claim("seed0/pcl", {"pcl": {"steps": 3}})
        with pytest.raises(UserError, match=r"stage seed0/pcl of .*another configuration: pcl\.steps was 3, now 5"):
            run.claim("seed0/pcl", {"pcl": {"steps": 5}})
        assert not run.done("seed0/pcl")
        run.claim("seed1/pcl", {"pcl": {"steps": 5}})
        run.claim("seed0/mle", {"mle": {"steps": 6}})  # which has not begun


def begin(path: Path, config: dict[str, Any]) -> None:
    """A run with a stage that is done."""
    with open_run(path, config) as run:
        run.mark_done("teacher")


LEFT = {  # of a run that has nothing to lose, by what was killed
    "reading": {"stages/data.json": "{}", "tokenizer.model": "pieces", "judging.json": "{}"},
    "training": {
        "teacher/metrics.jsonl": "",
        "teacher/tensorboard/events.out.tfevents.1": "x",
        "teacher/checkpoints/8.orbax-checkpoint-tmp/state": "x",
        "teacher/.model-new/config.json": "{}",
        "stages/seed0/pcl.config.json": "{}",
    },
}
WORTH = (
    "teacher/checkpoints/8/state",
    "seed0/mle/model/params/state",
    "teacher/beam/00000.npz",
    "stages/teacher.json",
    "stages/teacher/test.json",
    "distil.csv",
    "notes-of-the-user.txt",
)


@pytest.mark.parametrize("killed", LEFT)
def test_a_run_with_nothing_to_lose_takes_another_configuration(tmp_path: Path, killed: str) -> None:
    open_run(tmp_path / "r", {"a": 1}).close()
    for name, text in LEFT[killed].items():
        write_text(tmp_path / "r" / name, text)
    with open_run(tmp_path / "r", {"a": 1}) as run:
        assert not run.begun() and run.done("data") == (killed == "reading")
        run.forget()  # its text may be another one, too
        assert sorted(os.listdir(run.path)) == [".lock", "config.json"] and json.loads(
            (run.path / "config.json").read_text()
        ) == {"a": 1}
        for name, text in LEFT[killed].items():
            write_text(run.path / name, text)
    with open_run(tmp_path / "r", {"a": 2}) as run:
        assert json.loads((run.path / "config.json").read_text()) == {"a": 2} and not run.done("data")
    assert sorted(os.listdir(tmp_path / "r")) == [".lock", "config.json"]


@pytest.mark.parametrize("name", WORTH)
def test_a_run_with_something_to_lose_is_bound_and_nothing_of_it_is_touched(tmp_path: Path, name: str) -> None:
    open_run(tmp_path / "r", {"a": 1}).close()
    for left in (*LEFT["reading"], name):
        write_text(tmp_path / "r" / left, "{}")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("*")}
    with pytest.raises(UserError, match="a was 1, now 2"):
        open_run(tmp_path / "r", {"a": 2})
    with open_run(tmp_path / "r", {"a": 1}) as run:
        assert run.begun()
        run.forget()
        assert run.done("data")
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("*")}
    assert {p: t for p, t in before.items() if p.is_file() and p.name != ".lock"}.items() <= after.items()


def test_somebody_elses_config_json_is_never_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "config.json", '{"model_type": "t5"}')
    with pytest.raises(UserError, match="another configuration"):
        open_run(tmp_path, {"a": 1})
    assert (tmp_path / "config.json").read_text() == '{"model_type": "t5"}'


def test_a_kill_while_a_configuration_is_replaced_leaves_a_folder_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_run(tmp_path / "r", {"a": 1}).close()
    for name, text in LEFT["reading"].items():
        write_text(tmp_path / "r" / name, text)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kdtw_jax.runs.folder.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            open_run(tmp_path / "r", {"a": 2})
    for a in (1, 3):
        with open_run(tmp_path / "r", {"a": a}) as run:
            assert json.loads((run.path / "config.json").read_text()) == {"a": a} and not run.done("data")


def test_a_stage_with_nothing_to_lose_takes_another_configuration(tmp_path: Path) -> None:
    with open_run(tmp_path / "r", {}) as run:
        run.mark_done("teacher")
        run.claim("seed0/pcl", {"pcl": {"rate": 1}})
        log_steps(run.path / "seed0" / "pcl", None, 1, 3)
        run.claim("seed0/pcl", {"pcl": {"rate": 2}})
        assert json.loads((run.path / "stages/seed0/pcl.config.json").read_text()) == {"pcl": {"rate": 2}}
        assert not (run.path / "seed0" / "pcl").exists() and run.done("teacher")
        run.mark_done("seed0/pcl/test")  # judged, so trained
        with pytest.raises(UserError, match=r"pcl\.rate was 2, now 3"):
            run.claim("seed0/pcl", {"pcl": {"rate": 3}})


def test_an_option_that_only_one_side_has_is_a_difference(tmp_path: Path) -> None:
    begin(tmp_path / "run", {"ask": {"distil": {"steps": 3}}})
    with pytest.raises(UserError, match=r"ask\.distil\.other was \(unset\), now 1\.0"):
        open_run(tmp_path / "run", {"ask": {"distil": {"steps": 3, "other": 1.0}}})
    with pytest.raises(UserError, match=r"ask\.distil\.steps was 3, now \(unset\)"):
        open_run(tmp_path / "run", {})


def test_how_a_step_is_computed_may_change_when_a_run_goes_on(tmp_path: Path) -> None:
    begin(tmp_path / "run", {"pcl": {"optimizer": {"accumulate": 1, "rate": 2}}})
    open_run(
        tmp_path / "run",
        {"pcl": {"optimizer": {"accumulate": 4, "rate": 2}, "chunk": 8, "vocab_chunk": 8}, "remat": True},
    ).close()
    with pytest.raises(UserError, match=r"pcl\.optimizer\.rate was 2, now 3"):
        open_run(tmp_path / "run", {"pcl": {"optimizer": {"accumulate": 1, "rate": 3}}})


def test_a_run_folder_takes_only_its_own_configuration(tmp_path: Path) -> None:
    config: dict[str, Any] = {"preset": "tiny", "pcl": {"lengths": (1, 4), "alpha": 1.0}, "steps": 5}
    begin(tmp_path / "r", config)
    open_run(tmp_path / "r", config).close()  # tuples in the configuration are no difference
    other = {**config, "pcl": {"lengths": (1, 4), "alpha": 0.5}, "seed": 1}
    with pytest.raises(UserError, match=r"pcl\.alpha was 1\.0, now 0\.5; seed was \(unset\), now 1; .*--out"):
        open_run(tmp_path / "r", other)
    with pytest.raises(UserError, match=r"steps was 5, now \(unset\)"):
        open_run(tmp_path / "r", {k: v for k, v in config.items() if k != "steps"})
    assert json.loads((tmp_path / "r" / "config.json").read_text())["pcl"]["alpha"] == 1.0
    open_run(tmp_path / "r", config).close()  # the refusals dropped their locks


def test_two_writers_of_one_run_are_refused_until_the_first_ends(tmp_path: Path) -> None:
    program = (
        "import sys; from kdtw_jax.runs.folder import open_run; run = open_run(sys.argv[1], {});"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "r")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        with pytest.raises(UserError, match=f"in use by process {first.pid}: "):
            open_run(tmp_path / "r", {})
        first.kill()  # not closed, killed: the lock must not outlive its process
        first.wait()
    (tmp_path / "r" / ".lock").write_text("12345678901234567890\n")  # longer than any process id
    with open_run(tmp_path / "r", {}), pytest.raises(UserError, match=f"in use by process {os.getpid()}: "):
        open_run(tmp_path / "r", {})


def test_stages_are_done_once_marked_and_stay_so(tmp_path: Path) -> None:
    with open_run(tmp_path / "r", {}) as run:
        assert not run.done("seed0/teacher")
        with pytest.raises(UserError, match="'seed0/teacher' is not finished"):
            run.info("seed0/teacher")
        run.mark_done("seed0/teacher", {"steps": 3})
        assert not run.done("seed1/teacher")
    with open_run(tmp_path / "r", {}) as run:
        assert run.done("seed0/teacher")
        assert run.info("seed0/teacher") == {"steps": 3}


def test_places_that_are_no_run_folder_are_refused_and_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        open_run(tmp_path / "file", {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        open_run(tmp_path / "other", {})
    assert os.listdir(tmp_path / "other") == ["thesis.tex"]
    with pytest.raises(UserError, match="make the run folder"):
        open_run(tmp_path / "file" / "r", {})
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        open_run(tmp_path / "torn", {})
    open_run(tmp_path / "begun", {}).close()
    monkeypatch.setattr(os, "fsync", no_space)
    for full in ("full", "begun"):  # a resumed run too, before any training
        with pytest.raises(UserError, match="No space left"):
            open_run(tmp_path / full, {})
    assert not (tmp_path / "full" / "config.json").exists()


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: Any, *_: Any, **__: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "open", read_only)  # mode bits would not stop root, who runs many containers
    with pytest.raises(UserError, match="Read-only file system"):
        open_run(tmp_path / "r", {})


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_has_runs_all_the_same(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refused)
    with open_run(tmp_path / "r", {}) as run:
        run.mark_done("teacher")
    with open_run(tmp_path / "r", {}) as run:
        assert run.done("teacher")


KEEP = """
import sys, jax, jax.numpy as jnp
from kdtw_jax.runs import keep_compiled
print(keep_compiled())
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
"""


def kept(**environment: str) -> str:
    """What `keep_compiled` says in a fresh process that then compiles something."""
    base = {k: v for k, v in os.environ.items() if not k.startswith("JAX_") and k != "XDG_CACHE_HOME"}
    limits = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", KEEP], env=base | limits | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_compiled_programs_are_kept_in_the_user_s_cache_folder(tmp_path):
    folder = Path(kept(XDG_CACHE_HOME=str(tmp_path)))
    assert tmp_path in folder.parents and any(folder.iterdir())
    assert kept(HOME=str(tmp_path / "home")).startswith(str(tmp_path / "home" / ".cache" / "kdtw_jax"))


def test_a_place_that_jax_was_told_stands_and_one_that_cannot_be_made_is_done_without(tmp_path):
    own = tmp_path / "own"
    assert kept(JAX_COMPILATION_CACHE_DIR=str(own), XDG_CACHE_HOME=str(tmp_path)) == str(own) and any(own.iterdir())
    assert kept(JAX_ENABLE_COMPILATION_CACHE="false", XDG_CACHE_HOME=str(tmp_path / "off")) == "None"
    (tmp_path / "file").write_text("in the way")
    assert kept(XDG_CACHE_HOME=str(tmp_path / "file")) == "None"
