"""Run folders: nothing half-written, nothing mixed up, nothing private, resumed equals uninterrupted."""

from __future__ import annotations

import errno
import getpass
import io
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.event_file_writer import EventFileWriter
from tensorboardX.proto.event_pb2 import Event

from kdtw_jax.errors import UserError
from kdtw_jax.runs import (
    MetricsLog,
    Progress,
    open_run,
    print_table,
    provenance,
    read_csv,
    read_metrics,
    write_csv,
    write_json,
    write_text,
)
from kdtw_jax.runs.progress import format_seconds
from kdtw_jax.runs.provenance import clean_command, git_state


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
    print_table(
        "Results", [{"method": "pcl", "bleu": 23.456}, {"method": "mle", "bleu": None}], ["method", "bleu"]
    )
    out = capsys.readouterr().out
    assert all(word in out for word in ("Results", "method", "bleu", "pcl", "23.46", "mle"))


# Metrics


def numbers(step: int) -> dict[str, float]:
    return {"loss": 1 / (step + 3), "tokens": float(step)}


def log_steps(folder: Path, resume: int | None, first: int, last: int) -> None:
    with MetricsLog(folder, resume) as log:
        for step in range(first, last + 1):
            log.write(step, numbers(step))


@pytest.mark.parametrize("restored", [0, 4, 7])
@pytest.mark.parametrize("torn", [b"", b'{"step": 8, "lo'])
def test_an_interrupted_and_resumed_log_equals_an_uninterrupted_one(
    tmp_path: Path, restored: int, torn: bytes
) -> None:
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


def test_a_run_folder_takes_only_its_own_configuration(tmp_path: Path) -> None:
    config: dict[str, Any] = {"preset": "tiny", "pcl": {"lengths": (1, 4), "alpha": 1.0}, "steps": 5}
    open_run(tmp_path / "r", config).close()
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


# Provenance


def test_a_command_names_no_home_no_user_and_no_interpreter_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, here = tmp_path / "home" / "ada", tmp_path / "work" / "tree"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    words = [
        str(home / "envs" / "bin" / "python3.11"), str(here / "experiments" / "translation.py"),
        f"--data={home / 'corpus'}", "--out", str(here / "runs" / "a"), "--cache", "/scratch/ada/x",
        "/home/grace/y", "/Users/grace/z", "--lr=1e-3", "debian/en-de",
    ]  # fmt: skip
    assert clean_command(words) == [
        "python", "experiments/translation.py", "--data=~/corpus", "--out", "runs/a", "--cache",
        "/scratch/USER/x", "~/y", "~/z", "--lr=1e-3", "debian/en-de",
    ]  # fmt: skip


def test_provenance_is_complete_json_without_private_names() -> None:
    record = provenance(
        [sys.executable, os.path.expanduser("~/x.py")], [0, 1, 2], time.time() - 3600, note="n"
    )
    assert set(record) == {
        "command", "seed", "date", "hours", "commit", "dirty", "python", "versions", "machine", "note",
    }  # fmt: skip
    text = json.dumps(record, allow_nan=False)
    assert os.path.expanduser("~") + "/" not in text
    assert os.uname().nodename not in text
    assert record["hours"] == pytest.approx(1.0, abs=0.01)
    assert record["seed"] == [0, 1, 2]
    assert record["date"].endswith("+00:00")
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["devices"] == {"cpu: cpu": 4}
    assert record["versions"]["jax"]
    assert provenance([], 3, 0.0, hours=2.0)["hours"] == 2.0


def test_the_commit_is_that_of_a_checkout_and_dirt_is_that_of_code(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    assert git_state(tmp_path) == {"commit": None, "dirty": None}
    git("init", "--quiet")
    (tmp_path / "other.py").write_text("")
    git("add", ".")
    git("commit", "--quiet", "--message", "a repository that merely surrounds the package")
    code = tmp_path / "kdtw_jax" / "runs"
    code.mkdir(parents=True)
    (code / "provenance.py").write_text("")
    assert git_state(tmp_path) == {"commit": None, "dirty": None}
    git("add", ".")
    git("commit", "--quiet", "--message", "the package itself")
    clean = {"commit": git("rev-parse", "HEAD"), "dirty": False}
    assert git_state(tmp_path) == clean
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.csv").write_text("a\n")
    assert git_state(tmp_path) == clean
    (code / "new.py").write_text("")
    assert git_state(tmp_path) == {**clean, "dirty": True}


# Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_a_log_is_a_line_now_and_then_with_all_it_should_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Progress("teacher", total=200, start=100) as bar:
        for step in range(101, 200):
            clock[0] += 1.0
            bar.update(step, loss=2.5, tokens_per_s=12345.6)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "teacher 101/200  loss 2.5  12,346 tokens/s  01:39 left"
    assert lines[1] == "teacher 111/200  loss 2.5  12,346 tokens/s  01:29 left"
    assert lines[-1].startswith("teacher 199/200")
    assert len(lines) == 11  # one each 10 s, and the last


def test_progress_waits_for_no_value_that_it_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unfinished:
        conversions = 0

        def __float__(self) -> float:
            Unfinished.conversions += 1
            return 1.0

    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Progress("student", total=1000) as bar:
        for step in range(1, 1001):
            bar.update(step, loss=Unfinished())
    assert Unfinished.conversions == 2  # the first and the last


def test_progress_on_a_terminal_is_a_bar_that_ends_full(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with Progress("student", total=30) as bar:
        for step in range(1, 31):
            bar.update(step, loss=0.5, tokens_per_s=1000)
    shown = terminal.getvalue()
    assert all(word in shown for word in ("student", "30/30", "loss 0.5", "1,000 tokens/s", "left"))
    assert shown.count("student") <= 8  # not a redraw a step


def test_progress_lets_an_exception_through(capsys: pytest.CaptureFixture[str]) -> None:
    def broken_loop() -> None:
        with Progress("x", total=3) as bar:
            bar.update(1, loss=1.0)
            bar.update(2, loss=1.0)
            raise KeyError

    with pytest.raises(KeyError):
        broken_loop()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_times_are_written_for_people() -> None:
    assert [format_seconds(s) for s in (0, 59.6, 3723, math.nan)] == ["00:00", "01:00", "1:02:03", "-:--"]
