"""A calculator: where what is written ends in an arithmetic expression and "=", the exact value in the same form.

    34 - 17 =           17              3/4 of 24 =         18
    7.50 + 2.25 =       9.75            25% of 80 =         20
    1/2 + 1/4 =         3/4             14:35 + 50 min =    15:25
    17 : 5, 17 ÷ 5 =    3 remainder 2   16:10 - 14:35 =     95 min

Numbers are whole or decimal with a point; commas divide thousands only. It declines wherever it is not sure that it has
understood the whole expression, values below zero, and parts of money (two decimals) or percentages of whole numbers
that do not come out even: what it says is what `kdtw_jax.classroom.arithmetic` says. A small parser over exact
fractions; nothing is evaluated as code. In German it reads and writes 7,50 and "17 : 5 = 3 Rest 2".
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from kdtw_jax.classroom.notation import NOTATIONS
from kdtw_jax.helpers.function import FunctionHelper

_LONGEST = 200  # characters of an expression
_DIGITS = 15  # of a number at the most
_DAY = 24 * 60
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00d7": "*", "\u00f7": ":", "\u00b7": "*"})
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_TOKEN = re.compile(
    rf"\s*(?:(?P<time>\d{{1,2}}:\d\d(?![\d:]))|(?P<fraction>\d+/\d+(?![\d./]))|(?P<percent>{_NUMBER}\s?%)"
    rf"|(?P<number>{_NUMBER})|(?P<unit>min|h)\b|(?P<of>of)\b|(?P<sign>[-+*/:()]))"
)
# Everything that an expression may be made of, up to the end of the text.
_RUN = re.compile(r"(?:[\d.,:/%()+*\s-]|\b(?:of|min|h)\b)+$")
_TIMES_SIGN = re.compile(r"(?<=\d)\s*x\s*(?=\d)")
_SENTENCE_ENDS = re.compile(r"[.,:;]\s+")
_MARKS = ".,:;!?=\"'`\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"  # an expression may begin behind these
# What a word before an expression may not be, since it goes on with it: "10 minus 3 + 4".
_GOES_ON = re.compile(
    r"\b(?:plus|minus|times|less|over|by|per|x|twice|double|triple|half|root|sqrt|log|ln|sin|cos|tan)$", re.IGNORECASE
)
_JOINED = re.compile(r"[\d.,]+(?:-[\d.,]+)+")  # with hyphens and no spaces: a difference, a date, a telephone number
_CODE = re.compile(r"(?<![\d.,:])0[\d,]|\d/\d+/\d|/\s*\d+/\d")  # a number of no amount, a date, "6 / 1/2"
_TIMES = re.compile(r"(?P<from>\d{1,2}:\d\d)\s*(?P<sign>[-+])\s*(?:(?P<to>\d{1,2}:\d\d)|(?P<span>.+))")
_SPAN = re.compile(r"(?:(?P<h>\d{1,3})\s*h)?\s*(?:(?P<min>\d{1,4})\s*min)?")
_DOUBTFUL = re.compile(r"\d\.\d|\d,(?!\d\d(?!\d))\d")  # with a decimal comma: of thousands, or of other places than two
_REMAINDER = re.compile(r"(?P<a>\d+)\s+:\s+(?P<b>\d+)")


class _Declined(Exception):
    """There is no value, or it is not sure which."""


class _Token(NamedTuple):
    kind: str  # a name of `_TOKEN`
    text: str


def calculate(written: str, language: str = "en") -> str | None:
    """The value of the expression that a text ends in before its "=", in the same form; None: there is none.

    Args:
      written: as in "She has 34 - 17 =".
      language: whose notation it is in, one of `kdtw_jax.classroom.notation.NOTATIONS`.
    """
    notation = NOTATIONS[language]
    if notation.point == "," and _DOUBTFUL.search(written[-_LONGEST:]):
        return None
    value = _calculate(notation.plain(written))
    return None if value is None else notation.written(value)


def _calculate(written: str) -> str | None:
    text = written.rstrip()
    if not text.endswith("="):
        return None
    expression = _expression(text[:-1].translate(_MINUS).rstrip())
    if expression is None:
        return None
    try:
        return _of_times(expression) or _with_remainder(expression) or _of_numbers(expression)
    except (_Declined, ZeroDivisionError):
        return None


def make_calculator(price: float = 0.0, *, language: str = "en") -> FunctionHelper:
    """The calculator as a helper.

    Args:
      price: cost units per word.
      language: of what is written.
    """
    return FunctionHelper("calculator", lambda source, written: calculate(written, language), price)


def _expression(text: str) -> str | None:
    """The longest end of a text that is made of an expression's parts and begins where a sentence or a word ended."""
    text = _TIMES_SIGN.sub("*", text[-2 * _LONGEST :])  # so much that what stands before an expression is seen, too
    found = _RUN.search(text)
    if found is None:
        return None
    ends = [
        end.end() for end in _SENTENCE_ENDS.finditer(text, found.start()) if text[end.start() - 1 : end.start()] != " "
    ]
    begin = ends[-1] if ends else found.start()
    begin += len(text[begin:]) - len(text[begin:].lstrip())
    expression = text[begin:]
    if len(expression) > _LONGEST or not _begins_anew(text[:begin], expression):
        return None
    for joined in _JOINED.findall(expression):
        numbers = joined.split("-")
        if len(numbers) > 2 or any(len(number.partition(".")[0]) > 2 for number in numbers):
            return None
    return expression or None


def _begins_anew(before: str, expression: str) -> bool:
    """Whether nothing of what stands before an expression can belong to it."""
    last = before.rstrip()
    if re.match(r"[-+*/]\s", expression):
        return False  # of something that is not in the expression, or a list
    if not last or last[-1] in _MARKS:
        return True
    follows_word = last != before and last[-1].isalpha() and _GOES_ON.search(last) is None
    return follows_word and expression[:1] not in ("+", "-", "*", "/")


def _of_times(expression: str) -> str | None:
    """A time and a span added to it or taken from it, or the minutes from one time to a later one."""
    found = _TIMES.fullmatch(expression)
    if found is None:
        return None
    start, sign = _minutes(found["from"]), 1 if found["sign"] == "+" else -1
    if found["to"] is not None:
        if sign > 0 or _minutes(found["to"]) > start:
            raise _Declined
        return f"{start - _minutes(found['to'])} min"
    span = _SPAN.fullmatch(found["span"].strip())
    if span is None or not (span["h"] or span["min"]):
        raise _Declined
    total = (start + sign * (60 * int(span["h"] or 0) + int(span["min"] or 0))) % _DAY
    return f"{total // 60}:{total % 60:02d}"


def _minutes(time: str) -> int:
    hours, minutes = map(int, time.split(":"))
    if hours > 23 or minutes > 59:
        raise _Declined
    return 60 * hours + minutes


def _with_remainder(expression: str) -> str | None:
    """Division of whole numbers, "17 : 5"."""
    found = _REMAINDER.fullmatch(expression)
    if found is None:
        return None
    if _CODE.search(expression):
        raise _Declined
    whole, rest = divmod(int(found["a"]), int(found["b"]))
    return f"{whole} remainder {rest}" if rest else str(whole)


def _of_numbers(expression: str) -> str:
    if _CODE.search(expression):
        raise _Declined
    tokens = list[_Token]()
    place = 0
    while place < len(expression):
        found = _TOKEN.match(expression, place)
        if found is None or found.lastgroup is None:
            raise _Declined
        tokens.append(_Token(found.lastgroup, found[found.lastgroup]))
        place = found.end()
    kinds = {token.kind for token in tokens}
    if kinds & {"time", "unit"} or not (kinds & {"of", "fraction"} or any(t.text in "+-*/" for t in tokens[1:])):
        raise _Declined
    if any(token.text == ":" for token in tokens):
        raise _Declined
    reader = _Reader(tokens)
    value = reader.sum()
    if reader.place < len(tokens):
        raise _Declined
    written_places = {len(token.text.partition(".")[2]) for token in tokens if token.kind == "number"}
    places = max(written_places, default=0)
    if value < 0 or ("percent" in kinds and not places and value.denominator != 1):
        raise _Declined
    if written_places - {0} == {2} and (100 * value).denominator != 1:
        raise _Declined  # money
    return _worded(value, places, "fraction" in kinds)


class _Reader:
    """Reads tokens by descent: a sum of products of numbers and of sums in brackets."""

    def __init__(self, tokens: list[_Token]):
        self._tokens, self.place = tokens, 0

    def sum(self) -> Fraction:
        value = self._product()
        while (sign := self._takes("+", "-")) is not None:
            value = value + self._product() if sign == "+" else value - self._product()
        return value

    def _product(self) -> Fraction:
        value = self._number()
        while (sign := self._takes("*", "/", "of")) is not None:
            value = value / self._number() if sign == "/" else value * self._number()
        return value

    def _number(self) -> Fraction:
        if self._takes("(") is not None:
            value = self.sum()
            if self._takes(")") is None:
                raise _Declined
            return value
        if self.place == 0 and self._takes("-") is not None:
            return -self._number()
        if self.place >= len(self._tokens) or self._tokens[self.place].kind not in ("number", "fraction", "percent"):
            raise _Declined
        kind, text = self._tokens[self.place]
        self.place += 1
        if sum(map(str.isdigit, text)) > _DIGITS:
            raise _Declined
        plain = text.replace(",", "").rstrip("% ")
        if kind == "percent" and (self.place >= len(self._tokens) or self._tokens[self.place].kind != "of"):
            raise _Declined  # "20 + 5%" is said of two things
        return Fraction(plain) / (100 if kind == "percent" else 1)

    def _takes(self, *texts: str) -> str | None:
        if self.place < len(self._tokens) and self._tokens[self.place].text in texts:
            self.place += 1
            return self._tokens[self.place - 1].text
        return None


def _worded(value: Fraction, places: int, as_fraction: bool) -> str:
    """A value from 0 up with at least so many decimal places, or as a fraction where one was written; exact."""
    if value.denominator == 1 and not places:
        return str(value.numerator)
    if as_fraction and not places:
        return f"{value.numerator}/{value.denominator}"
    for digits in range(places, places + _DIGITS):
        if 10**digits % value.denominator == 0:
            scaled = value.numerator * (10**digits // value.denominator)
            whole, rest = divmod(scaled, 10**digits)
            return f"{whole}.{rest:0{digits}d}"
    if places:
        raise _Declined
    return f"{value.numerator}/{value.denominator}"
