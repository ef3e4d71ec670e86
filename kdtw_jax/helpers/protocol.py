"""What a helper is: anyone who may write the next word in a student's place, at a price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class Begun(NamedTuple):
    """An output up to the place of its next word."""

    source_text: str
    written_text: str
    """what is written so far, whoever wrote it"""
    source: tuple[int, ...] = ()
    """the source as the student reads it, token ids with instruction and end"""
    written: tuple[int, ...] = ()
    """the tokens of `written_text`"""
    session: str = ""
    """states of one output have one name, under which a teacher may keep what it has read"""


class Suggestion(NamedTuple):
    """What a helper would write next: a text of one or more words, or tokens of the student's vocabulary."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    """in place of a text; end-of-sequence alone ends the output"""
    log_prob: float | None = None
    """nats, how likely the helper finds it, if it says so"""


@runtime_checkable
class Helper(Protocol):
    """Suggests next words, of many outputs in one call; declines where it has nothing to say."""

    @property
    def name(self) -> str:
        """For budgets and answers."""
        ...

    @property
    def price(self) -> float:
        """Cost units per word that it writes, at least 0."""
        ...

    @property
    def exact(self) -> bool:
        """Whether it is right wherever it does not decline: it is then heard at every word, whatever the gate says."""
        ...

    def suggest(self, begun: Sequence[Begun]) -> list[Suggestion | None]:
        """The next word of each output, None where it declines."""
        ...
