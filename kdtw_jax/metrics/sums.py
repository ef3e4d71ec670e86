"""What is judged of sums with two ways to their answer (`kdtw_jax.data.ways`)."""

from __future__ import annotations

from collections.abc import Sequence

from kdtw_jax.metrics.scoring import Scoring

LONG, SHORT, EQUALS = "A", "B", "="


def right_answers(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> list[bool]:
    """Whether the answer, what stands after the last "=" or else all of it, is that of the reference."""
    return [_answer(one) == _answer(other) for one, other in zip(hypotheses, references, strict=True)]


def long_ways(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> list[bool]:
    """Whether an output goes the long way, be it right or wrong."""
    return [hypothesis.startswith(LONG) for hypothesis in hypotheses]


def _answer(text: str) -> str:
    return text.rpartition(EQUALS)[2].strip()
