"""Units of rules: what is counted in words is what a slow count of the text says; masks keep outputs within rules."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.constraints import (
    TOKENS,
    Constraint,
    History,
    Rule,
    advance,
    excess,
    histories,
    make_share,
    make_unit,
    start_history,
    total_cost,
)
from kdtw_jax.constraints.history import before_unit, called
from kdtw_jax.constraints.unit import check_unit
from kdtw_jax.errors import UserError
from tests.counting import count_words, pieces_of, random_outputs, source, unit_of
from tests.test_constraints import ALL

ROWS, LENGTH = 64, 24
SOURCE = source(ROWS)


@pytest.mark.parametrize("name", ["word", "bytes"])
def test_history_in_words_is_what_a_slow_count_of_the_text_says(name: str) -> None:
    unit, pieces = unit_of(name), pieces_of(name)
    for seed in range(3):
        tokens, asked = random_outputs(ROWS, LENGTH, seed)
        found = jax.device_get(histories(SOURCE, tokens, asked, unit))
        for row in range(ROWS):
            written = int((tokens[row] != 0).sum())
            for t in range(written + 1):
                slow = count_words([pieces[i] for i in tokens[row, :t]], asked[row, :t])
                now = History(*(leaf[t, row] for leaf in found))
                assert (now.length_B, now.helped_B, now.calls_B, now.in_a_row_B, now.tokens_B) == (
                    slow.length, slow.helped, slow.calls, slow.in_a_row, t
                )  # fmt: skip
                assert now.own_B == slow.own if slow.own is not None else now.own_B > 1000


@pytest.mark.parametrize("name", ["word", "bytes"])
def test_without_the_word_under_way_it_is_the_history_before_it(name: str) -> None:
    unit = unit_of(name)
    tokens, asked = random_outputs(ROWS, LENGTH, 5)
    steps = jax.device_get(histories(SOURCE, tokens, asked, unit))
    back = jax.device_get(jax.vmap(lambda history: before_unit(history, unit))(steps))
    begins = jax.vmap(unit.begins, (1, 1))(jnp.asarray(tokens), steps.last_B[:-1].T)
    seen = 0
    for row in range(ROWS):
        first = None
        for t in range(int((tokens[row] != 0).sum())):
            first = t if begins[t, row] else first
            if first is not None and tokens[row, t] > 2:
                for leaf in ("length_B", "helped_B", "own_B", "in_a_row_B"):
                    assert getattr(back, leaf)[t + 1, row] == getattr(steps, leaf)[first, row], leaf
                seen += first < t
    assert seen > 50


def test_a_call_for_n_tokens_buys_them_and_is_counted_once() -> None:
    unit = unit_of("3")
    asked = jnp.asarray([[0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1]], bool)
    end = History(*(leaf[-1, 0] for leaf in histories(SOURCE[:1], 3 + 0 * asked, asked, unit)))
    assert (end.length_B, end.helped_B, end.calls_B, end.in_a_row_B, end.owed_B) == (12, 8, 4, 1, 1)
    before = histories(SOURCE[:1], 3 + 0 * asked, asked, unit)
    calls = [bool(called(History(*(x[t] for x in before)), 3, asked[:, t], unit)[0]) for t in range(12)]
    assert [t for t, call in enumerate(calls) if call] == [1, 4, 6, 10]


def test_with_tokens_all_that_is_counted_is_what_it_was() -> None:
    tokens, asked = random_outputs(ROWS, LENGTH, 1)
    end = History(*(leaf[-1] for leaf in histories(SOURCE, tokens, asked)))
    np.testing.assert_array_equal(end.helped_B, asked.sum(1))
    np.testing.assert_array_equal(end.calls_B, asked.sum(1))
    np.testing.assert_array_equal(end.length_B, (tokens != 0).sum(1))
    np.testing.assert_array_equal(end.tokens_B, end.length_B)
    assert make_unit("1") is make_unit("token") is TOKENS


def eager(rule: Rule | None, unit: Any, seed: int) -> tuple[jax.Array, jax.Array]:
    """Random outputs whose student asks wherever the rule lets it, mostly; answers go on as their unit says."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(1, LENGTH + 1, ROWS)
    wish = rng.random((ROWS, LENGTH)) < rng.choice([0.2, 0.9, 1.0], (ROWS, 1))
    history, tokens, asked = start_history(SOURCE), [], []
    for t in range(LENGTH):
        active = jnp.asarray(t < ends)
        token = jnp.where(active, jnp.asarray(rng.integers(2, 10, ROWS), jnp.int32), 0)
        may = jnp.ones(ROWS, bool) if rule is None else rule.allowed(history, unit)
        on = unit.goes_on(history.owed_B, token, history.last_B)
        on &= True if rule is None else rule.lets_go_on(history, unit)
        asked.append((on | (jnp.asarray(wish[:, t]) & may)) & active)
        tokens.append(token)
        history = advance(history, token, asked[-1], active, unit)
    return jnp.stack(tokens, 1), jnp.stack(asked, 1)


@pytest.mark.parametrize("name", ["word", "bytes", "3"])
@pytest.mark.parametrize("constraint", ALL[:-1], ids=lambda c: c.name)
def test_the_mask_keeps_every_output_within_its_budget_in_every_unit(constraint: Constraint, name: str) -> None:
    unit, rng = unit_of(name), np.random.default_rng(1)
    budget = jnp.asarray(rng.uniform(constraint.low, constraint.high, ROWS), jnp.float32)
    if constraint.name not in ("share", "compute"):
        budget = jnp.round(budget)
    tokens, asked = eager(Rule((constraint,), (budget,)), unit, 0)
    rounding = 1e-4 * constraint.high
    assert asked.any()
    # What the teacher read of a word that was over is seen only while writing.
    slack = 1.0 if constraint.name == "compute" else rounding
    assert (excess(constraint, budget, SOURCE, tokens, asked, unit) <= slack).all()
    assert (excess(constraint, budget, SOURCE, *eager(None, unit, 0), unit) > rounding).any()


@pytest.mark.parametrize("name", ["word", "bytes", "3"])
def test_a_share_of_all_lets_everything_be_asked_for(name: str) -> None:
    rule, unit = Rule((make_share(),), (jnp.float32(1),)), unit_of(name)
    tokens, asked = random_outputs(ROWS, LENGTH, 2)
    for seed in range(2):
        steps = histories(SOURCE, tokens, asked if seed else ~asked & (tokens != 0), unit)
        assert jax.vmap(lambda history: rule.allowed(history, unit) & rule.lets_go_on(history, unit))(steps).all()


@pytest.mark.parametrize("name", ["word", "3"])
def test_costs_add_up_to_the_words_and_tokens_that_the_teacher_helped_with(name: str) -> None:
    unit = unit_of(name)
    tokens, asked = random_outputs(ROWS, LENGTH, 4)
    cost = total_cost(make_share(), jnp.float32(0.2), SOURCE, tokens, asked, unit)
    slow = [
        count_words([pieces_of(name)[i] for i in row[row != 0]], by[row != 0]).helped
        for row, by in zip(tokens, asked, strict=True)
    ]
    np.testing.assert_array_equal(cost, slow if name == "word" else asked.sum(1))


@pytest.mark.parametrize("unit", ["0", "-1", "", "words", "1.5", "123456"])
def test_what_is_no_unit_is_refused(unit: str) -> None:
    with pytest.raises(UserError, match='unit must be token, word or a number of tokens, such as "4", got'):
        check_unit(unit)
