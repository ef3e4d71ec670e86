"""How much of one set of texts is found in another."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal

from kdtw_jax.data.pair import Pair

NEAR = 0.8  # Jaccard index of word sets from which two texts count as near-duplicates
PART = 0.5  # share of a text's runs of words from which another that has them counts as its near-duplicate
SHINGLE = 8  # words in a run


def normalised(text: str) -> str:
    """`text` with case, digits and spacing folded; equal for texts that differ in nothing else."""
    return re.sub(r"\d+", "0", " ".join(text.casefold().split()))


def overlap(train: Sequence[Pair], test: Sequence[Pair]) -> dict[str, float]:
    """What of the test split can be found in training, as shares of 0 to 1.

    `test_source_in_train`, `test_target_in_train`: equal but for case, digits and spacing.
    `test_source_near_train`: a near-duplicate of some training source, as `near_duplicates` has it.
    `test_shingles_in_train`: the mean, over test sources of 8 words or more, of the share of their runs of
    8 words that some training source has.
    """
    sources, targets = [pair["source"] for pair in test], [pair["target"] for pair in test]
    train_sources = [pair["source"] for pair in train]
    seen = {normalised(source) for source in train_sources}
    seen_targets = {normalised(pair["target"]) for pair in train}
    wanted = [_shingles(source) for source in sources]
    there = {shingle for shingles in wanted for shingle in shingles}
    found = {shingle for source in train_sources for shingle in _shingles(source) if shingle in there}
    notes = {
        "test_source_in_train": _mean([normalised(source) in seen for source in sources]),
        "test_target_in_train": _mean([normalised(target) in seen_targets for target in targets]),
        "test_source_near_train": _mean(near_duplicates(sources, train_sources, whole="texts")),
        "test_shingles_in_train": _mean([len(s & found) / len(s) for s in wanted if s]),
    }
    return {name: round(value, 5) for name, value in notes.items()}


def near_duplicates(
    texts: Sequence[str], others: Sequence[str], *, whole: Literal["texts", "others"] = "others"
) -> list[bool]:
    """For each text whether it is a near-duplicate of one of `others`: by its words, or by a part of it.

    By words: a Jaccard index of the sets of words of at least `NEAR`. By parts: the two share at least `PART`
    of the runs of 8 words in the one named by `whole`.
    """
    alike = _alike([_words(text) for text in texts], [_words(text) for text in others])
    shared = _shared(texts, others, whole)
    return [a or b for a, b in zip(alike, shared, strict=True)]


def _alike(bags: Sequence[frozenset[str]], others: Sequence[frozenset[str]]) -> list[bool]:
    """Exact: sets that alike share one of their rarest words (prefix filtering); only those are compared."""
    count = Counter(word for bag in (*bags, *others) for word in bag)

    def rarest(bag: frozenset[str]) -> list[str]:
        ordered = sorted(bag, key=lambda word: (count[word], word))
        return ordered[: len(bag) - math.ceil(NEAR * len(bag)) + 1]

    having: dict[str, list[frozenset[str]]] = defaultdict(list)
    for bag in set(others):
        for word in rarest(bag):
            having[word].append(bag)

    def has_near(bag: frozenset[str]) -> bool:
        close = (other for word in rarest(bag) for other in having.get(word, ()))
        return any(len(bag & other) >= NEAR * len(bag | other) for other in close)

    return [has_near(bag) for bag in bags]


def _shared(texts: Sequence[str], others: Sequence[str], whole: Literal["texts", "others"]) -> list[bool]:
    fewer = min(texts, others, key=len)
    wanted = {shingle for text in fewer for shingle in _shingles(text)}  # the rest need not be kept
    having: dict[str, list[int]] = defaultdict(list)
    sizes = []
    for i, other in enumerate(others):
        shingles = _shingles(other)
        sizes.append(len(shingles))
        for shingle in shingles & wanted:
            having[shingle].append(i)
    found = []
    for text in texts:
        shingles = _shingles(text)
        common = Counter(i for shingle in shingles for i in having.get(shingle, ()))
        size = {i: len(shingles) if whole == "texts" else sizes[i] for i in common}
        found.append(any(number >= PART * size[i] for i, number in common.items()))
    return found


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", normalised(text)))


def _shingles(text: str) -> set[str]:
    words = re.findall(r"\w+", normalised(text))
    return {" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
