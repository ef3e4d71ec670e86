"""A run's configuration from what its folder keeps: whatever it was, and refused in one line where it is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdtw_jax.cli import main
from kdtw_jax.errors import UserError
from kdtw_jax.methods import METHODS
from kdtw_jax.pipeline.config import EvalConfig, Experiment, plain
from kdtw_jax.pipeline.presets import SUMMARIZATION as SUMMARIES
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.pipeline.restore import restore, revive, revive_experiment
from kdtw_jax.runs import open_run, write_json


def begin(folder: Path, config: Experiment) -> Path:
    """The folder of a run of which every training has begun and something has been judged."""
    with open_run(folder, {"task": "translation", **config.identity()}) as run:
        for seed in config.seeds:
            for method in config.methods:
                run.claim(f"seed{seed}/{method}", config.identity_of(method))
    (folder / "run.yaml").touch()  # its text has a name
    write_json(folder / "judging.json", plain(config.eval))
    return folder


def other(value: Any) -> Any:
    """Other numbers, within all ranges; shares add to one."""
    if isinstance(value, dict):
        return {name: own if name.endswith("_share") else other(own) for name, own in value.items()}
    if isinstance(value, float):
        return value * 0.999
    return value


def revived(config: Experiment, change: Callable[[Any], Any], **more: Any) -> Experiment:
    """A configuration from its plain values, changed."""
    whole = plain(replace(config, settings={}))
    del whole["settings"]
    settings = {name: revive(METHODS[name].config, change(plain(own))) for name, own in config.settings.items()}
    return replace(revive_experiment({**change(whole), **more}), settings=settings)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("settle", [0, 3])
def test_what_a_run_was_begun_with_comes_back_whole(preset: str, settle: int, tmp_path: Path) -> None:
    config = replace(
        revived(PRESETS[preset], other, student_model="folder/of a student"),
        data="files",
        out=tmp_path / "run",
        seeds=(7, 2, 5),
        methods=tuple(METHODS),
        beam_targets=("pcl", "ask"),
        beam_size=3,
        eval=EvalConfig(
            split="validation", limit=11, ask_limit=9, metrics=("chrf",), language="zh", bleu_tokenizer="char"
        ),
    )
    config = config.with_settings(ask=replace(config.of("ask"), gate_calibration_steps=settle))
    config = replace(config, text=replace(config.text, instruct=True, tokenizer=Path("a/b.model")))
    task, found = restore(begin(tmp_path / "run", config))
    assert (task, found.seeds) == ("translation", (7, 2, 5))
    # How a run is computed, where it is published and what is planned is no part of it.
    apart = ("results", "devices", "hosts", "teacher_shards", "offline", "teacher_wait", "teacher_requests")
    found = replace(found, **{name: getattr(config, name) for name in apart})
    assert found.to_json() == config.to_json() and all(found.of(m) == config.of(m) for m in METHODS)


def test_what_a_method_has_learned_from_stays_and_what_judged_it_is_the_newest(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", replace(PRESETS["tiny"], methods=("seqkd", "ask"), beam_size=3))
    judging = json.loads((run / "judging.json").read_text())
    write_json(run / "judging.json", {**judging, "beam_size": 4, "ask_limit": 7, "split": "validation"})
    found = restore(run)[1]
    assert (found.beam_size, found.eval.beam_size, found.eval.ask_limit, found.eval.split) == (3, 4, 7, "validation")


@pytest.mark.parametrize("presets", [PRESETS, SUMMARIES])
def test_every_configuration_is_the_same_after_json(presets: dict[str, Experiment]) -> None:
    for config in presets.values():
        assert revived(config, lambda value: json.loads(json.dumps(value))) == config


DAMAGE = {  # file, the place in it, what it says then, what is said of it
    "an option of later": ("config.json", "newer", 1, "newer is no option"),
    "an option of later in a group": ("config.json", "text.newer", 1, "text.newer is no option"),
    "no group": ("config.json", "text", 3, "text cannot be 3"),
    "nothing": ("config.json", "teacher", None, "teacher cannot be null"),
    "a word for a number": ("config.json", "text.limit", "x", 'text.limit cannot be "x"'),
    "a truth for a number": ("config.json", "text.limit", True, "text.limit cannot be true"),
    "a share for a count": ("config.json", "teacher.d_model", 1.5, "teacher.d_model cannot be 1.5"),
    "out of range": ("config.json", "text.limit", -1, "text.limit must be at least 0, got -1"),
    "a number for a place": ("config.json", "text.folder", 3, "text.folder cannot be 3"),
    "no such choice": ("config.json", "text.on_long", "keep", 'text.on_long cannot be "keep"'),
    "no task": ("config.json", "task", 3, "its config.json does not say task"),
    "no seed": ("config.json", "teacher_seed", [0], "its config.json does not say teacher_seed"),
    "no such setting": ("judging.json", "nowhere", 1, "eval.nowhere is no option"),
    "no such split": ("judging.json", "split", "dev", 'eval.split cannot be "dev"'),
    "one metric": ("judging.json", "metrics", "bleu", 'eval.metrics cannot be "bleu"'),
    "no method": ("stages/seed0/pcl.config.json", "pcl", 3, "pcl cannot be 3"),
    "an option of later of a method": ("stages/seed0/pcl.config.json", "pcl.newer", 1, "pcl.newer is no option"),
    "no lengths": ("stages/seed0/pcl.config.json", "pcl.pcl.segment_lengths", 3, "pcl.pcl.segment_lengths cannot be 3"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_says_what_cannot_be_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", PRESETS["tiny"])
    name, place, value, message = DAMAGE[damage]
    said = found = json.loads((run / name).read_text())
    *parents, last = [place] if name == "judging.json" else place.split(".")
    for parent in parents:
        found = found[parent]
    found[last] = value
    write_json(run / name, said)
    with pytest.raises(UserError) as raised:
        restore(run)
    assert message in str(raised.value) and str(run) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["config.json", "judging.json", "stages/seed0/pcl.config.json"])
def test_a_torn_file_is_named(name: str, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", PRESETS["tiny"])
    (run / name).write_bytes((run / name).read_bytes()[:-9])
    with pytest.raises(UserError, match=rf"{name} is damaged: not JSON from line \d+ on") as raised:
        restore(run)
    assert "\n" not in str(raised.value)


def test_what_is_not_said_and_has_no_default_is_named(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", PRESETS["tiny"])
    said = json.loads((run / "config.json").read_text())
    del said["data"]
    write_json(run / "config.json", said)
    with pytest.raises(UserError, match="data is not said"):
        restore(run)


def test_a_user_s_copy_of_a_seed_s_folder_is_no_seed(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", PRESETS["tiny"])
    write_json(run / "stages" / "seed0 of yesterday" / "gkd.config.json", {"gkd": 3})
    found = restore(run)[1]
    assert (found.seeds, found.methods) == ((0,), PRESETS["tiny"].methods)


def test_an_evaluation_anew_changes_what_it_says_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(PRESETS["tiny"], methods=("mle",), eval=EvalConfig(limit=9, metrics=("chrf",), beam_size=3))
    with open_run(begin(tmp_path / "run", config), {"task": "translation", **config.identity()}) as run:
        for stage in ("teacher", "seed0/mle"):
            run.mark_done(stage)
    judged: list[Experiment] = []
    monkeypatch.setattr("kdtw_jax.cli.evaluate.run_experiment", lambda task, config: judged.append(config))
    assert main(["evaluate", str(run.path)]) == 0
    assert main(["evaluate", str(run.path), "--split", "validation", "--limit", "0", "--bleu-tokenizer", "char"]) == 0
    assert judged[0].eval == config.eval
    assert judged[1].eval == replace(config.eval, split="validation", limit=0, bleu_tokenizer="char")
    assert judged[1].identity() == config.identity() and judged[1].identity_of("mle") == config.identity_of("mle")
    assert main(["evaluate", str(run.path), "--limit", "-1"]) == 2
