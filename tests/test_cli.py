"""The command line `kdtw`: help without waiting, errors in one line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kdtw_jax
from kdtw_jax.cli import COMMANDS, main
from kdtw_jax.methods import METHODS
from kdtw_jax.pipeline.presets import TASKS

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


def test_help_that_is_read_in_part_ends_without_a_complaint() -> None:
    command = f"{sys.executable} -m kdtw_jax.cli --help | true; exit ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (found.returncode, found.stderr) in ((0, ""), (141, ""))  # true may end before or after it is written


def test_importing_the_package_imports_nothing_until_a_name_is_used() -> None:
    code = "import sys, kdtw_jax; print(sorted({'jax', 'numpy'} & set(sys.modules))); kdtw_jax.UserError"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (found.returncode, found.stdout) == (0, "[]\n")


def test_what_is_slow_to_import_waits_until_it_is_used() -> None:
    """So that errors in rules, flags and paths come at once."""
    slow = {"grain", "matplotlib", "orbax", "rouge_score", "scipy", "tensorboardX", "tensorflow_datasets", "torch"}
    code = "import sys, kdtw_jax.student, tyro; from kdtw_jax.cli import extensions; extensions.load_extensions(); "
    code += f"print(sorted({slow!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (found.returncode, found.stdout) == (0, "[]\n"), found.stderr


def test_every_public_name_is_there() -> None:
    for name in kdtw_jax.__all__:
        assert getattr(kdtw_jax, name) is not None
    assert set(kdtw_jax.__all__) <= set(dir(kdtw_jax))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        kdtw_jax.trian  # noqa: B018


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = main([command, "--help"])
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr().out
    assert status == 0 and f"kdtw {command}" in said and len(said.splitlines()) < 80


def test_help_on_training_is_one_screen_and_the_rest_by_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    screen = capsys.readouterr().out
    assert len(screen.splitlines()) <= 40 and max(map(len, screen.splitlines())) <= 120
    assert all(re.search(rf"^ +{method} ", screen, re.MULTILINE) for method in METHODS)
    assert all(preset in screen for presets in TASKS.values() for preset in presets)
    sections = ("text", "eval", "training", "gkd", "pcl", "teacher-fit", "general")
    flags = {}
    for section in sections:
        assert main(["train", "--help", section]) == 0
        flags[section] = set(re.findall(r"^  (--[a-z][\w.-]*)", capsys.readouterr().out, re.MULTILINE))
    assert all(flag.startswith(f"--{name}.") for name in sections[:-1] for flag in flags[name])
    assert {"--text.vocab-size", "--text.instruct"} <= flags["text"] and "--pcl.pcl.alpha" not in flags["gkd"]
    assert "--seeds" in flags["general"] and not any("." in flag for flag in flags["general"])
    assert main(["train", "--help", "nonsense"]) == 2
    assert "no section 'nonsense' of options; there are ask, eval, general" in capsys.readouterr().err


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
        (["export", "nowhere", "--out", "x"], "nowhere is not a run's folder"),
    ],
)
def test_a_wrong_path_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    found = capsys.readouterr()
    assert found.out == "" and found.err.count("\n") == 1 and message in found.err
