"""Text pairs that a program has in memory, checked and split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from kdtw_jax.data.pair import Pair
from kdtw_jax.data.splits import held_out_share
from kdtw_jax.errors import UserError

Given: TypeAlias = Iterable[tuple[str, str] | Mapping[str, str]]

_HELD_OUT = 0.05  # share of the distinct training sources for validation, where none is given


def read_pairs(pairs: Given, name: str) -> list[Pair]:
    """Reads (source, target) tuples, or mappings with these keys, as pairs; relatives are the pairs of one source.

    Raises:
      UserError: one is anything else; says its place from 0 in the argument `name`.
    """
    found: list[Pair] = []
    for place, pair in enumerate(pairs):
        if isinstance(pair, Mapping):
            texts = [pair.get("source"), pair.get("target")]
        else:
            texts = list(pair) if isinstance(pair, tuple | list) else []
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{name}[{place}] must be a (source, target) pair of texts, got {pair!r:.80}")
        source, target = map(str, texts)
        found.append(Pair(source=source, target=target, group=source))
    return found


def split_pairs(train: Given, validation: Given | None, test: Given | None, *, seed: int = 0) -> dict[str, list[Pair]]:
    """The three splits; for one that is not given, the pairs of a twentieth of the distinct training sources.

    Raises:
      UserError: as `read_pairs` does; a split has no pairs, or held-out sources are in training.
    """
    given = {"train": train, "validation": validation, "test": test}
    splits = {name: read_pairs(pairs, name) for name, pairs in given.items() if pairs is not None}
    known = {pair["source"] for pair in splits["train"]}
    for split, pairs in splits.items():
        if not pairs:
            raise UserError(f"{split} has no pairs; give some")
        sources = {pair["source"] for pair in pairs}
        if split != "train" and (common := sources & known):
            raise UserError(
                f"{len(common)} of the {len(sources)} sources of {split} are in train, too, as {min(common)!r:.60}: "
                "scores on them would be no test; leave them out of one of the two"
            )
    return {**splits, **held_out_share(splits, share=_HELD_OUT, seed=seed).splits}
