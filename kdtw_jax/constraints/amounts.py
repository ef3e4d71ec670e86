"""Amounts in free words: "at most 20% of ...", "no more than 3 ...", "5 ... or fewer", and what may stand around them.

Patterns end with a space, and so do the clauses that they are compared with.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from math import ceil, isfinite
from typing import NamedTuple

MAY = "(?:may|can|could|should|must|shall|will|have to|need to|want|would like)"
_WRITES = "(?:writes?|provides?|suppl(?:y|ies)|produces?|contributes?|answers?|gives?)"
# What only speaks of asking a teacher. To write is the teacher's alone: "write 20% yourself" is the student's. Of
# alternatives that begin alike the longer one stands first.
_ABOUT_ASKING = "|".join(
    (
        "in total|in all|altogether|overall|(?:per|in each|for each) (?:output|text|source)|(?:make|be) sure",
        f"(?:limit|restrict) yourself|the student {MAY}|teacher(?:'s)?(?: model)?(?: {MAY})?(?: {_WRITES})?|{MAY}",
        "ask(?:ed|ing)?|call(?:ed|ing)?|us(?:e|ed|ing|age)|consult(?:ed|ing)?|query|querying|request(?:ed|ing)?",
        "get|getting|take|taken|taking|seek|have|having|spend|spending|make|making|go|let|allow|allowed|keep|hold|stay",
        "limit|limited|restrict|cap|budget|quota|allowance|share|rule|helps?|assistance|advice|support|rely|turn|come",
        "written|be|is|are|i|you|your|my|it|its|the|an?|for|with|on|in|of|from|by|to|at(?! (?:the )?(?:very )?m)",
        "ok|okay|fine|so|now|then|also|remember|feel free",
    )
)

NOT = "(?:(?:do not|not|never|no)(?: ever)? )"
ONLY = "(?:only )"
NUMBER = r"(-?\d+(?:\.\d+)?)"
WORDS = "(?:(?:words?|tokens?) )"
CALLS = "(?:(?:teacher )?(?:times?|calls?|questions?|requests?|queries|query|consultations?|answers?|hints?) )"

_MOST = "at (?:the )?(?:very )?most"
_UP_TO = rf"(?:(?:{_MOST}|up to|(?:at )?max(?:imum|imal|imally)?|within|as (?:much|many) as|only|just|=) )"
_OR_LESS = (
    rf"(?:(?:or (?:less|fewer|under|below|lower)|{_MOST}|(?:as |at )?(?:a |the )?max(?:imum|imal|imally)?|tops|only|"
    "limit|cap|(?:but )?(?:not|no|never) more) )"
)
_LESS = "(?:(?:(?:less|fewer|lower|smaller) than|under|below) )"
_MORE = "(?:(?:(?:more|greater|higher|larger) than|over|above|exceed(?:ing)?|beyond) )"
_DUTY = re.compile(r"\b(?:must|should|shall|will|have to|need to|want|would like) ")
_LIMIT = re.compile(rf"\b(?:{_UP_TO}|{_OR_LESS}|(?:limit|limited|restrict|cap|budget|quota|allowance) )")
_FROM_ON = re.compile(r"\bfrom (?:word )?\d.*\b(?:not|no|never) more$")  # where asking ends, and no amount
_TEACHER_NOT = re.compile(rf"\bteacher ({MAY}) (not|never) (?={_WRITES} )")


class Amount(NamedTuple):
    """The number of "at most N"."""

    number: float
    excluded: bool  # N itself is too much already
    scale: str | None  # what the unit's group of that name matched

    @property
    def whole(self) -> float:
        """The largest whole number that is meant, or the number that was said if it is none."""
        return ceil(self.number) - 1 if self.excluded else self.number


def talk(more: str = "") -> str:
    """Any number of words that only speak of asking, or are among `more` ("a|b|"). It gives none of them back."""
    return rf"(?:(?:{more}{_ABOUT_ASKING}) )*+"


def amounts(unit: str, *, around: str | None = None, bound: bool = False) -> Callable[[str], Amount | None]:
    """A reader of "at most N `unit`" in many words, of which `around` may stand around it (`talk`).

    Without any words for "at most" it is meant all the same ("20% of the words"), unless with `bound` or where it may
    be a duty ("you must ask 3 times").
    """
    some = talk() if around is None else around
    at_most = rf"{some}{_UP_TO}?{some}(?P<less>{_LESS})?{some}(?P<n>{NUMBER}){unit}{_OR_LESS}?{some}{_OR_LESS}?"
    no_more = rf"{some}{NOT}{some}{_MORE}{some}(?P<n>{NUMBER}){unit}{some}"

    @cache
    def compiled() -> tuple[re.Pattern[str], re.Pattern[str]]:
        """Where a rule is read, and not where the package is imported: they are long."""
        return re.compile(at_most), re.compile(no_more)

    def read(said: str) -> Amount | None:
        positive, negative = compiled()
        if _FROM_ON.search(said):
            return None
        said = _TEACHER_NOT.sub(r"\2 teacher \1 ", said + " ")
        if found := negative.fullmatch(said):
            return Amount(float(found["n"]), False, found.groupdict().get("scale"))
        if not (found := positive.fullmatch(said)):
            return None
        excluded = found["less"] is not None
        if (bound or _DUTY.search(said)) and not excluded and not _LIMIT.search(said):
            return None
        return Amount(float(found["n"]), excluded, found.groupdict().get("scale"))

    return read


def first_of(*patterns: str) -> Callable[[str], re.Match[str] | None]:
    """A reader that gives the match of the first pattern that a clause is as a whole."""

    @cache
    def compiled() -> list[re.Pattern[str]]:
        return [re.compile(pattern) for pattern in patterns]

    return lambda said: next((found for one in compiled() if (found := one.fullmatch(said + " "))), None)


def written(number: float) -> str | None:
    """A number for `Wording.read`; None for one that is too large."""
    return None if not isfinite(number) else str(int(number)) if number == int(number) else repr(number)
