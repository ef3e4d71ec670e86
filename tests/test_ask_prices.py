"""Prices of asking: how fast they move, and that coming to rest changes none of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.constraints import Drawn, Terms, make_calls, make_price, make_share
from kdtw_jax.methods.ask_config import AskConfig, dual_configs
from kdtw_jax.methods.ask_prices import Prices, learning_pace, resting_pace

CONSTRAINTS = (make_share(), make_calls())
PRICES = Prices(CONSTRAINTS, dual_configs(AskConfig(), CONSTRAINTS))
TERMS = Terms(jnp.asarray([[0.1, 2.0], [0.4, 7.0]]), jnp.asarray([[True, True], [True, False]]))


def test_prices_slow_down_to_where_those_at_rest_begin_and_these_go_on_slowing() -> None:
    paces = [learning_pace(step, 8) for step in range(10)] + [resting_pace(step, 4) for step in range(4)]
    assert paces[0] == 1.0 and paces[8] == paces[9]
    np.testing.assert_allclose(paces[9], paces[10])
    assert (np.diff(paces[:9]) < 0).all() and (np.diff(paces[10:]) < 0).all()
    np.testing.assert_allclose(paces[10] / np.asarray(paces[11:]), 1 + 15 * np.arange(1, 4) / 4)


def test_at_rest_prices_begin_as_they_were_and_no_longer_waver_with_the_newest_rows() -> None:
    wavering = tuple(table._replace(violation_K=table.violation_K + 0.3) for table in PRICES.start())
    still = PRICES.frozen(wavering)
    before, after = PRICES.quote(wavering, TERMS), PRICES.without_push().quote(still, TERMS)
    np.testing.assert_array_equal(before, after)
    assert not np.allclose(before, PRICES.quote(PRICES.start(), TERMS))
    shaken = tuple(table._replace(violation_K=table.violation_K - 1.0) for table in still)
    np.testing.assert_array_equal(PRICES.without_push().quote(shaken, TERMS), after)
    assert not np.allclose(PRICES.quote(shaken, TERMS), after)


def test_quotes_have_the_words_the_terms_and_the_price_of_one_rule_each() -> None:
    words = np.asarray([[11, 0], [12, 5]], np.int32)
    quotes = PRICES.draw_quotes(PRICES.start(), Drawn(TERMS, words), 32, jax.random.key(0))
    row = np.where(np.asarray(quotes.rule_QxR)[:, 0] == 11, 0, 1)
    assert set(row) == {0, 1}
    np.testing.assert_array_equal(quotes.rule_QxR, words[row])
    np.testing.assert_array_equal(quotes.terms.budget_BxC, TERMS.budget_BxC[row])
    np.testing.assert_array_equal(quotes.price_QxC, PRICES.quote(PRICES.start(), TERMS)[row])
    assert ((quotes.place_Q >= 0) & (quotes.place_Q < 1)).all()


def test_a_price_that_a_rule_says_is_the_price_and_does_not_move() -> None:
    constraints = (make_share(), make_price())
    prices = Prices(constraints, dual_configs(AskConfig(), constraints))
    terms = Terms(jnp.asarray([[0.1, 2.5], [0.4, 0.5]]), jnp.asarray([[True, True], [True, True]]))
    tokens = jnp.asarray([[5, 6, 7, 1], [5, 6, 1, 0]], jnp.int32)
    start = prices.start()
    moved = prices.move(start, tokens, tokens, tokens < 0, terms, jnp.ones(()))
    for tables in (start, moved):
        np.testing.assert_array_equal(prices.quote(tables, terms)[:, 1], [2.5, 0.5])
    jax.tree.map(np.testing.assert_array_equal, moved[1], start[1])
    assert not np.allclose(prices.quote(moved, terms)[:, 0], prices.quote(start, terms)[:, 0])
