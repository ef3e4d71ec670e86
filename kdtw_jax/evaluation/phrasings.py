"""Rules in the words in which a student is judged on them: those of training, and others that were held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kdtw_jax.constraints import Constraint, pad_words, word_rule, word_tokens
from kdtw_jax.evaluation.decoder import share_index

_OF_RANGE = (0.1, 0.3, 0.6, 0.9)  # budgets of further constraints, as parts of their ranges


class Phrasings(NamedTuple):
    """The rule on the share of words, as tokens."""

    constraint: Constraint
    encode: Callable[[str], Sequence[int]]
    room: int

    def of(self, budget: float, phrasing: str) -> np.ndarray:
        """int32 [K, R]: a budget in all templates of training ("seen"), or in all held-out ones ("unseen")."""
        known, unknown = len(self.constraint.wording.templates), len(self.constraint.wording.held_out)
        chosen = range(known) if phrasing == "seen" else range(known, known + unknown)
        return self.said([word_rule([self.constraint], [budget], [index]) for index in chosen])

    def said(self, texts: Sequence[str]) -> np.ndarray:
        """int32 [K, R], of rules in words."""
        return pad_words([word_tokens(text, self.encode) for text in texts], self.room)


class PhrasedRule(NamedTuple):
    """A rule beside the one on the share of words, in K phrasings of training ("seen") or held out."""

    rule: str  # the first of them
    phrasing: str
    words_KxR: np.ndarray
    share: float | None
    others: tuple[tuple[int, float], ...]


def further_rules(constraints: Sequence[Constraint], phrasings: Phrasings, share: float = 0.2) -> list[PhrasedRule]:
    """What else a student knows: each constraint but the share of words at budgets over its range, and together with
    that share."""
    found = []
    words = phrasings.constraint
    for index, constraint in enumerate(constraints):
        if constraint.name == words.name:
            continue
        wording = constraint.wording
        numbers = [wording.write(constraint.low + f * (constraint.high - constraint.low)) for f in _OF_RANGE]
        budgets = list(dict.fromkeys(map(wording.read, numbers)))
        known = len(wording.templates)
        kinds = {"seen": range(known), "unseen": range(known, known + len(wording.held_out))}
        for phrasing, chosen in kinds.items():
            for budget in budgets if chosen else ():
                texts = [word_rule([constraint], [budget], [template]) for template in chosen]
                found.append(PhrasedRule(texts[0], phrasing, phrasings.said(texts), None, ((index, budget),)))
        middle = budgets[len(budgets) // 2]
        texts = [word_rule([words, constraint], [share, middle], [0, template]) for template in range(known)]
        found.append(PhrasedRule(texts[0], "seen", phrasings.said(texts), share, ((index, middle),)))
    return found


def make_phrasings(constraints: Sequence[Constraint], encode: Callable[[str], Sequence[int]], room: int) -> Phrasings:
    """Makes the rules on the share of words as a student reads them.

    Args:
      constraints: all that the student knows.
      encode: a text as tokens.
      room: tokens for a rule, as many as training had.

    Raises:
      UserError: the share of words is not among the constraints.
    """
    return Phrasings(constraints[share_index(constraints)], encode, room)
