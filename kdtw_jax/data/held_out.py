"""Validation and test pairs out of a training split that is too large to keep: chosen in one pass, kept as places."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtw_jax.data.pair import Pair, Source
from kdtw_jax.data.splits import held_out_parts, source_code
from kdtw_jax.errors import UserError
from kdtw_jax.runs import Progress
from kdtw_jax.runs.atomic import read_arrays, write_arrays

MOST = 5000  # distinct sources of a held-out split: more of a large set would tell little more, and train less
_FORMAT = "held out 1"
_PROGRESS_EVERY = 1000


@dataclass(frozen=True)
class Chosen:
    """The pairs of a source at some places."""

    source: Source
    place_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.place_N)

    def __getitem__(self, index: int, /) -> Pair:
        return self.source[int(self.place_N[index])]

    def __iter__(self) -> Iterator[Pair]:
        return (self.source[int(place)] for place in self.place_N)


class Rest:
    """The pairs of a source at all places but some. Takes memory for these only."""

    def __init__(self, source: Source, without_N: NDArray[np.int64]):
        """`without_N`: distinct places, in order."""
        self._source = source
        self._without_N = without_N
        self._before_N = without_N - np.arange(len(without_N))  # how many stay before each

    def __len__(self) -> int:
        return len(self._source) - len(self._without_N)

    def __getitem__(self, index: int, /) -> Pair:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index = int(index) % len(self)
        return self._source[index + int(np.searchsorted(self._before_N, index, side="right"))]

    def __iter__(self) -> Iterator[Pair]:
        without = iter(self._without_N.tolist())
        skipped = next(without, None)
        for place, pair in enumerate(self._source):
            if place == skipped:
                skipped = next(without, None)
            else:
                yield pair


def hold_out(
    source: Source, missing: Sequence[str], *, share: float, seed: int, label: str, folder: Path, recipe: str
) -> dict[str, Source]:
    """The splits `missing` out of `source`, and "train" for the rest, as `held_out_parts` chooses them, `MOST` each.

    Args:
      share: of the distinct sources, for each of `missing`.
      label: of the progress that is shown.
      folder: where the places are kept, so that the pass over the source is made once.
      recipe: everything the source depends on, in words.

    Raises:
      UserError: too few distinct sources.
    """
    text = "|".join((_FORMAT, recipe, str(len(source)), *missing, str(share), str(seed), str(MOST)))
    path = folder / f"held-out-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.npz"
    places: dict[str, NDArray[Any]] = {}
    with contextlib.suppress(UserError):  # not there yet, or damaged
        places = read_arrays(path)
    if set(places) != set(missing):
        code_N = np.empty(len(source), np.uint64)
        with Progress(label, total=len(source)) as progress:
            for place, pair in enumerate(source):
                code_N[place] = source_code(pair["source"], seed)
                if (place + 1) % _PROGRESS_EVERY == 0:
                    progress.update(place + 1)
            progress.update(len(source))
        part_N = held_out_parts(code_N, len(missing), share=share, most=MOST)
        places = {split: np.flatnonzero(part_N == part) for part, split in enumerate(missing)}
        with contextlib.suppress(UserError):  # data that can only be read will do; the pass is then made every time
            write_arrays(path, places)
    without_N = np.sort(np.concatenate([places[split] for split in missing]))
    return {"train": Rest(source, without_N), **{split: Chosen(source, places[split]) for split in missing}}
