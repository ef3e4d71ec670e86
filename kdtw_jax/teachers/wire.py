"""How requests and answers travel between `kdtw serve-teacher` and its clients: MessagePack, rows of numbers as bytes.

MessagePack (https://github.com/msgpack/msgpack) holds plain values only. Rows are little-endian int32 or float32. All
that is read is checked: types, lengths, and that nothing follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

from kdtw_jax.data.vocabulary_training import EOS_ID as EOS_ID
from kdtw_jax.teachers.protocol import Prefix, RowScores, TopTokens

MEDIA_TYPE = "application/msgpack"
_INT, _FLOAT = np.dtype("<i4"), np.dtype("<f4")
_LONGEST = 256  # characters of a session's name


class Malformed(ValueError):
    """Bytes that are no message of ours; says so in a few words."""


class TooLong(Malformed):
    """A message with more in it than is taken."""


def pack(value: Mapping[str, Any]) -> bytes:
    """Bytes of a message."""
    packed: bytes = msgpack.packb(dict(value), use_bin_type=True)
    return packed


def unpack(body: bytes, lists: int = 2**20) -> dict[str, Any]:
    """The message in bytes.

    Args:
      body: the bytes.
      lists: how many lists and maps there may be, and how many entries in each. Each takes a hundred times the memory
        of the byte that says it, so that they are counted while they are read.

    Raises:
      Malformed: it is none.
      TooLong: there are more lists.
    """
    left = lists

    def count(made: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise TooLong(f"more than {lists} lists")
        return made

    most: dict[str, Any] = {"max_array_len": lists, "max_map_len": lists, "list_hook": count, "object_hook": count}
    try:
        value = msgpack.unpackb(body, raw=False, strict_map_key=True, ext_hook=_no_extension, **most)
    except TooLong:
        raise
    except Exception as error:  # it has many kinds, and lets ValueError, TypeError and UnicodeDecodeError through
        raise Malformed(f"not MessagePack, or a list of more than {lists} in it") from error
    if not isinstance(value, dict):
        raise Malformed("no map")
    return value


def _no_extension(code: int, data: bytes) -> Any:
    raise Malformed(f"an extension, {code}")


def pack_ids(ids: Sequence[int]) -> bytes:
    """A row of ids."""
    return np.asarray(ids, _INT).tobytes()


def unpack_ids(value: Any, most: int | None = None) -> tuple[int, ...]:
    """A row of ids, `most` of them at the most.

    Raises:
      Malformed: it is none.
      TooLong: there are more.
    """
    array = _array(value, _INT)
    if most is not None and array.size > most:
        raise TooLong(f"{array.size} tokens in one row; a row has {most} at the most, answers included")
    return tuple(array.tolist())


def pack_prefixes(prefixes: Sequence[Prefix]) -> list[Any]:
    """Prefixes as plain values."""
    return [[pack_ids(source), pack_ids(written), session] for source, written, session in prefixes]


def unpack_prefixes(value: Any, most: int, longest: int) -> list[Prefix]:
    """The inverse of `pack_prefixes`.

    Args:
      value: what was received.
      most: how many there may be.
      longest: ids of a row at the most.

    Raises:
      Malformed: they are none, or a session's name is longer than 256 characters.
      TooLong: there are more, or longer ones.
    """
    found = []
    for row in _few(value, most):
        if not isinstance(row, list) or len(row) != 3 or not isinstance(row[2], str) or len(row[2]) > _LONGEST:
            raise Malformed("a prefix is source, written and session")
        found.append(Prefix(unpack_ids(row[0], longest), unpack_ids(row[1], longest), row[2]))
    return found


def unpack_rows(value: Any, most: int, longest: int) -> list[tuple[int, ...]]:
    """Rows of ids.

    Args:
      value: what was received.
      most: how many there may be.
      longest: ids of a row at the most.

    Raises:
      Malformed: they are none.
      TooLong: there are more, or longer ones.
    """
    return [unpack_ids(row, longest) for row in _few(value, most)]


def unpack_number(value: Any) -> int:
    """A whole number.

    Raises:
      Malformed: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed("a number is no whole one")
    return value


def pack_top(tops: Sequence[TopTokens]) -> list[Any]:
    """Distributions as plain values."""
    return [[top.ids_K.astype(_INT).tobytes(), top.log_probs_K.astype(_FLOAT).tobytes()] for top in tops]


def unpack_top(value: Any, rows: int, top_k: int, vocab_size: int) -> list[TopTokens]:
    """The inverse of `pack_top`.

    Args:
      value: what was received.
      rows: how many there have to be.
      top_k: tokens of each.
      vocab_size: ids go up to it.

    Raises:
      Malformed: it is not what was asked for, or no distribution.
    """
    found = []
    for row in _list(value, rows):
        ids_K, log_probs_K = _pair(row, (top_k,))
        _check_top(ids_K[None], log_probs_K[None], vocab_size)
        found.append(TopTokens(ids_K, log_probs_K))
    return found


def pack_scores(scores: Sequence[RowScores]) -> list[Any]:
    """Scores as plain values."""
    return [
        [
            score.log_probs_T.astype(_FLOAT).tobytes(),
            score.top_ids_TxK.astype(_INT).tobytes(),
            score.top_log_probs_TxK.astype(_FLOAT).tobytes(),
        ]
        for score in scores
    ]


def unpack_scores(value: Any, lengths: Sequence[int], top_k: int, vocab_size: int) -> list[RowScores]:
    """The inverse of `pack_scores`.

    Args:
      value: what was received.
      lengths: tokens of each row.
      top_k: tokens at each place.
      vocab_size: ids go up to it.

    Raises:
      Malformed: it is not what was asked for, or no scores.
    """
    found = []
    for row, length in zip(_list(value, len(lengths)), lengths, strict=True):
        if not isinstance(row, list) or len(row) != 3:
            raise Malformed("a score is three rows of numbers")
        log_probs_T = _array(row[0], _FLOAT, (length,))
        ids_TxK, top_TxK = _pair(row[1:], (length, top_k))
        _check_top(ids_TxK, top_TxK, vocab_size)
        if not np.all(log_probs_T <= _ROUNDING):
            raise Malformed("a log-probability is above 0 or not a number")
        found.append(RowScores(log_probs_T, ids_TxK, top_TxK))
    return found


_ROUNDING = 1e-3  # of log-probabilities and their sums


def _check_top(ids_TxK: np.ndarray, log_probs_TxK: np.ndarray, vocab_size: int) -> None:
    if ids_TxK.size == 0:
        return
    if ids_TxK.min() < 0 or ids_TxK.max() >= vocab_size:
        raise Malformed("an id is beyond the vocabulary")
    ordered = np.all(log_probs_TxK[:, 1:] <= log_probs_TxK[:, :-1])
    if not ordered or not np.all(np.exp(log_probs_TxK).sum(axis=-1) <= 1 + _ROUNDING):
        raise Malformed("log-probabilities are of no distribution, or not in order")
    if any(len(set(row)) < len(row) for row in ids_TxK.tolist()):
        raise Malformed("an id comes twice")


def _list(value: Any, count: int | None = None) -> list[Any]:
    if not isinstance(value, list) or count not in (None, len(value)):
        raise Malformed("a list is missing" if count is None else f"not the answers to {count} requests")
    return value


def _few(value: Any, most: int) -> list[Any]:
    found = _list(value)
    if len(found) > most:
        raise TooLong(f"{len(found)} rows; there are {most} in a request at the most")
    return found


def _pair(value: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(value, list) or len(value) != 2:
        raise Malformed("ids and log-probabilities are two rows of numbers")
    return _array(value[0], _INT, shape), _array(value[1], _FLOAT, shape)


def _array(value: Any, dtype: np.dtype[Any], shape: tuple[int, ...] | None = None) -> np.ndarray:
    if not isinstance(value, bytes) or len(value) % dtype.itemsize:
        raise Malformed("a row of numbers is no bytes")
    found = np.frombuffer(value, dtype)
    if shape is not None:
        if found.size != int(np.prod(shape)):
            raise Malformed(f"a row has {found.size} numbers, not {int(np.prod(shape))}")
        found = found.reshape(shape)
    return found
