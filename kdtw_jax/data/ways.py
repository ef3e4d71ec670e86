"""Sums with two ways to their answer: a task that a small student can do in one way only.

A source names ten digits by their places, "a3b1c4d1...". The long way writes every running sum modulo 10 under its
place and then the answer, "Aa3b4c8d9...=5"; the short way writes the answer at once, "B=5". Targets go either way, half
of them each, and nothing in a source says which. A model of one layer can add a digit to the sum before it, but not ten
digits at once: the teacher's distributions are right at every state, and still no student of that size should follow
them into the short way. What a state is worth to the student decides, not how its next token is distributed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from itertools import accumulate
from string import ascii_lowercase

from kdtw_jax.data.byt5 import BYT5
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.record import Task, TaskRequest, TaskSource
from kdtw_jax.metrics.sums import EQUALS, LONG, SHORT

DIGITS = 10  # of a sum
SIZES = {"train": 100_000, "validation": 1_000, "test": 2_000}
TOKENIZER = BYT5  # in which every character is a token, as `kdtw_jax.models.two_ways` expects


def problem(digits: Sequence[int]) -> str:
    """The source of a sum of `digits`, at most 26 of them."""
    return "".join(f"{place}{digit}" for place, digit in zip(ascii_lowercase, digits, strict=False))


def solution(digits: Sequence[int], way: str) -> str:
    """The target of a sum of `digits` in a way, LONG or SHORT."""
    sums = [total % 10 for total in accumulate(digits)]
    return f"{way}{problem(sums) if way == LONG else ''}{EQUALS}{sums[-1]}"


def way_pairs(seed: int = 0) -> dict[str, list[Pair]]:
    """The splits "train", "validation" and "test", of distinct sums; the `group` of a pair is its way."""
    rng = random.Random(seed)
    seen: set[str] = set()
    splits: dict[str, list[Pair]] = {split: [] for split in SIZES}
    for split, size in SIZES.items():
        while len(splits[split]) < size:
            digits = rng.choices(range(10), k=DIGITS)
            source, way = problem(digits), rng.choice((LONG, SHORT))
            if source not in seen:
                seen.add(source)
                splits[split].append({"source": source, "target": solution(digits, way), "group": way})
    return splits


def _load(request: TaskRequest) -> Task:
    splits = way_pairs()
    notes: dict[str, float] = {f"{split}_pairs": len(pairs) for split, pairs in splits.items()}
    text = "".join(pair["source"] + pair["target"] for pairs in splits.values() for pair in pairs)
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return Task(request.name, splits, ("answer", "long_way"), "{source}", notes, digest)


SOURCE = TaskSource(_load, "ways")
