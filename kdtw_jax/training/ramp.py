"""When the student's own rows are worth it: from which part of a training on, and how soon all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdtw_jax.errors import UserError
from kdtw_jax.ranges import check_ranges

_LEVELS = 16  # shares of a minibatch that are told apart: each is compiled


@dataclass(frozen=True)
class Ramp:
    """How the share of the student's own rows rises, in parts of the steps; by default it is whole at once.

    A student far from its teacher writes noise, from which nothing is learned about what it should write.

    Raises:
      UserError: parts that are none, or in the wrong order.
    """

    start: float = 0.0
    """before it there are none"""
    full: float = 0.0
    """from it on there are as many as the share says; in between ever more"""

    def __post_init__(self) -> None:
        check_ranges(self, "own_rows.", start="[0, 1]", full="[0, 1]")
        if self.start > self.full:
            raise UserError(
                f"own_rows.start must be at most own_rows.full, after which no more come, got {self.start} and "
                f"{self.full}"
            )

    def scale(self, step: int, steps: int) -> float:
        """Says what the share counts at a step of so many."""
        done = step / steps
        if done >= self.full:
            return 1.0
        return 0.0 if done < self.start else (done - self.start) / (self.full - self.start)

    def level(self, step: int, steps: int) -> float:
        """`scale` in few levels, rounded up: above 0 as soon as that is."""
        return math.ceil(_LEVELS * self.scale(step, steps)) / _LEVELS
