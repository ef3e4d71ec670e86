"""A tool that writes words in rows of the engine, such as a calculator: wherever it has something to say, at no price.

Its words are no calls, and no rule counts them as the teacher's; to a rule and to the student's gate they are words of
the student's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.data.tool_words import Tool, tokens_of_text


@dataclass(eq=False)
class ToolRow:
    """What a tool writes in one output."""

    tool: Tool
    tokenizer: Tokenizer
    source: str
    wrote: list[bool] = field(default_factory=list)
    """of each token so far"""
    _queue: deque[int] = field(default_factory=deque)  # of a word that is begun, or is to be
    _looked: int = -1  # tokens that were written when it was heard last

    def next(self, tokens: Sequence[int], most: int) -> int:
        """The token that it writes next; 0: none.

        Args:
          tokens: that are written.
          most: of the output. A word that there is no room for is not begun.
        """
        if not self._queue and self._looked != len(tokens):
            self._looked = len(tokens)
            written = self.tokenizer.decode(tokens)
            said = self.tool(self.source, written)
            word = () if said is None else tokens_of_text(self.tokenizer, tokens, written, said)
            if len(word) <= most - len(tokens):
                self._queue.extend(word)
        return self._queue[0] if self._queue else 0

    @property
    def left(self) -> int:
        """Tokens of the word that it writes that are not written yet."""
        return len(self._queue)

    @property
    def is_closed(self) -> bool:
        """Whether its word was just over: then another one begins, or punctuation comes."""
        return bool(self.wrote and self.wrote[-1] and not self._queue)

    def took(self, token: int, *, asked: bool) -> bool:
        """Takes note of a token that was written, and says whether it was the tool's.

        Args:
          token: which one.
          asked: the teacher wrote it.
        """
        is_own = bool(self._queue and token == self._queue[0] and not asked)
        if is_own:
            self._queue.popleft()
        else:
            self._queue.clear()  # the rule has let another token alone stand here
        self.wrote.append(is_own)
        return is_own
