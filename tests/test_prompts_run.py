"""A run with prompts: what its folder is bound to, what is written ahead, and what is refused."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import kdtw_jax
from kdtw_jax import Task, UserError
from kdtw_jax.data.textfiles import FileSpec
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.prepare import Setup, look_up, prepare
from kdtw_jax.pipeline.presets import TRANSLATION
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.pipeline.teacher_cache import text_of
from kdtw_jax.pipeline.teacher_outputs import stages_written
from kdtw_jax.runs import open_run, read_csv
from kdtw_jax.runs.atomic import read_json
from kdtw_jax.runs.folder import RunFolder
from tests.commands import train

METHODS = ("mle", "word_kd", "pcl", "ask", "seqkd", "gkd", "minillm", "tb")
WRITTEN = ["greedy", "greedy_prompts", "beam", "beam_prompts"]
LETTERS = random.Random(0)
TEXTS = [" ".join("".join(LETTERS.choices("abcdefgh", k=3)) for _ in range(LETTERS.randint(3, 7))) for _ in range(300)]


# Two methods may share what was read.
AHEAD = """
preset: tiny
methods: [pcl, tb, word_kd, ask]
pcl: {demonstrations: greedy, read_ahead: true, top_k: 8}
tb: {demonstrations: greedy, read_ahead: true, top_k: 8}
ask: {distil: {demonstrations: greedy, read_ahead: true, top_k: 8}}
word_kd: {top_k: 4, alpha: 0.5}
"""


def config_in(folder: Path, *methods: str, prompts: list[str] | None = TEXTS[200:]) -> Experiment:
    """Of texts and their reverse."""
    pairs = [json.dumps({"source": text, "target": text[::-1]}) for text in TEXTS[:200]]
    (folder / "train.jsonl").write_text("\n".join(pairs))
    (folder / "more.txt").write_text("\n".join(prompts or []))
    text = replace(TRANSLATION["tiny"].text, folder=folder, files=FileSpec(train_source=folder / "train.jsonl"))
    named = "none" if prompts is None else str(folder / "more.txt")
    return replace(TRANSLATION["tiny"], data="files", text=text, methods=methods, prompts=named)


def made(config: Experiment, run: RunFolder) -> Setup:
    return prepare(config, run, Console(quiet=True), look_up(config))


def test_prompts_are_encoded_where_a_student_is_yet_to_learn_on_them(tmp_path: Path) -> None:
    config = config_in(tmp_path, "mle", "pcl")
    for methods, done in ((("mle", "pcl"), False), (("mle",), False), (("mle", "pcl"), True)):
        own = replace(config, methods=methods)
        with open_run(tmp_path / f"{methods}{done}", {"task": "t", **own.identity()}) as run:
            if done:
                run.mark_done("seed0/pcl")
            setup = made(own, run)
        assert (setup.prompts is not None) == ("pcl" in methods and not done)
        assert setup.prompts is None or len(setup.prompts) == len(setup.task.prompts) == 100
        assert setup.prompts is None or setup.prompts.examples.min() == len(setup.task.splits["train"])
    short = replace(config, text=replace(config.text, max_source=2, on_long="truncate"))
    with open_run(tmp_path / "short", {"task": "t", **short.identity()}) as run:
        setup = made(short, run)
        assert setup.prompts is not None and setup.prompts.truncated_pairs == 100
    long = config_in(tmp_path, "pcl", prompts=[" ".join(TEXTS[:9])])
    long = replace(long, text=replace(long.text, on_long="drop"))
    with open_run(tmp_path / "long", {"task": "t", **long.identity()}) as run, pytest.raises(UserError) as error:
        made(long, run)
    assert str(error.value).endswith("all 1 are longer than 32 pieces; give more by --text.max-source, or --text.on-long truncate")  # fmt: skip  # noqa: E501


def test_a_run_is_bound_to_its_prompts_and_one_without_any_to_what_it_was_before(tmp_path: Path) -> None:
    config = config_in(tmp_path, *METHODS)
    assert "prompts" not in replace(config, prompts="none").identity()
    assert config.identity()["prompts"] == config.prompts
    assert [config.takes_prompts(method) for method in METHODS] == [False, *[True] * 7]
    assert not any(replace(config, prompts="none").takes_prompts(method) for method in METHODS)
    assert stages_written(config) == [f"teacher/{name}" for name in WRITTEN]
    assert stages_written(replace(config, prompts="none")) == ["teacher/beam"]
    gkd = config.with_settings(gkd=replace(config.of("gkd"), demonstrations="beam"))
    assert "beam_size" in gkd.identity_of("gkd") and "beam_size" not in config.identity_of("gkd")
    with open_run(tmp_path / "run", {"task": "translation", **config.identity()}) as run:
        run.claim("seed0/pcl", config.identity_of("pcl"))
    assert restore(tmp_path / "run")[1].prompts == config.prompts


def test_prompts_of_a_task_in_python_are_said_with_it(tmp_path: Path) -> None:
    pairs = [(text, text[::-1]) for text in TEXTS[:100]]
    with pytest.raises(UserError, match=r"are said with it: Task\.from_pairs\(\.\.\., prompts=texts\)"):
        kdtw_jax.train(Task.from_pairs(pairs), "pcl", preset="tiny", out=tmp_path, settings={"prompts": "own"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", "gone.txt"], "gone.txt: there is no such file; name one that exists"),
        (["--prompts", "own"], "cldr has no prompts of its own; name a file of them: --prompts FILE"),
    ],
)
def test_prompts_that_are_not_there_are_told_before_a_folder_is_made(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--preset", "tiny", "--out", str(tmp_path / "run"), "--text.folder", str(tmp_path / "data")]
    assert train([*words, *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_all_methods_learn_on_prompts_from_the_command_line(tmp_path: Path) -> None:
    config_in(tmp_path, "mle")
    words = ["--preset", "tiny", "--data", "files", "--text.files.train-source", str(tmp_path / "train.jsonl")]
    words += ["--out", str(tmp_path / "run"), "--text.folder", str(tmp_path), "--methods", *METHODS]
    assert train([*words, "--prompts", str(tmp_path / "more.txt")]) == 0
    written = {path.name: len(list(path.glob("*.npz"))) for path in (tmp_path / "run" / "teacher").glob("[gb]*")}
    assert written == dict.fromkeys(WRITTEN, 1)
    assert {row["method"] for row in read_csv(tmp_path / "run" / "distil.csv")} == {"teacher", *METHODS}
    stages = read_json(tmp_path / "run" / "provenance.json", "")["stages"]
    assert {"teacher/greedy_prompts", "teacher/beam_prompts"} <= stages.keys()
    (tmp_path / "more.txt").write_text("\n".join(TEXTS[210:]))
    assert train([*words, "--prompts", str(tmp_path / "more.txt"), "--seeds", "0", "1"]) == 2  # other prompts
    (tmp_path / "ahead.yaml").write_text(AHEAD)
    (tmp_path / "more.txt").write_text("\n".join(TEXTS[200:]))
    ahead = [
        str(tmp_path / "ahead") if word == str(tmp_path / "run") else word for word in words[: words.index("--methods")]
    ]
    ahead += ["--config", str(tmp_path / "ahead.yaml")]
    assert train([*ahead, "--prompts", str(tmp_path / "more.txt")]) == 0
    read = {path.name for path in (tmp_path / "ahead" / "teacher").glob("greedy_*_*") if any(path.glob("*.npz"))}
    assert read == {"greedy_prompts_top8", "greedy_prompts_top4_alpha0.5"}
    assert read <= {Path(name).name for name in stages_written(restore(tmp_path / "ahead")[1])}
    _, config = restore(tmp_path / "run")
    assert config.prompts == str(tmp_path / "more.txt")


def test_students_may_have_few_of_their_teachers_pairs_and_the_sources_of_the_rest(tmp_path: Path) -> None:
    config = replace(config_in(tmp_path, "mle", "pcl", prompts=None), student_pairs=40, prompts="rest")
    with open_run(tmp_path / "run", {"task": "t", **config.identity()}) as run:
        setup = made(config, run)
    assert setup.teachers is not None and setup.prompts is not None
    assert (len(setup.train), len(setup.teachers), len(setup.prompts)) == (
        40,
        180,
        140,
    )  # a twentieth is held out, twice
    sources = [pair["source"] for pair in setup.task.splits["teacher"]]
    assert [pair["source"] for pair in setup.task.splits["train"]] == sources[:40]
    assert [setup.task.prompts[i]["source"] for i in (0, -1)] == [sources[40], sources[-1]]
    assert not any(pair["target"] for pair in setup.task.prompts) and not setup.prompts.targets.lengths.any()
    alone = replace(config, prompts="none")
    with open_run(tmp_path / "alone", {"task": "t", **alone.identity()}) as run:
        assert made(alone, run).prompts is None
        run.mark_done("teacher")
        assert made(alone, run).teachers is None
    whole = config_in(tmp_path, "mle", prompts=None)
    assert text_of(config) != text_of(replace(config, student_pairs=50)) and "student_pairs" not in text_of(whole)
    assert "student_pairs" not in whole.identity() and config.identity()["student_pairs"] == 40
    with pytest.raises(UserError, match="student_pairs is 180, but files has 180 training pairs; give fewer in a file"):
        look_up(replace(config, student_pairs=180))
    own = Task.from_pairs([(text, text) for text in TEXTS[:200]], prompts=TEXTS[200:])
    with pytest.raises(UserError, match="prompts is rest, but the task has prompts of its own"):
        kdtw_jax.run_experiment(own, replace(config, out=tmp_path / "own"))
    with pytest.raises(UserError, match="prompts is rest, so student_pairs must be at least 1"):
        replace(config, student_pairs=0)
