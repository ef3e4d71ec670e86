"""The engine of a server: what a request gets is what its student writes for it alone, whoever shares the rows."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from queue import SimpleQueue
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from kdtw_jax import Account
from kdtw_jax.answers import Answer
from kdtw_jax.constraints import Terms, as_rule, pad_words
from kdtw_jax.decoding.enforced import write_under_rule
from kdtw_jax.errors import UserError
from kdtw_jax.serving.engine import Busy, Engine
from kdtw_jax.serving.job import Event
from kdtw_jax.serving.ledger import AccountSpent, Ledger, Ledgers
from kdtw_jax.student import Student
from tests.served import LENGTH, RULES, SHARE_RULE, TEXTS, OwnTeacher, answer, asking, done, student, written
from tests.served import student as served_student


class Case(NamedTuple):
    """A request."""

    text: str
    rule: str
    guard: bool = True


CASES = [Case(text, rule) for text in TEXTS for rule in RULES] + [Case(text, RULES[1], False) for text in TEXTS]


@cache
def alone(unit: str, most: int = LENGTH) -> dict[Case, Answer]:
    """What the library writes of these: batches of one program, in which rows know nothing of each other."""
    student = served_student(unit)
    known, other = student.constraints, student.teacher
    assert other is not None
    rules = [asking(student, case.rule) for case in CASES]
    budget_BxC, active_BxC = np.zeros((2, len(CASES), len(known)), np.float32)
    for row, (case, how) in enumerate(zip(CASES, rules, strict=True)):
        for constraint, value in zip(how.rule.constraints, how.rule.budgets, strict=True):
            place = [one.name for one in known].index(constraint.name)
            budget_BxC[row, place], active_BxC[row, place] = value, case.guard
    sources = [student.encode(case.text)[0] for case in CASES]

    def write(source_BxS: Any, words_BxR: Any, terms: Terms) -> Any:
        limits: Any = {"alpha": student.alpha, "banned": student.model.tokenizer.banned_ids, "max_len": most}
        networks = (student.model.model, student.model.params), (other.model, other.params)
        rule = as_rule(known, terms)
        return write_under_rule(*networks, source_BxS, words_BxR, rule, **limits, unit=student.unit)

    given = pad_words(sources, student.max_source), pad_words([how.words for how in rules], 96)
    found = jax.device_get(jax.jit(write)(*given, Terms(budget_BxC, active_BxC > 0)))
    answers = {}
    for row, case in enumerate(CASES):
        tokens, asked, called = (x[row][found.mask_BxT[row]].tolist() for x in found[:3])
        answers[case] = student.answer(case.text, len(sources[row]), tokens, asked, called, int(found.positions_B[row]))
    return answers


@pytest.fixture(scope="module")
def own() -> Student:
    return student("word")


@pytest.fixture(scope="module")
def engine(own: Student) -> Iterator[Engine]:
    made = Engine(own, rows=3)
    yield made
    made.close()


def all_of(engine: Engine, cases: Sequence[Case], most: int | None = None) -> dict[Case, Answer]:
    how = {case: asking(engine.student, case.rule, guard=case.guard) for case in cases}
    events = {case: written(engine, case.text, how[case], most) for case in cases}
    return {case: answer(queue) for case, queue in events.items()}


def test_whoever_shares_the_rows_each_output_is_that_of_its_text_alone(engine: Engine) -> None:
    expected = alone("word", LENGTH)
    for seed in range(2):
        assert all_of(engine, random.Random(seed).sample(CASES, len(CASES))) == expected
    helped = [a for a in expected.values() if any(a.by_teacher)]
    assert 5 < len(helped) < len(CASES) and max(a.length for a in helped) > 2
    assert any(expected[Case(text, SHARE_RULE)].text != expected[Case(text, RULES[2])].text for text in TEXTS)


def test_a_request_that_is_called_off_is_written_no_further_and_changes_no_other(own: Student, engine: Engine) -> None:
    expected, gone, some = alone("word", LENGTH), list[Event](), CASES[:10]
    how = asking(own, RULES[1])
    with engine._wake:  # nobody is seated
        never = [engine.submit(text, how, gone.append) for text in TEXTS]
        found = {case: written(engine, case.text, asking(own, case.rule)) for case in some}
        for job in never:
            engine.cancel(job)
    jobs = [engine.submit(text, how, lambda _: None) for text in TEXTS]  # these may be under way
    for job in random.Random(0).sample(jobs, len(jobs)):
        engine.cancel(job)
    assert {case: answer(events) for case, events in found.items()} == {case: expected[case] for case in some}
    assert answer(written(engine, "one", how)) == expected[Case("one", RULES[1])]
    assert not gone and all(job.over and not job.tokens for job in never) and all(job.over for job in jobs)


def test_on_an_account_requests_write_what_calls_on_it_write(own: Student, engine: Engine) -> None:
    account, ledgers = Account(SHARE_RULE), Ledgers()
    short = [text for text in TEXTS if len(own.encode(text)[0]) <= 16]  # which one program writes
    for text in 3 * short:
        how = asking(own, SHARE_RULE, ledgers=ledgers, account="mine")
        assert answer(written(engine, text, how)) == own(text, account=account)
    assert how.ledger is not None and repr(how.ledger.account) == repr(account) and account.calls


def calls_of(events: SimpleQueue[Event]) -> int:
    try:
        return answer(events).calls
    except AccountSpent:
        return 0


def test_the_calls_of_an_account_are_never_more_than_it_has(engine: Engine, own: Student) -> None:
    ledgers, free = Ledgers(), "ask the teacher as often as you like"
    ledger = asking(own, free, ledgers=ledgers, account="few", calls=25).ledger
    assert ledger is not None
    calls = 0
    for _ in range(10):
        how = asking(own, ledgers=ledgers, account="few")
        assert how.ledger is ledger
        events, gone = [written(engine, text, how) for text in TEXTS], engine.submit("gone", how, lambda _: None)
        engine.cancel(gone)
        calls += sum(map(calls_of, events))
        assert calls <= 25 - (ledger.left or 0) <= 25  # what the cancelled one asked for stays spent
        if ledger.spent:
            break
    assert ledger.left == 0
    with pytest.raises(AccountSpent, match="25 calls to the teacher are made"):
        engine.submit("more", asking(own, ledgers=ledgers, account="few"), lambda _: None)


def test_a_limit_of_calls_holds_beside_any_rule(engine: Engine, own: Student) -> None:
    free = asking(own, "ask the teacher as often as you like", calls=2)
    assert free.said.endswith("at most 2 times") and free.calls == 2
    for text in TEXTS:
        assert answer(written(engine, text, free)) == answer(
            written(engine, text, asking(own, "ask the teacher as often as you like; ask the teacher at most 2 times"))
        )
        assert answer(written(engine, text, asking(own, SHARE_RULE, calls=0))).calls == 0
    unguarded = [answer(written(engine, text, asking(own, RULES[1], guard=False))).calls for text in TEXTS]
    limited = [answer(written(engine, text, asking(own, RULES[1], guard=False, calls=1))).calls for text in TEXTS]
    assert max(unguarded) > 1 == max(limited)


def test_a_queue_that_is_full_takes_nothing(own: Student, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = asking(own, RULES[0])
    monkeypatch.setattr(engine, "_queue", 2)
    with engine._wake:  # nobody is seated
        events = [written(engine, "one", rule) for _ in range(engine.rows + 2)]  # as many as rows that are free, and 2
        with pytest.raises(Busy, match="2 requests wait"):
            engine.submit("three", rule, lambda _: None)
    first, *others = map(answer, events)
    assert all(other == first for other in others)
    with pytest.raises(UserError, match="at least 1"):
        Engine(own, rows=0)


def test_a_teacher_elsewhere_says_the_same_and_where_it_does_not_answer_the_student_writes() -> None:
    own, most = student("token"), 9
    expected, teacher = alone("token", most), OwnTeacher(own)
    engine = Engine(own, rows=3, teacher=teacher, pause=0.0)
    try:
        assert all_of(engine, CASES, most) == expected and teacher.asked
        teacher.fails = True
        for text in TEXTS:
            found = done(written(engine, text, asking(own, RULES[1], guard=False), most))
            assert found.answer.tokens == expected[Case(text, RULES[2])].tokens and not found.answer.calls
            assert found.degraded == any(expected[Case(text, RULES[1], False)].by_teacher)
        assert engine.teacher_failures
    finally:
        engine.close()
    with pytest.raises(Busy, match="closing"):
        engine.submit("four", asking(own, RULES[1]), lambda _: None)


def test_accounts_that_would_lose_calls_are_not_forgotten() -> None:
    ledgers = Ledgers(2)
    rule = asking(student("token"), SHARE_RULE).rule
    kept, share = ledgers.open("calls", Ledger(SHARE_RULE, 3)), ledgers.open("share", Ledger(SHARE_RULE, None))
    reserved = kept.reserve(rule, 1)
    assert ledgers.open("another", Ledger(SHARE_RULE, None)) is not share
    assert ledgers.find("share") is None and ledgers.find("calls") is kept
    ledgers.open("more", Ledger(SHARE_RULE, 1)).reserve(rule, 1)
    with pytest.raises(UserError, match="2 accounts already"):
        ledgers.open("too many", Ledger(SHARE_RULE, None))
    kept.settle(rule, reserved, None)  # nothing was written on it
    ledgers.open("now there is room", Ledger(SHARE_RULE, 2))
    assert ledgers.find("calls") is None
    with pytest.raises(UserError, match="of 2 calls, not of 3"):
        ledgers.open("now there is room", Ledger(SHARE_RULE, 3))
    with pytest.raises(UserError, match="not of 9"):
        Ledger(SHARE_RULE, 3).check(None, 9, asking(student("token"), SHARE_RULE).rule, student("token").unit)
