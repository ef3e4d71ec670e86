"""What a word of each helper costs in nats: given, or as the student's gate has learned it from rules in words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kdtw_jax.constraints import word_rule
from kdtw_jax.errors import UserError
from kdtw_jax.helpers.budgets import Limits
from kdtw_jax.student import Student

_LEAST, _MOST = 0.01, 0.9  # shares that a gate is told


class GatePrices(NamedTuple):
    """Prices in nats: a number for each helper, or of a rule that the gate reads."""

    nats_K: np.ndarray  # where no rule is read
    rule_K: np.ndarray  # the number of the rule that says it, -1: none
    rules: tuple[str, ...]  # in words, at least one

    def of(self, price_NxR: np.ndarray) -> np.ndarray:
        """The prices in N states, [N, K], from what the gate says of each rule there."""
        return np.where(self.rule_K[None, :] >= 0, price_NxR[:, self.rule_K], self.nats_K[None, :])


def gate_prices(student: Student, limits: Limits, asked_K: np.ndarray, alone: str) -> GatePrices:
    """The prices that a student's gate has learned for rules of the helpers' shares.

    A helper's share is that of its budget; of a cost budget those that are asked get equal parts, which their prices
    divide. Whom no budget bounds costs nothing.

    Args:
      student: whose gate.
      limits: the budgets.
      asked_K: bool, who is asked where the gate would ask.
      alone: the rule that is read where no other one is.

    Raises:
      UserError: the student knows no rules on shares.
    """
    rules, rule_K = list[str](), np.full(len(asked_K), -1)
    parts = max(int(asked_K.sum()), 1)
    for k in np.flatnonzero(asked_K):
        price, bounds = limits.price_K[k], [share for share in (limits.share_K[k],) if share is not None]
        if limits.cost is not None and price > 0:
            bounds.append(limits.cost / (parts * price))
        if not bounds:
            continue
        share = [constraint for constraint in student.constraints if constraint.name == "share"]
        if not share:
            raise UserError(
                "this student knows no rules on a share of the words, so prices in nats have to be given: nats=..., or "
                "--nats-per-cost"
            )
        rule_K[k] = len(rules)
        rules.append(word_rule(share, (float(np.clip(round(min(bounds), 3), _LEAST, _MOST)),), (0,)))
    return GatePrices(np.zeros(len(asked_K)), rule_K, tuple(rules) or (alone,))
