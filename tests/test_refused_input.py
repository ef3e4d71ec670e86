"""Bad input of the main job: one clear line, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.methods.ask_config import SEEN, check_held_out
from kdtw_jax.runs import open_run
from tests.commands import train
from tests.mirrored import mirrored


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirrored(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "tiny", "--ask.constraints", "shares"], "unknown constraint 'shares'; known are share, calls"),
        (["--preset", "tiny", "--ask.unit", "sentence"], "unit must be token, word or a number of tokens, such as"),
        (["--preset", "huge"], "unknown preset 'huge'; known are quickstart, tiny, small, wide, base, paper"),
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
        (["--preset", "tiny", "--eval.gates", "entropi"], "eval.gates must be some of learned, random, entropy,"),
        (["--preset", "tiny", "--word-kd.kl-weight", "nan"], "kl_weight must be in [0, 1], got nan"),
        (["--preset", "tiny", "--word-kd.kl-weight", "inf"], "kl_weight must be in [0, 1], got inf"),
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
