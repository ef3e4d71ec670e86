"""What is judged of class material: whether the numbers are right, and not whether the words are the reference's."""

from __future__ import annotations

from collections.abc import Sequence

from kdtw_jax.classroom.arithmetic import calculations
from kdtw_jax.classroom.kinds import is_in_the_head
from kdtw_jax.classroom.languages import language_of
from kdtw_jax.classroom.outlines import is_right, read_outline
from kdtw_jax.classroom.problems import answer_of
from kdtw_jax.classroom.understanding import understand
from kdtw_jax.metrics.scoring import Scoring


def right_solutions(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> list[bool]:
    """Whether the answer line of a solution is that of the reference."""
    return [
        bool(meant := answer_of(reference)) and answer_of(hypothesis) == meant
        for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]


def right_calculations(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> list[bool]:
    """Whether every calculation of a solution is right, be it the one that was wanted or not; a solution has one."""
    found = [calculations(text, language_of(other)) for text, other in zip(hypotheses, references, strict=True)]
    return [bool(some) and all(one.is_right for one in some) for some in found]


def found_in_the_head(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> list[bool]:
    """Whether a solution says an answer, right or wrong, and no calculation."""
    return [is_in_the_head(text, language_of(other)) for text, other in zip(hypotheses, references, strict=True)]


def met_specifications(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> list[bool]:
    """Whether a problem is understood, and has the interest, unit, numbers and operations of the reference."""
    wanted, written = [understand(text) for text in references], [understand(text) for text in hypotheses]
    return [
        one is not None and other is not None and other.specification == one.specification
        for one, other in zip(wanted, written, strict=True)
    ]


def right_outlines(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> list[bool]:
    """Whether an outline is without faults for the request that the reference is headed with, in whatever order."""
    wanted = [read_outline(reference) for reference in references]
    return [one is not None and is_right(text, one.request) for text, one in zip(hypotheses, wanted, strict=True)]
