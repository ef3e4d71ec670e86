"""The one record that every data source yields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypedDict


class Pair(TypedDict):
    """A text and what it should become; pairs of one `group` are relatives and stay in one split."""

    source: str
    target: str
    group: str


class Source(Protocol):
    """Random access to the pairs of a split; lists are sources too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Pair: ...

    def __iter__(self) -> Iterator[Pair]: ...
