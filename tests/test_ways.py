"""Sums with two ways: what is written is right, and the program knows exactly how probable each token is."""

from __future__ import annotations

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.data.task import load_task
from kdtw_jax.data.tokenizer import load_tokenizer
from kdtw_jax.data.ways import TOKENIZER, problem, solution, way_pairs
from kdtw_jax.decoding import beam_search, generate
from kdtw_jax.metrics.scores import score
from kdtw_jax.models import Model, Params, make_model, shift_right
from kdtw_jax.models.two_ways import TwoWaysConfig
from kdtw_jax.pretrained.named import find_model, read_teacher
from tests.commands import train

BYTES = load_tokenizer(TOKENIZER)
DIGITS = ([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [0] * 10, [9, 9, 9], [7])


def rows(texts: list[str], width: int) -> jax.Array:
    ids = [BYTES.encode(text) for text in texts]
    return jnp.asarray([[*row, *[0] * (width - len(row))] for row in ids], jnp.int32)


SOURCES = rows([problem(digits) for digits in DIGITS], 21)


@pytest.fixture(scope="module")
def program() -> tuple[Model, Params]:
    model = make_model(TwoWaysConfig())
    return model, model.init(jax.random.key(0))


def test_targets_are_running_sums_and_sources_are_in_one_split() -> None:
    assert problem([3, 1, 9]) == "a3b1c9"
    assert (solution([3, 1, 9], "A"), solution([3, 1, 9], "B")) == ("Aa3b4c3=3", "B=3")
    splits = way_pairs()
    sources = [pair["source"] for pairs in splits.values() for pair in pairs]
    assert len(set(sources)) == len(sources)
    for pairs in splits.values():
        assert abs(np.mean([pair["target"].startswith("A") for pair in pairs]) - 0.5) < 0.05
    for pair in splits["test"]:
        digits = [int(d) for d in pair["source"][1::2]]
        assert pair["target"] == solution(digits, pair["group"])
        assert pair["target"][-1] == str(sum(digits) % 10)


def test_every_text_is_written_in_bytes_and_found_by_name(tmp_path: Path) -> None:
    task = load_task("ways", data_dir=tmp_path, limit=3, test_limit=2)
    assert (len(task.splits["train"]), len(task.splits["test"]), task.metrics) == (3, 2, ("answer", "long_way"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["ways:program", "ways:hasty"])
@pytest.mark.parametrize("way", ["A", "B"])
def test_a_program_gives_the_right_token_of_the_way_that_was_begun(way: str, name: str) -> None:
    model, params, _ = read_teacher(find_model(name), dtype="float32")
    share = {"ways:program": 0.5, "ways:hasty": 0.9}[name]
    chosen = share if way == "B" else 1 - share
    targets = rows([solution(digits, way) for digits in DIGITS], 25)
    decoded = model.decode(params, model.encode(params, SOURCES), shift_right(targets))
    log_mu = jax.nn.log_softmax(decoded.logits_BxTxV)
    taken = np.asarray(jnp.take_along_axis(log_mu, targets[..., None], axis=-1)[..., 0])
    slip, vocabulary = model.config.slip, model.config.vocab_size  # type: ignore[attr-defined]
    mask = np.asarray(targets != 0)
    np.testing.assert_allclose(taken[:, 0], np.log((1 - slip) * chosen + slip / vocabulary), rtol=1e-5)
    np.testing.assert_allclose(taken[:, 1:][mask[:, 1:]], np.log(1 - slip + slip / vocabulary), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.exp(log_mu).sum(-1), 1.0, rtol=1e-5)


def test_fed_piece_by_piece_the_program_says_the_same(program: tuple[Model, Params]) -> None:
    model, params = program
    targets = rows([solution(digits, way) for digits, way in zip(DIGITS, "ABAB", strict=True)], 25)
    inputs = shift_right(targets)
    whole = model.decode(params, model.encode(params, SOURCES), inputs).logits_BxTxV
    for sizes in ([1] * 25, [3, 1, 21], [2, 23]):
        cache, place, parts = model.start(params, model.encode(params, SOURCES), 25), 0, []
        for size in sizes:
            decoded, cache = model.extend(params, cache, inputs[:, place : place + size], jnp.full(4, place))
            parts.append(decoded.logits_BxTxV)
            place += size
        np.testing.assert_array_equal(jnp.concatenate(parts, axis=1), whole)


def test_what_the_program_writes_is_right_whichever_way_it_goes(program: tuple[Model, Params]) -> None:
    model, params = program
    noise = jax.random.uniform(jax.random.key(1), (4, 25)).at[:, 1:].set(0.5)
    noise = noise.at[:, 0].set(jnp.asarray([0.1, 0.9, 0.1, 0.9]))
    written = generate(model, params, SOURCES, noise, max_len=25, banned=(0, 2)).tokens_BxT
    texts = [BYTES.decode(np.asarray(row)) for row in written]
    right = [{solution(digits, "A"), solution(digits, "B")} for digits in DIGITS]
    assert all(text in both for text, both in zip(texts, right, strict=True))
    assert len({text[0] for text in texts}) == 2
    best = beam_search(model, params, SOURCES, beam_size=2, max_len=25, banned=(0, 2), length_penalty=0.6).tokens_BxT
    assert all(BYTES.decode(np.asarray(row)) in both for row, both in zip(best, right, strict=True))


def test_answers_count_whichever_way_they_were_come_by() -> None:
    references = ["B=3", "Aa3=3", "B=0", "B=1"]
    outputs = ["Aa9b9=3", "B=3", "B=1", "nothing"]
    assert score("answer", outputs, references).value == 50
    assert score("long_way", outputs, references).value == 25


def test_students_learn_from_the_program_by_its_name(tmp_path: Path) -> None:
    common = ["--preset=tiny", "--data=ways", "--teacher-model=ways:program", f"--text.folder={tmp_path / 'data'}"]
    common += ["--text.limit=300", "--eval.limit=16", "--devices=1", f"--out={tmp_path / 'run'}"]
    assert train([*common, "--warmup.loop.steps=8", "--training.loop.steps=8", "--methods", "pcl"]) == 0
    with (tmp_path / "run" / "distil.csv").open() as file:
        found = {(row["method"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}
    assert found["teacher", "answer"] == 100
    assert found["pcl", "answer"] < 100


def test_a_program_is_no_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--preset=tiny", "--data=ways", "--student-model=ways:program", f"--out={tmp_path / 'run'}"]
    assert train(run) == 2
    assert "ways:program is a program and cannot learn: give it as --teacher-model" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
