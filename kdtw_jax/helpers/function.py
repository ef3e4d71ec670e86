"""A function of the texts as a helper: a tool of a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdtw_jax.data.tool_words import Tool
from kdtw_jax.errors import UserError
from kdtw_jax.helpers.protocol import Begun, Suggestion


@dataclass(frozen=True)
class FunctionHelper:
    """A helper that is a function of the source and of what is written so far.

    `FunctionHelper("shout", lambda source, written: source.upper() if not written else None)`
    """

    name: str
    function: Tool
    price: float = 0.0
    """cost units per word"""
    exact: bool = True
    """right wherever it does not decline; otherwise it is asked where the student's gate would ask"""

    def suggest(self, begun: Sequence[Begun]) -> list[Suggestion | None]:
        """What the function says of each.

        Raises:
          UserError: it fails, or says something that is no text.
        """
        return [self._said(one) for one in begun]

    def _said(self, begun: Begun) -> Suggestion | None:
        try:
            said = self.function(begun.source_text, begun.written_text)
        except Exception as error:
            raise UserError(f"the helper {self.name} failed: {type(error).__name__}: {error}") from error
        if said is None:
            return None
        if not isinstance(said, str):
            raise UserError(f"the helper {self.name} must return a text or None, not {said!r:.80}")
        return Suggestion(said) if said.strip() else None
