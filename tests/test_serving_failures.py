"""What fails in a server: nobody waits for ever, other requests are written, and where nothing can be it says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from queue import SimpleQueue
from threading import Event as Signal
from typing import Any

import numpy as np
import pytest

from kdtw_jax.cli import elsewhere
from kdtw_jax.errors import UserError
from kdtw_jax.serving.asker import Asker
from kdtw_jax.serving.engine import Busy, Engine
from kdtw_jax.serving.job import Event, Failed, Written
from kdtw_jax.serving.ledger import Ledgers
from kdtw_jax.student import Student
from kdtw_jax.teachers import named
from kdtw_jax.teachers.protocol import Prefix, TeacherAbout, TopTokens
from tests.served import RULES, SHARE_RULE, TEXTS, OwnTeacher, answer, asking, done, student, written

WAIT = 60.0  # seconds; only what is broken takes as long
SIZE = 10
GOOD = TopTokens(np.array([3, 4], np.int32), np.array([-0.5, -1.5], np.float32))


@pytest.fixture(scope="module")
def own() -> Student:
    return student("word")


@pytest.fixture
def engine(own: Student) -> Iterator[Engine]:
    with closing(Engine(own, rows=3)) as made:
        yield made


def failure(events: SimpleQueue[Event]) -> Exception:
    while isinstance(event := events.get(timeout=WAIT), Written):
        pass
    assert isinstance(event, Failed)
    return event.error


def broken(*_: Any) -> Any:
    raise MemoryError("no room")


def test_whoever_is_to_be_seated_when_a_step_fails_is_told_and_the_engine_goes_on(
    engine: Engine, own: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = asking(own, SHARE_RULE, ledgers=Ledgers(), account="mine", calls=9)
    ledger, programs = how.ledger, engine._programs
    assert ledger is not None
    expected = answer(written(engine, TEXTS[1], asking(own, SHARE_RULE)))
    for break_it in (
        lambda patch: patch.setattr(engine, "_free_cancelled", broken),
        lambda patch: patch.setattr(engine, "_programs", programs._replace(step=broken)),
    ):
        with monkeypatch.context() as patch:
            break_it(patch)
            events = [written(engine, text, how) for text in TEXTS[:5]]
            assert all(isinstance(failure(one), MemoryError) for one in events)
        assert ledger.users == 0 and ledger.left == 9 and engine.is_open and not engine.active
    assert answer(written(engine, TEXTS[1], asking(own, SHARE_RULE))) == expected


def test_an_account_that_cannot_be_settled_costs_nobody_else_an_output(
    engine: Engine, own: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = asking(own, SHARE_RULE, ledgers=Ledgers(), account="mine", calls=9)
    assert how.ledger is not None
    monkeypatch.setattr(how.ledger.account, "settle", broken)
    outputs = [answer(written(engine, text, how)) for text in TEXTS[:2]]
    assert [one.source for one in outputs] == list(TEXTS[:2]) and how.ledger.users == 0
    assert how.ledger.left == 9 - sum(one.calls for one in outputs)


def test_an_engine_that_cannot_go_on_tells_all_and_takes_no_more(
    engine: Engine, own: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []

    def empty(*_: Any) -> Any:
        states.append(engine._state)
        raise MemoryError("no room")

    monkeypatch.setattr(engine, "_programs", engine._programs._replace(step=broken, empty=empty))
    with engine._wake:  # nobody is seated
        events = [written(engine, text, asking(own, SHARE_RULE)) for text in TEXTS]
    assert all(isinstance(failure(one), MemoryError) for one in events)
    engine._thread.join(WAIT)
    assert not engine.is_open and states == [None]  # there is no second state beside the old one
    with pytest.raises(Busy, match="closing"):
        engine.submit("one", asking(own), lambda _: None)


class Scripted:
    """A teacher that does what a function says."""

    def __init__(self, answers: Callable[[Sequence[Prefix]], list[Any]]):
        self.answers, self.calls = answers, list[list[int]]()
        self.about = TeacherAbout("scripted", "", SIZE, False, 8)

    def next_token(self, prefixes: Sequence[Prefix], top_k: int = 8) -> list[TopTokens]:
        self.calls.append([prefix.source[0] for prefix in prefixes])
        return self.answers(prefixes)

    score = generate = broken

    def close(self) -> None:
        pass


class Asked:
    """An asker, and what it says."""

    def __init__(self, teacher: Scripted, **limits: Any):
        self.told: SimpleQueue[tuple[Any, TopTokens | None]] = SimpleQueue()
        self.asker = Asker(teacher, lambda *said: self.told.put(said), banned=(0, 1), top_k=8, **limits)

    def __call__(self, *numbers: int) -> list[TopTokens | None]:
        for number in numbers:
            self.asker.ask(number, Prefix((number,)))
        said = dict(self.told.get(timeout=WAIT) for _ in numbers)
        return [said[number] for number in numbers]

    def together(self, *numbers: int) -> list[TopTokens | None]:
        """In one call, whenever the thread looks."""
        return list(self.asker._answers([Prefix((number,)) for number in numbers]))

    def close(self) -> None:
        self.asker.close()


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        TopTokens(3, -0.5),  # type: ignore[arg-type]
        TopTokens(np.array([3, 4]), np.array([-0.5])),
        TopTokens(np.array([3, SIZE]), np.array([-0.5, -1.5])),
        TopTokens(np.array([3, 4]), np.array([-0.5, np.nan])),
        TopTokens(np.array([0.3, 4.0]), np.array([-0.5, -1.0])),
    ],
    ids=["none", "scalars", "lengths", "beyond", "nan", "fractions"],
)
def test_an_answer_that_cannot_be_right_is_none_and_the_next_one_counts(wrong: Any) -> None:
    teacher = Scripted(lambda prefixes: [wrong if prefix.source[0] == 7 else GOOD for prefix in prefixes])
    with closing(Asked(teacher, pause=0.0)) as ask:
        assert ask(7) == [None] and ask(5) == [GOOD]
        assert ask.asker.failures == 1


def test_a_request_that_can_never_be_answered_keeps_no_other_from_its_answer() -> None:
    def answers(prefixes: Sequence[Prefix]) -> list[Any]:
        if any(prefix.source[0] in (2, 6) for prefix in prefixes):
            raise ValueError("it is too long")
        return [GOOD] * len(prefixes)

    with closing(Asked(Scripted(answers), pause=1e9)) as ask:
        for numbers in ((1, 2, 3, 4, 5, 6, 7), (2,), (6, 2, 6, 1), (3, 4)):
            assert ask.together(*numbers) == [None if number in (2, 6) else GOOD for number in numbers]
        assert ask(5) == [GOOD]  # it is not spared for a while


def test_a_teacher_that_hangs_holds_nobody_up_and_is_heard_again_when_it_is_back() -> None:
    back, answered = Signal(), Signal()

    def answers(prefixes: Sequence[Prefix]) -> list[Any]:
        if not back.is_set():
            back.wait(2 * WAIT)
            answered.set()
        return [GOOD] * len(prefixes)

    teacher = Scripted(answers)
    with closing(Asked(teacher, pause=0.0, patience=0.01)) as ask:
        try:
            assert ask(1) == [None]
            assert [ask(number) for number in (2, 3, 4)] == [[None]] * 3 and len(teacher.calls) == 1
        finally:
            back.set()
        assert answered.wait(WAIT)
        ask.asker._last.result(WAIT)  # type: ignore[union-attr]
        ask.asker._patience = WAIT
        assert ask(5) == [GOOD] and ask.told.empty()  # what it said too late is nobody's


def test_an_engine_writes_on_alone_while_its_teacher_hangs() -> None:
    own, back = student("token"), Signal()

    class Hangs(OwnTeacher):
        def next_token(self, prefixes: Sequence[Prefix], top_k: int = 8) -> list[TopTokens]:
            self.asked += 1
            sessions.extend(prefix.session for prefix in prefixes)
            back.wait(2 * WAIT)
            return super().next_token(prefixes, top_k)

    teacher, sessions = Hangs(own), list[str]()
    with closing(Engine(own, rows=3, teacher=teacher, pause=0.0, patience=0.01)) as engine:
        try:
            found, alone = (
                [done(written(engine, text, asking(own, rule, guard=False))) for text in TEXTS[:4]]
                for rule in (RULES[1], RULES[2])
            )
        finally:
            back.set()
        assert [one.answer.tokens for one in found] == [one.answer.tokens for one in alone]
        assert any(one.degraded for one in found) and teacher.asked >= 1
        assert sessions and all(name.startswith(engine._name) for name in sessions)  # no other engine's


def test_sessions_of_two_engines_have_different_names(own: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "_compile", lambda _: None)
    with closing(Engine(own, rows=3)) as one, closing(Engine(own, rows=3)) as two:
        assert one._name != two._name


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (TeacherAbout("t", "0123456789abcdef", 300, False, 8), "another vocabulary"),
        (TeacherAbout("t", "", 300, False, 1), "2 are needed"),
        (TeacherAbout("t", "", 10**6, False, 8), "1000000 tokens"),
    ],
)
def test_a_teacher_that_could_never_help_is_refused(own: Student, about: TeacherAbout, said: str) -> None:
    teacher = Scripted(broken)
    teacher.about = about
    with pytest.raises(UserError, match=said):
        Engine(own, teacher=teacher)


def test_the_time_that_is_said_is_that_of_both_attempts_and_none_of_a_model_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: dict[str, Any] = {}
    monkeypatch.setattr(named, "open_teacher", lambda name, **more: opened.update({name: more.get("patience")}))
    for where in ("http://127.0.0.1:1", "flan-t5-small"):
        elsewhere.teacher_at(where, student("token").model.tokenizer, 3.0)
    patience, none = opened.values()
    assert (patience.timeout_s, patience.connect_s, patience.attempts) == (3.0, 3.0, 2) and none is None
    longest = patience.attempts * patience.timeout_s + patience.longest_wait_s
    assert elsewhere.patience_with("http://127.0.0.1:1", 3.0) == longest
    assert elsewhere.patience_with("flan-t5-small", 3.0) is None
    with pytest.raises(UserError, match="seconds above 0"):
        elsewhere.check_timeout(float("nan"))
