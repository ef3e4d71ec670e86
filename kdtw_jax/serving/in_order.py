"""Texts written in order by an engine, as `Student.stream` does: with a teacher that is elsewhere, or a calculator."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from queue import SimpleQueue
from typing import Literal

from kdtw_jax.constraints import read_rule
from kdtw_jax.constraints.account import shared
from kdtw_jax.serving.asking import Limits, read_asking
from kdtw_jax.serving.engine import Engine
from kdtw_jax.serving.job import Done, Event, Failed
from kdtw_jax.serving.ledger import Ledgers

_ACCOUNT = "all"


def write_in_order(
    engine: Engine,
    sources: Iterable[str],
    rule: str | None = None,
    *,
    guard: bool = True,
    account: Literal["output", "document", "auto"] = "output",
    calculator: bool = False,
) -> Iterator[Done]:
    """Yields what is written for every source, in order; sources are taken as rows of the engine get free.

    Outputs that keep the rule by themselves are those of `Student.stream`. Where they share a budget, what one has
    saved is lent to those that begin next, while there 32 texts are written side by side on one purse.

    Args:
      engine: who writes, with its teacher; it stays open.
      sources: as for `Student.stream`, like the other arguments.
      rule: likewise.
      guard: likewise.
      account: likewise.
      calculator: the engine's tool writes, too.

    Raises:
      UserError: as `Student.stream` and `Engine.submit` do.
    """
    known = engine.student.constraints
    if account == "auto":
        together = guard and rule is not None and bool(shared(read_rule(rule, known).rule))
    else:
        together = account == "document"
    limits = Limits(rule, guard=guard, account=_ACCOUNT if together else None)
    asking = read_asking(engine.student, limits, Ledgers())
    rest, under_way = iter(sources), deque[SimpleQueue[Event]]()
    while True:
        for text in islice(rest, 2 * engine.rows - len(under_way)):  # as many wait as are written
            events: SimpleQueue[Event] = SimpleQueue()
            engine.submit(text, asking, events.put, calculator=calculator)
            under_way.append(events)
        if not under_way:
            return
        events = under_way.popleft()
        while not isinstance(event := events.get(), Done):
            if isinstance(event, Failed):
                raise event.error
        yield event
