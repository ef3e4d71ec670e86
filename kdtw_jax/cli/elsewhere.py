"""A teacher that the user says is elsewhere: the options --teacher and --teacher-timeout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kdtw_jax.errors import UserError

if TYPE_CHECKING:
    from kdtw_jax.data.tokenizer import Tokenizer
    from kdtw_jax.teachers.protocol import Teacher

TIMEOUT = 5.0  # seconds
_ATTEMPTS = 2
_BETWEEN = 1.0  # seconds from one attempt to the next at the most


def check_timeout(seconds: float) -> None:
    """Checks --teacher-timeout, before anything large is imported.

    Args:
      seconds: its value.

    Raises:
      UserError: it is no time.
    """
    if not 0 < seconds < math.inf:
        raise UserError(f"teacher-timeout is a number of seconds above 0, such as 5, not {seconds}")


def patience_with(where: str, seconds: float) -> float | None:
    """Seconds that rows wait for a call of a teacher: as long as its attempts may take; None: it is in this process.

    Args:
      where: as for `teacher_at`.
      seconds: likewise.
    """
    return _ATTEMPTS * seconds + _BETWEEN if "://" in where else None


def waiting(where: str, seconds: float) -> dict[str, Any]:
    """What `open_teacher` is told of how long to wait; nothing for a model in this process.

    Args:
      where: as for `teacher_at`.
      seconds: likewise.

    Raises:
      UserError: a package is missing.
    """
    if "://" not in where:
        return {}
    from kdtw_jax.teachers.named import check_extra

    check_extra()
    from kdtw_jax.teachers.resilience import Patience

    connect = min(seconds, Patience.connect_s)
    return {"patience": Patience(seconds, connect, attempts=_ATTEMPTS, longest_wait_s=_BETWEEN)}


def teacher_at(where: str, tokenizer: Tokenizer, seconds: float = TIMEOUT) -> Teacher:
    """Opens the teacher at an address, or of a name.

    Args:
      where: as for `open_teacher`.
      tokenizer: the student's.
      seconds: that it has to answer each of two attempts; of no consequence for a model in this process.

    Raises:
      UserError: it does not answer, and as `open_teacher` does.
    """
    from kdtw_jax.teachers.named import open_teacher
    from kdtw_jax.teachers.protocol import TeacherUnavailable

    try:
        return open_teacher(where, tokenizer=tokenizer, **waiting(where, seconds))
    except TeacherUnavailable as error:
        raise UserError(f"--teacher {where}: {error}; is it served there? (kdtw serve-teacher)") from error
