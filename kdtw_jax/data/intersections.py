"""Sets of one list that are alike to some set of another, by the number of elements that they have in common."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 22  # counts held at a time
# Counting an element of this share of all pairs of sets by its pairs takes as long as counting it for all by a bit.
_OFTEN = 1 / 256

Alike = Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], NDArray[np.bool_]]


def any_alike(
    sets: Sequence[AbstractSet[Hashable]],
    others: Sequence[AbstractSet[Hashable]],
    alike: Alike,
    *,
    sizes: Sequence[int] | None = None,
    other_sizes: Sequence[int] | None = None,
) -> list[bool]:
    """For each of N sets whether it is alike to one of M `others` with which it has an element in common.

    Exact, in time of N M and in bounded memory: elements that many sets have are counted as bits, 64 at a time, the
    others by the pairs of sets that have them.

    Args:
      alike: says, from counts of common elements BxM, sizes of sets Bx1 and of others 1xM, which pairs are alike.
      sizes: where they are not the numbers of elements, because some that only one side has are left out.
      other_sizes: likewise.
    """
    shared = set().union(*sets) & set().union(*others)
    if not shared:
        return [False] * len(sets)
    places = {element: place for place, element in enumerate(shared)}
    has_NxE, other_has_MxE = _incidence(sets, places), _incidence(others, places)
    pairs_E = has_NxE.sum(0, dtype=np.float64) * other_has_MxE.sum(0, dtype=np.float64)
    often_E = np.asarray(pairs_E > _OFTEN * len(sets) * len(others)).reshape(-1)
    bits_NxW, bits_MxW = _bits(has_NxE[:, often_E]), _bits(other_has_MxE[:, often_E])
    seldom_NxE, seldom_ExM = has_NxE[:, ~often_E], other_has_MxE[:, ~often_E].T.tocsr()
    size_Nx1 = np.array(sizes or [len(one) for one in sets], np.int64)[:, None]
    size_1xM = np.array(other_sizes or [len(one) for one in others], np.int64)[None]
    found_N = np.zeros(len(sets), bool)
    rows = max(1, _AT_ONCE // len(others))
    for start in range(0, len(sets), rows):
        part = slice(start, start + rows)
        common_BxM = (seldom_NxE[part] @ seldom_ExM).toarray()
        for word in range(bits_NxW.shape[1]):
            common_BxM += np.bitwise_count(bits_NxW[part, None, word] & bits_MxW[None, :, word])
        found_N[part] = ((common_BxM > 0) & alike(common_BxM, size_Nx1[part], size_1xM)).any(1)
    return [bool(found) for found in found_N]


def _incidence(sets: Sequence[AbstractSet[Hashable]], places: dict[Hashable, int]) -> Any:
    """A sparse array of ones, a row a set, a column an element that has a place."""
    from scipy import sparse  # a quarter of a second: not for whoever measures no overlap

    rows = [[places[element] for element in one if element in places] for one in sets]
    starts = np.cumsum([0, *map(len, rows)])
    columns = np.fromiter((place for row in rows for place in row), np.int64, int(starts[-1]))
    return sparse.csr_array((np.ones(len(columns), np.int32), columns, starts), shape=(len(sets), len(places)))


def _bits(has_NxE: Any) -> NDArray[np.uint64]:
    """The rows as bits in NxW words."""
    n, elements = has_NxE.shape
    words_NxW = np.zeros((n, -(-elements // 64)), np.uint64)
    rows = max(1, _AT_ONCE // max(1, elements))
    for start in range(0, n if elements else 0, rows):
        bytes_BxK = np.packbits(has_NxE[start : start + rows].toarray().astype(bool), axis=1)
        words_NxW.view(np.uint8)[start : start + rows, : bytes_BxK.shape[1]] = bytes_BxK
    return words_NxW
