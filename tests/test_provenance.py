"""Provenance: complete, true of the code that ran, and nothing private in it."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from kdtw_jax.runs import describe, provenance
from kdtw_jax.runs.provenance import clean_command, git_state


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
    record = provenance([sys.executable, os.path.expanduser("~/x.py")], [0, 1, 2], time.time() - 3600, note="n")
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
    assert record["machine"]["devices"] == {"cpu: cpu": jax.device_count()}
    assert record["versions"]["jax"]
    assert provenance([], 3, 0.0, hours=2.0)["hours"] == 2.0


def test_a_record_is_told_with_the_commits_of_earlier_stages() -> None:
    record = provenance(["python", "x.py", "--out", "my runs"], [0, 1], time.time(), hours=1.5)
    record |= {"commit": "b" * 40, "dirty": True, "data": {"train_pairs": 7, "test_pairs": 3}}
    stage = {"seconds": 1.0, "commit": "a" * 40, "dirty": False}
    record["stages"] = {"teacher": stage, "seed0/mle": stage, "seed0/pcl": {**stage, "commit": "b" * 40, "dirty": True}}
    told = describe(record)
    assert "python x.py --out 'my runs'\n" in told and "seeds     0, 1\n" in told and "hours     1.50\n" in told
    assert f"commit    {'b' * 40} with changes not committed\n          {'a' * 40}: teacher, seed0/mle\n" in told
    assert f"{record['machine']['cores']} cores" in told and "7 to train on, 3 to judge on" in told
    assert "not run from a checkout" in describe(provenance([], 3, 0.0) | {"commit": None, "dirty": None})


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
