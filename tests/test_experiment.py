"""The main job as a user runs it: from the command line to tables, killed and started again, and bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from rich.console import Console

from kdtw_jax.cli import main as kdtw
from kdtw_jax.data.tokenizer import EOS_ID, UNK_ID, load_tokenizer
from kdtw_jax.decoding import generate
from kdtw_jax.decoding.gates import compared_gates
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.decode import Decoding, decode_split
from kdtw_jax.evaluation.operating_table import COLUMNS as OPERATING_COLUMNS
from kdtw_jax.evaluation.strategies import every_strategy
from kdtw_jax.evaluation.training_figure import distil_figure
from kdtw_jax.methods import METHODS
from kdtw_jax.methods.ask_config import SEEN, check_held_out
from kdtw_jax.models import make_model
from kdtw_jax.pipeline.ask_report import COLUMNS as ASKING_COLUMNS
from kdtw_jax.pipeline.config import EvalConfig, parse, plain
from kdtw_jax.pipeline.experiment import COLUMNS
from kdtw_jax.pipeline.prepare import look_up, prepare
from kdtw_jax.pipeline.presets import SUMMARIZATION
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.pipeline.stages import Trained, result_rows
from kdtw_jax.runs import open_run, read_csv, read_metrics, write_json
from kdtw_jax.student import load
from kdtw_jax.training.checkpoint import load_model
from tests.commands import train
from tests.pictures import alike

ROOT = Path(__file__).resolve().parents[1]


def start(out: Path, data: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "experiments" / "translation.py"), "--preset", "tiny", "--data", "files"]
    command += ["--out", str(out), "--text.folder", str(data), "--devices", "1", "--methods", "mle", "pcl"]
    command += ["--text.files.train-source", str(data / "a.en"), "--text.files.train-target", str(data / "a.de")]
    command += ["--results", str(out / "published")]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"XLA_FLAGS": ""}
    )


def parameters(folder: Path) -> dict[str, np.ndarray]:
    import jax

    leaves = jax.tree.leaves_with_path(ocp.load(folder / "model" / "params"))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parallel corpus of our own making: words and their mirror images."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = [" ".join("".join(rng.choice(list("abcdefgh"), 3)) for _ in range(rng.integers(2, 7))) for _ in range(500)]
    (folder / "a.en").write_text("\n".join(lines) + "\n", encoding="utf8")
    (folder / "a.de").write_text("\n".join(line[::-1] for line in lines) + "\n", encoding="utf8")
    return folder


@pytest.mark.long
def test_a_run_killed_at_any_moment_ends_as_an_uninterrupted_one(tmp_path: Path, corpus: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    output, errors = start(whole, corpus).communicate()
    assert "run folder" in output, errors

    # Killed once inside the teacher's training and once inside PCL, each time past a checkpoint.
    for stage in ("teacher", "seed0/pcl"):
        process = start(killed, corpus)
        # What is still being written has a longer name.
        while not any(path.name.isdecimal() for path in (killed / stage / "checkpoints").glob("*")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (killed / stage / "model").exists()
    output, errors = start(killed, corpus).communicate()
    assert "run folder" in output, errors
    # Killed between saving the teacher and noting that it is done.
    (killed / "stages" / "teacher.json").unlink()
    output, errors = start(killed, corpus).communicate()
    assert "run folder" in output, errors

    for stage in ("teacher", "seed0/warmup", "seed0/mle", "seed0/pcl"):
        one, other = parameters(whole / stage), parameters(killed / stage)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one), stage
        lines = [
            [{k: v for k, v in line.items() if k != "tokens_per_s"} for line in read_metrics(folder / stage)]
            for folder in (whole, killed)
        ]
        assert lines[0] == lines[1]

    def measured(folder: Path) -> list[dict[str, object]]:
        rows = read_csv(folder / "distil.csv")
        return [row for row in rows if row["metric"] != "tokens_per_s"]

    assert measured(whole) == measured(killed)
    rows = measured(whole)
    assert {row["method"] for row in rows} == {"teacher", "mle", "pcl"}
    assert all(tuple(row) == COLUMNS for row in rows)
    for row in rows:
        if row["metric"] in ("bleu", "chrf"):
            assert 0 <= float(str(row["low"])) <= float(str(row["value"])) <= float(str(row["high"])) <= 100
    published = json.loads((whole / "published" / "provenance.json").read_text(encoding="utf8"))
    assert published["stages"].keys() == {"teacher", "seed0/warmup", "seed0/mle", "seed0/pcl"}
    assert str(Path.home()) + "/" not in json.dumps(published["command"])
    for name in ("distil.csv", "differences.csv"):
        assert (whole / "published" / name).read_bytes() == (whole / name).read_bytes()
    curves = {f"{method} 0": read_metrics(whole / "seed0" / method) for method in ("mle", "pcl")}
    for name, drawn, lines_drawn in (("same", rows, curves), ("less", rows, {}), ("fewer", rows[1:], curves)):
        distil_figure(drawn, lines_drawn, "bleu", tmp_path / f"{name}.png")
        assert alike(whole / "distil.png", tmp_path / f"{name}.png") == (name == "same")


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> list[str]:
    """The arguments of a finished run with a student that may ask; those after --out and --results are its folders."""
    folder = tmp_path_factory.mktemp("asking")
    arguments = ["--out", str(folder / "run"), "--results", str(folder / "published"), "--preset", "tiny"]
    arguments += ["--text.folder", str(folder / "data"), "--devices", "1", "--methods", "pcl", "ask", "--data", "files"]
    arguments += ["--text.files.train-source", str(corpus / "a.en"), "--text.files.train-target", str(corpus / "a.de")]
    arguments += ["--eval.bleu-tokenizer", "char"]
    assert train(arguments) == 0
    return arguments


@pytest.mark.long
def test_a_student_learns_to_ask_and_is_judged(
    asking: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    out, published, arguments = Path(asking[1]), Path(asking[3]), asking
    rows = read_csv(published / "asking.csv")
    assert all(tuple(row) == ASKING_COLUMNS for row in rows)
    assert {row["gate"] for row in rows} == set(compared_gates())
    for row in rows:
        assert 0 <= float(str(row["used"])) <= 1
        assert float(str(row["calls"])) == pytest.approx(float(str(row["used"])))
        if row["guard"]:
            assert float(str(row["used"])) <= float(str(row["asked"])) + 1e-6
    unseen = {row["asked"] for row in rows if not row["budget_seen"]}
    assert unseen == set(PRESETS["tiny"].of("ask").held_out)
    for name in ("asking.csv", "asking.json", "asking.png", "where.csv"):
        assert (published / name).read_bytes() == (out / name).read_bytes()
    assert (out / "samples.txt").exists()
    assert not (published / "samples.txt").exists()  # text of the data is not for publication
    prices = json.loads((out / "seed0" / "ask" / "prices.json").read_text(encoding="utf8"))
    assert len(prices["share"]["budget"]) == len(prices["share"]["price"])
    # The corpus has no digit and no percent sign: the vocabulary has them for the rules.
    tokenizer = load_tokenizer(out / "tokenizer.model")
    assert UNK_ID not in tokenizer.encode("ask the teacher for at most 12.5% of the words:")
    before = {path: path.stat().st_mtime_ns for path in (out / "seed0").glob("*/model/config.json")}
    capsys.readouterr()
    assert train(arguments) == 0  # again: nothing is trained anew
    lines = [[cell.strip() for cell in re.split("[┃│]", line)] for line in capsys.readouterr().out.splitlines()]
    header, *printed = (line for line in lines if len(line) > 1)
    ends = {row["method"]: row["value"] for row in read_csv(out / "distil.csv") if row["metric"] == "unfinished"}
    assert ends.keys() == {"teacher", "pcl", "ask"}
    assert {line[1]: line[header.index("unfinished %")] for line in printed[:3]} == {
        method: f"{100 * float(str(share)):.2f}" for method, share in ends.items()
    }
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert read_csv(published / "asking.csv") == rows


def test_rows_say_which_share_of_outputs_does_not_end(tmp_path: Path, corpus: Path) -> None:
    words = ["--preset", "tiny", "--data", "files", "--text.folder", str(tmp_path), "--devices", "1"]
    words += ["--text.files.train-source", str(corpus / "a.en"), "--text.files.train-target", str(corpus / "a.de")]
    config = parse(PRESETS, None, [*words, "--eval.beam-size", "2"])
    with open_run(tmp_path / "run", config.identity()) as run:
        setup = prepare(config, run, Console(quiet=True), look_up(config))
        model = make_model(replace(config.teacher, vocab_size=setup.tokenizer.vocab_size, tie_embeddings=False))
        params: dict[str, Any] = jax.tree.map(lambda x: 3.0 * x, model.init(jax.random.key(0)))
        kernel = params["lm_head"]["kernel"]
        fresh = Trained(model, {**params, "lm_head": {"kernel": kernel.at[:, EOS_ID].multiply(2.0)}})  # some ends
        rows = result_rows(config, setup, fresh, fresh, "teacher", 0, run)
    found = {row["metric"]: row["value"] for row in rows}
    ways = {"": Decoding(), "_sampled": Decoding("sample")}
    ways["_beam2"] = Decoding("beam", beam_size=2, length_penalty=config.eval.length_penalty)
    expected = {
        f"unfinished{suffix}": decode_split("", *fresh, setup.test, setup.buckets, setup.tokenizer, way).unfinished
        for suffix, way in ways.items()
    }
    assert expected.items() <= found.items() and len(set(expected.values())) == 3


@pytest.mark.long
def test_every_table_has_the_configured_tokenizer(asking: list[str]) -> None:
    record = json.loads((Path(asking[3]) / "provenance.json").read_text(encoding="utf8"))
    assert "tok:char|" in record["signatures"]["bleu"]
    assert record["data"]["tokenizers"] == {"bleu": "char", "rouge": "unicode"}
    assert record["data"]["unwritable_references"] == 0 and record["data"]["language"] == ""
    of = {
        row["method"]: float(str(row["value"]))
        for row in read_csv(Path(asking[1]) / "distil.csv")
        if row["metric"] == "bleu"
    }
    (ahead,) = (row for row in read_csv(Path(asking[1]) / "differences.csv") if row["metric"] == "bleu")
    assert ahead["value"] == pytest.approx(of["pcl"] - of["ask"])
    assert of["teacher"] > 0.1  # by characters; next to no word is right


@pytest.mark.long
def test_a_user_writes_under_a_rule_of_their_own(asking: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run, texts = asking[1], ["abc fgh", "hhh", "", "abc def gab " * 7]

    def write(rule: str, *more: str) -> tuple[list[str], str]:
        assert kdtw(["write", run, "--rule", rule, *more, "--text", *texts]) == 0
        found = capsys.readouterr()
        return found.out.splitlines(), found.err

    alone, said = write("do not ask the teacher", "--plain")
    assert len(alone) == len(texts)
    assert "the teacher wrote 0 of" in said
    student = load_model(Path(run) / "seed0" / "ask" / "model")
    params = jax.tree.map(jnp.asarray, student.params)
    by_hand = []
    for text in texts:
        if not text:
            by_hand.append("")
            continue
        source = np.asarray([[*student.tokenizer.encode(text)[:31], 1]], np.int32)
        found = generate(
            student.model, params, source, None, max_len=32, banned=student.tokenizer.banned_ids
        ).tokens_BxT[0]
        by_hand.append(student.tokenizer.decode(np.asarray(found).tolist()))
    assert alone == by_hand
    answers = load(run)(texts, rule="ask the teacher for at most 30% of the words")
    assert all(a.calls <= 0.3 * len(a.tokens) and a.positions <= len(a.tokens) for a in answers)
    marked, said = write("ask the teacher for at most 30% of the words")
    assert marked == [a.marked for a in answers]
    assert f"wrote {sum(a.calls for a in answers)} of {sum(len(a.tokens) for a in answers)} tokens" in said
    for arguments, message in (
        (["--rule", "ask at will"], '"ask at will" is not a rule that is understood; understood are: "ask the teacher'),
        (["--rule", "do not ask the teacher", "--seed", "5"], "no student of seed 5 that learned to ask"),
    ):
        assert kdtw(["write", run, *arguments, "--text", "abc"]) == 2
        found = capsys.readouterr()
        assert not found.out and found.err.count("\n") == 1 and message in found.err
    assert kdtw(["write", str(Path(run) / "seed0"), "--rule", "do not ask the teacher", "--text", "abc"]) == 2
    assert "is not a run's folder" in capsys.readouterr().err


@pytest.mark.long
def test_ways_to_share_the_writing_are_compared_on_a_finished_run(
    asking: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kdtw(["compare", asking[1], "--results", str(tmp_path), "--repeats", "1", "--sentences", "1"]) == 0
    rows = read_csv(tmp_path / "operating_points.csv")
    assert all(tuple(row) == OPERATING_COLUMNS for row in rows)
    first = [row for row in rows if row["metric"] == "chrf"]

    def of(method: str) -> list[dict[str, object]]:
        found = [dict(row) for row in first if row["method"] == method]
        assert found, method
        return found

    (teacher,), (student,) = of("teacher_only"), of("student_only")
    assert (teacher["teacher_tokens"], teacher["calls"], teacher["positions"], teacher["no_call_share"]) == (1, 1, 1, 0)
    assert (student["calls"], student["teacher_flops"], student["no_call_share"]) == (0, 0, 1)
    assert student["student_flops"] > 0 == teacher["student_flops"]  # type: ignore[operator]
    for row in of("speculative"):
        assert row["value"] == teacher["value"] and row["positions"] >= 1  # type: ignore[operator]
    for method in every_strategy().keys() - {"student_only", "teacher_only"}:
        for row in of(method):
            assert 0 <= row["calls"] <= row["positions"] and row["low"] <= row["value"] <= row["high"]  # type: ignore
            assert (row["ms_b1"] is None) == method.startswith("oracle")
            if method in compared_gates() or method in ("asking", "co_llm"):  # a token a call
                assert row["calls"] == pytest.approx(row["teacher_tokens"])
    reward = {(r["method"], r["setting"]): r["value"] for r in rows if r["metric"] == "teacher_log_prob"}
    assert len(reward) == len(first) and -30 * 32 < min(reward.values()) <= max(reward.values()) < 0  # of 32 tokens
    for key, value in reward.items():
        if key[0] in ("speculative", "teacher_only"):
            assert value == pytest.approx(reward["teacher_only", "greedy"], rel=1e-5)
    assert reward["student_only", "greedy"] != reward["teacher_only", "greedy"]
    # The same gate at the same threshold, by the lazy decoder and by the one that reads along.
    studied = read_csv(Path(asking[1]) / "asking.csv")
    for row in [row for row in rows if row["method"] == "asking" and row["metric"] in ("bleu", "chrf")]:
        (other,) = (
            r for r in studied if r["gate"] == "learned" and not r["guard"] and r["phrasing"] == "seen"
            and r["metric"] == row["metric"] and str(r["asked"]) == str(row["setting"])
        )  # fmt: skip
        assert row["value"] == pytest.approx(other["value"]) and row["positions"] == pytest.approx(other["positions"])
    judged = [r for r in read_csv(Path(asking[1]) / "distil.csv") if (r["method"], r["metric"]) == ("teacher", "bleu")]
    (again,) = (row for row in rows if row["method"] == "teacher_only" and row["metric"] == "bleu")
    assert [again["value"]] == pytest.approx([row["value"] for row in judged])
    for name in ("operating_points.csv", "operating_points.json", "operating_points.png"):
        assert (tmp_path / name).read_bytes() == (Path(asking[1]) / name).read_bytes()
    capsys.readouterr()
    assert kdtw(["compare", asking[1], "--seeds", "3"]) == 2
    assert "no student of seed 3 that learned to ask" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "tiny", "--ask.constraints", "shares"], "unknown constraint 'shares'; known are share, calls"),
        (["--preset", "tiny", "--ask.gate-rate", "0"], "ask.gate_rate must be above 0"),
        (["--preset", "huge"], "unknown preset 'huge'; known are quickstart, tiny, small, base, paper"),
        (["--preset", "tiny", "--data", "klingon"], "unknown task 'klingon'"),
        (["--preset", "tiny", "--text.limit", "-3"], "text.limit must be at least 0, got -3"),
        (["--preset", "tiny", "--text.batch-tokens", "-1"], "text.batch_tokens must be at least 1"),
        (["--preset", "tiny", "--text.buckets", "0"], "text.buckets must be at least 1"),
        (["--preset", "tiny", "--text.max-source", "0"], "text.max_source must be at least 2"),
        (["--preset", "tiny", "--text.vocab-size", "5000"], "vocab_size 5000 is more than this text supports"),
        (["--preset", "tiny", "--text.tokenizer", "nowhere"], "cannot read the tokenizer nowhere"),
        (["--preset", "tiny", "--eval.metrics", "bleu", "bleu4"], "eval.metrics: unknown metric 'bleu4'"),
        (["--preset", "tiny", "--eval.metrics", "bleu", "bleu"], "eval.metrics must be distinct, at least one of bleu"),
        (["--preset", "tiny", "--text.files.held-out", "nan"], "text.files.held_out must be above 0 and below 0.5"),
        (["--preset", "tiny", "--beam-size", "0"], "beam_size must be at least 1, got 0"),
        (["--preset", "tiny", "--length-penalty", "nan"], "length_penalty must be at least 0, got nan"),
        (["--preset", "tiny", "--length-penalty", "inf"], "length_penalty must be at least 0 and finite, got inf"),
        (
            ["--preset", "tiny", "--training.loop.checkpoint-every", "3"],
            "loop.checkpoint_every (3) must be a multiple of",
        ),
        (["--preset", "tiny", "--training.optimizer.accumulate", "2", "--methods", "tb"], "accumulate must be 1"),
        (
            ["--preset", "tiny", "--warmup.optimizer.accumulate", "7"],
            "warmup.optimizer.accumulate is 7, which does not",
        ),
        (["--preset", "tiny", "--training.optimizer.accumulate", "3"], "training.optimizer.accumulate is 3, which"),
        (["--preset", "tiny", "--warmup.optimizer.learning-rate", "nan"], "optimizer.learning_rate must be above 0"),
        (["--preset", "tiny", "--word-kd.kl-weight", "1.5"], "kl_weight must be in [0, 1], got 1.5"),
        (["--preset", "tiny", "--pcl.top-k", "500"], "pcl.top_k is 500, but the vocabulary has"),
        (["--preset", "tiny", "--seeds", str(2**32 - 1)], "seeds must be at least 0 and below"),
        (["--preset", "tiny", "--teacher-shards", "3", "--devices", "1"], "teacher_shards=3 must divide"),
        (["--preset", "tiny", "--results", __file__], "is no folder to write in"),
        (["--preset", "tiny", "--pcl.capacity", "0"], "capacity must be at least 1"),
        (
            ["--preset", "tiny", "--tb.pcl-weight", "9"],
            "--tb.pcl-weight: tb is not among the methods mle, word_kd, pcl",
        ),
        (["--preset", "tiny", "--teacher.d-model", "-8"], "d_model is -8"),
        (["--preset", "tiny", "--seeds", "0", "0"], "seeds must be distinct"),
        (["--preset", "tiny", "--beam-targets", "gkd"], "which is not among the methods mle"),
        (["--preset", "tiny", "--devices", "77"], "devices=77"),
        (["--preset", "tiny", "--data", "files"], "files"),
        (["--preset", "tiny", "--teacher-model", "nowhere"], "is not a saved model"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    corpus: Path,
) -> None:
    here = ["--out", str(tmp_path / "run"), "--text.folder", str(tmp_path / "data")]
    if "--data" not in arguments:
        here += ["--data", "files", "--text.files.train-source", str(corpus / "a.en")]
        here += ["--text.files.train-target", str(corpus / "a.de")]
    assert train([*arguments, *here]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    run = tmp_path / "run"
    assert not list(run.glob("**/metrics.jsonl")) and not list(run.glob("**/checkpoints"))
    if run.exists():  # what is corrected is taken
        with open_run(run, {}) as found:
            assert not found.begun()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "klingon"], "unknown task 'klingon'"),
        (["--data", "files", "--text.files.train-source", "nowhere.jsonl"], "nowhere.jsonl: there is no such file"),
    ],
)
def test_no_folder_is_left_of_a_run_whose_text_is_not_there(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ["--preset", "tiny", "--out", str(tmp_path / "run"), "--text.folder", str(tmp_path / "data")]
    assert train([*words, *here]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["/tmp/n\udcff.jsonl", "a\0b"])
def test_words_that_are_no_utf_8_are_refused_before_anything_is_written(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path / "run"), "--data", "files", "--text.files.train-source", word]
    assert train(arguments) == 2
    assert f"error: {word!a} is not UTF-8" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_budgets_held_out_leave_some_to_train_and_to_judge_on() -> None:
    check_held_out((0.15, 0.25))
    check_held_out(())
    with pytest.raises(UserError, match="distinct shares"):
        check_held_out((0.15, 0.15))
    with pytest.raises(UserError, match="distinct shares"):
        check_held_out((float("nan"),))
    with pytest.raises(UserError, match="must leave one of"):
        check_held_out(SEEN)
    with pytest.raises(UserError, match="no percentage of the words to train on"):
        check_held_out([percent / 100 for percent in range(61)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--text.on-long", "drop", "--text.max-source", "2"], "train: of"),
        (
            ["--text.on-long", "drop", "--text.files.test-source", "LONG", "--text.files.test-target", "LONG2"],
            "test: of",
        ),
        (
            ["--text.on-long", "drop", "--methods", "ask", "--text.files.validation-source", "LONG"],
            "validation: of 2 pairs none is left, all are longer than 32 and 32 pieces; give more by --text.max-source",
        ),
    ],
)
def test_a_split_of_which_nothing_is_left_is_noticed_before_training(
    changes: list[str], message: str, tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("long", "long2"):
        (tmp_path / name).write_text("ab cd ef gh " * 20 + "\n" + "gh ef cd ab " * 20 + "\n", encoding="utf8")
    words = [word.replace("LONG", str(tmp_path / "long")) for word in changes]
    words += ["--text.files.validation-target", f"{words[-1]}2"] if "ask" in words else []
    words += ["--preset", "tiny", "--data", "files", "--out", str(tmp_path / "run"), "--devices", "1"]
    words += ["--text.files.train-source", str(corpus / "a.en"), "--text.files.train-target", str(corpus / "a.de")]
    assert train(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and "--text.on-long truncate" in error
    assert not list((tmp_path / "run").glob("**/metrics.jsonl"))


def test_unknown_flags_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train(["--preset", "tiny", "--no-such-flag", "1"])
    assert ended.value.code == 2
    assert "no-such-flag" in capsys.readouterr().err


def fields(value: object, prefix: str = "--") -> Iterator[tuple[str, object]]:
    """The flags of a configuration and its values."""
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        name, own = prefix + field.name.replace("_", "-"), getattr(value, field.name)
        yield from fields(own, f"{name}.") if dataclasses.is_dataclass(own) else ((name, own),)


@pytest.mark.parametrize("preset", ["tiny", "paper"])
def test_help_explains_every_flag_and_says_its_value_in_the_preset(
    preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(["--preset", preset, "--help", "all"], task="summarization") == 0
    said: dict[str, str] = {}  # by flag, without spaces, which a fold may have put anywhere
    group, flag = "", ""
    explained_groups = set()
    for line in capsys.readouterr().out.splitlines():
        if found := re.match(r"  (--[a-z][\w.-]*)", line):
            flag = found[1]
            said.setdefault(flag, "")  # a group's own words may begin with a flag
        elif flag and line.startswith(" " * 6):
            said[flag] += "".join(line.split())
        elif re.match(r" *\S+ options *$", line):
            group, flag = f"--{line.split()[0]}", ""
        elif re.match(r"  \w", line) and not flag:
            explained_groups.add(group)
    config = SUMMARIZATION[preset]
    known = dict(fields(dataclasses.replace(config, settings={})))
    for method in METHODS:
        known |= fields(config.of(method), f"--{method.replace('_', '-')}.")
    assert len(said) <= 120
    for name, text in said.items():
        value = known[name]
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else shlex.quote(str(value))
        words, _, default = text.partition("(default:")
        assert default == "".join(shown.split()) + ")", name
        assert words or name.rpartition(".")[0] in explained_groups, f"{name} is explained nowhere"


def test_a_second_configuration_is_kept_out_of_a_run_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: Path
) -> None:
    out = tmp_path / "run"
    words = ["--preset", "tiny", "--out", str(out), "--data", "files"]
    words += ["--text.files.train-source", str(corpus / "a.en"), "--text.files.train-target", str(corpus / "a.de")]
    config = parse(PRESETS, None, words)
    with open_run(out, {"task": "translation", **config.identity()}) as run:
        run.mark_done("teacher")
    assert train([*words, "--student.d-ff", "8"]) == 2
    assert "student.d_ff was 64, now 8" in capsys.readouterr().err


def test_text_that_changed_under_a_run_is_noticed_once_there_is_something_to_lose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: Path
) -> None:
    for side in ("en", "de"):
        (tmp_path / side).write_text((corpus / f"a.{side}").read_text(encoding="utf8"), encoding="utf8")
    out = tmp_path / "run"
    words = ["--preset", "tiny", "--out", str(out), "--pcl.top-k", "999", "--data", "files"]
    words += ["--text.files.train-source", str(tmp_path / "en"), "--text.files.train-target", str(tmp_path / "de")]

    def vocabulary() -> bytes:
        assert train(words) == 2
        assert "pcl.top_k is 999" in capsys.readouterr().err
        return (out / "tokenizer.model").read_bytes()

    first = vocabulary()
    words += ["--ask.constraints", "share", "compute"]  # the rules of a student are no part of a run
    assert vocabulary() != first and UNK_ID not in load_tokenizer(out / "tokenizer.model").encode("GFLOP")
    words = words[:-3]
    (tmp_path / "de").write_text((tmp_path / "en").read_text(encoding="utf8").upper(), encoding="utf8")
    second = vocabulary()
    assert second != first  # it is that of the new text
    with open_run(out, json.loads((out / "config.json").read_text())) as run:
        run.mark_done("teacher")
    (tmp_path / "de").write_text((tmp_path / "en").read_text(encoding="utf8"), encoding="utf8")
    assert train(words) == 2
    assert "is not what the run in" in capsys.readouterr().err
    assert (out / "tokenizer.model").read_bytes() == second


def test_a_restored_run_is_judged_as_the_last_time_and_its_methods_are_what_they_were(tmp_path: Path) -> None:
    tiny = PRESETS["tiny"]
    asking = replace(tiny.of("ask"), gate_calibration_steps=2)  # at rest on what is left of validation
    config = replace(tiny, methods=("mle", "ask"), beam_targets=("ask",)).with_settings(ask=asking)
    with open_run(tmp_path / "run", {"task": "translation", **config.identity()}) as run:
        for method in config.methods:
            run.claim(f"seed0/{method}", config.identity_of(method))
            run.mark_done(f"seed0/{method}")
    judged = EvalConfig(split="validation", limit=5, ask_limit=7, metrics=("chrf",), beam_size=7)
    later = replace(config, methods=("mle",), beam_targets=(), beam_size=7, eval=judged)
    assert later.identity() == config.identity()
    write_json(tmp_path / "run" / "judging.json", plain(later.eval))
    task, found = restore(tmp_path / "run")
    assert (task, found.methods) == ("translation", config.methods)
    assert (found.beam_size, found.beam_targets) == (tiny.beam_size, ("ask",))
    assert found.eval == replace(judged, limit=tiny.eval.limit)  # the pairs of validation that prices came to rest on
    assert found.identity() == config.identity()
    assert all(found.identity_of(method) == config.identity_of(method) for method in config.methods)
    assert found.of("ask") == asking
    with open_run(tmp_path / "run", {"task": "translation", **later.identity()}) as run:
        run.claim("seed0/mle", later.identity_of("mle"))
        changed = replace(config, beam_size=7)
        with pytest.raises(UserError, match="beam_size was 2, now 7"):
            run.claim("seed0/ask", changed.identity_of("ask"))


@pytest.mark.long
def test_what_only_evaluation_reads_may_change_and_nothing_is_trained_again(asking: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(asking[1], out)
    words = [str(out) if word == asking[1] else word for word in asking if word != "ask"]
    words[3] = str(tmp_path / "published")
    words += ["--eval.limit", "9"]

    def marks(pattern: str) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.glob(pattern)}

    def judged(*more: str) -> tuple[dict[Path, int], dict[tuple[object, object], object]]:
        assert train([*words, *more]) == 0
        rows = read_csv(tmp_path / "published" / "distil.csv")
        return marks("stages/**/[tv]*.json"), {(r["method"], r["metric"]): r["value"] for r in rows}

    models = marks("**/model/config.json")
    _, on_test = judged()
    assert restore(out)[1].eval.limit == 9
    _, on_validation = judged("--eval.split", "validation")
    assert on_validation["pcl", "kl_forward"] != on_test["pcl", "kl_forward"]
    assert (tmp_path / "run" / "stages" / "teacher" / "test.json").exists()  # that of the other split stays
    _, by_other = judged("--eval.metrics", "exact_match", "--eval.beam-size", "3")
    assert {("teacher", "exact_match_beam3"), ("pcl", "exact_match")} <= by_other.keys()
    assert ("pcl", "chrf") not in by_other
    assert restore(out)[1].eval.beam_size == 3
    before, again = judged("--eval.metrics", "exact_match", "--eval.beam-size", "3")
    assert again == by_other
    after, _ = judged("--eval.metrics", "exact_match", "--eval.beam-size", "2")
    assert {path.parent.name for path in after if after[path] != before.get(path)} - {"stages"} == {"teacher"}
    assert marks("**/model/config.json") == models
