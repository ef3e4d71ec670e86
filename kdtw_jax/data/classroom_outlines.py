"""Lesson outlines, `classroom/outline`: topic, grade, weeks and an interest -> what is done week by week.

Of the orders that the curriculum allows, a target has one; nothing in a source says which. What the test has of its own
is in a pair's `group`, with the number of weeks:

- `interest`: an interest that is nowhere in training;
- `weeks`: a topic and grade in a number of weeks that it has nowhere in training;
- `familiar`: none of these, but a request of its own.
"""

from __future__ import annotations

import random

from kdtw_jax.classroom.curriculum import UNITS
from kdtw_jax.classroom.interests import draw_interest
from kdtw_jax.classroom.outlines import Request, draw_outline
from kdtw_jax.data.classroom_shares import is_kept_out
from kdtw_jax.data.pair import Pair
from kdtw_jax.text.fraction import fixed_fraction

SIZES = {"train": 20_000, "validation": 1_000, "test": 2_000}
CONDITIONS = ("familiar", "interest", "weeks")
_WEEKS = 0.15  # of the topics with grade and weeks are kept out


def outline_pairs(seed: int = 0, limit: int | None = None) -> dict[str, list[Pair]]:
    """The splits "train", "validation" and "test" of outlines, of distinct requests.

    Args:
      seed: which requests and outlines are drawn; what is kept out of training does not depend on it.
      limit: at most this many pairs a split.
    """
    rng = random.Random(seed)
    seen: set[Request] = set()
    splits: dict[str, list[Pair]] = {}
    for split, size in SIZES.items():
        wanted = size if limit is None else min(size, limit)
        splits[split] = []
        while len(splits[split]) < wanted:
            # In turn: a limit takes them evenly.
            condition = "familiar" if split == "train" else CONDITIONS[len(splits[split]) % len(CONDITIONS)]
            unit = rng.choice(tuple(UNITS))
            weeks = rng.randrange(2, len(UNITS[unit]) + 1)
            request = Request(*unit, weeks, draw_interest(rng).name)
            if request not in seen and outline_condition(request) == condition:
                seen.add(request)
                group = f"{condition} {weeks}"
                splits[split].append({"source": request.line, "target": draw_outline(rng, request), "group": group})
    return splits


def outline_condition(request: Request) -> str:
    """Which of what the test has of its own a request has: one of CONDITIONS, or "several"."""
    interest = is_kept_out(request.interest)
    weeks = fixed_fraction(f"weeks|{request.topic}|{request.grade}|{request.weeks}") < _WEEKS
    return "several" if interest and weeks else "interest" if interest else "weeks" if weeks else "familiar"
