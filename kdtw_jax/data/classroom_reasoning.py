"""Questions of reasoning-gym's generators, `classroom:NAME`, as in `classroom:gsm_symbolic`.

The package (`pip install '.[reasoning]'`, https://github.com/open-thought/reasoning-gym) makes the questions and scores
the answers. gsm_symbolic's come with steps, which a target has before its answer; of other generators it has the answer
alone. A generator numbers its questions by seed, and each split has a range of its own; a question that comes again is
left out, and so is one whose own answer the generator's scorer does not take. Templates are not held out: a test has
other names and numbers than training, not other stories.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from kdtw_jax.data.pair import Pair
from kdtw_jax.data.record import Task, TaskRequest, TaskSource
from kdtw_jax.data.splits import PairSplits
from kdtw_jax.data.store import stored
from kdtw_jax.errors import UserError
from kdtw_jax.metrics import reasoning
from kdtw_jax.metrics.reasoning import GENERATORS, reasoning_gym, score_answer, target_of

SIZES = {"test": 1_000, "validation": 500, "train": 20_000}
_TRIES = 3  # times a split's size, at the most
_APART = 10_000_000  # between the seeds of two splits' first questions
_PREFIX = "classroom:"


def reasoning_pairs(name: str, limit: int | None = None) -> dict[str, list[Pair]]:
    """The splits "test", "validation" and "train" of a generator's questions, all distinct; as many as it has.

    Args:
      name: of the generator.
      limit: at most this many pairs a split.

    Raises:
      UserError: a generator that is not supported, a split without questions, or reasoning-gym is not installed.
    """
    check_generator(name)
    seen: set[str] = set()
    splits: dict[str, list[Pair]] = {}
    for place, (split, size) in enumerate(SIZES.items()):
        wanted = size if limit is None else min(size, limit)
        splits[split] = []
        for pair in _questions(name, place * _APART, _TRIES * wanted):
            if len(splits[split]) == wanted:
                break
            if pair["source"] not in seen:
                seen.add(pair["source"])
                splits[split].append(pair)
        if not splits[split]:
            raise UserError(f"{_PREFIX}{name}: no questions are left for {split}; use another generator")
    return splits


def check_generator(name: str) -> None:
    """Checks that a generator is there and supported, before anything is made.

    Raises:
      UserError: it is not, or reasoning-gym is not installed.
    """
    use = f"use one of {', '.join(GENERATORS)}"
    if name not in GENERATORS:
        known = name in reasoning_gym().factory.DATASETS
        needs = "its questions are no prose or too few, or its scorer needs more than an answer"
        raise UserError(f"{_PREFIX}{name}: {f'not supported, as {needs}' if known else 'no such generator'}; {use}")
    if name not in reasoning_gym().factory.DATASETS:
        raise UserError(f"{_PREFIX}{name}: the installed reasoning-gym has no such generator; {use}")


def _questions(name: str, seed: int, size: int) -> Iterator[Pair]:
    """The questions that the generator's own scorer takes the answers of."""
    questions = reasoning_gym().create_dataset(name, seed=seed, size=size)
    for entry in (questions[index] for index in range(size)):
        source, answer = (" ".join(str(entry[part]).split()) for part in ("question", "answer"))
        steps, _, result = str(entry["metadata"].get("answer_cot", "")).partition("####")
        if score_answer(name, answer, answer) == 1 and (not steps or result.strip() == answer):
            yield {"source": source, "target": target_of(name, answer, _in_sentences(steps)), "group": name}


def _in_sentences(steps: str) -> str:
    """Steps of a line each as sentences of one line."""
    lines = (" ".join(line.split()) for line in steps.splitlines())
    return " ".join(line + "." * (line[-1] not in ".,:;!?") for line in lines if line)


def _load(request: TaskRequest) -> Task:
    name = request.name.removeprefix(_PREFIX)
    check_generator(name)

    def make() -> PairSplits:
        with Console(stderr=True).status(f"{request.name}: making questions, some seconds"):
            splits = reasoning_pairs(name)
        return PairSplits(splits, {f"{split}_pairs": float(len(pairs)) for split, pairs in splits.items()})

    text = b"".join(Path(file).read_bytes() for file in (__file__, reasoning.__file__))
    recipe = f"{hashlib.blake2b(text, digest_size=8).hexdigest()} reasoning-gym {version('reasoning-gym')}"
    made = stored(request.data_dir, request.name, recipe, make)
    return Task(request.name, made.splits, ("reasoning_gym", "chrf"), "{source}", made.notes, made.fingerprint, "en")


SOURCE = TaskSource(_load, f"{_PREFIX}gsm_symbolic")
