"""A run folder and the configuration that it is bound to: nothing mixed up, nothing lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.runs import open_run, write_text
from tests.disk import log_steps


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
