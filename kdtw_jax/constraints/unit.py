"""What rules count, what the teacher writes at a call and what is paid for: tokens, words, or n tokens a call."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.errors import UserError
from kdtw_jax.text.words import WordMarks

_EOS = 1
_WORD_TO_COME = 2  # owed while an answer is blank so far; 1 while its word may go on


@dataclass(frozen=True, eq=False)
class Unit:
    """A unit; `make_unit` makes one. Arrays of tokens are int32 [B], what is asked about them bool [B].

    "token": a call buys a token, and tokens are counted. "4": a call buys the next 4 tokens, and tokens are counted.
    "word": a call buys the rest of the word, or the next one, and words are counted; white space belongs to none, nor
    does the end of a text, which is a call all the same.
    """

    name: str
    answer: int = 1  # tokens that a call buys, if it buys no word
    marks: WordMarks | None = field(default=None, repr=False)

    @property
    def one_token(self) -> bool:
        """Whether calls and what is counted are tokens."""
        return self.marks is None and self.answer == 1

    @property
    def noun(self) -> str:
        """What is counted, for messages."""
        return "tokens" if self.marks is None else "words"

    def counts(self, token_B: jax.Array) -> jax.Array:
        """Whether a token belongs to a unit."""
        if self.marks is None:
            return jnp.ones(token_B.shape, bool)
        return ~self.blank(token_B) & (token_B != _EOS)

    def begins(self, token_B: jax.Array, last_B: jax.Array) -> jax.Array:
        """Whether a token begins a unit, after another one; padding stands before the first."""
        if self.marks is None:
            return jnp.ones(token_B.shape, bool)
        return self.counts(token_B) & (jnp.asarray(self.marks.begins_V)[token_B] | self.blank(last_B))

    def under_way(self, last_B: jax.Array) -> jax.Array:
        """Whether the unit of the last token may go on."""
        if self.marks is None:
            return jnp.zeros(last_B.shape, bool)
        return self.counts(last_B)

    def goes_on(self, owed_B: jax.Array, token_B: jax.Array, last_B: jax.Array) -> jax.Array:
        """Whether a token of the teacher's belongs to the answer before it.

        Args:
          owed_B: int32, as `owed` says; 0: there is no such answer.
          token_B: the token.
          last_B: the one before it.
        """
        if self.marks is None:
            return owed_B > 0
        inside_B = self.counts(token_B) & ~self.begins(token_B, last_B)
        return jnp.where(owed_B == _WORD_TO_COME, token_B != _EOS, (owed_B > 0) & inside_B)

    def owed(self, owed_B: jax.Array, token_B: jax.Array, asked_B: jax.Array, called_B: jax.Array) -> jax.Array:
        """What is left of an answer after a token, int32 [B]; 0: nothing can be.

        Args:
          owed_B: int32, before it.
          token_B: the token.
          asked_B: bool, the teacher wrote it.
          called_B: bool, a call was made for it.
        """
        if self.marks is None:
            left_B = jnp.where(called_B, self.answer - 1, owed_B - 1)
        else:
            left_B = jnp.where(self.counts(token_B), 1, _WORD_TO_COME)
        return jnp.where(asked_B & (token_B != _EOS), left_B, 0).astype(jnp.int32)

    def most(self, tokens_B: jax.Array, blank_B: jax.Array) -> jax.Array:
        """How many units can be begun in so many tokens, int32 [B].

        Args:
          tokens_B: int32.
          blank_B: bool, a blank token stands before them, or nothing.
        """
        if self.marks is None or self.marks.begins_V.any():
            return tokens_B
        return (tokens_B + blank_B) // 2  # bytes: every other one is a space

    def unpaid(self, owed_B: jax.Array) -> jax.Array:
        """Whether the next token of an answer may be a helped unit that is not counted yet."""
        return owed_B > 0 if self.marks is None else owed_B == _WORD_TO_COME

    def blank(self, token_B: jax.Array) -> jax.Array:
        """Whether a token is white space that belongs to no unit, or the padding before the first."""
        if self.marks is None:
            return jnp.zeros(token_B.shape, bool)
        return jnp.asarray(self.marks.blank_V)[token_B]

    def count(self, tokens_BxT: jax.Array) -> jax.Array:
        """How many units outputs have, int32 [B]; padding after their ends counts for nothing."""
        last_BxT = jnp.pad(tokens_BxT[:, :-1], ((0, 0), (1, 0)))
        return jnp.sum(self.begins(tokens_BxT, last_BxT) & (tokens_BxT != 0), axis=1)

    def bought(self, x_BxT: jax.Array, tokens_BxT: jax.Array) -> jax.Array:
        """Sums of what tokens have each, from each place to the end of what a call made there would buy, [B, T].

        Args:
          x_BxT: 0 after the ends of outputs.
          tokens_BxT: int32, outputs, 0 after their ends.
        """
        if self.marks is None:
            shifted = [jnp.pad(x_BxT[:, n:], ((0, 0), (0, min(n, x_BxT.shape[1])))) for n in range(self.answer)]
            return x_BxT if self.one_token else sum(shifted[1:], shifted[0])
        nothing_BxT = jnp.zeros_like(tokens_BxT)
        owed_BxT = self.owed(nothing_BxT, tokens_BxT, nothing_BxT == 0, nothing_BxT == 0)
        later_BxT = jnp.pad(tokens_BxT[:, 1:], ((0, 0), (0, 1)))
        on_BxT = self.goes_on(owed_BxT, later_BxT, tokens_BxT) & (later_BxT != 0)

        def back(after_B: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            here_B, on_B = now
            sum_B = here_B + jnp.where(on_B, after_B, 0)
            return sum_B, sum_B

        return jax.lax.scan(back, 0 * x_BxT[:, 0], (x_BxT.T, on_BxT.T), reverse=True)[1].T


TOKENS = Unit("token")


def check_unit(unit: str) -> None:
    """Refuses what is no unit.

    Raises:
      UserError: it is neither "token" nor "word" nor a number of tokens.
    """
    if unit not in ("token", "word") and not re.fullmatch("[1-9][0-9]{0,4}", unit):
        raise UserError(f'unit must be token, word or a number of tokens, such as "4", got {unit!r}')


def make_unit(unit: str, marks: WordMarks | None = None) -> Unit:
    """Makes the unit of a vocabulary.

    Args:
      unit: "token", "word", or how many tokens a call buys, in digits.
      marks: which tokens begin a word; needed where words are counted.

    Raises:
      UserError: as `check_unit` does.
    """
    check_unit(unit)
    if unit == "word":
        if marks is None:
            raise ValueError("words are counted by their marks")
        return Unit("word", marks=WordMarks(*(np.asarray(marks_V, bool) for marks_V in marks)))
    return TOKENS if unit in ("token", "1") else Unit(unit, int(unit))
