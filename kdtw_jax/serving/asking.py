"""What a request says about asking: which rule is in force, where it stood, and what else limits it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Any

from kdtw_jax.constraints import Constraint, Read, Rule, read_rule, word_rule, word_tokens
from kdtw_jax.constraints.account import shared
from kdtw_jax.errors import UserError
from kdtw_jax.serving.ledger import Ledger, Ledgers
from kdtw_jax.student import ALONE, Student

LONGEST_NAME = 128  # characters of an account's name
FREELY = "ask the teacher as often as you like"
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
# A sentence that speaks of asking and is not understood is refused: passed over, it would be taken for no limit.
_OF_TEACHER = re.compile(r"\b(?:teacher|lehrer|lehrerin)\b", re.IGNORECASE)
_OF_ASKING = re.compile(r"\b(?:ask(?:ing)?|calls?|help|frag\w*|hilfe)\b", re.IGNORECASE)
_OF_AMOUNT = re.compile(r"%|\bper ?cent\b|\bprozent\b", re.IGNORECASE)
_DIGIT, _OF_NUMBER = re.compile(r"\d"), re.compile(r"\b(?:words?|times|wörter\w*|mal)\b", re.IGNORECASE)
_SENTENCES = 128  # of a system message that may be rules: reading one takes milliseconds


@dataclass(frozen=True)
class Limits:
    """What the body of a request says of asking."""

    rule: str | None = None
    """in words"""
    share: float | None = None
    """of the words, 0 to 1"""
    calls: int | None = None
    """of the output, or of all outputs of the account; holds beside any rule"""
    guard: bool = True
    """the rule is enforced"""
    account: str | None = None
    """whose budget it is"""


@dataclass(frozen=True)
class Asking:
    """The rule of one request, as it is enforced and as the student reads it."""

    rule: Rule
    words: tuple[int, ...]
    """tokens of the rule in words"""
    said: str
    """the rule in words"""
    origin: str
    """where it stood: "header", "body", "system", "account" or "default" """
    guard: bool = True
    calls: int | None = None
    """a limit of this output that holds beside the rule; None: there is none"""
    ledger: Ledger | None = None
    assumed: tuple[str, ...] = ()
    """vague clauses, and what they are taken for"""
    account: str | None = None
    """the name of the ledger"""


def read_limits(body: Mapping[str, Any]) -> Limits:
    """What a body says.

    Raises:
      UserError: a field has a value of another kind.
    """
    rule, share, calls, guard, account = (
        body.get(name) for name in ("rule", "max_teacher_share", "max_teacher_calls", "guard", "account")
    )
    if rule is not None and not isinstance(rule, str):
        raise UserError(f"rule is a sentence such as {ALONE!r}, not {rule!r:.80}")
    if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1):
        raise UserError(f"max_teacher_share is a number from 0 to 1, such as 0.2, not {share!r:.80}")
    if calls is not None and (isinstance(calls, bool) or not isinstance(calls, int) or not 0 <= calls < 2**24):
        raise UserError(f"max_teacher_calls is a whole number of at least 0, not {calls!r:.80}")
    if guard is not None and not isinstance(guard, bool):
        raise UserError(f"guard is true or false, not {guard!r:.80}")
    if account is not None and not (isinstance(account, str) and 0 < len(account) <= LONGEST_NAME):
        raise UserError(f"account is a name of 1 to {LONGEST_NAME} characters, not {account!r:.80}")
    if account is not None and guard is False:
        raise UserError("an account enforces its rule; leave guard or account out")
    return Limits(rule, None if share is None else float(share), calls, guard is not False, account)


def rule_of_system(text: str, known: Sequence[Constraint]) -> str | None:
    """The rule that stands in a system message: its sentences that are rules; None: there are none.

    Args:
      text: of the message. Other sentences are of no consequence.
      known: what rules may be about.

    Raises:
      UserError: a sentence speaks of asking the teacher, or of an amount of asking, and is not understood, or stands
        after the first 128.
    """
    found = []
    for number, sentence in enumerate(filter(None, map(str.strip, _SENTENCE.split(text)))):
        if number >= _SENTENCES:
            if _speaks_of_asking(sentence):
                raise UserError(
                    f"a rule stands in the first {_SENTENCES} sentences of a system message, and {sentence!r:.80} "
                    "after them; say it earlier, in the header or in the body"
                )
            continue
        try:
            read_rule(sentence, known)
        except UserError:
            if _speaks_of_asking(sentence):
                raise
            continue
        found.append(sentence.rstrip(".!?; "))
    return "; ".join(found) or None


def _speaks_of_asking(sentence: str) -> bool:
    """Whether a sentence is of the teacher, or of an amount of asking; in time that grows as its length does."""
    if _OF_TEACHER.search(sentence):
        return True
    if not _OF_ASKING.search(sentence):
        return False
    digit = _DIGIT.search(sentence)
    return bool(_OF_AMOUNT.search(sentence) or (digit and _OF_NUMBER.search(sentence, digit.end())))


def read_asking(
    student: Student,
    limits: Limits,
    ledgers: Ledgers,
    *,
    header: str | None = None,
    system: str | None = None,
    default: str | None = None,
) -> Asking:
    """The rule of a request: that of its header, else of its body, else of its system message, else the default.

    A new account is not among the ledgers yet: `open_account` opens it, once nothing else is wrong with the request.

    Args:
      student: who is to keep it.
      limits: what the body says.
      ledgers: the accounts.
      header: the rule of the header, None: there is none.
      system: the system message, likewise.
      default: the rule of requests that say none; None: not to ask.

    Raises:
      UserError: a rule is not understood (the message says what is), or does not go with the student or the account.
    """
    known = student.constraints
    if student.teacher is None:
        if header is not None or limits.rule is not None or limits.share or limits.calls or limits.account is not None:
            raise UserError("this student did not learn to ask: leave the rule out")
        return Asking(Rule((), ()), (), "", "default")
    said, origin = _said(limits, known, header, system)
    open_ledger = None if limits.account is None else ledgers.find(limits.account)
    if open_ledger is not None:
        named, said, origin = said, open_ledger.rule, "account" if said is None else origin
        read = read_rule(said, known)
        open_ledger.check(named, limits.calls, read.rule, student.unit)
    else:
        if said is None:
            free = limits.calls is not None and any(constraint.name == "share" for constraint in known)
            said, origin = default or (FREELY if free else None), "default"
            if said is None and limits.account is not None:  # it would be "never" for all that come after
                raise UserError("an account is the budget of a rule, which its first request says: give a rule")
        said, read = _with_calls(said, limits, known)
        if limits.account is not None:
            if not shared(read.rule) and limits.calls is None:
                raise UserError(
                    "an account shares a share of the words or a number of calls (max_teacher_calls), and this rule "
                    f"({said!r}) is on neither; leave the account out"
                )
            open_ledger = Ledger(said, limits.calls)
            open_ledger.check(said, limits.calls, read.rule, student.unit)
    return Asking(
        read.rule,
        tuple(word_tokens(read.words, student.encode_rule)),
        said,
        origin,
        limits.guard,
        None if limits.account is not None else limits.calls,
        open_ledger,
        read.assumed,
        limits.account,
    )


def open_account(asking: Asking, ledgers: Ledgers) -> Asking:
    """The rule of a request on its account, which is opened if it is not; one without an account as it is.

    Args:
      asking: as `read_asking` gives it.
      ledgers: the accounts.

    Raises:
      UserError: there are too many accounts, or another request has opened this one with another rule meanwhile.
    """
    if asking.account is None or asking.ledger is None:
        return asking
    return replace(asking, ledger=ledgers.open(asking.account, asking.ledger))


def _said(
    limits: Limits, known: Sequence[Constraint], header: str | None, system: str | None
) -> tuple[str | None, str]:
    """The rule in words, and where it stood; None: nowhere."""
    if header is not None:
        return header, "header"
    clauses = [] if limits.rule is None else [limits.rule]
    if limits.share is not None:
        clauses.append(_worded("share", floor(1000 * limits.share + 1e-6) / 1000, known))
    if clauses:
        return "; ".join(clauses), "body"
    return (None if system is None else rule_of_system(system, known)), "system"


def _with_calls(said: str | None, limits: Limits, known: Sequence[Constraint]) -> tuple[str, Read]:
    """The rule with the number of calls in words where the student knows those, and is not told of them already."""
    calls = limits.calls if limits.account is None else None
    has = calls is not None and any(constraint.name == "calls" for constraint in known)
    if said is None and not has:
        said = ALONE
    read = None if said is None else read_rule(said, known)
    if has and (read is None or all(constraint.name != "calls" for constraint in read.rule.constraints)):
        clause = _worded("calls", float(calls or 0), known)
        said = clause if said is None else f"{said}; {clause}"
        read = read_rule(said, known)
    assert said is not None and read is not None
    return said, read


def _worded(name: str, budget: float, known: Sequence[Constraint]) -> str:
    for constraint in known:
        if constraint.name == name:
            return word_rule((constraint,), (budget,), (0,))
    names = ", ".join(constraint.name for constraint in known)
    raise UserError(f"this student knows no rules on {name}, but on {names}: say one of those in words, as rule")
