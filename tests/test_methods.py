"""A method of training is one entry: that suffices for a method from outside, and nothing below knows one by name."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from kdtw_jax import parallel
from kdtw_jax.cli.train import read
from kdtw_jax.data.batches import Batch
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.training_figure import draw_curves, draw_scores
from kdtw_jax.losses.masked import kl_terms
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.methods import METHODS, Cost, Method, TrainContext, register
from kdtw_jax.models import Params
from kdtw_jax.pipeline.config import parse
from kdtw_jax.pipeline.experiment import run_experiment
from kdtw_jax.pipeline.plan import plan, sizes
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.runs import read_csv, read_metrics
from kdtw_jax.training.fresh import SIDE_BY_SIDE, TeacherForward, TeacherStates, compare_policies, train_fresh
from kdtw_jax.training.saved import load_model
from kdtw_jax.training.state import Metrics

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class MixConfig:
    """A convex mix of the likelihood and the reverse KL, on the data's targets."""

    share: float = 0.5
    """of the KL"""


def train_mix(context: TrainContext, params: Params, config: MixConfig) -> Params:
    teacher = context.needed_teacher()
    listener = TeacherForward(teacher, context.devices)
    how = {"banned": context.banned, **context.training.chunks(SIDE_BY_SIDE)._asdict()}

    def loss(params: Params, _: Params, rows: tuple[Batch, TeacherStates], key: jax.Array) -> Metrics:
        batch, heard = rows
        models = (context.student, params), (teacher[0], heard)
        kl_BxT, log_pi_BxT, _ = compare_policies(*models, batch.source_BxS, batch.target_BxT, kl_terms, **how, key=key)
        mask_BxT = jnp.asarray(batch.target_BxT) != 0
        mixed_BxT = config.share * kl_BxT - (1 - config.share) * log_pi_BxT
        tokens = Weighted(jnp.sum(mask_BxT.astype(jnp.float32)), jnp.ones(()))
        return {"mixed": weighted(mixed_BxT, mask_BxT), "tokens": tokens}

    def prepare(params: Params, batch: Batch, key_data: jax.Array, step: int) -> tuple[Batch, TeacherStates]:
        rows = parallel.shard(batch, context.devices)
        return rows, listener(rows.source_BxS, rows.target_BxT)

    return train_fresh(context, params, loss, {"mixed": 1.0}, prepare)


MIX = Method(
    name="mix",
    describe="student of a method from outside",
    config=MixConfig,
    train=train_mix,
    cost=lambda config: Cost(teacher=1, further_steps=5),
    color="#123456",
    curve="mixed",
)


@pytest.fixture
def mix(monkeypatch: pytest.MonkeyPatch) -> Method:
    """Registered for one test."""
    monkeypatch.setitem(METHODS, "mix", MIX)
    return register(MIX)


def shown(*words: str) -> set[str]:
    """The flags that --help lists."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        parse(PRESETS, None, [*words, "--help"])
    return set(re.findall(r"^\W*(--[a-z][\w.-]*)", out.getvalue(), re.MULTILINE))


@pytest.mark.long
def test_one_entry_makes_a_method_of_the_command_line_the_run_its_plan_table_and_figure(
    mix: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    lines = [" ".join("".join(rng.choice(list("abcdefgh"), 3)) for _ in range(rng.integers(2, 7))) for _ in range(300)]
    for side, text in (("en", lines), ("de", [line[::-1] for line in lines])):
        (tmp_path / f"a.{side}").write_text("\n".join(text) + "\n", encoding="utf8")
    words = ["--preset", "tiny", "--data", "files", "--out", str(tmp_path / "run"), "--devices", "1"]
    words += ["--text.folder", str(tmp_path / "data"), "--text.files.train-source", str(tmp_path / "a.en")]
    words += ["--text.files.train-target", str(tmp_path / "a.de"), "--eval.metrics", "chrf"]
    words += ["--methods", "mle", "mix", "--mix.share", "0.25"]
    config = parse(PRESETS, None, words)
    assert config.of("mix") == MixConfig(0.25) and config.to_json()["mix"] == {"share": 0.25}
    assert {"--mix.share"} == shown(*words) - shown("--methods", "mle")

    stages = {stage.name: stage for stage in plan(config, sizes(config))}
    assert stages["mix"].steps == stages["mle"].steps + 5
    assert stages["mix"].teacher > stages["mle"].teacher == 0 and stages["mix"].flops > stages["mle"].flops

    rows = run_experiment("translation", config)
    assert {row["method"] for row in read_csv(tmp_path / "run" / "distil.csv")} == {"teacher", "mle", "mix"}
    students = {m: load_model(tmp_path / "run" / "seed0" / m / "model").params for m in ("warmup", "mle", "mix")}
    assert not any(jax.tree.all(jax.tree.map(np.array_equal, students["mix"], students[m])) for m in ("warmup", "mle"))
    curve = [line["mixed"] for line in read_metrics(tmp_path / "run" / "seed0" / "mix")]
    assert len(curve) == 4 and curve[-1] < curve[0]
    left, right = Figure().subplots(1, 2)
    draw_scores(left, rows, "chrf")
    draw_curves(right, {"mix 0": read_metrics(tmp_path / "run" / "seed0" / "mix")})
    assert left.containers[-1].lines[0].get_color() == right.lines[0].get_color() == "#123456"
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["mix: mixed"]

    task, again = restore(tmp_path / "run")
    assert task == "translation" and again.methods == ("mle", "mix") and again.of("mix") == MixConfig(0.25)
    assert again.identity_of("mix") == config.identity_of("mix")
    monkeypatch.delitem(METHODS, "mix")
    with pytest.raises(UserError, match=r"students of the method mix, .*kdtw_jax\.methods\.register\(Method") as raised:
        restore(tmp_path / "run")
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"unknown method 'mix'; known are mle, .*kdtw_jax\.methods\.register"):
        replace(config, methods=("mix",))


def test_a_color_that_is_not_said_is_one_that_no_other_method_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        monkeypatch.setitem(METHODS, name, replace(MIX, name=name, color=""))
    axes = Figure().subplots()
    row = {"metric": "bleu", "value": 1.0, "low": None, "high": None}
    names = ["teacher", *METHODS, "of_another_run"]
    draw_scores(axes, [{**row, "method": name} for name in names], "bleu")
    assert len({container.lines[0].get_color() for container in axes.containers}) == len(names)


def installed(folder: Path, code: str) -> None:
    """A package in `folder` with an entry point, as pip leaves it."""
    about = folder / "outside-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[kdtw_jax.methods]\noutside = outside_of_here:METHOD\n")
    (folder / "outside_of_here.py").write_text(code)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "METHOD = 3",
            "the entry point outside of kdtw_jax.methods must name a Method, outside_of_here:METHOD is none",
        ),
        ("import no_such_module", "cannot load the method outside from outside_of_here:METHOD: No module named"),
        (
            "from kdtw_jax.methods.tb import TB\nfrom dataclasses import replace\nMETHOD = replace(TB, name='mle')",
            "already",
        ),
        (
            "from kdtw_jax.methods.tb import TB\nfrom dataclasses import replace\nMETHOD = replace(TB, name='outside')",
            "",
        ),
    ],
    ids=["no method", "no module", "a name that is taken", "a method"],
)
def test_the_command_line_has_the_methods_of_installed_packages(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "outside_of_here", raising=False)
    monkeypatch.setitem(METHODS, "outside", METHODS["tb"])  # what is there afterwards goes with the test
    del METHODS["outside"]
    if message:
        with pytest.raises(UserError, match=re.escape(message)):
            read(["--preset", "tiny"])
        assert "outside" not in METHODS
        return
    _, config = read(["--preset", "tiny", "--methods", "outside", "--outside.pcl-weight", "3"])
    assert config.of("outside").pcl_weight == 3 and list(METHODS)[-1] == "outside"
    METHODS.load_installed()  # once more is no other method of the same name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Mine"}, "must be lower-case letters, digits and _, got 'Mine'"),
        ({"name": "my-own"}, "must be lower-case letters, digits and _, got 'my-own'"),
        ({"config": dict}, "must be a dataclass whose fields have defaults"),
        ({"config": TrainContext}, "must be a dataclass whose fields have defaults"),
    ],
)
def test_an_entry_that_cannot_be_a_section_of_the_command_line_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        replace(MIX, **changes)


def test_names_of_methods_are_neither_taken_twice_nor_those_of_options(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="there is a method pcl already"):
        register(replace(MIX, name="pcl"))
    assert METHODS["pcl"] is not MIX
    monkeypatch.setitem(METHODS, "warmup", replace(MIX, name="warmup"))
    with pytest.raises(UserError, match="a method cannot be called warmup"):
        replace(PRESETS["tiny"], methods=("warmup",))
    with pytest.raises(UserError, match="the settings of pcl must be a DistilConfig"):
        PRESETS["tiny"].with_settings(pcl=MixConfig())


def test_a_run_s_files_name_no_code(tmp_path: Path) -> None:
    """A method is looked for among those that are registered, whatever can be imported by its name."""
    config = PRESETS["tiny"]
    (tmp_path / "stages" / "seed0").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps({"task": "translation", **config.identity()}))
    (tmp_path / "code_of_a_stranger.py").write_text("raise SystemExit")
    (tmp_path / "stages" / "seed0" / "code_of_a_stranger.config.json").write_text("{}")
    with pytest.raises(UserError, match="students of the method code_of_a_stranger, which nobody has registered"):
        restore(tmp_path)
    (tmp_path / "stages" / "seed0" / "code_of_a_stranger.config.json").unlink()
    for said, wrong in ((config.identity() | {"mle": {}}, "mle is no option"), ({"preset": "tiny"}, "is not said")):
        plain = {"task": "translation", "teacher_seed": 0, **said}
        (tmp_path / "config.json").write_text(json.dumps(plain))
        with pytest.raises(UserError, match=f"cannot be read: .*{wrong}; its files are damaged or of another version"):
            restore(tmp_path)


def test_flags_are_few_and_of_chosen_methods_alone() -> None:
    every = shown("--methods", *METHODS)
    assert len(every) <= 120
    assert {"--training.loop.steps", "--training.chunk", "--pcl.top-k", "--ask.constraints", "--gkd.beta"} <= every
    assert not any("rates" in flag or "log-every" in flag for flag in every)
    some = shown("--preset", "quickstart")  # which has mle, pcl and ask
    assert every - some == {flag for flag in every if re.match(r"--(word-kd|gkd|minillm|tb)\.", flag)}
    assert shown("--methods=mle") == {flag for flag in every if not re.match(r"--(pcl|ask)\.", flag)} & some
    with pytest.raises(UserError, match=r"--gkd\.beta=0\.1: gkd is not among the methods mle, word_kd, pcl, ask"):
        parse(PRESETS, None, ["--preset", "tiny", "--gkd.beta=0.1"])


def test_settings_that_fit_only_together_may_be_given_together() -> None:
    tiny = PRESETS["tiny"]
    sliced = replace(tiny, methods=("pcl",), training=replace(tiny.training, vocab_chunk=16))  # ask does not go with it
    with pytest.raises(UserError, match="vocab_chunk must be 0"):
        parse({"tiny": sliced}, None, ["--methods", "ask"])
    words = ["--methods", "ask", "--training.vocab-chunk", "0", "--ask.unit", "3"]
    config = parse({"tiny": sliced}, None, words)
    assert config.of("ask").unit == "3"
    assert config.of("ask").distil == tiny.of("ask").distil  # what no flag changes is the preset's
    assert config.of("pcl") == tiny.of("pcl")


def test_what_trains_knows_no_method() -> None:
    files = sorted((ROOT / "kdtw_jax" / "training").glob("*.py"))
    assert files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("kdtw_jax.methods") for name in named), path
