"""A teacher as a helper: it writes the rest of the word that a student is at, or the next one."""

from __future__ import annotations

from collections.abc import Sequence

from kdtw_jax.data.tokenizer import EOS_ID, Tokenizer
from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.errors import UserError
from kdtw_jax.helpers.protocol import Begun, Suggestion
from kdtw_jax.teachers.protocol import Prefix, Teacher, TeacherUnavailable
from kdtw_jax.text.words import WordMarks

_TOKENS = 8  # of a word at the most; what is beyond the student writes


class TeacherHelper:
    """A `kdtw_jax.teachers` teacher that has the student's vocabulary.

    Attributes:
      name: for budgets and answers.
      price: cost units per word.
      exact: False: it is asked where the student's gate would ask.
      teacher: who is asked.
      unanswered: suggestions that it was asked for and did not give, since it could not be reached.

    Raises:
      UserError: it has another vocabulary than the student.
    """

    exact = False

    def __init__(self, name: str, teacher: Teacher, tokenizer: Tokenizer, price: float = 1.0):
        """Makes one.

        Args:
          name: for budgets and answers.
          teacher: who is asked.
          tokenizer: the student's.
          price: cost units per word.
        """
        if teacher.about.vocabulary not in ("", vocabulary_hash(tokenizer)):
            raise UserError(f"the helper {name} has another vocabulary than the student; take one that shares it")
        self.name, self.teacher, self.price, self.unanswered = name, teacher, price, 0
        self._marks = tokenizer.words
        # A vocabulary that is padded for the student's sake has more ids than this teacher.
        self._banned = tuple(token for token in tokenizer.banned_ids if token < teacher.about.vocab_size)

    def suggest(self, begun: Sequence[Begun]) -> list[Suggestion | None]:
        """The teacher's greedy next word for each; None where it cannot be reached."""
        prefixes = [Prefix(one.source, one.written, one.session) for one in begun]
        try:
            found = self.teacher.generate(prefixes, _TOKENS, self._banned)
        except TeacherUnavailable:
            self.unanswered += len(prefixes)
            return [None] * len(prefixes)
        return [
            Suggestion(tokens=first_word(self._marks, one.written[-1] if one.written else 0, tokens))
            for one, tokens in zip(begun, found, strict=True)
        ]

    def close(self) -> None:
        """Ends its connections."""
        self.teacher.close()


def first_word(marks: WordMarks, last: int, tokens: Sequence[int]) -> tuple[int, ...]:
    """Cuts what is written on after a token to the rest of its word, or, where that is over, to the next word.

    The end of a text is an answer by itself, and no part of the word before it.

    Args:
      marks: of the vocabulary.
      last: the token before; 0: there is none.
      tokens: at least one, up to end-of-sequence or cut off.
    """
    taken, inside = list[int](), False  # inside: a word has begun, or goes on
    for token in tokens:
        blank = bool(marks.blank_V[token])
        begins = not blank and token != EOS_ID and bool(marks.begins_V[token] or marks.blank_V[last])
        if inside and (token == EOS_ID or begins or blank):
            break
        taken.append(token)
        inside |= not blank
        last = token
        if token == EOS_ID:
            break
    return tuple(taken)
