"""Questions of reasoning-gym: with a stand-in for it, and with the package where it is installed."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdtw_jax.data import classroom_reasoning
from kdtw_jax.data.classroom_reasoning import reasoning_pairs
from kdtw_jax.data.task import load_task
from kdtw_jax.errors import UserError
from kdtw_jax.metrics import reasoning
from kdtw_jax.metrics.reasoning import GENERATORS, target_of
from kdtw_jax.metrics.scores import score, signature


@pytest.fixture(autouse=True)
def scorers() -> Iterator[None]:
    """Each test with scorers of its own."""
    reasoning._scorer.cache_clear()
    yield
    reasoning._scorer.cache_clear()


def sums(seed: int) -> dict[str, Any]:
    """A question by its seed. Of ten, one has an answer that the scorer does not take, and one steps to another."""
    first, second = random.Random(seed).choices(range(40), k=2)
    answer = f"about {first + second}" if seed % 10 == 3 else str(first + second)
    wrong = seed % 10 == 4
    steps = f"We add.\n{first}+{second}={first + second + wrong}\n#### {f'{wrong}' * wrong or answer}"
    return {"question": f"{first} and\n {second}?", "answer": answer, "metadata": {"answer_cot": steps}}


def numbers_alone(answer: str, entry: dict[str, Any]) -> float:
    return 1.0 if int(answer) == int(entry["answer"]) else 0.25


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the questions that a stand-in for the package was asked for."""
    seeds: list[int] = []

    class Questions:
        def __init__(self, name: str, seed: int, size: int) -> None:
            self.seed, self.size = seed, size

        def __getitem__(self, index: int) -> dict[str, Any]:
            if not 0 <= index < self.size:
                raise IndexError(index)
            seeds.append(self.seed + index)
            return sums(self.seed + index)

    def scorer(name: str) -> Callable[[str, dict[str, Any]], float]:
        return numbers_alone

    known = SimpleNamespace(DATASETS={"gsm_symbolic": None, "countdown": None})
    package = SimpleNamespace(factory=known, create_dataset=Questions, get_score_answer_fn=scorer)
    monkeypatch.setitem(sys.modules, "reasoning_gym", package)
    monkeypatch.setattr(classroom_reasoning, "version", lambda name: "0")
    monkeypatch.setattr(classroom_reasoning, "SIZES", {"test": 40, "validation": 20, "train": 3000})
    return seeds


def test_splits_share_neither_seeds_nor_questions_and_the_scorer_takes_every_answer(asked: list[int]) -> None:
    splits = reasoning_pairs("gsm_symbolic")
    assert len(set(asked)) == len(asked)
    assert (len(splits["test"]), len(splits["validation"])) == (40, 20)
    assert 1000 < len(splits["train"]) <= 1600 - 60  # as many as are distinct
    sources = [pair["source"] for pairs in splits.values() for pair in pairs]
    assert len(set(sources)) == len(sources)
    for pair in splits["train"]:
        first, second = pair["source"].removesuffix("?").split(" and ")
        total = int(first) + int(second)
        assert pair["target"] == f"We add. {first}+{second}={total}. Answer (gsm_symbolic): {total}"
    assert splits == reasoning_pairs("gsm_symbolic")
    assert [len(pairs) for pairs in reasoning_pairs("gsm_symbolic", limit=7).values()] == [7, 7, 7]


def test_the_scorer_of_the_references_generator_gets_what_follows_the_marker(asked: list[int]) -> None:
    right = target_of("gsm_symbolic", "72", "40 + 32 = 72.")
    assert right == "40 + 32 = 72. Answer (gsm_symbolic): 72"
    texts = [right, "Answer (gsm_symbolic): 72", "72", "Answer (gsm_symbolic): 71", "40 + 32", "", "Answer (gcd): 072"]
    scores = [100, 100, 100, 25, 0, 0, 100]  # what a scorer cannot read is wrong
    assert [score("reasoning_gym", [text], [right], resamples=1).value for text in texts] == scores
    assert score("reasoning_gym", texts, [right] * 7, resamples=1).value == pytest.approx(sum(scores) / 7)
    assert score("reasoning_gym", ["72", "72"], ["72", "Answer (else): 72"], resamples=1).value == 0


@pytest.mark.parametrize("error", [IndexError, RecursionError, ZeroDivisionError, KeyError])
def test_an_answer_that_a_scorer_stumbles_on_is_wrong(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbles(answer: str, entry: dict[str, Any]) -> float:
        raise error(answer)

    monkeypatch.setitem(sys.modules, "reasoning_gym", SimpleNamespace(get_score_answer_fn=lambda name: stumbles))
    assert reasoning.score_answer("gcd", "((", "2") == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("countdown", "classroom:countdown: not supported, as .* scorer needs more than an answer; use one of aiw, "),
        ("nothing", "classroom:nothing: no such generator; use one of aiw, "),
        ("gcd", "classroom:gcd: the installed reasoning-gym has no such generator; use one of aiw, "),
    ],
)
def test_other_generators_are_refused_before_anything_is_made(
    name: str, message: str, asked: list[int], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_task(f"classroom:{name}", data_dir=tmp_path / "data")
    assert not asked and not (tmp_path / "data").exists()


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    message = r"questions of reasoning-gym need reasoning_gym, which is not installed: pip install '\.\[reasoning\]'$"
    with pytest.raises(UserError, match=message):
        load_task("classroom:gsm_symbolic", data_dir=tmp_path / "data")
    with pytest.raises(UserError, match=message):
        score("reasoning_gym", ["1"], [target_of("gcd", "1")])
    assert not (tmp_path / "data").exists()


def test_it_is_found_by_name(asked: list[int], tmp_path: Path) -> None:
    task = load_task("classroom:gsm_symbolic", data_dir=tmp_path)
    assert (len(task.splits["test"]), task.metrics) == (40, ("reasoning_gym", "chrf"))
    asked.clear()
    again = load_task("classroom:gsm_symbolic", data_dir=tmp_path)
    assert again.fingerprint == task.fingerprint and not asked


@pytest.mark.parametrize("name", GENERATORS)
def test_the_packages_own_questions_have_answers_that_their_scorers_take(name: str) -> None:
    pytest.importorskip("reasoning_gym", reason="needs reasoning-gym: pip install '.[reasoning]'")
    splits = reasoning_pairs(name, limit=30)
    assert splits == reasoning_pairs(name, limit=30)
    assert [len(pairs) for pairs in splits.values()] == [30, 30, 30]
    references = [pair["target"] for pair in splits["test"]]
    assert score("reasoning_gym", references, references, resamples=1).value == 100
    assert score("reasoning_gym", ["nothing of the kind"] * 30, references, resamples=1).value < 20
    assert "reasoning_gym|0" in signature("reasoning_gym")
