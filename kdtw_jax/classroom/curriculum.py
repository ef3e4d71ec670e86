"""A curriculum of ours: what pupils learn in a topic at a grade, and what each of it needs first.

It is a graph without circles. Its objectives stand in `curriculum_numbers` and `curriculum_world`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from kdtw_jax.classroom.curriculum_numbers import NUMBERS
from kdtw_jax.classroom.curriculum_world import WORLD

_UNIT = re.compile(r"([a-z]+), grade (\d)")
_OBJECTIVE = re.compile(r"([a-z-]+)(?: < ([a-z -]+))?: (.+)")


class Unit(NamedTuple):
    """A topic at a grade."""

    topic: str
    grade: int  # 2 to 7


class Objective(NamedTuple):
    """What pupils can do afterwards."""

    key: str
    unit: Unit
    text: str  # "compare fractions"
    activities: tuple[str, ...]  # of which the last has {i}, where an interest goes
    checks: tuple[str, ...]  # questions, each with its question mark
    needs: tuple[str, ...]  # keys of what comes before, of this unit or another


def _objectives(text: str) -> Iterator[Objective]:
    unit, lines = None, iter(text.strip().splitlines())
    for line in lines:
        if match := _UNIT.fullmatch(line):
            unit = Unit(match[1], int(match[2]))
        elif match := _OBJECTIVE.fullmatch(line):
            assert unit is not None
            activities, checks = (tuple(next(lines).strip().split(" | ")) for _ in range(2))
            yield Objective(match[1], unit, match[3], activities, checks, tuple((match[2] or "").split()))


OBJECTIVES: Mapping[str, Objective] = {one.key: one for text in (NUMBERS, WORLD) for one in _objectives(text)}
UNITS: Mapping[Unit, tuple[Objective, ...]] = {
    unit: tuple(one for one in OBJECTIVES.values() if one.unit == unit)
    for unit in dict.fromkeys(one.unit for one in OBJECTIVES.values())
}


@cache
def all_needs(key: str) -> frozenset[str]:
    """Everything that comes before an objective, be it through others."""
    return frozenset(OBJECTIVES[key].needs).union(*map(all_needs, OBJECTIVES[key].needs))


def is_in_order(keys: Sequence[str]) -> bool:
    """Whether no objective comes before one that it needs; what is not among `keys` was learned earlier."""
    return not any(later in all_needs(key) for place, key in enumerate(keys) for later in keys[place + 1 :])


def draw_order(rng: random.Random, unit: Unit) -> list[str]:
    """The keys of a unit's objectives in one of the orders that the graph allows."""
    left = [one.key for one in UNITS[unit]]
    order = list[str]()
    while left:
        ready = [key for key in left if all_needs(key).isdisjoint(left)]
        order.append(rng.choice(ready))
        left.remove(order[-1])
    return order
