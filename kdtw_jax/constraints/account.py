"""One budget for many outputs: what one of them does not ask for, another one may."""

from __future__ import annotations

from threading import Lock

import numpy as np

from kdtw_jax.constraints.history import History
from kdtw_jax.constraints.record import Constraint, Rule
from kdtw_jax.constraints.unit import TOKENS, Unit
from kdtw_jax.errors import UserError


class Account:
    """The budget of a rule for all outputs that are written on it; calls and threads may share one.

    `account = Account("ask the teacher for at most 20% of the words")`, then `student(texts, account=account)`.

    At any time what all finished outputs together have asked for is within the rule. Texts that are written together
    (32 at a time) finish together. They may spend what was saved before them and what they save themselves, and never
    wait for later ones: what is saved is reserved for those that begin first, and what they leave comes back. Clauses
    that writing on does not repay, such as a number of calls or a pause, hold in every output.
    """

    def __init__(self, rule: str):
        """Opens an account.

        Args:
          rule: in words.
        """
        self.rule = rule
        self._lock = Lock()
        self._saved: dict[str, float] = {}
        self._outputs = self._tokens = self._calls = self._units = self._helped = 0
        self._unit = ""

    @property
    def outputs(self) -> int:
        """Outputs that are finished."""
        return self._outputs

    @property
    def tokens(self) -> int:
        """Tokens of these, whoever wrote them."""
        return self._tokens

    @property
    def calls(self) -> int:
        """Answers of the teacher."""
        return self._calls

    @property
    def share(self) -> float:
        """The teacher's part of all words, or tokens where those are counted, 0 to 1."""
        with self._lock:
            return self._helped / self._units if self._units else 0.0

    def __repr__(self) -> str:
        with self._lock:
            saved = ", ".join(f"{max(amount, 0.0):.1f} of {name}" for name, amount in self._saved.items())
            return (
                f"Account({self.rule!r}): the teacher wrote {self._helped} of {self._units} {self._unit or 'tokens'} "
                f"in {self._outputs} outputs{saved and f'; left: {saved}'}"
            )

    def check(self, rule: Rule, unit: Unit = TOKENS) -> None:
        """Raises UserError for a `rule` of which no constraint can be shared, and for another `unit` than before."""
        if not shared(rule):
            names = " and ".join(f'"{constraint.name}"' for constraint in rule.constraints)
            raise UserError(f'an account shares rules such as "share"; this one is on {names}: leave the account out')
        with self._lock:
            if self._unit not in ("", unit.noun):
                raise UserError(f"the account counts {self._unit}, and this student {unit.noun}; open another one")
            self._unit = unit.noun

    def reserve(self, rule: Rule) -> tuple[float, ...]:
        """Takes all that is saved for outputs that are about to be written; `settle` has to follow.

        Args:
          rule: that of the account, as a student has read it.

        Returns:
          For each constraint of the rule how far they may be over its limit together (0 where it holds in each).
        """
        with self._lock:
            taken = {constraint.name: self._saved.get(constraint.name, 0.0) for constraint in shared(rule)}
            self._saved |= dict.fromkeys(taken, 0.0)
        return tuple(taken.get(constraint.name, 0.0) for constraint in rule.constraints)

    def settle(self, rule: Rule, reserved: tuple[float, ...], history: History | None) -> None:
        """Gives back what was reserved, less what has been spent of it and with what has been saved.

        Args:
          rule: as in `reserve`.
          reserved: what `reserve` gave.
          history: the outputs that were written, at their end; None: nothing was.
        """
        change = dict(zip((constraint.name for constraint in rule.constraints), reserved, strict=True))
        if history is not None:
            counts = History(*(np.asarray(leaf, np.int64) for leaf in history))  # type: ignore[arg-type]
            for constraint, budget in zip(rule.constraints, rule.budgets, strict=True):
                change[constraint.name] += _left(constraint, float(budget), counts)
        with self._lock:
            for constraint in shared(rule):
                self._saved[constraint.name] = self._saved.get(constraint.name, 0.0) + change[constraint.name]
            if history is not None:
                self._outputs += len(counts.length_B)
                self._tokens += int(counts.tokens_B.sum())
                self._calls += int(counts.calls_B.sum())
                self._units += int(counts.length_B.sum())
                self._helped += int(counts.helped_B.sum())


def shared(rule: Rule) -> list[Constraint]:
    """The constraints of a rule whose budgets several outputs may share."""
    return [constraint for constraint in rule.constraints if constraint.spent is not None]


def _left(constraint: Constraint, budget: float, history: History) -> float:
    """What the limit leaves of outputs, in all; below 0 what they are over it. In float64: 0.2 is 0.2 there."""
    if constraint.spent is None:
        return 0.0
    said = float(f"{budget:.6g}")
    return float(np.sum(constraint.limit(said, history) - constraint.spent(history, said)))  # type: ignore[arg-type]
