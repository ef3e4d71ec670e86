"""How much of one set of texts is found in another."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import NDArray

from kdtw_jax.data.intersections import any_alike
from kdtw_jax.data.pair import Pair

RECIPE = "overlap 1"  # to be changed with every change of what is measured
NEAR = 0.8  # Jaccard index of word sets from which two texts count as near-duplicates
PART = 0.5  # share of a text's runs of words from which another that has them counts as its near-duplicate
SHINGLE = 8  # words in a run

# Above these numbers a pair of texts it is faster to count for all pairs at once: of sets that would be compared, and
# of runs of words that would be counted, one by one.
_COMPARED = 1 / 50
_COUNTED = 1 / 8

# Scripts that put no spaces between words (Han, kana, Thai, Lao, Myanmar, Khmer): a character is taken for a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNSPACED += "\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def normalised(text: str) -> str:
    """`text` with case, digits and spacing folded; equal for texts that differ in nothing else."""
    return re.sub(r"\d+", "0", caseless(text, canonical=False))


def caseless(text: str, *, canonical: bool = True) -> str:
    """`text` with case and spacing folded, and with `canonical` what Unicode holds to be the same; digits stay."""
    if canonical and not text.isascii():
        text = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
    return " ".join(text.casefold().split())


def contained(train: Sequence[Pair], test: Sequence[Pair], *, fold_digits: bool = False) -> dict[str, float]:
    """The shares of test sources and of test targets that training has: `test_source_in_train`, `test_target_in_train`.

    They are the same if they differ in case and spacing alone, or, with `fold_digits`, in digits as well.
    """
    form = normalised if fold_digits else caseless
    notes = {}
    for side in ("source", "target"):
        seen = {form(pair[side]) for pair in train}
        notes[f"test_{side}_in_train"] = round(_mean([form(pair[side]) in seen for pair in test]), 5)
    return notes


def overlap(train: Sequence[Pair], test: Sequence[Pair], *, fold_digits: bool = True) -> dict[str, float]:
    """What of the test split can be found in training, as shares of 0 to 1.

    `test_source_in_train`, `test_target_in_train`: as `contained` has it.
    `test_source_near_train`: a near-duplicate of some training source, as `near_duplicates` has it.
    `test_shingles_in_train`: the mean, over test sources of 8 words or more, of the share of their runs of
    8 words that some training source has.
    """
    sources, train_sources = [pair["source"] for pair in test], [pair["source"] for pair in train]
    wanted = [_shingles(source, fold_digits) for source in sources]
    there = {shingle for shingles in wanted for shingle in shingles}
    found = {shingle for source in train_sources for shingle in _shingles(source, fold_digits) if shingle in there}
    near = near_duplicates(sources, train_sources, whole="texts", fold_digits=fold_digits)
    return {
        **contained(train, test, fold_digits=fold_digits),
        "test_source_near_train": round(_mean(near), 5),
        "test_shingles_in_train": round(_mean([len(s & found) / len(s) for s in wanted if s]), 5),
    }


def near_duplicates(
    texts: Sequence[str],
    others: Sequence[str],
    *,
    whole: Literal["texts", "others"] = "others",
    fold_digits: bool = True,
) -> list[bool]:
    """For each text whether it is a near-duplicate of one of `others`: by its words, or by a part of it.

    By words: a Jaccard index of the sets of words of at least `NEAR`. By parts: the two share at least `PART`
    of the runs of 8 words in the one named by `whole`. Without `fold_digits`, numbers are words like others, and
    so are single characters of scripts that have no spaces.
    """
    alike = _alike(*([frozenset(_words(text, fold_digits)) for text in side] for side in (texts, others)))
    shared = _shared(texts, others, whole, fold_digits)
    return [a or b for a, b in zip(alike, shared, strict=True)]


def _alike(bags: Sequence[frozenset[str]], others: Sequence[frozenset[str]]) -> list[bool]:
    """Exact: sets that are alike share one of their rarest words (prefix filtering). Only those that do are compared,
    or, where that would be too many of them, all."""
    count = Counter(word for bag in (*bags, *others) for word in bag)

    def rarest(bag: frozenset[str]) -> list[str]:
        ordered = sorted(bag, key=lambda word: (count[word], word))
        return ordered[: len(bag) - math.ceil(NEAR * len(bag)) + 1]

    mine, theirs = list(set(bags)), list(set(others))
    having: dict[str, list[frozenset[str]]] = defaultdict(list)
    for bag in theirs:
        for word in rarest(bag):
            having[word].append(bag)

    def has_near(bag: frozenset[str]) -> bool:
        close = (other for word in rarest(bag) for other in having.get(word, ()))
        return any(len(bag & other) >= NEAR * len(bag | other) for other in close)

    def near(common: NDArray[Any], size_Bx1: NDArray[Any], size_1xM: NDArray[Any]) -> NDArray[Any]:
        return common >= NEAR * (size_Bx1 + size_1xM - common)

    compared = sum(len(having.get(word, ())) for bag in mine for word in rarest(bag))
    few = compared <= _COMPARED * len(mine) * len(theirs)
    found = [has_near(bag) for bag in mine] if few else any_alike(mine, theirs, near)
    answer = dict(zip(mine, found, strict=True))
    return [answer[bag] for bag in bags]


def _shared(texts: Sequence[str], others: Sequence[str], whole: Literal["texts", "others"], fold: bool) -> list[bool]:
    """Whether texts have at least `PART` of the runs of words of a text, or of another, in common with the other."""
    wanted = {shingle for text in min(texts, others, key=len) for shingle in _shingles(text, fold)}

    def kept(side: Sequence[str]) -> tuple[list[set[str]], list[int]]:
        bags, sizes = [], []
        for text in side:
            shingles = _shingles(text, fold)
            sizes.append(len(shingles))
            bags.append(shingles & wanted)  # the rest need not be kept
        return bags, sizes

    (bags, sizes), (other_bags, other_sizes) = kept(texts), kept(others)
    having: dict[str, list[int]] = defaultdict(list)
    for i, bag in enumerate(other_bags):
        for shingle in bag:
            having[shingle].append(i)

    def has_shared(bag: set[str], size: int) -> bool:
        common = Counter(i for shingle in bag for i in having.get(shingle, ()))
        return any(n >= PART * (size if whole == "texts" else other_sizes[i]) for i, n in common.items())

    def share(common: NDArray[Any], size_Bx1: NDArray[Any], size_1xM: NDArray[Any]) -> NDArray[Any]:
        return common >= PART * (size_Bx1 if whole == "texts" else size_1xM)

    counted = sum(len(having.get(shingle, ())) for bag in bags for shingle in bag)
    if counted <= _COUNTED * len(bags) * len(other_bags):
        return [has_shared(bag, size) for bag, size in zip(bags, sizes, strict=True)]
    return any_alike(bags, other_bags, share, sizes=sizes, other_sizes=other_sizes)


def _words(text: str, fold_digits: bool) -> list[str]:
    return re.findall(r"\w+", normalised(text)) if fold_digits else _WORD.findall(caseless(text))


def _shingles(text: str, fold_digits: bool) -> set[str]:
    words = _words(text, fold_digits)
    return {" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
