"""Answers to questions of reasoning-gym's generators, scored by these generators' own scorers.

A scorer wants the generator's name beside the right answer: a target says both, "... Answer (gsm_symbolic): 72".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from kdtw_jax.errors import UserError
from kdtw_jax.metrics.scoring import Scoring

# Generators of several thousand questions in prose, with answers of one line, and scorers that look at nothing else.
GENERATORS = (
    *("aiw", "caesar_cipher", "chain_sum", "count_primes", "decimal_chain_sum", "dice"),
    *("family_relationships", "gcd", "gsm_symbolic", "knights_knaves", "lcm", "leg_counting", "letter_counting"),
    *("products", "sentence_reordering", "simple_equations", "simple_geometry", "spell_backward", "syllogism"),
)
# What scorers raise for answers that they cannot read.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_ANSWER = re.compile(r".*Answer \(([a-z_]+)\):(.*)")


def target_of(name: str, answer: str, steps: str = "") -> str:
    """What is to be written: the steps to an answer, if any, and the answer of the generator `name`."""
    return f"{steps} Answer ({name}): {answer}".strip()


def reasoning_scores(hypotheses: Sequence[str], references: Sequence[str], scoring: Scoring) -> list[float]:
    """What the scorer of a reference's generator gives, 0 to 1; 0 where the reference names none.

    A hypothesis without "Answer (...):" is an answer as a whole.

    Raises:
      UserError: reasoning-gym is not installed.
    """
    found = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        meant = _ANSWER.fullmatch(reference)
        said = _ANSWER.fullmatch(hypothesis)
        if meant is None or meant[1] not in GENERATORS:
            found.append(0.0)
        else:
            found.append(score_answer(meant[1], hypothesis if said is None else said[2].strip(), meant[2].strip()))
    return found


def reasoning_signature(scoring: Scoring) -> str:
    """Which release's scorers it is, and what they are given."""
    try:
        release = version("reasoning-gym")
    except PackageNotFoundError:
        release = "not installed"
    return f"reasoning_gym|{release}|after:Answer (NAME):"


def score_answer(name: str, answer: str, right: str) -> float:
    """What a generator's own scorer gives for an answer, 0 to 1.

    Args:
      name: of the generator.
      answer: as it is given.
      right: the answer of the generator.

    Raises:
      UserError: reasoning-gym is not installed.
    """
    scorer = _scorer(name)
    try:
        return float(scorer(answer, {"answer": right}))
    except _UNREADABLE:
        return 0.0


def reasoning_gym() -> Any:
    """The package, which is imported when it is wanted.

    Raises:
      UserError: it is not installed.
    """
    try:
        return import_module("reasoning_gym")
    except ImportError as error:
        raise UserError(
            f"questions of reasoning-gym need {error.name}, which is not installed: pip install '.[reasoning]'"
        ) from None


@cache
def _scorer(name: str) -> Callable[[str, dict[str, str]], float]:
    scorer: Callable[[str, dict[str, str]], float] = reasoning_gym().get_score_answer_fn(name)
    return scorer
