"""Numbers that a user gives, and where they may lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdtw_jax.errors import UserError


def check_ranges(config: Any, prefix: str = "", /, **intervals: str) -> None:
    """Checks that fields of a configuration lie in their intervals, such as "[0, 1)" or "(0, inf)".

    Infinities are in no interval that is open there, and NaN is in none at all. A field that is None is not looked at.

    Args:
      config: a dataclass.
      prefix: what stands before a field's name in the message.
      intervals: by the names of fields.

    Raises:
      UserError: for the first field that lies outside.
    """
    fields: Mapping[str, Any] = vars(config)
    for name, interval in intervals.items():
        value = fields[name]
        low, high = map(float, interval[1:-1].split(","))
        if value is None:
            continue
        above = value >= low if interval[0] == "[" else value > low
        below = value <= high if interval[-1] == "]" else value < high
        if above and below:
            continue
        if high < float("inf"):
            wanted = f"in {interval}"
        else:
            wanted = f"{'at least' if interval[0] == '[' else 'above'} {low:g}" + (" and finite" if above else "")
        raise UserError(f"{prefix}{name} must be {wanted}, got {value}")


def check_seeds(seeds: Sequence[int]) -> None:
    """Checks the seeds that a command is to look at.

    Raises:
      UserError: one comes twice.
    """
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds must be distinct, got {' '.join(map(str, seeds))}")
