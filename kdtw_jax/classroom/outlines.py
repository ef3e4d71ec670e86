"""Lesson outlines: what a topic takes week by week, drawn from the curriculum, read back, and verified.

    outline: fractions, grade 5, weeks 4, interest: dragon stories

    Fractions, grade 5, 4 weeks, with dragon stories. Week 1: Find equal fractions. Activity: Match equal cards in a
    game of dragon stories. Check: Is 2/6 the same as 1/3? Week 2: ...

An outline is one line of text that begins with what was asked for, so that it can be verified alone.
"""

from __future__ import annotations

import random
import re
from functools import cache
from typing import NamedTuple

from kdtw_jax.classroom.curriculum import OBJECTIVES, UNITS, Unit, draw_order, is_in_order

_INTEREST = "[^,.:;?]+"
_LINE = re.compile(rf"outline: ([a-z]+), grade (\d), weeks (\d{{1,2}}), interest: ({_INTEREST})")
_HEAD = re.compile(rf"([A-Z][a-z]*), grade (\d), (\d{{1,2}}) weeks?, with ({_INTEREST})\.")
_WEEK = re.compile(r"(.+)\. Activity: (.+)\. Check: (.+\?)")


class Request(NamedTuple):
    """What an outline is wanted of."""

    topic: str
    grade: int
    weeks: int
    interest: str

    @property
    def unit(self) -> Unit:
        """The topic at its grade."""
        return Unit(self.topic, self.grade)

    @property
    def line(self) -> str:
        """As a model reads it."""
        return f"outline: {self.topic}, grade {self.grade}, weeks {self.weeks}, interest: {self.interest}"


class Week(NamedTuple):
    """What a week has: objectives, and the objectives that its activity and checks belong to, by their keys."""

    objectives: tuple[str, ...]
    activity: str
    interest: str  # that the activity takes up; "": none
    checks: tuple[str, ...]


class Outline(NamedTuple):
    """An outline without its words."""

    request: Request
    weeks: tuple[Week, ...]

    @property
    def objectives(self) -> list[str]:
        """Keys of all objectives, in order."""
        return [key for week in self.weeks for key in week.objectives]


def parse_request(line: str) -> Request | None:
    """Reads `Request.line`; None: it is none."""
    match = _LINE.fullmatch(line.strip())
    return None if match is None else Request(match[1], int(match[2]), int(match[3]), match[4])


def draw_outline(rng: random.Random, request: Request) -> str:
    """The text of an outline: one of the orders that the curriculum allows, with as many objectives a week as even.

    Args:
      rng: draws the order, the weeks that have an objective more, activities, checks, and where the interest comes in.
      request: of a unit of the curriculum, with no more weeks than that has objectives.

    Raises:
      ValueError: the request is no such one.
    """
    if not 1 <= request.weeks <= len(UNITS.get(request.unit, ())):
        raise ValueError(f"no outline can be made for {request.line!r}")
    order = draw_order(rng, request.unit)
    size, more = divmod(len(order), request.weeks)
    longer = rng.sample(range(request.weeks), more)
    with_interest = {rng.randrange(request.weeks)} | {week for week in range(request.weeks) if rng.random() < 0.5}
    parts = [f"{request.topic.capitalize()}, grade {request.grade}, {_weeks(request.weeks)}, with {request.interest}."]
    for week in range(request.weeks):
        objectives = [OBJECTIVES[order.pop(0)] for _ in range(size + (week in longer))]
        activities = rng.choice(objectives).activities
        activity = activities[-1].replace("{i}", request.interest) if week in with_interest else activities[0]
        said = "; ".join(one.text for one in objectives)
        checks = " ".join(rng.choice(one.checks) for one in objectives)
        parts.append(f"Week {week + 1}: {_capital(said)}. Activity: {_capital(activity)}. Check: {checks}")
    return " ".join(parts)


def read_outline(text: str) -> Outline | None:
    """What an outline says; None where its form is another, or something in it is nowhere in the curriculum."""
    head, *parts = re.split(r" Week (\d+): ", " ".join(text.split()))
    match = _HEAD.fullmatch(head)
    if match is None or parts[::2] != [str(number + 1) for number in range(len(parts) // 2)]:
        return None
    weeks = [_read_week(part) for part in parts[1::2]]
    if not weeks or None in weeks:
        return None
    request = Request(match[1].lower(), int(match[2]), int(match[3]), match[4])
    return Outline(request, tuple(week for week in weeks if week is not None))


def faults(outline: Outline, request: Request) -> list[str]:
    """What is wrong with an outline for a request, in words; none: it is right.

    It is right if it says what was asked for; has that many weeks; covers the unit's objectives, each once and after
    what it needs; if every week has an activity of one of its objectives, and a check of each of them; and if one
    activity or more takes up the interest, and none another.
    """
    found = []
    if outline.request != request:
        found.append(f"is headed {outline.request.line!r}")
    if len(outline.weeks) != request.weeks:
        found.append(f"has {_weeks(len(outline.weeks))}")
    wanted, keys = {one.key for one in UNITS.get(request.unit, ())}, outline.objectives
    found += [f"lacks {key}" for key in sorted(wanted - set(keys))]
    found += [f"has {key}, which is not asked for" for key in sorted(set(keys) - wanted)]
    found += [f"has {key} twice" for key in sorted(set(keys)) if keys.count(key) > 1]
    if not is_in_order(keys):
        found.append("has an objective before one that it needs")
    for number, week in enumerate(outline.weeks, 1):
        if week.activity not in week.objectives:
            found.append(f"week {number} has an activity of {week.activity}")
        if sorted(week.checks) != sorted(week.objectives):
            found.append(f"week {number} has checks of {', '.join(week.checks)}")
    taken_up = {week.interest for week in outline.weeks} - {""}
    if taken_up != {request.interest}:
        found.append(f"takes up {', '.join(sorted(taken_up)) or 'no interest'}")
    return found


def is_right(text: str, request: Request) -> bool:
    """Whether a text is an outline without faults for a request."""
    outline = read_outline(text)
    return outline is not None and not faults(outline, request)


def _read_week(text: str) -> Week | None:
    match = _WEEK.fullmatch(text)
    if match is None:
        return None
    objectives = tuple(_texts().get(said, "") for said in match[1].lower().split("; "))
    checks = tuple(_checks().get(said, "") for said in re.findall(r"\S[^?]*\?", match[3]))
    activity, interest = _read_activity(match[2])
    return Week(objectives, activity, interest, checks) if all((activity, *objectives, *checks)) else None


def _read_activity(text: str) -> tuple[str, str]:
    """Whose objective's activity it is, and the interest in it; "", "" for one that is nowhere in the curriculum."""
    for before, after, key in _activities():
        if after is None:
            if text == before:
                return key, ""
        elif len(text) > len(before + after) and text.startswith(before) and text.endswith(after):
            interest = text[len(before) : len(text) - len(after)]
            if re.fullmatch(_INTEREST, interest):
                return key, interest
    return "", ""


@cache
def _texts() -> dict[str, str]:
    return {one.text.lower(): one.key for one in OBJECTIVES.values()}


@cache
def _checks() -> dict[str, str]:
    return {check: one.key for one in OBJECTIVES.values() for check in one.checks}


@cache
def _activities() -> list[tuple[str, str | None, str]]:
    """What stands before and after an interest, and the key; None: there is no interest. Longer ones come first."""
    found = list[tuple[str, str | None, str]]()
    for one in OBJECTIVES.values():
        for activity in map(_capital, one.activities):
            before, blank, after = activity.partition("{i}")
            found.append((before, after if blank else None, one.key))
    return sorted(found, key=lambda one: -len(one[0]))


def _weeks(number: int) -> str:
    return f"{number} week{'s' * (number != 1)}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
