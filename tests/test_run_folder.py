"""A run folder and its place: one writer, stages that stay done, and places where none can be."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.runs import open_run
from tests.disk import no_space


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
