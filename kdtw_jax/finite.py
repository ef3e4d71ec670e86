"""Numbers that are none, found where they come from: in weights as they are read, and in what a model has written."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from kdtw_jax.errors import UserError

_ROWS = 4096  # looked at together
_EOS = 1


class SlicedRows(Protocol):
    """What gives its rows by slices: an array, or a tensor that is still in its file."""

    def __getitem__(self, rows: slice, /) -> Any: ...


def check_finite(what: str, rows: SlicedRows, count: int, remedy: str) -> None:
    """Checks that the numbers of a tensor are finite, in little memory.

    Args:
      what: which tensor, for the message.
      rows: the tensor, by rows.
      count: rows of it.
      remedy: what the user can do, for the message.

    Raises:
      UserError: some are NaN or infinite; it says how many, the first one and its place.
    """
    bad, first = 0, ""
    for start in range(0, count, _ROWS):
        part = np.asarray(rows[start : min(start + _ROWS, count)])  # beyond the end is an error of a file's tensor
        finite = np.isfinite(part)
        if finite.all():
            continue
        bad += int(finite.size - np.count_nonzero(finite))
        if not first:
            row, *others = np.argwhere(~finite)[0].tolist()
            first = f"{float(part[row, *others]):g} at {[start + row, *others]}"
    if bad:
        numbers = f"{bad:,} numbers that are not finite (the first is" if bad > 1 else "1 number that is not finite ("
        raise UserError(f"{what} has {numbers}{' ' if bad > 1 else ''}{first}); {remedy}")


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
