"""Training where a call buys a word: what it saves, what marks buy, and that within an answer nothing is decided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.constraints import Unit, excess, histories, make_pause, make_share, make_unit, start_history
from kdtw_jax.constraints.draw import Terms
from kdtw_jax.duals import update_duals
from kdtw_jax.losses.metric import Weighted
from kdtw_jax.methods.ask_loss import ask_loss
from kdtw_jax.methods.ask_prices import unit_costs
from kdtw_jax.methods.ask_rows import HELPED, flagged
from kdtw_jax.text.words import WordMarks
from kdtw_jax.training.scoring import REFERENCE, STUDENT, TEACHER
from tests.counting import count_words, pieces_of, random_outputs, unit_of
from tests.test_ask import CONFIG, CONSTRAINTS, AskingWorld, sample

NAMES = ["word", "bytes", "3"]


def buys(name: str, tokens: list[int], t: int) -> range:
    """The places that a call at t buys in a text."""
    if name == "3":
        return range(t, min(t + 3, len(tokens)))
    pieces, end = [pieces_of(name)[i] for i in tokens], t
    while not pieces[end].strip("▁") and end + 1 < len(tokens) and pieces[end + 1] != "</s>":
        end += 1
    end += 1
    while (
        pieces[end - 1].strip("▁")
        and pieces[end - 1] != "</s>"
        and end < len(tokens)
        and pieces[end] != "</s>"
        and not pieces[end].startswith("▁")
    ):
        end += 1
    return range(t, end)


@pytest.mark.parametrize("name", NAMES)
def test_a_call_saves_what_the_tokens_that_it_buys_would(name: str) -> None:
    tokens, _ = random_outputs(32, 20, 0)
    saves = np.random.default_rng(0).random(tokens.shape).astype(np.float32) * (tokens != 0)
    found = unit_of(name).bought(jnp.asarray(saves), jnp.asarray(tokens))
    for row in range(32):
        written = tokens[row][tokens[row] != 0].tolist()
        for t in range(len(written)):
            expected = sum(saves[row, i] for i in buys(name, written, t))
            assert found[row, t] == pytest.approx(expected, rel=1e-5), (row, t)
    np.testing.assert_array_equal(unit_of("token").bought(jnp.asarray(saves), jnp.asarray(tokens)), saves)


@pytest.mark.parametrize("name", NAMES)
def test_marks_buy_whole_answers_and_about_the_share_of_the_rule(name: str) -> None:
    unit, rows = unit_of(name), 400
    tokens, _ = random_outputs(rows, 30, 1)
    rate = np.tile([0.1, 0.3, 0.6, 0.0], rows // 4).astype(np.float32)
    noise = np.random.default_rng(2).random(tokens.shape).astype(np.float32)
    asked = np.asarray(flagged(unit, jnp.asarray(tokens), jnp.asarray(noise), jnp.asarray(rate)))
    helped, length, begun = np.zeros(rows), np.zeros(rows), set()
    for row in range(rows):
        written = tokens[row][tokens[row] != 0].tolist()
        t = 0
        while t < len(written):
            if asked[row, t]:
                bought = buys(name, written, t)
                assert asked[row, bought].all()
                begun.add(len(bought))
                t = bought.stop
            else:
                t += 1
        if name == "3":
            helped[row], length[row] = asked[row].sum(), len(written)
        else:
            slow = count_words([pieces_of(name)[i] for i in written], asked[row, : len(written)])
            helped[row], length[row] = slow.helped, slow.length
    assert not asked[tokens == 0].any() and len(begun) > 2
    for share in (0.1, 0.3, 0.6, 0.0):
        mine = rate == np.float32(share)
        assert helped[mine].sum() / length[mine].sum() == pytest.approx(share, abs=0.03)


def test_a_price_is_that_of_the_dearer_case_where_the_word_is_not_known() -> None:
    """Of words of the student's own, two since the last call; the second is under way."""
    unit = unit_of("word")
    terms = Terms(jnp.asarray([[2.0], [1.0]]), jnp.ones((2, 1), bool))
    tokens = jnp.asarray([[5, 5, 6, 4]] * 2)
    asked = jnp.asarray([[True, False, False, False]] * 2)
    history = jax.tree.map(lambda leaf: leaf[-1], histories(jnp.ones((2, 1), jnp.int32), tokens, asked, unit))
    assert history.own_B.tolist() == [2, 2]
    assert unit_costs((make_pause(),), terms, history, unit).tolist() == [[1.0], [0.0]]
    assert not unit_costs((make_pause(),), terms, start_history(jnp.ones((2, 1), jnp.int32)), unit).any()


def words_of_threes(size: int) -> Unit:
    """A third of the vocabulary begins words."""
    return make_unit("word", WordMarks(np.arange(size) % 3 == 0, np.arange(size) == 0))


class WordWorld(AskingWorld):
    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.rules = self.rules._replace(unit=unit)


@pytest.fixture(scope="module", params=["word", "2"])
def collected(request: pytest.FixtureRequest) -> Any:
    size = AskingWorld().tokenizer.vocab_size
    world = WordWorld(words_of_threes(size) if request.param == "word" else make_unit(request.param))
    return world, *world.collected()


def test_all_rows_hold_whole_answers_and_prices_move_by_units(collected: Any) -> None:
    world, collector, rows, duals = collected
    unit = world.rules.unit
    assert set(rows) == {STUDENT, TEACHER, REFERENCE, HELPED}
    going = 0
    for source in (TEACHER, REFERENCE):  # in rows that were written, the student may go on where the teacher ended
        found = rows[source]
        tokens, asked = found.path.tokens_BxT, found.asked_BxT
        after = histories(found.path.source_BxS, tokens, asked, unit)
        owed, last = np.asarray(after.owed_B[:-1]).T, np.asarray(after.last_B[:-1]).T
        on = np.asarray(unit.goes_on(jnp.asarray(owed), jnp.asarray(tokens), jnp.asarray(last))) & (tokens != 0)
        assert asked[on].all()
        going += int(on.sum())
    assert going > 0
    helped, start = rows[HELPED], collector.prices.start()
    written = (helped.path.source_BxS, helped.path.tokens_BxT, helped.asked_BxT, unit)
    end = jax.tree.map(lambda leaf: leaf[-1], histories(*written))
    budget, active = helped.terms.budget_BxC[:, 0], helped.terms.active_BxC[:, 0]
    over = (end.helped_B - budget * end.length_B) / end.length_B.mean()
    np.testing.assert_allclose(over * end.length_B.mean(), excess(make_share(), budget, *written), atol=1e-4)
    expected = update_duals(collector.prices.duals[0], start[0], budget, over, active)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), duals[0], expected)


def test_within_an_answer_nothing_is_decided_and_nothing_paid(collected: Any) -> None:
    """What the gate says there changes no loss; what it says where it decides changes them all."""
    world, collector, rows, _ = collected
    unit, batch = world.rules.unit, sample(rows[REFERENCE], collector)
    found = batch.rows.rows
    written = (found.path.source_BxS, found.path.tokens_BxT, found.asked_BxT, unit)
    steps = jax.tree.map(lambda leaf: leaf[:-1], histories(*written))
    within = np.asarray((steps.owed_B > 0).T & found.asked_BxT)
    within = within & np.asarray(unit.goes_on(steps.owed_B.T, jnp.asarray(found.path.tokens_BxT), steps.last_B.T))
    assert within.any()

    def losses(at: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
        student = world.student

        def louder(params: Any, rule: Any, view: Any) -> Any:
            odds = student.apply_gate(params, rule, view)
            if odds.saving_BxT.shape != at.shape:
                return odds  # of quotes
            return odds._replace(saving_BxT=odds.saving_BxT + at, log_price_BxT=odds.log_price_BxT + at)

        loss = ask_loss(student._replace(apply_gate=louder), replace(CONFIG), CONSTRAINTS, world.banned, unit=unit)
        terms = jax.jit(loss)(world.params, (), batch, jax.random.key(0))
        return {name: float(terms[name].mean()) for name in names}

    names = ("saving", "price", "pcl")
    quiet, inside, outside = (losses(at.astype(np.float32), names) for at in (0 * within, within, ~within))
    assert inside == quiet
    assert all(outside[name] != quiet[name] for name in names)


def test_the_share_that_is_logged_is_that_of_units(collected: Any) -> None:
    world, collector, rows, _ = collected
    unit, found = world.rules.unit, rows[HELPED]
    loss = ask_loss(world.student, CONFIG, CONSTRAINTS, world.banned, unit=unit)
    asked: Weighted = jax.jit(loss)(world.params, (), sample(found, collector), jax.random.key(0))["asked"]
    end = histories(found.path.source_BxS, found.path.tokens_BxT, found.asked_BxT, unit)
    assert float(asked.mean()) == pytest.approx(float(end.helped_B[-1].sum() / end.length_B[-1].sum()))
