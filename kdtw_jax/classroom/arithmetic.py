"""Calculations as a solution writes them, carried out exactly.

That is "34 - 17", "17 ÷ 5", "3/4 of 24", "25% of 80", "14:35 + 50 min" and the like, and how other languages write
them (`kdtw_jax.classroom.notation`). Nothing is evaluated but these forms, with `fractions.Fraction`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache, lru_cache
from typing import NamedTuple

from kdtw_jax.classroom.notation import NOTATIONS, PLAIN, Notation

MINUTES = 24 * 60  # of a day, after which a clock begins again
_NUMBER = r"\d{1,9}(?:\.\d\d)?"
_BINARY = re.compile(rf"({_NUMBER}) ?([-−+×x*÷:]) ?({_NUMBER})")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d) ?([-−+]) ?(\d{1,4}) min")
_PART = re.compile(rf"(\d{{1,4}})/(\d{{1,4}}) of ({_NUMBER})")
_PERCENT = re.compile(rf"(\d{{1,3}})% of ({_NUMBER})")
_GOES_ON_BEHIND = re.compile(r"[.,:/]?\d[\d.,:/]*")


@cache
def _patterns(notation: Notation) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A calculation with its equals sign, and what of one may stand before it."""
    point, of, rest = re.escape(notation.point), re.escape(notation.of), re.escape(notation.remainder)
    times = "" if notation == PLAIN else re.escape(notation.times)
    percent = re.escape(notation.percent).replace(r"\ ", " ?")
    number = rf"\d{{1,9}}(?:{point}\d\d)?"
    part, percents = rf"\d{{1,4}}/\d{{1,4}} {of} {number}", rf"\d{{1,3}}{percent} {of} {number}"
    clock = r"\d{1,2}:\d\d ?[-−+] ?\d{1,4} min"
    binary = rf"{number} ?[-−+×x*÷:{times}] ?{number}"
    result = rf"\d+ {rest} \d+|\d{{1,2}}:\d\d|\d+/\d+|\d+(?:{point}\d+)?"
    calculation = re.compile(rf"((?:{part}|{percents}|{clock}|{binary})) ?= ?({result})?")
    return calculation, re.compile(rf"\d[\d./%:]*(?: ?[-−+×x*÷{times}]| :) ?$")


class Calculation(NamedTuple):
    """A calculation found in a text."""

    expression: str
    written: str  # what stands after its equals sign, "" for nothing
    start: int  # where that stands, or would, characters from the beginning of the text
    language: str = "en"  # whose notation it is in

    @property
    def plain(self) -> str:
        """The expression as `evaluate` takes it."""
        return NOTATIONS[self.language].plain(self.expression)

    @property
    def result(self) -> str | None:
        """What is right, in the notation of the language; None: it does not come out."""
        result = evaluate(self.plain)
        return None if result is None else NOTATIONS[self.language].written(result)

    @property
    def is_right(self) -> bool:
        """Whether what is written is the result, in whatever of the usual forms."""
        result = evaluate(self.plain)
        return result is not None and _value(result) == _value(NOTATIONS[self.language].plain(self.written))


@lru_cache(1 << 16)  # the same small numbers meet again and again where problems are drawn
def evaluate(expression: str) -> str | None:
    """The result of a calculation, as a solution writes it.

    Args:
      expression: one of the forms of this module: "34 - 17", "6 × 7" (or x, *), "17 ÷ 5" (or :), "3/4 of 24",
        "25% of 80", "14:35 + 50 min", "7.50 + 2.25", "2 × 3.75".

    Returns:
      A number, a fraction in lowest terms, "3 remainder 2" for a division of whole numbers, or a time; with two
      decimals where one of the numbers has them. None for anything else, a division by zero, results below zero, and
      such with two decimals that do not come out even.
    """
    expression = expression.strip()
    if match := _CLOCK.fullmatch(expression):
        hour, minute, sign, more = int(match[1]), int(match[2]), match[3], int(match[4])
        if hour > 23 or minute > 59:
            return None
        minutes = (60 * hour + minute + (more if sign == "+" else -more)) % MINUTES
        return f"{minutes // 60}:{minutes % 60:02d}"
    if match := _PART.fullmatch(expression):
        return (
            None
            if int(match[2]) == 0
            else _written(Fraction(int(match[1]), int(match[2])) * Fraction(match[3]), match[3])
        )
    if match := _PERCENT.fullmatch(expression):
        return _written(Fraction(int(match[1]), 100) * Fraction(match[2]), match[2])
    if (match := _BINARY.fullmatch(expression)) is None:
        return None
    left, sign, right = Fraction(match[1]), match[2], Fraction(match[3])
    if sign == "+":
        return _written(left + right, match[1], match[3])
    if sign in "-−":
        return None if left < right else _written(left - right, match[1], match[3])
    if sign in "×x*":
        return _written(left * right, match[1], match[3])
    if right == 0:
        return None
    if "." in match[1] + match[3]:
        return _written(left / right, match[1], match[3])
    whole, rest = divmod(int(left), int(right))
    return f"{whole} remainder {rest}" if rest else str(whole)


def calculations(text: str, language: str = "en") -> list[Calculation]:
    """All calculations of a text with an equals sign, in order.

    Args:
      text: in whose words they stand.
      language: whose notation they are in, one of `NOTATIONS`.
    """
    calculation, goes_on_before = _patterns(NOTATIONS[language])
    found = []
    for match in calculation.finditer(text):
        if _within_a_number(text, match.start(), NOTATIONS[language]):
            continue
        at = match.start(2) if match[2] else match.end()
        # What goes on before or behind is part of it, which then is none of the forms: "5 + 34 - 17", "= 17,5".
        before = goes_on_before.search(text[: match.start()])
        behind = _GOES_ON_BEHIND.match(text[match.end() :]) if match[2] else None
        expression, written = before[0] + match[1] if before else match[1], match[2] or ""
        found.append(Calculation(expression, written + behind[0] if behind else written, at, language))
    return found


def _within_a_number(text: str, start: int, notation: Notation) -> bool:
    if text[start - 1 : start] == "," and text[start - 2 : start - 1].isdigit():  # of thousands
        return True
    return start > 0 and (text[start - 1].isdigit() or text[start - 1] in f".:/{notation.point}")


def _written(value: Fraction, *numbers: str) -> str | None:
    """A value as a solution writes it; None: it has two decimals and does not come out even."""
    if any("." in number for number in numbers):
        cents = value * 100
        return f"{int(cents) // 100}.{int(cents) % 100:02d}" if cents.denominator == 1 else None
    return str(value)  # a whole number, or a fraction in lowest terms


def _value(text: str) -> tuple[Fraction, ...] | None:
    """What a result is worth, so that "7.5", "7.50" and "15/2" are one."""
    if match := re.fullmatch(r"(\d+) remainder (\d+)", text):
        return Fraction(match[1]), Fraction(match[2])
    if match := re.fullmatch(r"(\d{1,2}):([0-5]\d)", text):
        return Fraction(int(match[1]) * 60 + int(match[2])), Fraction(0), Fraction(0)
    try:
        return (Fraction(text),)
    except (ValueError, ZeroDivisionError):
        return None
