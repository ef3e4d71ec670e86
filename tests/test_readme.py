"""What README and the pages of docs/ show: its Python runs, its commands are understood, and the quickstart answers as
it is said to."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import tyro

from kdtw_jax import METHODS
from kdtw_jax.cli import COMMANDS, label, plan, prices, train
from kdtw_jax.cli.prices import read_sweep
from kdtw_jax.cli.train import read, taken
from kdtw_jax.constraints import CONSTRAINTS
from kdtw_jax.pipeline.presets import TASKS
from tests import every_other
from tests.pages import BLOCKS, FENCE, PAGES, ROOT, Shown, commands, imported, python_blocks, shown

RUN = "runs/quickstart"
MADE = pytest.mark.skipif(
    not (ROOT / RUN / "results.json").is_file(), reason="made by `make quickstart`, which CI does beforehand"
)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder to write into, and methods that are registered for a while."""
    before = dict(METHODS)
    monkeypatch.chdir(tmp_path)
    if (ROOT / RUN).exists():
        (tmp_path / "runs").mkdir()
        (tmp_path / RUN).symlink_to(ROOT / RUN)
    yield
    METHODS.clear()
    METHODS.update(before)


def needs_a_run(code: str) -> bool:
    return RUN in code or "kdtw_jax.train(" in code


@pytest.mark.parametrize("code", [p for p in python_blocks() if not needs_a_run(p.values[0])])
def test_its_python_runs(code: str, elsewhere: None) -> None:
    exec(compile(code, "page", "exec", dont_inherit=True), {"__name__": "page"})


@MADE
@pytest.mark.parametrize("code", [p for p in python_blocks() if needs_a_run(p.values[0])])
def test_its_python_runs_with_the_quickstart(code: str, elsewhere: None) -> None:
    exec(compile(code, "page", "exec", dont_inherit=True), {"__name__": "page"})


def dotted(node: ast.expr, known: dict[str, str]) -> str:
    """The name of the package that an expression is, by the names that were imported; "" where it is none."""
    if isinstance(node, ast.Name):
        return known.get(node.id, "")
    if isinstance(node, ast.Attribute) and (before := dotted(node.value, known)):
        return f"{before}.{node.attr}"
    return ""


@pytest.mark.parametrize("code", python_blocks())
def test_its_names_and_arguments_are_there(code: str) -> None:
    """Of calls of the package's functions, also where the block has to wait for a run."""
    tree, known = ast.parse(code), dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {a.asname or a.name: a.name for a in node.names if a.name.startswith("kdtw_jax")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kdtw_jax"):
            known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for name in known.values():
        imported(name)
    for node in ast.walk(tree):
        name = dotted(node, known) if isinstance(node, ast.Attribute) else ""
        if name:
            imported(name)
        if isinstance(node, ast.Call) and (name := dotted(node.func, known)):
            given = {keyword.arg: None for keyword in node.keywords if keyword.arg}
            inspect.signature(imported(name)).bind(*node.args, **given)


def understood(words: list[str]) -> Any:
    """What the program makes of a command, without running it."""
    program, *rest = words
    if program == "kdtw":
        command, *rest = rest
        assert command in COMMANDS
        if command == "plan":
            rest = taken("--utilization", taken("--tflops", rest)[1])[1]
        if command in ("train", "plan"):
            return read(rest)
        if command == "prices":
            return read_sweep(rest)
        if command == "label":
            return label.read_label(rest)
        kind = command.title().replace("-", "")
        module = importlib.import_module(f"kdtw_jax.cli.{command.replace('-', '_')}")
        return tyro.cli(getattr(module, kind), args=rest) if hasattr(module, kind) else rest == []
    if program == "python" and rest[0].startswith("experiments/"):
        task = Path(rest[0]).stem
        if task in TASKS:
            return read(["--task", task, *rest[1:]])
        return tyro.cli(importlib.import_module(f"experiments.{task}").Args, args=rest[1:])
    if program == "python":
        assert rest[0] == "-m"
        return tyro.cli(importlib.import_module(rest[1]).Args, args=rest[2:])
    if program == "srun":
        return understood(rest)
    if program == "make":
        rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        return set(rest) <= set(rules)
    return program == "pip" and re.fullmatch(r"install '?\.(\[\w+\])?'?", shlex.join(rest)) is not None


@pytest.mark.parametrize("words", [pytest.param(words, id=shlex.join(words)) for words in commands()])
def test_its_commands_are_understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "my_rules", every_other)  # the module that the guide to rules has its user write
    try:
        assert understood(words)
    finally:
        CONSTRAINTS.pop("every_other", None)


def test_there_are_commands_of_every_kind() -> None:
    """So that none is left out because it is not found."""
    found = {" ".join(words[:2]) if words[0] == "kdtw" else words[0] for words in commands()}
    assert {f"kdtw {name}" for name in COMMANDS} - {"kdtw env"} <= found
    assert {"make", "pip", "python", "srun"} <= found


def flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*(?:\.[a-z][\w-]*)*", text))


def test_its_flags_are_there() -> None:
    """Also those that stand in a sentence."""
    told = io.StringIO()
    for module in ("classroom", "compare", "evaluate", "export", "headroom", "serve", "write"):
        with redirect_stdout(told), pytest.raises(SystemExit):
            tyro.cli(getattr(importlib.import_module(f"kdtw_jax.cli.{module}"), module.title()), args=["--help"])
    told.write(train.HELP + train.section("all", []) + label.HELP + plan.HELP + prices.HELP)
    named = flags(told.getvalue()) | {flag.replace("--no-", "--") for flag in flags(told.getvalue())}
    said = set[str]()
    for text in PAGES.values():
        outside = FENCE.sub("", text)
        said |= {f for code in re.findall(r"`([^`]+)`", outside) if "benchmarks" not in code for f in flags(code)}
    sections = {flag.rpartition(".")[0] for flag in named}
    assert len(said) > 20
    assert said - named - sections - {"--rows", "--strict"} == set()


def without_marks(text: str) -> str:
    """The words, whoever wrote them: where a student asks hangs on the machine it was trained on."""
    return re.sub("[⟦⟧⟨⟩∎]", "", text).strip()


@MADE
@pytest.mark.parametrize("one", [pytest.param(one, id=one.command) for one in shown()])
def test_the_quickstart_answers_as_it_says(one: Shown) -> None:
    words = shlex.split(one.command)
    assert words[0] == "kdtw" and words[1] in ("write", "classroom") and words[2] == RUN
    program = [sys.executable, "-m", "kdtw_jax.cli", *words[1:]]
    found = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert found.returncode == 0, found.stderr
    assert without_marks(found.stdout) == without_marks(one.output)


def test_it_shows_how_to_write_with_the_quickstart() -> None:
    told = [(block.page, block.text) for block in BLOCKS if block.language == "console"]
    for page, name in (("README.md", "classroom"), ("docs/index.md", "classroom"), ("docs/index.md", "write")):
        assert any(one == page and f"$ kdtw {name} {RUN}" in text for one, text in told)
    assert all(one.output.strip() for one in shown())
