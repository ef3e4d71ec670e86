"""What a student has written, and who wrote which token of it: on a terminal with marks, in a notebook with colour."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

from kdtw_jax.marks import CALCULATOR, CLOSE, OPEN, STUDENT, TEACHER, TOOL_CLOSE, TOOL_OPEN, marked, whole_words

_COLOUR = "background:#ffe08a;color:#000;border-radius:3px"  # of the teacher's words
_TOOL_COLOUR = "background:#b6e3ff;color:#000;border-radius:3px"  # of the calculator's
_NAMES = {STUDENT: "student", TEACHER: "teacher", CALCULATOR: "calculator"}
_SHOWN = 50  # answers that a notebook shows at the most


@dataclass(frozen=True)
class Answer:
    """One text written by a student, with its teacher's help or without."""

    source: str
    text: str
    tokens: tuple[str, ...] = ()
    """the pieces written, ▁ for a space; the end of the text, </s>, is one of them"""
    by_teacher: tuple[bool, ...] = ()
    """who wrote each of them"""
    positions: int = 0
    """decoder positions that the teacher processed"""
    source_tokens: int = 0
    """pieces of the source, instruction and end included; what is beyond the student's longest source was not read"""
    unit: str = "token"
    """what its student's rules count and a call buys: "token", "word", or how many tokens"""
    words: tuple[int, ...] = ()
    """where words are counted: to which of them, from 0, each token belongs; -1: to none, as the end of the text"""
    called: tuple[bool, ...] = ()
    """where a call buys more than a token: the tokens that calls were made for"""
    calculated: tuple[bool, ...] = ()
    """where there was a calculator: the tokens that it wrote, which no rule counts as the teacher's"""

    @property
    def calls(self) -> int:
        """Answers of the teacher."""
        return sum(self.called or self.by_teacher)

    @property
    def length(self) -> int:
        """Words of the text where those are counted, otherwise tokens."""
        return max(self.words, default=-1) + 1 if self.unit == "word" else len(self.tokens)

    @property
    def helped(self) -> int:
        """Those of them that have a token of the teacher's."""
        return self._count(self.by_teacher)

    @property
    def by_calculator(self) -> int:
        """Those of them that have a token of a calculator's."""
        return self._count(self.calculated) if self.calculated else 0

    def _count(self, some: Sequence[bool]) -> int:
        if self.unit != "word":
            return sum(some)
        return len({word for word, is_one in zip(self.words, some, strict=True) if is_one} - {-1})

    @property
    def share(self) -> float:
        """The teacher's part of all words, or tokens, 0 to 1; 0 for an empty answer."""
        return self.helped / self.length if self.length else 0.0

    @property
    def writers(self) -> tuple[tuple[str, str], ...]:
        """Each token with its writer: "student", "teacher" or "calculator"."""
        return tuple(zip(self.tokens, (_NAMES[who] for who in self._who(whole=False)), strict=True))

    def _who(self, *, whole: bool) -> list[int]:
        """The writer of each token; `whole`: where words are counted, the same one for all of a word."""
        kinds = (list(self.by_teacher), list(self.calculated) or [False] * len(self.tokens))
        if whole and self.words:
            kinds = (whole_words(kinds[0], self.words), whole_words(kinds[1], self.words))
        return [CALCULATOR if tool else TEACHER if asked else STUDENT for asked, tool in zip(*kinds, strict=True)]

    @property
    def marked(self) -> str:
        """The text with what the teacher wrote in ⟦ ⟧, words whole where those are counted; its end of a text as ∎.

        What a calculator wrote stands in ⟨ ⟩.
        """
        return marked(self.tokens, self._who(whole=True))

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.marked

    def _repr_html_(self) -> str:
        text = html.escape(self.marked)
        for begin, end, colour in ((OPEN, CLOSE, _COLOUR), (TOOL_OPEN, TOOL_CLOSE, _TOOL_COLOUR)):
            text = text.replace(begin, f'<span style="{colour}">').replace(end, "</span>")
        return f"<span>{text}</span>"

    def to_json(self) -> dict[str, object]:
        """Plain values: source, text, share, calls, positions, [token, writer] pairs and the unit.

        Where that is the word, also how many words there are and how many of them were asked for; where there was a
        calculator, how many it wrote.
        """
        words = {"words": self.length, "asked_words": self.helped} if self.unit == "word" else {}
        if self.calculated:
            words[f"calculated_{'words' if self.unit == 'word' else 'tokens'}"] = self.by_calculator
        return {
            "source": self.source,
            "text": self.text,
            "share": round(self.share, 4),
            "calls": self.calls,
            "positions": self.positions,
            "writers": [list(pair) for pair in self.writers],
            "unit": self.unit,
            **words,
        }


class Answers(Sequence[Answer]):
    """Answers in the order of their sources."""

    def __init__(self, answers: Iterable[Answer]):
        self._answers = tuple(answers)

    @overload
    def __getitem__(self, index: int) -> Answer: ...

    @overload
    def __getitem__(self, index: slice) -> Answers: ...

    def __getitem__(self, index: int | slice) -> Answer | Answers:
        return Answers(self._answers[index]) if isinstance(index, slice) else self._answers[index]

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def text(self) -> list[str]:
        """The texts."""
        return [answer.text for answer in self]

    @property
    def calls(self) -> int:
        """Answers of the teacher, of all of them."""
        return sum(answer.calls for answer in self)

    @property
    def helped(self) -> int:
        """Words, or tokens, that the teacher wrote, of all answers."""
        return sum(answer.helped for answer in self)

    @property
    def share(self) -> float:
        """The teacher's part of the words, or tokens, of all answers, 0 to 1."""
        length = sum(answer.length for answer in self)
        return self.helped / length if length else 0.0

    @property
    def noun(self) -> str:
        """What is counted: "words" or "tokens"."""
        return "words" if any(answer.unit == "word" for answer in self) else "tokens"

    def __repr__(self) -> str:
        length = sum(answer.length for answer in self)
        lines = [*map(repr, self), f"the teacher wrote {self.helped} of {length} {self.noun} ({self.share:.1%})"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><td>{html.escape(a.source)}</td><td>{a._repr_html_()}</td><td>{a.share:.0%}</td></tr>"
            for a in self._answers[:_SHOWN]
        ]
        left = f"<p>{len(self) - _SHOWN} more</p>" if len(self) > _SHOWN else ""
        return (
            "<table><tr><th>source</th><th>answer</th><th>teacher</th></tr>" + "".join(rows) + f"</table>{left}"
            f"<p>the teacher wrote {self.helped} {self.noun}, {self.share:.1%}</p>"
        )
