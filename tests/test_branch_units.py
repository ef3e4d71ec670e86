"""Branching where a call buys a word or several tokens: the answer is as long as when the output is written at once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.constraints.history import History, histories
from kdtw_jax.decoding.ahead import worth_everywhere
from kdtw_jax.decoding.branch import Help, States, branch, look_ahead, write_rest
from kdtw_jax.decoding.gate import stateless
from kdtw_jax.decoding.utility import log_mu
from tests.test_branch import ALONE, MINE, THEIRS
from tests.test_help_decoding import BANNED, LENGTH, PLAIN, ROWS
from tests.test_help_in_words import UNITS, UNSURE, run, unsure

ROW = jnp.arange(ROWS)
PLACE = jnp.minimum(jnp.arange(ROWS) * 2, (ALONE != 0).sum(axis=1) - 1)


@pytest.mark.parametrize("name", UNITS)
def test_an_output_goes_on_from_any_of_its_states_as_it_went_on_by_itself(name: str) -> None:
    """In the middle of an answer, too."""
    unit = UNITS[name][0]
    whole = jax.jit(lambda: run(unit, None, None))()
    tokens, asked = whole.tokens_BxT, whole.asked_BxT
    assert whole.called_BxT.sum() < asked.sum()  # some call buys more than a token
    before, help = histories(PLAIN, tokens, asked, unit), Help(THEIRS, stateless(unsure), UNSURE)

    @jax.jit
    def go_on(states: States, first: jax.Array, asked: jax.Array) -> Any:
        return write_rest(MINE, states, first, asked, banned=BANNED, help=help, unit=unit)

    for shift in range(3):
        place = (ROW * 5 + shift) % (tokens != 0).sum(axis=1)
        states = States(tokens, place, History(*(leaf[place, ROW] for leaf in before)))
        rest = go_on(states, tokens[ROW, place], asked[ROW, place])
        later = jnp.arange(LENGTH)[None] >= place[:, None]
        np.testing.assert_array_equal(rest.tokens_BxT, tokens)
        np.testing.assert_array_equal(rest.asked_BxT, asked & later)
        np.testing.assert_array_equal(rest.called_BxT, whole.called_BxT & later)


def asked_once(name: str) -> Any:
    """The student's own outputs, but for one question each, at `PLACE`."""
    once = stateless(lambda state: (state.history.tokens_B == PLACE).astype(jnp.float32))
    return jax.jit(lambda: run(UNITS[name][0], None, None, gate=once, threshold=0.5))()


@pytest.mark.parametrize("name", UNITS)
def test_a_question_is_answered_by_all_that_it_buys_and_the_student_goes_on_alone(name: str) -> None:
    unit, helped = UNITS[name][0], asked_once(name)
    states = States(ALONE, PLACE)
    parts = (MINE, states, ALONE[ROW, PLACE], helped.tokens_BxT[ROW, PLACE])
    own, other = jax.jit(lambda: branch(*parts, banned=BANNED, answering=THEIRS, unit=unit))()
    np.testing.assert_array_equal(own.tokens_BxT, ALONE)
    np.testing.assert_array_equal(other.tokens_BxT, helped.tokens_BxT)
    np.testing.assert_array_equal(other.asked_BxT, helped.asked_BxT)
    assert not own.asked_BxT.any() and (other.called_BxT.sum(axis=1) == 1).all()
    assert (other.asked_BxT.sum(axis=1) > 1).any()


def test_an_answer_may_be_worth_something_whose_first_token_is_the_students_own() -> None:
    unit, own, reference = UNITS["3"][0], ALONE[ROW, PLACE], jnp.ones((ROWS, LENGTH), jnp.int32)
    how: dict[str, Any] = {"banned": BANNED, "unit": unit}
    one = jax.jit(lambda: look_ahead(MINE, THEIRS, States(ALONE, PLACE), own, own, log_mu, reference, **how))()
    assert (jnp.abs(one) > 1e-3).any()
    everywhere = jax.jit(lambda: worth_everywhere(MINE, THEIRS, ALONE, ALONE, ALONE, log_mu, reference, **how))()
    np.testing.assert_allclose(everywhere[ROW, PLACE], one, atol=1e-4)
