"""Each way to carry out a calculation comes to its result, in parts that are known by heart."""

from __future__ import annotations

import re

from kdtw_jax.classroom.arithmetic import calculations, evaluate
from kdtw_jax.classroom.workings import workings

SMALL = [
    *(f"{left} + {right}" for left in range(1, 60) for right in range(1, 60 - left)),
    *(f"{left} - {right}" for left in range(1, 60) for right in range(1, left)),
    *(f"{left} × {right}" for left in range(2, 11) for right in range(2, 11)),
    *(f"{left} ÷ {right}" for left in range(3, 60) for right in range(2, 10) if left > right),
    *(f"{top}/{bottom} of {bottom * times}" for bottom in (2, 3, 4, 5) for top in range(1, bottom) for times in (2, 7)),
    *(f"{share}% of 80" for share in (10, 20, 25, 50, 75)),
]


def test_every_way_is_right_and_ends_in_the_result() -> None:
    for expression in SMALL:
        _comes_out(expression)


def _comes_out(expression: str) -> None:
    ways, result = workings(expression), evaluate(expression) or ""
    assert ways["head"] == f"{expression} = {result}" and len(set(ways.values())) == len(ways)
    for way, text in ways.items():
        found = calculations(text)
        assert text.removeprefix(f"{expression}, so ") == ", ".join(
            f"{one.expression} = {one.written}" for one in found
        )
        assert all(one.is_right for one in found)
        if "remainder" in result and way == "written":
            whole, rest = result.split(" remainder ")
            assert found[-1].written == rest and found[-2].expression.startswith(f"{whole} × ")
        elif " ÷ " in expression and way == "written":
            assert found[-1].expression.startswith(f"{result} × ")
        else:
            assert found[-1].written == result


def test_written_out_each_sum_and_difference_is_of_ones_or_begins_or_ends_at_a_ten() -> None:
    for expression in SMALL:
        text = workings(expression).get("written", "") if "÷" not in expression else ""
        for left, sign, right in re.findall(r"(\d+) ([+-]) (\d+) =", text):
            ones = (int(left) % 10, int(right) % 10)
            after = (int(left) + int(right) if sign == "+" else int(left) - int(right)) % 10
            assert 0 in (*ones, after) or max(int(left), int(right)) < 10 or (sign == "-" and ones[0] >= ones[1]), text
            assert "written" not in workings(f"{left} {sign} {right}")


def test_what_has_no_parts_goes_in_the_head_alone() -> None:
    for expression in ("8 + 4", "20 + 7", "30 - 7", "14:35 + 50 min", "7.50 + 2.25", "5/7 of 3", "3% of 100"):
        assert list(workings(expression)) == ["head"]
    assert workings("18 + 16") == {
        "head": "18 + 16 = 34",
        "written": "18 + 16, so 10 + 10 = 20, 8 + 6 = 14, 20 + 14 = 34",
        "round": "18 + 16, so 18 + 20 = 38, 38 - 4 = 34",
    }
    assert workings("35 - 17")["written"] == "35 - 17, so 35 - 10 = 25, 25 - 5 = 20, 20 - 2 = 18"
    assert workings("20 ÷ 6")["written"] == "20 ÷ 6, so 2 × 6 = 12, 3 × 6 = 18, 20 - 18 = 2"
