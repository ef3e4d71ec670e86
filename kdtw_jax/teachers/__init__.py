"""Teachers, wherever they run: one protocol, and what answers it."""

from kdtw_jax.teachers.protocol import Prefix, RowScores, Teacher, TeacherAbout, TeacherUnavailable, TopTokens

__all__ = ["Prefix", "RowScores", "Teacher", "TeacherAbout", "TeacherUnavailable", "TopTokens"]
