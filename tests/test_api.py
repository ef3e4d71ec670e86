"""Training, loading, asking and judging from Python, as the README shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kdtw_jax
from kdtw_jax import Student, Task, UserError

RULE = "ask the teacher for at most 20% of the words"
SMALL: dict[str, Any] = {
    "devices": 1,
    "text": {"vocab_size": 100, "max_source": 16, "max_target": 16, "batch_tokens": 256},
    "training": {"loop": {"steps": 8}},
}


@pytest.fixture(scope="module")
def task() -> Task:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 3)) for _ in range(20)]
    texts = {" ".join(rng.choice(words, rng.integers(2, 5))) for _ in range(200)}
    return Task.from_pairs([(text, text[::-1]) for text in sorted(texts)], metrics=("chrf", "exact_match"))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


def train(task: Task, place: Path, method: str) -> Student:
    settings = {**SMALL, "text": {**SMALL["text"], "folder": str(place / "data")}}
    return kdtw_jax.train(task, method, preset="tiny", out=place / method, settings=settings)


def test_a_student_is_trained_found_again_called_and_judged(task: Task, places: Path) -> None:
    student = train(task, places, "mle")
    assert not (places / "mle" / "teacher").exists()  # nothing is asked of one
    assert not (places / "mle" / "run.yaml").exists()  # which could not have the pairs
    before = (places / "mle" / "seed0" / "mle" / "model" / "config.json").stat().st_mtime_ns
    answers = student([pair["source"] for pair in task.splits["test"]])
    assert answers.text == train(task, places, "mle")([pair["source"] for pair in task.splits["test"]]).text
    assert (places / "mle" / "seed0" / "mle" / "model" / "config.json").stat().st_mtime_ns == before
    assert answers.text == kdtw_jax.load(places / "mle")(pair["source"] for pair in task.splits["test"]).text
    assert student("abc").text == student(["abc"])[0].text and student("abc").share == 0
    found = kdtw_jax.evaluate(student, task)
    assert list(found.scores) == ["chrf", "exact_match"] and found.answers.text == answers.text
    pairs = [(answer.source, answer.text) for answer in answers]
    assert kdtw_jax.evaluate(student, pairs, metrics=["exact_match"]).scores["exact_match"].value == 100
    assert len(kdtw_jax.evaluate(student, task, split="validation", limit=1).answers) == 1
    assert "chrf" in repr(found) and "the teacher wrote 0.0%" in repr(found)


def test_what_cannot_be_done_is_said_before_anything_is_made(task: Task, places: Path) -> None:
    student = train(task, places, "mle")
    with pytest.raises(UserError, match="did not learn to ask"):
        student(["abc"], rule=RULE)
    with pytest.raises(UserError, match="split must be one of test, train, validation, got 'dev'"):
        kdtw_jax.evaluate(student, task, split="dev")
    with pytest.raises(UserError, match="no student of seed 0 of the method pcl; finished are mle"):
        kdtw_jax.load(places / "mle", "pcl")
    for arguments, message in (
        ({"method": "best"}, "unknown method 'best'; known are mle"),
        ({"preset": "huge"}, "preset must be one of"),
        ({"settings": {"steps": 3}}, "steps is no option"),
        ({"teacher": "nowhere"}, "nowhere is not a saved model"),
    ):
        with pytest.raises(UserError, match=message):
            kdtw_jax.train(task, **{"out": places / "new", **arguments})  # type: ignore[arg-type]
    assert not (places / "new").exists()


@pytest.mark.long
def test_a_student_that_asks_is_trained_with_its_teacher_and_keeps_its_rule(task: Task, places: Path) -> None:
    student = train(task, places, "ask")
    sources = [pair["source"] for pair in task.splits["test"]]
    answers = student(sources, rule=RULE)
    assert all(answer.calls <= 0.2 * len(answer.tokens) + 1e-6 for answer in answers)
    assert student(sources, rule="do not ask the teacher").text == student(sources).text
    assert kdtw_jax.load(places / "ask")(sources, rule=RULE).text == answers.text


def test_a_run_on_text_that_has_a_name_says_what_repeats_it(places: Path) -> None:
    settings = {**SMALL, "text": {"vocab_size": 400, "limit": 200, "folder": str(places / "data")}}
    kdtw_jax.train("cldr", "mle", preset="tiny", out=places / "named", settings=settings)
    assert "data: cldr" in (places / "named" / "run.yaml").read_text()
