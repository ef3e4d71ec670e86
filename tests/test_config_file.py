"""Configurations as YAML files: what is written repeats the run, and what cannot be is refused by its dotted name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kdtw_jax.cli.train import read
from kdtw_jax.errors import UserError
from kdtw_jax.pipeline.config_file import configure, read_config, write_config
from kdtw_jax.pipeline.presets import TASKS, TRANSLATION

SMALL = TRANSLATION["small"]
CHANGED = replace(
    SMALL,
    data="files",
    methods=("pcl", "gkd"),
    seeds=(3, 4),
    text=replace(SMALL.text, vocab_size=123, files=replace(SMALL.text.files, test_source=Path("ä"))),
    training=replace(SMALL.training, loop=replace(SMALL.training.loop, steps=77)),
).with_settings(pcl=replace(SMALL.of("pcl"), top_k=7))


@pytest.mark.parametrize("task", TASKS)
def test_a_preset_is_written_in_a_few_lines_and_read_as_itself(task: str, tmp_path: Path) -> None:
    for preset, config in TASKS[task].items():
        write_config(tmp_path / "run.yaml", task, config, config)
        text = (tmp_path / "run.yaml").read_text(encoding="utf8")
        assert len(text.splitlines()) < 15
        found = read(["--config", str(tmp_path / "run.yaml")])
        assert (found[0], found[1].preset, found[1].to_json()) == (task, preset, config.to_json())


@pytest.mark.parametrize("base", [None, SMALL])
def test_what_was_changed_comes_back_and_flags_go_before_it(base: object, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    write_config(file, "translation", replace(CHANGED, out=tmp_path), base)  # type: ignore[arg-type]
    task, found = read([f"--config={file}"])
    assert (task, found.out, found.to_json()) == ("translation", None, CHANGED.to_json())
    task, found = read(["--config", str(file), "--seeds", "9", "--pcl.top-k", "5"])
    assert (found.seeds, found.of("pcl").top_k, found.training.loop.steps) == ((9,), 5, 77)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"newer": 1}, "newer is no option; there are preset, data"),
        ({"text": {"vocab": 1}}, "text.vocab is no option"),
        ({"text": 3}, "text must be a group of options, got 3"),
        ({"text": {"vocab_size": "x"}}, 'text.vocab_size cannot be "x"'),
        ({"methods": "pcl"}, "methods must be a list of names"),
        ({"methods": ["pcl", "nobody"]}, "unknown method 'nobody'"),
        ({"gkd": {"beta": 0.1}, "methods": ["pcl"]}, "gkd is not among the methods pcl"),
        ({"pcl": {"top_k": 1.5}}, "pcl.top_k cannot be 1.5"),
        ({"pcl": {"beta": 1}}, "pcl.beta is no option"),
        ({"pcl": {"top_k": -1}}, "top_k must be at least 0"),
        ({"seeds": []}, "seeds must be distinct"),
    ],
)
def test_what_cannot_be_is_named(said: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        configure(SMALL, said)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: [", "is not YAML"),
        (b"- a", "must map names of options to values"),
        (b"", "must map names"),
        (b"\xff\xfe", "is not YAML"),
        (b"a: !!python/object/apply:os.system [x]", "is not YAML"),
        (b"preset: nobody", "unknown preset 'nobody'"),
        (b"task: nobody", "unknown task 'nobody'"),
        (b"x: " + b"a" * (1 << 20), "longer than a configuration"),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_line(text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(text)
    with pytest.raises(UserError, match=message) as raised:
        read(["--config", str(tmp_path / "a.yaml")])
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"cannot read .*nowhere\.yaml"):
        read_config(tmp_path / "nowhere.yaml")


def test_another_task_or_preset_beside_the_file_s_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("task: translation\npreset: tiny\n")
    assert read(["--task", "translation", "--config", str(tmp_path / "b.yaml")])[0] == "translation"
    with pytest.raises(UserError, match="--task and the task translation of"):
        read(["--task", "summarization", "--config", str(tmp_path / "b.yaml")])
    (tmp_path / "a.yaml").write_text("preset: tiny\n")
    assert read(["--config", str(tmp_path / "a.yaml"), "--preset", "tiny"])[1].preset == "tiny"
    with pytest.raises(UserError, match="--preset and the preset tiny of"):
        read(["--config", str(tmp_path / "a.yaml"), "--preset", "small"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preset: tiny\npreset: small\n", r"preset is said twice, on line 1 or below; keep one"),
        ("preset: tiny\ntraining: {loop: {steps: 1, steps: 2}}\n", r"steps is said twice, on line 2"),
        ("preset: [tiny]\n", r"unknown preset \['tiny'\]"),
        ("preset: {tiny: 1}\n", r"unknown preset \{'tiny': 1\}"),
        ("task: [translation]\n", r"unknown task \['translation'\]"),
        ("preset: tiny\nfamily: [t5]\n", r"family must be a name, got \['t5'\]"),
        ("preset: tiny\nseeds: 0\n", r"^seeds cannot be 0; it must be a list, of which each must be a whole number"),
        ("preset: tiny\ntraining: {loop: {steps: 1e3}}\n", r'steps cannot be "1e3"; it must be a whole number'),
        ("preset: tiny\neval: {language: no}\n", r"language cannot be false; it must be a text, in quotes where"),
        ("preset: tiny\neval: {split: train}\n", r'eval\.split cannot be "train"; it must be one of validation, test'),
        ("preset: tiny\ndata: 2026-01-01\n", r'data cannot be "2026-01-01"; it must be a text, in quotes'),
    ],
)
def test_slips_in_a_file_are_refused_with_what_would_be_right(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read(["--config", str(tmp_path / "a.yaml")])
    assert "\n" not in str(raised.value)


def test_a_list_that_others_share_is_said_twice_by_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("preset: tiny\nwarmup: &a {loop: {steps: 3}}\nteacher_fit: {<<: *a, chunk: 2}\n")
    _, found = read(["--config", str(tmp_path / "a.yaml")])
    assert (found.warmup.loop.steps, found.teacher_fit.loop.steps) == (3, 3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("training.loop.steps", "0", "training.loop.steps must be at least 1, got 0"),
        ("training.loop.checkpoint_every", "3", "training.loop.checkpoint_every (3) must be a multiple of"),
        ("warmup.optimizer.learning_rate", "-1", "warmup.optimizer.learning_rate must be above 0, got -1"),
        ("text.files.held_out", "2", "text.files.held_out must be above 0 and below 0.5, got 2.0"),
        ("eval.limit", "-1", "eval.limit must be at least 0, got -1"),
        ("pcl.capacity", "0", "pcl.capacity must be at least 1, got 0"),
        ("lora.rank", "-1", "lora.rank must be at least 0, got -1"),
        ("beam_size", "0", "beam_size must be at least 1, got 0"),
    ],
)
def test_a_wrong_value_is_named_from_the_top_wherever_it_was_said(name: str, value: str, message: str) -> None:
    said: object = float(value) if name.endswith(("rate", "held_out")) else int(value)
    for part in reversed(name.split(".")):
        said = {part: said}
    ways: list[Callable[[], object]] = [
        lambda: configure(TRANSLATION["tiny"], said),  # type: ignore[arg-type]
        lambda: read(["--preset", "tiny", "--" + name.replace("_", "-"), value]),
    ]
    for way in ways:
        with pytest.raises(UserError) as raised:
            way()
        assert str(raised.value).startswith(message)
