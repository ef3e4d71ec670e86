"""Asking ahead: whatever is asked for early, no finished output is over its rule, nor several with one budget."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.constraints import (
    Constraint,
    Rule,
    Terms,
    advance,
    as_rule,
    excess,
    make_pause,
    make_share,
    start_history,
    total_cost,
)
from kdtw_jax.constraints.credit import Credit, Purse, debt, may_end, turns
from kdtw_jax.decoding import generate_with_help
from kdtw_jax.decoding.gate import stateless
from kdtw_jax.models import Model
from tests.test_constraints import ALL, LENGTH, ROWS, SOURCE, eager
from tests.test_help_decoding import BANNED, PLAIN, STUDENT, TEACHER
from tests.test_help_decoding import LENGTH as ROOM
from tests.test_help_decoding import SOURCE as TEXTS

SHARE = make_share()


class Outputs(NamedTuple):
    tokens: jax.Array
    asked: jax.Array
    ahead: int  # tokens after which some output was over, had it ended there
    withheld: int  # ends


def outputs(rule: Rule, credit: Credit, seed: int) -> Outputs:
    """Outputs that would ask often and end at random; they are cut off at LENGTH tokens."""
    rng = np.random.default_rng(seed)
    wish = rng.random((LENGTH, ROWS)) < rng.choice([0.1, 0.5, 1.0], ROWS)
    ends = rng.random((LENGTH, ROWS)) < rng.choice([0.0, 0.05, 0.4], ROWS)
    tokens, asked, over, withheld = written(tuple(c.name for c in rule.constraints))(rule.budgets, credit, wish, ends)
    return Outputs(tokens.T, asked.T, int(over.sum()), int(withheld.sum()))


@functools.cache
def written(names: tuple[str, ...]) -> Any:
    constraints = tuple(next(c for c in ALL if c.name == name) for name in names)

    @jax.jit
    def write(budgets: Any, credit: Credit, wish: jax.Array, ends: jax.Array) -> Any:
        rule = Rule(constraints, budgets)

        def step(state: Any, now: Any) -> Any:
            history, open_B = state
            asked_B = turns(rule, credit, history, now[0] & open_B, open_B).ask_B
            token_B = jnp.where(open_B, 5, 0)
            after = advance(history, token_B, asked_B, open_B)
            over_B = jnp.zeros(ROWS, bool)
            for constraint, budget in zip(*rule, strict=True):
                over_B |= False if constraint.spent is None else debt(constraint, budget, after) > 0
            wanted_B = now[1] & open_B
            ending_B = may_end(rule, credit, after, wanted_B, open_B)
            return (after, open_B & ~ending_B), (token_B, asked_B, over_B & open_B, wanted_B & ~ending_B)

        return jax.lax.scan(step, (start_history(SOURCE), jnp.ones(ROWS, bool)), (wish, ends))[1]

    return write


def trusted(seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, LENGTH + 1, ROWS), jnp.int32)


def budgets(constraint: Constraint, rng: np.random.Generator) -> jax.Array:
    drawn = rng.uniform(constraint.low, constraint.high, ROWS)
    return jnp.asarray(drawn if constraint.name in ("share", "compute") else drawn.round(), jnp.float32)


@pytest.mark.parametrize("constraint", ALL, ids=lambda c: c.name)
def test_no_output_is_over_its_rule_however_far_it_asks_ahead(constraint: Constraint) -> None:
    ahead = withheld = 0
    for seed in range(6):
        rule = Rule((constraint, SHARE), (budgets(constraint, np.random.default_rng(seed)), jnp.full(ROWS, 0.3)))
        found = outputs(rule, Credit(trusted(seed)), seed)
        for one, budget in zip(*rule, strict=True):
            assert (excess(one, budget, SOURCE, found.tokens, found.asked) <= 1e-4 * one.high).all()
        ahead, withheld = ahead + found.ahead, withheld + found.withheld
    assert ahead > 0 and withheld > 0


@pytest.mark.parametrize("constraint", [c for c in ALL if c.spent is None], ids=lambda c: c.name)
def test_what_cannot_be_repaid_holds_after_every_token(constraint: Constraint) -> None:
    rule = Rule((constraint,), (budgets(constraint, np.random.default_rng(0)),))
    some, none = (outputs(rule, Credit(length), 1) for length in (trusted(1), 0 * trusted(1)))
    np.testing.assert_array_equal(some.asked, none.asked)
    assert some.asked.any() and some.ahead == some.withheld == 0
    assert (excess(constraint, rule.budgets[0], SOURCE, some.tokens, some.asked) <= 1e-4 * constraint.high).all()


def test_nobody_trusted_asks_as_the_mask_lets_it() -> None:
    rule = Rule((SHARE,), (jnp.asarray(np.linspace(0, 0.6, ROWS), jnp.float32),))
    everyone = jnp.ones(ROWS, bool)
    history = start_history(SOURCE)
    for _ in range(LENGTH):
        may = rule.allowed(history)
        found = turns(rule, Credit(0 * history.length_B), history, everyone, everyone)
        np.testing.assert_array_equal(found.ask_B, may)
        history = advance(history, jnp.full(ROWS, 5), may, everyone)


@pytest.mark.parametrize("constraint", [c for c in ALL if c.spent is not None], ids=lambda c: c.name)
def test_what_is_spent_is_what_the_costs_add_up_to(constraint: Constraint) -> None:
    assert constraint.spent is not None
    tokens, asked = eager(None, 0)
    history = start_history(SOURCE)
    for t in range(LENGTH):
        history = advance(history, tokens[:, t], asked[:, t], tokens[:, t] != 0)
    spent = constraint.spent(history, jnp.float32(0.2))
    np.testing.assert_allclose(spent, total_cost(constraint, jnp.float32(0.2), SOURCE, tokens, asked), rtol=1e-5)


@pytest.mark.parametrize("saved", [0.0, 2.5])
def test_outputs_with_one_budget_keep_it_together_and_others_each_their_own(saved: float) -> None:
    member = jnp.arange(ROWS) % 4 > 0
    for seed, share in enumerate((0.02, 0.1, 0.3)):
        rule = Rule((SHARE,), (jnp.float32(share),))
        found = outputs(rule, Credit(trusted(seed), Purse((jnp.float32(saved),), member)), seed)
        over = np.asarray(excess(SHARE, jnp.float32(share), SOURCE, found.tokens, found.asked))
        assert over[member].sum() <= saved + 1e-3
        assert (over[~member] <= 1e-3).all()
        assert over[member].max() > 1e-3  # what one saved another one has spent
        assert over[member].sum() > saved - 0.05 * share * np.count_nonzero(found.tokens) - 2  # nearly all of it


@pytest.mark.parametrize("together", [False, True], ids=["each_its_own", "together"])
def test_a_constraint_that_is_not_active_changes_nothing_on_an_account(together: bool) -> None:
    on = np.arange(ROWS) % 3 > 0  # in the other rows nothing is limited
    active = np.stack([on, 0 * on], 1).astype(bool)
    both = as_rule((SHARE, SHARE._replace(name="mine")), Terms(jnp.full((ROWS, 2), 0.2), jnp.asarray(active)))
    alone = Rule((SHARE,), (jnp.float32(0.2),))
    everyone, saved = jnp.ones(ROWS, bool), jnp.float32(1.5) if together else jnp.full(ROWS, 1.5)
    history, rng, counts = start_history(SOURCE), np.random.default_rng(0), np.zeros(4, int)
    for t in range(LENGTH):
        wish = jnp.asarray(rng.random(ROWS) < 0.5)
        credit = Credit(trusted(t), Purse((saved, 0 * saved), everyone))
        asked = turns(both, credit, history, wish, everyone).ask_B
        ends = may_end(both, credit, history, everyone, everyone)
        assert (asked == wish)[~on].all() and ends[~on].all()
        credit = Credit(trusted(t), Purse((saved,), jnp.asarray(on)))
        np.testing.assert_array_equal(asked[on], turns(alone, credit, history, wish, everyone).ask_B[on])
        np.testing.assert_array_equal(ends[on], may_end(alone, credit, history, everyone, everyone)[on])
        counts += [int(x[on].sum()) for x in (asked, wish & ~asked, ends, ~ends)]
        history = advance(history, jnp.full(ROWS, 5), asked, everyone)
    assert (counts > 0).all()


@pytest.mark.parametrize("read_along", [False, True], ids=["lazy", "reads_along"])
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
def test_a_decoder_that_asks_ahead_keeps_its_rule_at_the_end(sampled: bool, read_along: bool) -> None:
    share, pause = jnp.asarray([0.0, 0.1, 0.2, 0.3, 0.5, 1.0]), jnp.float32(1)
    gate = stateless(lambda state: jnp.asarray(state.history.length_B < 5, jnp.float32))  # early, and later never

    @jax.jit
    def run(noises: Any, credit: Credit | None) -> Any:
        return generate_with_help(
            STUDENT, TEACHER, TEXTS, PLAIN, None, noises, rule=Rule((SHARE, make_pause()), (share, pause)),
            credit=credit, gate=gate, banned=BANNED, max_len=ROOM, read_along=read_along,
        )  # fmt: skip

    ahead = longer = 0
    for seed in range(4 if sampled else 1):
        noise = jax.random.uniform(jax.random.key(seed), (len(TEXTS), ROOM)) if sampled else None
        credit = Credit(jnp.asarray([9, 99, 20, 10, 0, 5]))  # beyond the room, too
        found, before = jax.device_get((run(noise, credit), run(noise, None)))
        used, length = found.asked_BxT.sum(1), found.mask_BxT.sum(1)
        assert (used <= np.asarray(share) * length + 1e-3).all() and used[0] == 0
        assert not (found.asked_BxT[:, 1:] & found.asked_BxT[:, :-1]).any()
        assert (found.tokens_BxT[found.mask_BxT] > 0).all()
        ahead += int(used.sum() - before.asked_BxT.sum())
        longer += int((length > before.mask_BxT.sum(1)).sum())
    assert ahead > 0 and (longer > 0 or not sampled)


def test_a_withheld_end_is_drawn_anew_from_what_is_left() -> None:
    """The share of a token among outputs of one token each is its probability without the end."""
    rows = 4000
    source = jnp.broadcast_to(TEXTS[:1], (rows, TEXTS.shape[1]))
    noise = jnp.tile((jnp.arange(rows)[:, None] + 0.5) / rows, (1, 2))
    rule, credit = Rule((SHARE,), (jnp.float32(0.5),)), Credit(jnp.full(rows, 2))
    ask_first = stateless(lambda state: jnp.asarray(state.history.length_B < 1, jnp.float32))
    teacher = (likely_to_end(TEACHER[0]), TEACHER[1])

    def run(rule: Rule | None) -> Any:
        return jax.jit(
            lambda: generate_with_help(
                STUDENT, teacher, source, source, None, noise, banned=BANNED, max_len=2, gate=ask_first,
                rule=rule, credit=credit,
            )
        )()  # fmt: skip

    count = [np.bincount(np.asarray(run(r).tokens_BxT[:, 0]), minlength=24) / rows for r in (None, rule)]
    assert 0.2 < count[0][1] < 0.9 and count[1][1] == 0
    left = np.where(np.arange(24) == 1, 0, count[0])
    np.testing.assert_allclose(count[1], left / left.sum(), atol=2e-3)


def likely_to_end(model: Model) -> Model:
    def extended(*args: Any) -> Any:
        decoded, cache = model.extend(*args)
        return decoded._replace(logits_BxTxV=decoded.logits_BxTxV.at[..., 1].add(6.0)), cache

    return model._replace(extend=extended, unembed=lambda *args: model.unembed(*args).at[..., 1].add(6.0))
