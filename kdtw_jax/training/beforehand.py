"""What is made once of all rows of a split, in files of a few batches each, by which an interrupted job goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit, Int64, evaluation_batches
from kdtw_jax.runs.atomic import read_arrays, write_arrays
from kdtw_jax.runs.progress import Progress

BATCHES_A_FILE = 16

Made = Mapping[str, np.ndarray]  # by name, all as long as there are tokens
Make = Callable[[Batch], list[Made]]  # for each row of a batch, fillers included; all rows have the same names


def make_beforehand(
    name: str,
    folder: Path,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    make: Make,
    *,
    batches_a_file: int = BATCHES_A_FILE,
    stop_after: int | None = None,
) -> tuple[dict[str, np.ndarray], Int64]:
    """Makes something of every row of the split; what `folder` holds is not made anew.

    Args:
      name: beside the progress bar.
      folder: keeps what is made.
      data: the split.
      buckets: lengths and rows of the batches.
      make: of a batch.
      batches_a_file: after so many batches a file is written.
      stop_after: ends after as many new files (tests of resuming), the rest being empty.

    Returns:
      Arrays by name, the rows' parts one after the other in the order of the split; and where they begin, [N + 1].

    Raises:
      UserError: `folder` cannot be written or read, and as `make` does.
    """
    places = {int(example): place for place, example in enumerate(data.examples)}
    parts: list[tuple[dict[str, np.ndarray], Int64, Int64]] = []  # of a file: arrays, offsets, places in the split
    lengths_N, made, done = np.zeros(len(data), np.int64), 0, 0
    with Progress(name, total=len(data)) as progress:
        for index, batches in enumerate(_parts(data, buckets, batches_a_file)):
            path = folder / f"{index:05d}.npz"
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
            parts.append(({k: x for k, x in stored.items() if k not in ("example", "offsets")}, offsets, at))
            done += len(wanted)
            progress.update(done)
    ends = np.zeros(len(data) + 1, np.int64)
    np.cumsum(lengths_N, out=ends[1:])
    whole = {k: np.empty((ends[-1], *x.shape[1:]), x.dtype) for k, x in (parts[0][0] if parts else {}).items()}
    for arrays, offsets, at in parts:
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


def _parts(data: EncodedSplit, buckets: Sequence[Bucket], size: int) -> Iterator[list[Batch]]:
    batches = evaluation_batches(data, buckets)
    while part := list(islice(batches, size)):
        yield part
