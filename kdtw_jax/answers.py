"""What a student has written, and who wrote which token of it: on a terminal with marks, in a notebook with colour."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

from kdtw_jax.marks import CLOSE, OPEN, marked

_COLOUR = "background:#ffe08a;color:#000;border-radius:3px"  # of the teacher's words
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

    @property
    def calls(self) -> int:
        """Tokens that the teacher wrote."""
        return sum(self.by_teacher)

    @property
    def share(self) -> float:
        """The teacher's part of all tokens, 0 to 1; 0 for an empty answer."""
        return self.calls / len(self.tokens) if self.tokens else 0.0

    @property
    def writers(self) -> tuple[tuple[str, str], ...]:
        """Each token with its writer: "student" or "teacher"."""
        return tuple(zip(self.tokens, ("teacher" if t else "student" for t in self.by_teacher), strict=True))

    @property
    def marked(self) -> str:
        """The text with what the teacher wrote in ⟦ ⟧, its end of a text as ∎."""
        return marked(self.tokens, self.by_teacher)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.marked

    def _repr_html_(self) -> str:
        text = html.escape(self.marked).replace(OPEN, f'<span style="{_COLOUR}">').replace(CLOSE, "</span>")
        return f"<span>{text}</span>"

    def to_json(self) -> dict[str, object]:
        """Plain values: source, text, share, calls, positions and [token, writer] pairs."""
        return {
            "source": self.source,
            "text": self.text,
            "share": round(self.share, 4),
            "calls": self.calls,
            "positions": self.positions,
            "writers": [list(pair) for pair in self.writers],
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
        """Tokens that the teacher wrote, of all answers."""
        return sum(answer.calls for answer in self)

    @property
    def share(self) -> float:
        """The teacher's part of the tokens of all answers, 0 to 1."""
        tokens = sum(len(answer.tokens) for answer in self)
        return self.calls / tokens if tokens else 0.0

    def __repr__(self) -> str:
        tokens = sum(len(answer.tokens) for answer in self)
        lines = [*map(repr, self), f"the teacher wrote {self.calls} of {tokens} tokens ({self.share:.1%})"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><td>{html.escape(a.source)}</td><td>{a._repr_html_()}</td><td>{a.share:.0%}</td></tr>"
            for a in self._answers[:_SHOWN]
        ]
        left = f"<p>{len(self) - _SHOWN} more</p>" if len(self) > _SHOWN else ""
        return (
            "<table><tr><th>source</th><th>answer</th><th>teacher</th></tr>" + "".join(rows) + f"</table>{left}"
            f"<p>the teacher wrote {self.calls} tokens, {self.share:.1%}</p>"
        )
