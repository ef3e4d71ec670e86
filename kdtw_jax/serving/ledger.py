"""Budgets that several requests share: of a rule's share, and of a number of calls in all."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

from kdtw_jax.constraints import History, Rule, Unit
from kdtw_jax.constraints.account import Account, shared
from kdtw_jax.errors import UserError


class AccountSpent(Exception):
    """All calls of an account are made."""


class Reserved(NamedTuple):
    """What one request may spend of an account; `Ledger.settle` takes it back."""

    saved: tuple[float, ...]  # as `Account.reserve` gives it; nothing where the rule is of none that can be shared
    calls: int | None  # at the most; None: as many as the rule lets


class Ledger:
    """One account: a rule, and perhaps a number of calls in all of its outputs together. Threads may share it.

    Whatever the order in which outputs finish, no more calls than that have been made, and what can be shared of the
    rule (`kdtw_jax.Account`) is kept by all finished outputs together. What an output may spend is reserved when it
    begins, so one that begins while another has reserved all calls writes alone.
    """

    def __init__(self, rule: str, calls: int | None):
        """Opens it.

        Args:
          rule: in words.
          calls: of all outputs together; None: no limit but the rule's.
        """
        self.rule, self.calls = rule, calls
        self.account = Account(rule)
        self._lock = Lock()
        self._made = self._lent = self.users = 0

    def check(self, rule: str | None, calls: int | None, read: Rule, unit: Unit) -> None:
        """Refuses another rule or number of calls than the account was opened with, and a rule that is none for it.

        Args:
          rule: in words, None: that of the account.
          calls: None: that of the account.
          read: the account's rule.
          unit: what it counts.

        Raises:
          UserError: as said.
        """
        self.check_same(rule, calls)
        if shared(read) or self.calls is None:
            self.account.check(read, unit)

    def check_same(self, rule: str | None, calls: int | None) -> None:
        """Raises UserError for another `rule` or number of `calls` than the account was opened with; None: the same."""
        if rule not in (None, self.rule):
            raise UserError(f"the account is of the rule {self.rule!r}, not of {rule!r}; leave the rule out")
        if calls not in (None, self.calls):
            raise UserError(f"the account is of {self.calls} calls, not of {calls}; leave max_teacher_calls out")

    @property
    def left(self) -> int | None:
        """Calls that are neither made nor reserved; None: there is no limit."""
        with self._lock:
            return None if self.calls is None else self.calls - self._made - self._lent

    @property
    def spent(self) -> bool:
        """All calls are made."""
        with self._lock:
            return self.calls is not None and self.calls <= self._made

    @property
    def may_be_forgotten(self) -> bool:
        """No request is on it, and no call of a number of calls would come back."""
        with self._lock:
            return not self.users and (self.calls is None or self._made == self._lent == 0)

    def raise_if_spent(self) -> None:
        """Raises `AccountSpent` where all calls are made."""
        if self.spent:
            raise AccountSpent(f"the account's {self.calls} calls to the teacher are made")

    def reserve(self, rule: Rule, most: int) -> Reserved:
        """What an output may spend that is about to be written.

        Args:
          rule: that of the account, as a student has read it.
          most: tokens that it may have, and so calls.

        Raises:
          AccountSpent: all calls are made.
        """
        self.raise_if_spent()
        with self._lock:
            calls = None if self.calls is None else min(self.calls - self._made - self._lent, most)
            self._lent += calls or 0
        return Reserved(self.account.reserve(rule) if shared(rule) else (), calls)

    def settle(self, rule: Rule, reserved: Reserved, history: History | None) -> None:
        """Gives back what was not spent.

        Args:
          rule: as in `reserve`.
          reserved: what it gave.
          history: the output at its end, leaves [1]; None: nothing was written.
        """
        with self._lock:
            self._lent -= reserved.calls or 0
            self._made += 0 if history is None else int(history.calls_B[0])
        if shared(rule):
            self.account.settle(rule, reserved.saved, history)


class Ledgers:
    """Accounts by name, at most so many: the one that was used least recently goes, if nothing is lost with it.

    An account of a share only loses what it has saved. One with a number of calls is not forgotten once calls are made,
    as they would come back.
    """

    def __init__(self, most: int = 1024):
        """None yet.

        Args:
          most: accounts.
        """
        self._most, self._lock = most, Lock()
        self._known: OrderedDict[str, Ledger] = OrderedDict()

    def find(self, name: str) -> Ledger | None:
        """The account of a name, if there is one."""
        with self._lock:
            if name in self._known:
                self._known.move_to_end(name)
            return self._known.get(name)

    def open(self, name: str, ledger: Ledger) -> Ledger:
        """The account of a name.

        Args:
          name: of the account.
          ledger: what it is where there is none.

        Raises:
          UserError: there are too many, and none can be forgotten; or there is one with another rule.
        """
        with self._lock:
            if name not in self._known and len(self._known) >= self._most:
                idle = next((n for n, known in self._known.items() if known.may_be_forgotten), None)
                if idle is None:
                    raise UserError(f"there are {self._most} accounts already; use one of them, or restart the server")
                del self._known[idle]
            found = self._known.setdefault(name, ledger)
            self._known.move_to_end(name)
        found.check_same(ledger.rule, ledger.calls)
        return found
