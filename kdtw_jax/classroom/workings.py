"""How people carry out a calculation: in one's head, written out in small parts, or by a rule of thumb.

    head     18 + 16 = 34
             20 ÷ 6 = 3 remainder 2
    written  18 + 16, so 10 + 10 = 20, 8 + 6 = 14, 20 + 14 = 34
             35 - 17, so 35 - 10 = 25, 25 - 5 = 20, 20 - 2 = 18
             20 ÷ 6, so 2 × 6 = 12, 3 × 6 = 18, 20 - 18 = 2
    round    18 + 16, so 18 + 20 = 38, 38 - 4 = 34

Written out, a sum takes tens and ones apart, a difference takes away the tens, what is left to the next ten, and the
rest; products and divisions go along the multiplication table, from 2, 5 or 10 times on; of a fraction one part is
found first. So each part is of a table that one learns by heart. The rule of thumb goes to the next ten and back.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from kdtw_jax.classroom.arithmetic import evaluate
from kdtw_jax.classroom.notation import PLAIN

Way = Literal["head", "written", "round"]
WAYS: tuple[Way, ...] = get_args(Way)
SO = PLAIN.so
_BINARY = re.compile(r"(\d+) ([-+×÷]) (\d+)")
_PART = re.compile(r"(?:(\d+)/(\d+)|(\d+)%) of (\d+)")
_PERCENTS = {10: (1, 10), 20: (1, 5), 25: (1, 4), 50: (1, 2), 75: (3, 4)}
_LANDMARKS = (10, 5, 2, 1)  # of a multiplication table, whose other lines are reached from these


def workings(expression: str) -> dict[Way, str]:
    """The ways in which a calculation is written, `head` among them; others where there are any.

    Args:
      expression: as `kdtw_jax.classroom.arithmetic.evaluate` takes it; there is a result.
    """
    found: dict[Way, str] = {"head": f"{expression} = {evaluate(expression)}"}
    if match := _BINARY.fullmatch(expression):
        left, sign, right = int(match[1]), match[2], int(match[3])
        steps: dict[Way, list[str]] = {"written": _written(left, sign, right)}
        if steps["written"]:  # what is seen at once needs no rule of thumb
            steps["round"] = _by_rounding(left, sign, right)
    elif match := _PART.fullmatch(expression):
        top, bottom = (int(match[1]), int(match[2])) if match[1] else _PERCENTS.get(int(match[3]), (0, 1))
        steps = {"written": _by_parts(top, bottom, int(match[4]))}
    else:
        return found
    for way, parts in steps.items():
        if parts and parts != [expression]:
            found[way] = f"{expression}{SO}" + ", ".join(f"{one} = {evaluate(one)}" for one in parts)
    return found


def _written(left: int, sign: str, right: int) -> list[str]:
    if sign == "+":
        return _by_places(left, right)
    if sign == "-":
        return _by_taking_away(left, right)
    if sign == "×":
        lines = _along_the_table(min(left, right), max(left, right))
        return lines if len(lines) > 1 else []
    whole, rest = divmod(left, right)
    lines = _along_the_table(whole, right)
    return [*lines, f"{left} - {whole * right}"] if lines and rest else lines


def _by_places(left: int, right: int) -> list[str]:
    """Tens and ones apart, of numbers below 100, then together."""
    (tens, ones), (more_tens, more_ones) = divmod(left, 10), divmod(right, 10)
    if max(left, right) > 99 or not ones or not more_ones or not (tens or more_tens):
        return []
    both = [f"{10 * tens} + {10 * more_tens}"] if tens and more_tens else []
    return [*both, f"{ones} + {more_ones}", f"{10 * (tens + more_tens)} + {ones + more_ones}"]


def _by_taking_away(left: int, right: int) -> list[str]:
    """The tens first, then what leads to a ten, then the rest."""
    tens, ones, to_ten = right - right % 10, right % 10, left % 10
    taken = [tens, to_ten, ones - to_ten] if 0 < to_ten < ones else [tens, ones]
    taken = [number for number in taken if number]
    if len(taken) < 2 or left > 99 or left - right < 10:  # what is left below ten is seen at once
        return []
    steps = list[str]()
    for number in taken:
        steps.append(f"{left} - {number}")
        left -= number
    return steps


def _along_the_table(times: int, of: int) -> list[str]:
    """The table's lines up to so many times a number, from the last landmark on."""
    begin = next((one for one in _LANDMARKS if one <= times), 1)
    return [f"{number} × {of}" for number in range(begin, times + 1)] if times - begin < 10 else []


def _by_rounding(left: int, sign: str, right: int) -> list[str]:
    """Over the next ten, where it is near, and back."""
    if sign not in ("+", "-") or right % 10 < 6:
        return []
    tens = -(-right // 10) * 10
    between = left + tens if sign == "+" else left - tens
    return [f"{left} {sign} {tens}", f"{between} {'-' if sign == '+' else '+'} {tens - right}"] if between >= 0 else []


def _by_parts(top: int, bottom: int, number: int) -> list[str]:
    """One part, then so many of them."""
    if not top or number % bottom:
        return []
    return [f"{number} ÷ {bottom}", *([f"{top} × {number // bottom}"] if top > 1 else [])]
