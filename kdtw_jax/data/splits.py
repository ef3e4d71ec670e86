"""Which pairs are for training and which held out, so that no relative of a held-out text is trained on."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdtw_jax.data.overlap import caseless, contained, near_duplicates, normalised, overlap
from kdtw_jax.data.pair import Pair
from kdtw_jax.errors import UserError

UInt64 = NDArray[np.uint64]

SHARE = 0.02  # of all pairs, for each of validation and test
MOST = 0.1  # of all pairs, where the minimum would be more than that

# Sources whose packages come in one version or one language each, all described in the same words.
_SERIES = re.compile(
    r"(aspell|apertium|binutils|cross-toolchain|firefox|fonts|gcc|hunspell|hyphen|ispell|kde-l10n|kernel|libreoffice|"
    r"linux|llvm|manpages|myspell|mythes|nvidia|openjdk|postgresql|task|tesseract|texlive|thunderbird|xfonts)(?![a-z]).*"
)
_PREFIX = re.compile(
    r"^(lib(?!re)|python\d*-|golang-(?:github-|gopkg-|golang-)?|node-|ruby-|rust-|haskell-|ocaml-|php-|r-(?:cran|bioc)-)"
    r"(?=.{2})"
)
_SUFFIX = re.compile(
    r"(-(?:dev|devel|doc|docs|data|common|cross|signed|amd64|arm64|i386|perl|python|java|ruby|php|ocaml|qt|gtk|"
    r"l10n|i18n|lang|locale|nonfree|contrib|bin|utils|tools|el))+$"
)
_VERSION = re.compile(r"(?<=.)[-.]?v?\d[\d.]*(?:-?(?:lts|esr))?$")


class PairSplits(NamedTuple):
    """Pairs by split ("train", "validation", "test") and numbers about them that are worth printing."""

    splits: dict[str, list[Pair]]
    notes: dict[str, float]


def family(source_package: str) -> str:
    """A name shared by source packages that describe the same thing.

    Versions, prefixes and suffixes go: `gcc-12`, `gcc-13-cross` are `gcc`; `python-foo`, `libfoo2` are `foo`.
    """
    name = source_package.split()[0].lower()
    series = _SERIES.match(name)
    if series:
        return series[1]
    previous = None
    while name != previous:
        previous = name
        name = _PREFIX.sub("", _VERSION.sub("", _SUFFIX.sub("", name))) or previous
    return name


def distinct(pairs: Iterable[Pair]) -> list[Pair]:
    """One pair for each normalised source, with its commonest target, in an order of its own (by a hash).

    The result does not depend on the order of `pairs`.
    """
    by_source: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_source[normalised(pair["source"])].append(pair)
    chosen = []
    for same in by_source.values():
        count = Counter(normalised(pair["target"]) for pair in same)
        best = min(
            same,
            key=lambda p: (-count[normalised(p["target"])], p["target"], p["source"], p["group"]),
        )
        chosen.append(best)
    return sorted(chosen, key=lambda pair: _hash("order", pair["source"]))


def split_by_group(pairs: Sequence[Pair], *, minimum: Mapping[str, int], salt: str) -> PairSplits:
    """Splits by `group`; drops training pairs too like a held-out one, and measures what is left.

    Groups go to the test split in an order given by a hash of their name until it has its share, then to
    validation; the rest is for training, and so are groups that would fill more than a fortieth of a held-out
    split (and have more than 10 pairs): a few packages should not decide a result.

    Args:
      pairs: distinct pairs; each split keeps their order.
      minimum: pairs that "test" and "validation" should have, unless that is more than a tenth of all.
      salt: goes into the hash.

    Raises:
      UserError: too few groups or pairs for three splits.
    """
    sizes = Counter(pair["group"] for pair in pairs)
    order = sorted(sizes, key=lambda group: _hash(salt, group))
    split_of: dict[str, str] = {}
    for split in ("test", "validation"):
        wanted = min(max(SHARE * len(pairs), minimum[split]), MOST * len(pairs))
        have = 0
        for group in order:
            if have >= wanted:
                break
            if group not in split_of and sizes[group] <= max(wanted / 40, 10):
                split_of[group] = split
                have += sizes[group]
    splits: dict[str, list[Pair]] = {"train": [], "validation": [], "test": []}
    for pair in pairs:
        splits[split_of.get(pair["group"], "train")].append(pair)

    if not all(splits.values()):
        raise UserError(f"{salt}: {len(pairs)} pairs of {len(sizes)} packages are too few to hold some out")

    before = len(splits["train"])
    held_out = [pair["source"] for split in ("validation", "test") for pair in splits[split]]
    same = {normalised(source) for source in held_out}
    splits["train"] = [pair for pair in splits["train"] if normalised(pair["source"]) not in same]
    exact = before - len(splits["train"])
    near = near_duplicates([pair["source"] for pair in splits["train"]], held_out)
    splits["train"] = [pair for pair, is_near in zip(splits["train"], near, strict=True) if not is_near]
    notes: dict[str, float] = {
        "families": len(sizes),
        "dropped_from_train_same_as_held_out": exact,
        "dropped_from_train_near_held_out": sum(near),
    }
    for split, chosen in splits.items():
        notes[f"{split}_pairs"] = len(chosen)
        for side in ("source", "target"):
            words = sum(len(pair[side].split()) for pair in chosen)
            notes[f"{split}_{side}_words_mean"] = round(words / max(len(chosen), 1), 2)
    return PairSplits(splits, notes | overlap(splits["train"], splits["test"]))


def _hash(salt: str, text: str) -> bytes:
    return hashlib.blake2b(f"{salt}|{text}".encode(), digest_size=16).digest()


def source_code(source: str, seed: int) -> int:
    """64 bits for a source, the same for sources equal up to case, spacing and what Unicode holds to be the same."""
    return int.from_bytes(_hash(str(seed), caseless(source))[:8])


def held_out_parts(code_N: UInt64, parts: int, *, share: float, most: int | None = None) -> NDArray[np.intp]:
    """For each pair which of `parts` held-out parts it is in, from 0; `parts` for the training pairs.

    Each part has that share of the distinct codes (of `source_code`), but no more than `most` of them; pairs of one
    code go together. The choice depends on the codes, not on their order.

    Raises:
      UserError: too few distinct codes to leave some in every part.
    """
    distinct = np.unique(code_N)
    size = max(1, round(share * len(distinct)))
    size = size if most is None else min(size, most)
    if len(distinct) <= size * parts:
        raise UserError(
            f"{len(distinct)} distinct training sources are too few to hold some out; give more (case and "
            "spacing alone make no other source), or all three splits"
        )
    return np.searchsorted(distinct[size : size * parts + 1 : size], code_N, side="right")


def held_out_share(splits: Mapping[str, Sequence[Pair]], *, share: float, seed: int) -> PairSplits:
    """Adds "validation" and "test" where missing: that share of the distinct training sources for each.

    Pairs whose sources differ in case and spacing alone go together, so none is on both sides. The choice depends on
    the texts and the seed, not on the order of the pairs. The notes say what of test is in training to the letter.

    Raises:
      UserError: too few distinct training sources to leave some in every split.
    """
    out = {split: list(pairs) for split, pairs in splits.items()}
    if missing := [split for split in ("validation", "test") if split not in out]:
        train = out["train"]
        code_N = np.array([source_code(pair["source"], seed) for pair in train], np.uint64)
        part_N = held_out_parts(code_N, len(missing), share=share).tolist()
        for part, split in enumerate([*missing, "train"]):
            out[split] = [pair for pair, its in zip(train, part_N, strict=True) if its == part]
    notes: dict[str, float] = {f"{split}_pairs": len(pairs) for split, pairs in out.items()}
    return PairSplits(out, notes | contained(out["train"], out["test"]))
