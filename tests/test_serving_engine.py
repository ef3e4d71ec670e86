"""The engine of a server: what a request gets is what its student writes for it alone, whoever shares the rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kdtw_jax import Account
from kdtw_jax.answers import Answer
from kdtw_jax.serving.engine import Engine
from kdtw_jax.student import Student
from tests.served import LENGTH, RULES, TEXTS, OwnTeacher, answer, asking, done, student, written


@pytest.fixture(scope="module", params=["word", "token"])
def alone(request: pytest.FixtureRequest) -> Student:
    return student(request.param)


@pytest.fixture(scope="module")
def engine(alone: Student) -> Iterator[Engine]:
    made = Engine(alone, rows=3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def expected(alone: Student) -> dict[tuple[str, str, bool], Answer]:
    return {
        (text, rule, guard): alone(text, rule, guard=guard) for text in TEXTS for rule in RULES for guard in (True, False)
    }


def test_it(expected, engine, alone):
    for (text, rule, guard), a in expected.items():
        b = answer(written(engine, text, asking(alone, rule, guard=guard)))
        print(rule, guard, a, b, a == b)
