"""A teacher that the user says is elsewhere: the option --teacher."""

from __future__ import annotations

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.teachers.named import open_teacher
from kdtw_jax.teachers.protocol import Teacher, TeacherUnavailable


def teacher_at(where: str, tokenizer: Tokenizer) -> Teacher:
    """Opens the teacher at an address, or of a name.

    Args:
      where: as for `open_teacher`.
      tokenizer: the student's.

    Raises:
      UserError: it does not answer, and as `open_teacher` does.
    """
    try:
        return open_teacher(where, tokenizer=tokenizer)
    except TeacherUnavailable as error:
        raise UserError(f"--teacher {where}: {error}; is it served there? (kdtw serve-teacher)") from error
