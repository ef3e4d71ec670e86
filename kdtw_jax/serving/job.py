"""A request in the engine, and what happens to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from kdtw_jax.answers import Answer
from kdtw_jax.constraints import History
from kdtw_jax.serving.asking import Asking
from kdtw_jax.serving.ledger import Reserved
from kdtw_jax.serving.tool import ToolRow


class Written(NamedTuple):
    """A token of an output."""

    token: int
    asked: bool  # the teacher wrote it
    called: bool  # it was called for it
    calculated: bool = False  # a calculator wrote it


class Done(NamedTuple):
    """An output at its end."""

    answer: Answer
    finished: bool  # False: it was cut off at the most tokens
    degraded: bool  # the teacher was to be asked, and did not answer
    spent: bool = False  # nothing was written: the calls of its account were made before its turn


class Failed(NamedTuple):
    """There will be no output."""

    error: Exception


Event = Written | Done | Failed


@dataclass(eq=False)
class Job:
    """A request in the engine."""

    text: str
    source: list[int]
    source_tokens: int
    """of the whole text"""
    asking: Asking
    most: int
    """tokens"""
    deliver: Callable[[Event], None]
    """called from the engine's thread; the last event is `Done` or `Failed`, and there is none after `cancel`"""
    number: int = 0
    row: int = -1
    reserved: Reserved | None = None
    tokens: list[int] = field(default_factory=list)
    asked: list[bool] = field(default_factory=list)
    called: list[bool] = field(default_factory=list)
    tool: ToolRow | None = None
    """what a calculator writes in it; None: it has none"""
    history: History | None = None
    degraded: bool = False
    cancelled: bool = False
    over: bool = False
