"""An answer that several may have written: who wrote each of its words, and what that cost."""

from __future__ import annotations

from dataclasses import dataclass

from kdtw_jax.answers import Answer

STUDENT = "student"


@dataclass(frozen=True, repr=False)
class HelpedAnswer(Answer):
    """One text written by a student and its helpers; "teacher" in what it inherits is any helper."""

    by: tuple[str, ...] = ()
    """the name of who wrote each token, "student" or a helper's"""
    helpers: tuple[str, ...] = ()
    """whom the student had"""
    used: tuple[int, ...] = ()
    """words that have a token of each of them"""
    cost: float = 0.0
    """cost units, an end of the text that a helper wrote counted as a word"""

    @property
    def writers(self) -> tuple[tuple[str, str], ...]:
        """Each token with the name of its writer."""
        return tuple(zip(self.tokens, self.by, strict=True))

    @property
    def word_writers(self) -> tuple[tuple[str, str], ...]:
        """Each word with its writer's name; a word of several has a helper's, the first one's."""
        found: dict[int, tuple[str, str]] = {}
        for piece, name, word in zip(self.tokens, self.by, self.words, strict=True):
            if word < 0:
                continue
            text, writer = found.get(word, ("", STUDENT))
            found[word] = text + piece, name if writer == STUDENT else writer
        return tuple((text.replace("▁", " ").strip(), writer) for text, writer in found.values())

    def to_json(self) -> dict[str, object]:
        """As `Answer.to_json`, with words and their writers, words per helper, and the cost."""
        return {
            **super().to_json(),
            "by_word": [list(pair) for pair in self.word_writers],
            "helpers": dict(zip(self.helpers, self.used, strict=True)),
            "cost": round(self.cost, 6),
        }
