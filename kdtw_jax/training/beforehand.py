"""What is made once of all rows of a split, in files of a few batches each, by which an interrupted job goes on.

A file is of the rows of one part of the split. Parts are told by sources alone, and what is made of a part depends on
no other one: so several writers share the parts among them, and what comes of it is the same for any number of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
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
    under_way: int = 1,
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
      under_way: batches that are made at once, in threads, while the one before is stored; 1: one after the other.
      stop_after: ends after as many new files (tests of resuming), the rest being empty.

    Returns:
      Arrays by name, what was made of each row one after the other in the order of the split; and where that begins,
      [N + 1]. Rows of no part have nothing.

    Raises:
      UserError: `folder` cannot be written or read, and as `make` does.
    """
    places = {int(example): place for place, example in enumerate(data.examples)}
    files: list[tuple[dict[str, np.ndarray], Int64, Int64]] = []  # arrays, offsets, places in the split
    lengths_N, done = np.zeros(len(data), np.int64), 0

    def batches(part: Int64) -> list[Batch]:
        return list(evaluation_batches(data.chosen(part), buckets))

    there, lacking = list[dict[str, np.ndarray]](), list[Int64]()
    for index, part in enumerate(parts):
        path = folder / f"{index:05d}.npz"
        stored = read_arrays(path) if path.exists() else {}
        # Other batches (another number of devices, say) cut the split at other places.
        if not stored or not np.array_equal(stored["example"], _examples(batches(part))):
            if len(lacking) == stop_after:
                break
            stored = {}
            lacking.append(part)
        there.append(stored)
    ahead = (batch for part in lacking for batch in batches(part))
    with Progress(name, total=sum(map(len, parts))) as progress, closing(in_order(make, ahead, under_way)) as made:
        for index, stored in enumerate(there):
            if not stored:
                own = batches(parts[index])
                rows = [row for batch in own for row in _real(batch, next(made))]
                stored = _together(_examples(own), rows)
                write_arrays(folder / f"{index:05d}.npz", stored)
            wanted = stored["example"]
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


def in_order(make: Make, batches: Iterable[Batch], under_way: int) -> Generator[list[Made], None, None]:
    """Makes something of batches, so many of them at once, and gives it in their order.

    No more than that is taken ahead. Where the iterator is closed, what has not begun is left out.

    Args:
      make: of a batch; called in threads where several are under way.
      batches: taken as there is room.
      under_way: how many at once; of 1, `make` is called where the next one is asked for.
    """
    if under_way == 1:
        yield from map(make, batches)
        return
    pool, waiting = ThreadPoolExecutor(under_way, thread_name_prefix="ahead"), deque[Future[list[Made]]]()
    try:
        for batch in batches:
            waiting.append(pool.submit(make, batch))
            if len(waiting) == under_way:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _examples(batches: Sequence[Batch]) -> np.ndarray:
    found: np.ndarray = np.concatenate([batch.example_B[batch.example_B >= 0] for batch in batches])
    return found


def _real(batch: Batch, rows: list[Made]) -> Iterator[Made]:
    return (row for row, example in zip(rows, batch.example_B, strict=True) if example >= 0)


def _together(wanted: np.ndarray, rows: Sequence[Made]) -> dict[str, np.ndarray]:
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(next(iter(row.values()))) for row in rows], out=offsets[1:])
    arrays = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return {"example": wanted, "offsets": offsets, **arrays}
