"""What a user adds is one entry: found by its name wherever the package looks, and refused in one line where it is not.

Methods have tests of their own (`test_methods.py`), and so have metrics (`test_metrics.py`).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from kdtw_jax.cli import extensions, main
from kdtw_jax.cli.train import read
from kdtw_jax.constraints import CONSTRAINTS, known_constraints, parse_rule, register
from kdtw_jax.data.task import SOURCES, Task, TaskRequest, TaskSource, load_task, register_source, stated_language
from kdtw_jax.decoding.gates import GATES
from kdtw_jax.decoding.utility import UTILITIES
from kdtw_jax.errors import NotRegistered, UserError
from kdtw_jax.evaluation.strategies import STRATEGIES
from kdtw_jax.helpers import HELPERS
from kdtw_jax.methods import METHODS
from kdtw_jax.methods.ask_config import make_rules
from kdtw_jax.metrics.scores import METRICS
from kdtw_jax.models import FAMILIES, Costs, T5Config, costs
from kdtw_jax.pipeline.prepare import look_up
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.registry import Registry
from tests.every_other import make_every_other
from tests.test_restore import begin

OWN = "tests.every_other:make_every_other"
TRAINED = ["--preset", "tiny", "--methods", "ask", "--ask.constraints", "share", "every_other"]
TEACHER = T5Config.toy(40)


REGISTRIES: tuple[Registry[Any], ...] = (
    *(CONSTRAINTS, SOURCES, GATES, UTILITIES, STRATEGIES, METRICS, FAMILIES, HELPERS),
)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """What a test registers goes with it."""
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


def test_every_registry_is_found_by_the_group_of_its_entry_points() -> None:
    found = {group: getattr(import_module(module), name) for group, (module, name) in extensions.REGISTRIES.items()}
    assert {registry.group: registry for registry in (*REGISTRIES, METHODS)} == found


class Characters:
    """A tokenizer of single characters."""

    prompts = None

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


# ---- sources of tasks


def load_letters(request: TaskRequest) -> Task:
    """Random words, and the same backwards; as many as the name says."""
    count = int(request.name.removeprefix("letters:"))
    texts = sorted({" ".join(random.Random(i).choices(["abc", "de", "f", "gh"], k=6)) for i in range(count)})
    return Task.from_pairs([(text, text[::-1]) for text in texts], metrics=["chrf"], language="en", name=request.name)


def test_a_source_from_outside_is_loaded_by_name_limited_and_named_where_a_name_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown task 'letters:90'; use cldr, .* or files; .*register_source"):
        load_task("letters:90", data_dir=tmp_path)
    source = register_source("letters:", load_letters)
    task = load_task("letters:90", data_dir=tmp_path, limit=7)
    assert (task.name, task.metrics, task.language, len(task.splits["train"])) == ("letters:90", ("chrf",), "en", 7)
    assert task.notes["train_pairs"] == 7
    words = ["--preset", "tiny", "--methods", "mle", "--data", "letters:50", "--text.folder", str(tmp_path)]
    assert look_up(read(words)[1]).task.name == "letters:50"
    assert stated_language("letters:50") == ""
    with pytest.raises(UserError, match=r"use cldr, .*files or letters:NAME;"):
        load_task("wmt", data_dir=tmp_path)
    assert register_source("letters:", source) is source


def test_a_source_may_say_its_language_beforehand_and_measure_what_the_limits_leave(tmp_path: Path) -> None:
    asked: list[TaskRequest] = []

    def load(request: TaskRequest) -> Task:
        asked.append(request)
        return load_letters(request._replace(name="letters:60"))

    def left(request: TaskRequest, task: Task) -> dict[str, float]:
        return {"left": len(task.splits["test"])}

    register_source("sorted", TaskSource(load, "sorted", lambda name: "en", left))
    assert stated_language("sorted") == "en"
    assert load_task("sorted", data_dir=tmp_path, test_limit=1).notes["left"] == 1
    assert (asked[0].name, asked[0].data_dir, asked[0].test_limit) == ("sorted", tmp_path, 1)
    with pytest.raises(UserError, match="unknown task 'sorted:x'"):  # a prefix that nothing ends is a whole name
        load_task("sorted:x", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("cldr", "there is a source of tasks cldr already"),
        ("debian/en-", "there is a source debian/ already, whose names are not apart from those of debian/en-"),
        ("tfds:wmt:", "there is a source tfds: already"),
        ("", "must be a name"),
        (":", "must be a name"),
    ],
)
def test_a_source_whose_names_are_anothers_is_refused(prefix: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        register_source(prefix, load_letters)


# ---- constraints


def test_a_constraint_named_on_the_command_line_is_trained_with_and_read_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown constraint 'every_other'; known are share, .*--constraint MODULE:"):
        read(TRAINED)
    for words in (["--constraint", OWN, *TRAINED], [*TRAINED, f"--constraint={OWN}", "--constraint", OWN]):
        config = read(words)[1]
        assert config.of("ask").constraints == ("share", "every_other")
    share, own = known_constraints(config.of("ask").constraints, config.teacher)
    assert [share.name, own.name] == ["share", "every_other"]
    rules = make_rules((share, own), Characters())  # type: ignore[arg-type]
    assert rules.room >= len("ask the teacher for at most 20% of the words; help with one word in 2")
    assert float(parse_rule("help with one word in 3", rules.constraints).budgets[0]) == 3
    assert "every_other" not in json.dumps(config.to_json()).replace('"every_other"', "")  # its name, and no module


def test_a_run_is_restored_with_the_constraint_it_knows_and_refused_in_one_line_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(read([*TRAINED, "--constraint", OWN])[1], out=tmp_path / "run")
    run = begin(tmp_path / "run", config)
    assert restore(run)[1].of("ask").constraints == ("share", "every_other")
    CONSTRAINTS.pop("every_other")
    capsys.readouterr()
    for command in ("write", "evaluate", "compare"):
        assert main([command, str(run)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "every_other" in said and "--constraint MODULE:MAKER" in said, said
        assert "damaged" not in said
        assert main([command, str(run), "--constraint", OWN]) == 2  # nothing is trained there: what comes next is said
        assert "every_other" not in capsys.readouterr().err
        CONSTRAINTS.pop("every_other")


def test_no_module_is_imported_because_a_file_of_a_run_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_a_file.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = begin(tmp_path / "run", replace(PRESETS["tiny"], methods=("ask",)))
    stage = run / "stages" / "seed0" / "ask.config.json"
    said = json.loads(stage.read_text())
    stage.write_text(json.dumps({**said, "ask": {**said["ask"], "constraints": ["of_a_file:make"]}}))
    with pytest.raises(UserError, match="unknown constraint 'of_a_file:make'"):
        restore(run)
    assert "of_a_file" not in sys.modules


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("tests.every_other", "--constraint takes MODULE:FUNCTION, as in rules:make_mine, got 'tests.every_other'"),
        (":make", "--constraint takes MODULE:FUNCTION"),
        ("no_such_module:make", "No module named 'no_such_module'; is the folder of no_such_module in PYTHONPATH"),
        ("tests.every_other:make", "has no attribute 'make'"),
        ("kdtw_jax.data.cldr:INSTRUCTION", "a constraint is registered by the function that makes it, not by "),
        ("kdtw_jax.constraints:History", "History must take nothing or the teacher's costs, it takes 13 values"),
    ],
)
def test_what_makes_no_constraint_is_refused_in_one_line(
    place: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--constraint", place, *TRAINED]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and message in said, said


def test_a_constraint_may_take_the_teacher_or_nothing_and_has_a_name_of_its_own() -> None:
    def make_within(teacher: Costs, factor: float = 1.0):
        return make_every_other()._replace(name="within", high=factor * teacher.target_parameters)

    def make_share():
        return make_every_other()._replace(name="share")

    register(make_within)
    assert known_constraints(["within"], TEACHER)[0].high == costs(TEACHER).target_parameters > 1000
    assert register(make_within) is make_within  # once more is no other one of the same name
    with pytest.raises(UserError, match="there is a constraint share already"):
        register(make_share)


def test_a_clause_of_a_registered_constraint_that_a_student_does_not_know_is_named() -> None:
    def make_half():
        wording = make_every_other().wording._replace(
            templates=("on {} legs",), free=lambda said: "2" if "two legs" in said or "2 legs" in said else None
        )
        return make_every_other()._replace(name="legs", wording=wording)

    register(make_half)
    with pytest.raises(UserError, match='is a rule on "legs", which is not among those known here'):
        parse_rule("walk on two legs", known_constraints(["share"], TEACHER))
    assert jnp.isfinite(parse_rule("walk on two legs", known_constraints(["legs"], TEACHER)).budgets[0])


# ---- entry points of installed packages

PACKAGE = """
from kdtw_jax.data.task import SOURCES
from kdtw_jax.decoding.gates import GATES
from kdtw_jax.decoding.utility import UTILITIES
from kdtw_jax.evaluation.strategies import STRATEGIES
from kdtw_jax.metrics.scores import METRICS
from kdtw_jax.models import FAMILIES, T5Config
from tests.every_other import make_every_other
from tests.own_helper import make_echo
class OwnConfig(T5Config): pass
GATE = GATES["entropy"]._replace(name="own")
UTILITY = UTILITIES["nearness"]
STRATEGY = STRATEGIES["bild"]._replace(name="own")
METRIC = METRICS["chrf"]._replace(name="own")
SOURCE = SOURCES["cldr"]._replace(form="own:NAME")
FAMILY = FAMILIES["t5"]._replace(name="own", config=OwnConfig)
NEITHER = 3
"""
ADDED = {
    "constraints": ("own = own_package:make_every_other", "every_other"),
    "sources": ("own: = own_package:SOURCE", "own:"),
    "gates": ("own = own_package:GATE", "own"),
    "utilities": ("own = own_package:UTILITY", "own"),
    "strategies": ("own = own_package:STRATEGY", "own"),
    "metrics": ("own = own_package:METRIC", "own"),
    "families": ("own = own_package:FAMILY", "own"),
    "helpers": ("own = own_package:make_echo", "own"),
}
BY_GROUP = {registry.group.removeprefix("kdtw_jax."): registry for registry in REGISTRIES}


def install(folder: Path, points: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in a folder, as pip leaves it."""
    about = folder / "own_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own_package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(points)
    (folder / "own_package.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "own_package", raising=False)


def test_the_command_line_has_what_installed_packages_add_of_every_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ADDED.keys() == BY_GROUP.keys()
    install(tmp_path, "".join(f"[kdtw_jax.{group}]\n{line}\n" for group, (line, _) in ADDED.items()), monkeypatch)
    for _ in range(2):  # once more is no other entry of the same name
        assert read(TRAINED)[1].of("ask").constraints == ("share", "every_other")
    for group, (_, name) in ADDED.items():
        assert list(BY_GROUP[group])[-1] == name, group


@pytest.mark.parametrize("group", ADDED)
def test_an_entry_point_that_is_no_entry_is_refused_in_one_line(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, f"[kdtw_jax.{group}]\nodd = own_package:NEITHER\n", monkeypatch)
    before = dict(BY_GROUP[group])
    with pytest.raises(UserError, match=rf"^the entry point odd of kdtw_jax\.{group} must name a \w+, own_.* is none$"):
        read(TRAINED)
    assert BY_GROUP[group] == before


@pytest.mark.parametrize("group", sorted(BY_GROUP.keys() - {"sources"}))  # whose names are told by their beginnings
@pytest.mark.parametrize("name", ["nobody", None, 3])
def test_a_name_that_is_none_s_is_answered_with_those_that_are_and_how_one_is_added(group: str, name: object) -> None:
    registry = BY_GROUP[group]
    with pytest.raises(NotRegistered) as raised:
        registry.find(name)
    said = str(raised.value)
    assert said.startswith(f"unknown {registry.kind} {name!r}; known are {next(iter(registry))}")
    assert said.endswith(f"or a package with entry points kdtw_jax.{group}, adds another")
