"""What is made once of all rows of a split, in files of a few batches each, by which an interrupted job goes on.

A file is of the rows of one part of the split. Parts are told by sources alone, and what is made of a part depends on
no other one: so several writers share the parts among them, and what comes of it is the same for any number of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit, Int64, assign_buckets, evaluation_batches
from kdtw_jax.runs.atomic import read_arrays, write_arrays
from kdtw_jax.runs.progress import Progress

BATCHES_A_FILE = 16

Made = Mapping[str, np.ndarray]  # by name, all as long as there are tokens
Make = Callable[[Batch], list[Made]]  # for each row of a batch, fillers included; all rows have the same names


class Share(NamedTuple):
    """The parts that are one writer's of several."""

    number: int = 1  # from 1 to `of`
    of: int = 1


ALONE = Share()


def beam_buckets(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """The buckets to write in: by the source alone, room for the longest target in all of them.

    Those of training know the length of the ground truth, which is not for the teacher to know.
    """
    longest = max(b.target for b in buckets)
    rows = {b.source: min(x.rows for x in buckets if x.source == b.source) for b in buckets}
    return tuple(Bucket(source, longest, rows[source]) for source in sorted(rows))


def parts_of(
    data: EncodedSplit, buckets: Sequence[Bucket], size: int = BATCHES_A_FILE, share: Share = ALONE
) -> list[Int64]:
    """Divides a split: places of the rows of `size` batches, as the teacher writes them, per part.

    Args:
      data: the split; what its targets are makes no difference.
      buckets: those of training.
      size: batches per part.
      share: which of the parts.
    """
    wide = beam_buckets(buckets)
    batches = [
        rows[start : start + bucket.rows]
        for bucket, rows in zip(wide, assign_buckets(data, wide), strict=True)
        for start in range(0, len(rows), bucket.rows)
    ]
    parts = [np.concatenate(batches[start : start + size]) for start in range(0, len(batches), size)]
    return parts[share.number - 1 :: share.of]


def make_beforehand(
    name: str,
    folder: Path,
    data: EncodedSplit,
    parts: Sequence[Int64],
    buckets: Sequence[Bucket],
    make: Make,
    *,
    stop_after: int | None = None,
) -> tuple[dict[str, np.ndarray], Int64]:
    """Makes something of every row of some parts of the split; what `folder` holds is not made anew.

    Args:
      name: beside the progress bar.
      folder: keeps what is made.
      data: the split.
      parts: places of the rows, a file per part (`parts_of`).
      buckets: lengths and rows of the batches that a part is cut into.
      make: of a batch.
      stop_after: ends after as many new files (tests of resuming), the rest being empty.

    Returns:
      Arrays by name, what was made of each row one after the other in the order of the split; and where that begins,
      [N + 1]. Rows of no part have nothing.

    Raises:
      UserError: `folder` cannot be written or read, and as `make` does.
    """
    places = {int(example): place for place, example in enumerate(data.examples)}
    files: list[tuple[dict[str, np.ndarray], Int64, Int64]] = []  # arrays, offsets, places in the split
    lengths_N, made, done = np.zeros(len(data), np.int64), 0, 0
    with Progress(name, total=sum(map(len, parts))) as progress:
        for index, part in enumerate(parts):
            path, batches = folder / f"{index:05d}.npz", list(evaluation_batches(data.chosen(part), buckets))
            wanted = np.concatenate([batch.example_B[batch.example_B >= 0] for batch in batches])
            stored = read_arrays(path) if path.exists() else {}
            # Other batches (another number of devices, say) cut the split at other places.
            if not stored or not np.array_equal(stored["example"], wanted):
                if made == stop_after:
                    break
                stored = _together(wanted, [row for batch in batches for row in _real(batch, make(batch))])
                write_arrays(path, stored)
                made += 1
            at = np.array([places[int(example)] for example in wanted], np.int64)
            offsets = stored["offsets"].astype(np.int64)
            lengths_N[at] = np.diff(offsets)
            files.append(({k: x for k, x in stored.items() if k not in ("example", "offsets")}, offsets, at))
            done += len(wanted)
            progress.update(done)
    ends = np.zeros(len(data) + 1, np.int64)
    np.cumsum(lengths_N, out=ends[1:])
    whole = {k: np.empty((ends[-1], *x.shape[1:]), x.dtype) for k, x in (files[0][0] if files else {}).items()}
    for arrays, offsets, at in files:
        where = np.concatenate([np.arange(ends[p], ends[p + 1]) for p in at]) if len(at) else np.zeros(0, np.int64)
        for key, array in arrays.items():
            whole[key][where] = array[: offsets[-1]]
    return whole, ends


def _real(batch: Batch, rows: list[Made]) -> Iterator[Made]:
    return (row for row, example in zip(rows, batch.example_B, strict=True) if example >= 0)


def _together(wanted: np.ndarray, rows: Sequence[Made]) -> dict[str, np.ndarray]:
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(next(iter(row.values()))) for row in rows], out=offsets[1:])
    arrays = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return {"example": wanted, "offsets": offsets, **arrays}
