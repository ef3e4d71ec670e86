"""Numbers that are none, found where they come from: in weights as they are read, and in what a model has written."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from kdtw_jax.errors import UserError

_ROWS = 4096  # looked at together
_EOS = 1
_LARGEST = 2.0**64  # the root of float32's range


class SlicedRows(Protocol):
    """What gives its rows by slices: an array, or a tensor that is still in its file."""

    def __getitem__(self, rows: slice, /) -> Any: ...


def check_finite(what: str, rows: SlicedRows, count: int, remedy: str) -> None:
    """Checks that the numbers of a tensor are finite, and their squares in float32, in little memory.

    Of numbers whose squares are not, norms would make zeros, and a model would write the same whatever it reads.

    Args:
      what: which tensor, for the message.
      rows: the tensor, by rows.
      count: rows of it.
      remedy: what the user can do, for the message.

    Raises:
      UserError: some are NaN or infinite, or too large; it says how many, the first one and its place.
    """
    bad, first, large = 0, "", True
    for start in range(0, count, _ROWS):
        part = np.asarray(rows[start : min(start + _ROWS, count)])  # beyond the end is an error of a file's tensor
        with np.errstate(invalid="ignore"):
            # Without a copy; NaN is the least and the largest of what it is among, and not within.
            if not part.size or (float(part.min()) > -_LARGEST and float(part.max()) < _LARGEST):
                continue
        finite = np.abs(part.astype(np.float64)) < _LARGEST
        bad += int(finite.size - np.count_nonzero(finite))
        if not first:
            row, *others = np.argwhere(~finite)[0].tolist()
            first = f"{float(part[row, *others]):g} at {[start + row, *others]}"
        large = large and bool(np.isfinite(part).all())
    if bad:
        one, more = ("is too large", "are too large") if large else ("is not finite", "are not finite")
        numbers = f"{bad:,} numbers that {more} (the first is " if bad > 1 else f"1 number that {one} ("
        raise UserError(f"{what} has {numbers}{first}); {remedy}")


def check_written(name: str, tokens_NxT: np.ndarray, asked_NxT: np.ndarray | None = None) -> None:
    """Checks that outputs were written by scores that are numbers.

    No model may write padding before its end: that comes of scores that are NaN (`kdtw_jax.decoding.sample.choose`).

    Args:
      name: what was written, for the message.
      tokens_NxT: int32 rows that end in end-of-sequence and then padding, or are full.
      asked_NxT: bool, true where the teacher wrote; None: one model writes alone.

    Raises:
      UserError: a row has padding before its end; it says whose scores are to blame.
    """
    ended_NxT = np.cumsum(tokens_NxT == _EOS, axis=1) > 0
    broken_NxT = (tokens_NxT == 0) & ~ended_NxT
    broken_N = broken_NxT.any(axis=1)
    if not broken_N.any():
        return
    whose = "the model's"
    if asked_NxT is not None:
        row = int(broken_N.argmax())
        whose = "the teacher's" if asked_NxT[row, broken_NxT[row].argmax()] else "the student's"
    raise UserError(
        f"{name}: {whose} scores are not finite in {int(broken_N.sum())} of {len(tokens_NxT)} outputs: weights are too "
        "large for the arithmetic; take a model whose training went well, or compute in float32"
    )
