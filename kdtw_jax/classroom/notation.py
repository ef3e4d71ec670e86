"""How a language writes calculations: its decimal mark and signs, and the words for a part and a remainder.

What calculates knows one plain notation, that of English: "17 ÷ 5 = 3 remainder 2", "25% of 80 = 20",
"2 × 3.75 = 7.50". In German schools the same is "17 : 5 = 3 Rest 2", "25 % von 80 = 20", "2 · 3,75 = 7,50".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Notation:
    """A language's notation, to and from the plain one."""

    point: str = "."
    """between whole and decimals"""
    times: str = "×"
    divided: str = "÷"
    of: str = "of"
    """between a part and what it is of"""
    remainder: str = "remainder"
    """between a quotient and what is left"""
    so: str = ", so "
    """between a calculation and its parts"""
    percent: str = "%"
    """behind its number"""

    def written(self, text: str) -> str:
        """Calculations, or numbers, in this notation.

        Args:
          text: in the plain one.
        """
        if self == PLAIN:
            return text
        text = re.sub(r"(?<=\d)\.(?=\d\d(?!\d))", self.point, text)
        text = text.replace("×", self.times).replace("÷", self.divided).replace(PLAIN.so, self.so)
        text = text.replace(f" {PLAIN.of} ", f" {self.of} ").replace(f" {PLAIN.remainder} ", f" {self.remainder} ")
        return re.sub(r"(?<=\d)%", self.percent, text)

    def plain(self, text: str) -> str:
        """Calculations, or numbers, in the plain notation.

        Args:
          text: in this one.
        """
        if self == PLAIN:
            return text
        text = re.sub(rf"(?<=\d){re.escape(self.point)}(?=\d\d(?!\d))", ".", text)
        text = text.replace(self.times, "×").replace(f" {self.divided} ", " ÷ ").replace(self.so, PLAIN.so)
        text = text.replace(f" {self.of} ", f" {PLAIN.of} ").replace(f" {self.remainder} ", f" {PLAIN.remainder} ")
        return text.replace(self.percent, "%")


PLAIN = Notation()
NOTATIONS: Mapping[str, Notation] = {
    "en": PLAIN,
    "de": Notation(point=",", times="·", divided=":", of="von", remainder="Rest", so=", also ", percent=" %"),
}
