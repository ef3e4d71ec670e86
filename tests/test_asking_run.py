"""A finished run of a student that may ask: its tables, and what a user does with it afterwards."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.cli import main as kdtw
from kdtw_jax.data.tokenizer import UNK_ID, load_tokenizer
from kdtw_jax.decoding import generate
from kdtw_jax.decoding.gates import compared_gates
from kdtw_jax.evaluation.operating_table import COLUMNS as OPERATING_COLUMNS
from kdtw_jax.evaluation.strategies import every_strategy
from kdtw_jax.pipeline.ask_report import COLUMNS as ASKING_COLUMNS
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.runs import read_csv
from kdtw_jax.student import load
from kdtw_jax.training.saved import load_model
from tests.commands import train
from tests.mirrored import mirrored


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirrored(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> list[str]:
    """The arguments of a finished run with a student that may ask; those after --out and --results are its folders."""
    folder = tmp_path_factory.mktemp("asking")
    arguments = ["--out", str(folder / "run"), "--results", str(folder / "published"), "--preset", "tiny"]
    arguments += ["--text.folder", str(folder / "data"), "--devices", "1", "--methods", "pcl", "ask", "--data", "files"]
    arguments += ["--text.files.train-source", str(corpus / "a.en"), "--text.files.train-target", str(corpus / "a.de")]
    arguments += ["--eval.bleu-tokenizer", "char", "--ask.unit", "token"]  # it writes next to no words
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


@pytest.mark.long
def test_what_only_evaluation_reads_may_change_and_nothing_is_trained_again(asking: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(asking[1], out)
    words = [str(out) if word == asking[1] else word for word in asking if word not in ("ask", "--ask.unit", "token")]
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
