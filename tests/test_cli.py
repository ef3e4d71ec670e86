"""The command line `kdtw`: help without waiting, errors in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kdtw_jax
from kdtw_jax.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]


def test_help_and_version_name_every_command_and_load_nothing() -> None:
    code = (
        "import sys; from kdtw_jax.cli import main; "
        "assert not main(['--help']) and not main(['--version']) and main(['trian']) == 2; "
        "print(sorted({'jax', 'numpy', 'tyro', 'flax'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    assert all(f"\n  {name} " in found.stdout for name in COMMANDS)
    assert f"kdtw_jax {kdtw_jax.__version__}\n[]\n" in found.stdout
    assert found.stderr == f"error: unknown command 'trian'; known are {', '.join(COMMANDS)}\n"


def test_importing_the_package_imports_nothing_until_a_name_is_used() -> None:
    code = "import sys, kdtw_jax; print(sorted({'jax', 'numpy'} & set(sys.modules))); kdtw_jax.UserError"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (found.returncode, found.stdout) == (0, "[]\n")


def test_every_public_name_is_there() -> None:
    for name in kdtw_jax.__all__:
        assert getattr(kdtw_jax, name) is not None
    assert set(kdtw_jax.__all__) <= set(dir(kdtw_jax))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        kdtw_jax.trian  # noqa: B018


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and f"kdtw {command}" in said and len(said.splitlines()) < 80


def test_env_says_what_a_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    import jax

    assert main(["env"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"kdtw_jax {kdtw_jax.__version__}, Python {sys.version.split()[0]}")
    assert f"jax {jax.__version__}" in said
    assert sum(line.startswith("device ") for line in said) == jax.local_device_count()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["write", "nowhere"], "nowhere is not a run's folder"),
        (["evaluate", "nowhere"], "nowhere is not a run's folder"),
        (["compare", "nowhere"], "nowhere is not a run's folder"),
        (["export", "nowhere", "--out", "x"], "nowhere has no finished"),
    ],
)
def test_a_wrong_path_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    found = capsys.readouterr()
    assert found.out == "" and found.err.count("\n") == 1 and message in found.err
