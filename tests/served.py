"""Students that ask, of random weights, and a teacher elsewhere that is the student's own; for tests of serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from queue import SimpleQueue
from typing import Any

import jax
import numpy as np

from kdtw_jax.answers import Answer
from kdtw_jax.constraints import make_calls, make_pause, make_share, make_unit
from kdtw_jax.data.tokenizer import load_tokenizer
from kdtw_jax.decoding import log_policy
from kdtw_jax.models import T5Config, make_model
from kdtw_jax.serving.asking import Asking, Limits, open_account, read_asking
from kdtw_jax.serving.engine import Engine
from kdtw_jax.serving.job import Done, Event, Failed, Written
from kdtw_jax.serving.ledger import Ledgers
from kdtw_jax.student import Student
from kdtw_jax.teachers.protocol import Prefix, RowScores, TeacherAbout, TeacherUnavailable, TopTokens
from kdtw_jax.text.words import WordMarks
from kdtw_jax.training.saved import SavedModel

SHARE_RULE = "ask the teacher for at most 40% of the words"
RULES = (
    "ask the teacher for at most 20% of the words",
    "at most 3 calls to the teacher",
    "do not ask the teacher",
    "ask the teacher for at most 50% of the words; pause for 2 words after each call",
    SHARE_RULE,
)
TEXTS = (
    "one",
    "number 2 is here",
    "three three",
    "a fourth text, which is a bit longer",
    "5 5 5 5",
    "3g2d",  # of this one and the next two the draft ends, and help is asked for ahead of what is written
    "02",
    "fc.a2 480e5 6f57b 7d94c2c5",
)
LENGTH = 16
END = 3.0  # how much more an end of a text stands out than other tokens


def model(seed: int, gate_width: int = 0) -> SavedModel:
    """One of bytes that ends now and then, and whose gate says now yes, now no."""
    tokenizer = load_tokenizer("byt5")
    config = T5Config.toy(tokenizer.vocab_size, dropout_rate=0.0, gate_width=gate_width, num_layers=1)
    made = make_model(replace(config, num_decoder_layers=1, tie_embeddings=False))
    params = jax.tree.map(lambda x: 2.0 * x, made.init(jax.random.key(seed)))
    params["lm_head"]["kernel"] = params["lm_head"]["kernel"].at[:, 1].multiply(END)
    if gate_width:
        saving = params["gate"]["saving_out"]
        params["gate"]["saving_out"] = {"kernel": 30.0 * saving["kernel"], "bias": 1.0 + saving["bias"]}
    return SavedModel(made, params, tokenizer)


@cache
def student(unit: str = "word") -> Student:
    own, other = model(4, 8), model(0)
    known = (make_share(), make_calls(), make_pause())
    # Of bytes every other one begins a word, and some are blank: more happens in a few tokens than with spaces alone.
    id_V = np.arange(own.tokenizer.vocab_size)
    blank_V = (id_V % 7 == 5) | (id_V == 0)
    marks = WordMarks((id_V % 2 == 0) & ~blank_V & (id_V > 2), blank_V)
    return Student(own, other, known, 1.0, "say: {source}", 48, LENGTH, make_unit(unit, marks))


class OwnTeacher:
    """The teacher of a student behind the protocol, by whole passes; it can be made to fail."""

    def __init__(self, student: Student) -> None:
        teacher = student.teacher
        assert teacher is not None
        self.banned, self.room, self.fails, self.asked = teacher.tokenizer.banned_ids, student.max_source, False, 0
        self.vocabulary = teacher.tokenizer.vocab_size

        def next_token(source_1xS: Any, inputs_1xT: Any, place: Any) -> Any:
            decoded = teacher.model.decode(
                teacher.params, teacher.model.encode(teacher.params, source_1xS), inputs_1xT
            ).logits_BxTxV[0, place]
            return jax.lax.top_k(log_policy(decoded, ()), 300)

        self._next = jax.jit(next_token)

    @property
    def about(self) -> TeacherAbout:
        return TeacherAbout("own", "", self.vocabulary, False, 300)

    def next_token(self, prefixes: Sequence[Prefix], top_k: int = 8) -> list[TopTokens]:
        self.asked += len(prefixes)
        if self.fails:
            raise TeacherUnavailable("no")
        found = []
        for prefix in prefixes:
            source, inputs = np.zeros((1, self.room), np.int32), np.zeros((1, LENGTH + 1), np.int32)
            source[0, : len(prefix.source)] = prefix.source
            inputs[0, 1 : 1 + len(prefix.written)] = prefix.written
            logs, ids = jax.device_get(self._next(source, inputs, len(prefix.written)))
            kept = ~np.isin(ids, self.banned)
            found.append(TopTokens(ids[kept][:top_k], logs[kept][:top_k]))
        return found

    def score(self, prefixes: Any, tokens: Any, top_k: int = 0) -> list[RowScores]:
        raise NotImplementedError

    def generate(self, prefixes: Any, max_len: int, banned: Sequence[int] = ()) -> list[list[int]]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def asking(student: Student, rule: str | None = None, ledgers: Ledgers | None = None, **limits: Any) -> Asking:
    ledgers = Ledgers() if ledgers is None else ledgers
    return open_account(read_asking(student, Limits(rule, **limits), ledgers), ledgers)


def written(engine: Engine, text: str, how: Asking, most: int | None = None) -> SimpleQueue[Event]:
    """Hands in a request; what happens comes in a queue."""
    events: SimpleQueue[Event] = SimpleQueue()
    engine.submit(text, how, events.put, most)
    return events


def answer(events: SimpleQueue[Event]) -> Answer:
    """What comes of it: an answer, whose tokens came one by one before."""
    return done(events).answer


def done(events: SimpleQueue[Event]) -> Done:
    tokens = list[Written]()
    while isinstance(event := events.get(timeout=120), Written):
        tokens.append(event)
    if isinstance(event, Failed):
        raise event.error
    assert len(tokens) == len(event.answer.tokens)
    assert tuple(token.asked for token in tokens) == event.answer.by_teacher
    return event
