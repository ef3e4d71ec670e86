"""What was judged before is found again, and judged anew where a gate has been registered since."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdtw_jax import parallel
from kdtw_jax.cli import main
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.task import Task
from kdtw_jax.decoding.gates import GATES, GateEntry, compared_gates, find_gate, register_gate
from kdtw_jax.evaluation.ceiling import Ceiling
from kdtw_jax.evaluation.rows import spaced_pairs
from kdtw_jax.evaluation.strategies import every_strategy
from kdtw_jax.metrics.scoring import ENGLISH
from kdtw_jax.pipeline.ask_report import asking_stage, is_studied, study_asking
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.operating_report import check_studied, has_all_ways
from kdtw_jax.pipeline.prepare import Setup
from kdtw_jax.pipeline.presets import TINY
from kdtw_jax.pipeline.stages import BEAM, Trained, judged_with
from kdtw_jax.runs import RunFolder, open_run
from tests.asking import BUCKETS, DATA, STUDENT, TEACHER, WORLD
from tests.test_restore import begin

CONFIG = replace(TINY, methods=("ask",))


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """What a test registers goes with it."""
    before = dict(GATES)
    yield
    GATES.clear()
    GATES.update(before)


def own_gate(**changes: Any) -> GateEntry:
    """Registers a gate of a user's own."""
    return register_gate(find_gate("max_prob")._replace(name="own", **changes))


def small_setup() -> Setup:
    """One pair to set thresholds on and three to judge on."""
    few, texts = spaced_pairs(DATA, 3), [WORLD.tokenizer.decode(DATA.targets[i].tolist()) for i in range(len(DATA))]
    pairs = [Pair(source=texts[i % 3], target=texts[i % 3], group="") for i in range(int(max(few.examples)) + 1)]
    task = Task("toy", {"test": pairs}, ("bleu",), "{source}", notes={})
    devices = parallel.select_devices(1)
    return Setup(
        task, WORLD.tokenizer, BUCKETS, WORLD.data, few, spaced_pairs(few, 1), texts[:3], devices, None, {},
        ENGLISH, Ceiling(3, 0, (), {}),
    )  # fmt: skip


def study(config: Experiment, run: RunFolder) -> Any:
    return study_asking(config, small_setup(), Trained(*TEACHER), Trained(*STUDENT), None, 0, run)


def test_a_student_is_judged_anew_beside_a_gate_registered_since_and_only_then(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {}) as run:
        first = study(CONFIG, run)
        own_gate()
        second = study(CONFIG, run)
        again = study(CONFIG, run)
    assert again == second  # its seconds, too
    assert "own" not in first["levels"] and second["levels"] == {**first["levels"], "own": first["levels"]["max_prob"]}
    others = [row for row in second["rows"] if row["gate"] != "own"]
    assert others == first["rows"] and len(second["rows"]) > len(others)


def test_looking_ahead_adds_to_what_was_judged_and_what_is_there_stays(tmp_path: Path) -> None:
    ahead = replace(CONFIG, eval=replace(CONFIG.eval, look_ahead=True))
    with open_run(tmp_path / "run", {}) as run:
        first = study(CONFIG, run)
        assert is_studied(CONFIG, 0, run) and not is_studied(ahead, 0, run)
        second = study(ahead, run)
        assert is_studied(CONFIG, 0, run) and is_studied(ahead, 0, run)
    names = compared_gates(ahead=True)
    assert [row for row in second["rows"] if row["gate"] not in names] == first["rows"]
    assert {row["gate"] for row in second["rows"]} > set(names) > second["ahead"].keys()


def test_a_student_is_judged_beside_the_gates_that_are_wanted_and_later_beside_the_others(tmp_path: Path) -> None:
    few = replace(CONFIG, eval=replace(CONFIG.eval, gates=("entropy",)))
    with open_run(tmp_path / "run", {}) as run:
        first = study(few, run)
        assert {row["gate"] for row in first["rows"]} == {"learned", "random", "entropy"} == set(first["draws"]["bleu"])
        assert set(first["levels"]) == {"entropy"} and not is_studied(CONFIG, 0, run)
        second = study(CONFIG, run)
        assert is_studied(few, 0, run) and study(few, run) == second
    assert {row["gate"] for row in second["rows"]} == set(compared_gates())
    assert [row for row in second["rows"] if row["gate"] in ("learned", "random", "entropy")] == first["rows"]


def judged(folder: Path) -> Path:
    """The folder of a run whose student was judged beside the gates of now, as far as reports look at it."""
    begin(folder, CONFIG)
    with open_run(folder, {"task": "translation", **CONFIG.identity()}) as run:
        rows = [{"gate": gate} for gate in compared_gates()]
        run.mark_done("seed0/ask", {})
        run.mark_done(asking_stage(CONFIG, 0), {"rows": rows, "made_with": judged_with(CONFIG, *BEAM)})
        check_studied(CONFIG, 0, run)
    return folder


@pytest.mark.parametrize("drawn", [False, True])
def test_compare_says_what_to_run_after_a_gate_was_registered(
    drawn: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = judged(tmp_path / "a run")
    own_gate(drawn=drawn)
    assert main(["compare", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"evaluate '{folder}'" in said and "own" in said, said


def test_a_study_with_gates_that_are_gone_or_are_no_rivals_stays(tmp_path: Path) -> None:
    own_gate()
    folder = judged(tmp_path / "run")
    GATES.pop("own")
    own_gate(compared=False)
    with open_run(folder, json.loads((folder / "config.json").read_text())) as run:
        assert is_studied(CONFIG, 0, run)


def test_a_table_of_points_lacks_a_way_registered_since() -> None:
    rows: Any = [{"method": name} for name in every_strategy()]
    assert has_all_ways(rows)
    own_gate()
    assert not has_all_ways(rows)
