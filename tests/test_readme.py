"""What README shows: its Python runs, its commands are understood, and its quickstart answers as it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from kdtw_jax.config import Experiment, parse
from kdtw_jax.presets import TASKS as PRESETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Shown(NamedTuple):
    """A command after a "$", and the output that stands below it."""

    command: str
    output: str


def blocks(language: str) -> list[str]:
    return [text for name, text in FENCE.findall(README) if name == language]


def commands() -> list[str]:
    """Every command of the blocks without a language, in one line each and without its comment."""
    lines = "\n".join(blocks("")).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").partition("  # ")[0].partition("   #")[0] for line in lines]


def shown() -> list[Shown]:
    parts = [re.split(r"^\$ ", text, flags=re.MULTILINE)[1:] for text in blocks("")]
    return [Shown(*part.partition("\n")[::2]) for some in parts for part in some]


def without_marks(text: str) -> str:
    """The words, whoever wrote them: where a student asks hangs on the machine it was trained on."""
    return re.sub("[⟦⟧∎]", "", text).strip()


@pytest.mark.parametrize("code", blocks("python"))
def test_its_python_runs(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


def test_its_experiments_are_understood() -> None:
    found = [match for line in commands() if (match := re.match(r"python experiments/(\w+)\.py (.*)", line))]
    experiments = [(m[1], m[2]) for m in found if m[1] in PRESETS and "..." not in m[2]]
    assert len(experiments) >= 6
    for name, arguments in experiments:
        assert isinstance(parse(PRESETS[name], None, shlex.split(arguments)), Experiment)


def test_it_shows_how_to_write_with_the_quickstart() -> None:
    written = [one for one in shown() if "write.py runs/quickstart" in one.command]
    assert len(written) >= 2
    assert all(one.output.strip() for one in written)


@pytest.mark.skipif(
    not (ROOT / "runs/quickstart/results.json").is_file(), reason="made by `make quickstart`, which CI does beforehand"
)
@pytest.mark.parametrize("one", [one for one in shown() if "write.py runs/quickstart" in one.command])
def test_the_quickstart_answers_as_it_says(one: Shown) -> None:
    words = shlex.split(one.command)
    assert words[0] == "python"
    found = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert found.returncode == 0, found.stderr
    assert without_marks(found.stdout) == without_marks(one.output)
