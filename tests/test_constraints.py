"""Rules on help: the hard mask keeps every output within its rule, and words and budgets are the same thing."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.constraints import (
    Constraint,
    History,
    Rule,
    Terms,
    advance,
    as_rule,
    draw_rules,
    excess,
    histories,
    known_constraints,
    make_after,
    make_calls,
    make_compute,
    make_first,
    make_in_a_row,
    make_pause,
    make_price,
    make_share,
    pad_words,
    parse_rule,
    start_history,
    total_cost,
    word_rule,
    words_room,
)
from kdtw_jax.errors import UserError
from kdtw_jax.models import T5Config, costs
from tests.every_other import make_every_other

TEACHER = T5Config.toy(40)
ALL = (
    make_share(),
    make_calls(),
    make_pause(),
    make_in_a_row(),
    make_first(),
    make_after(),
    make_compute(costs(TEACHER)),
    make_every_other(),
    make_price(),  # which limits nothing
)
ROWS, LENGTH = 64, 24
SOURCE = jnp.asarray(np.random.default_rng(0).integers(2, 9, (ROWS, 5)), jnp.int32)


def eager(rule: Rule | None, seed: int) -> tuple[jax.Array, jax.Array]:
    """Outputs of random lengths whose student asks with high probability wherever the rule lets it."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(1, LENGTH + 1, ROWS)
    wish = rng.random((ROWS, LENGTH)) < rng.choice([0.3, 0.9, 1.0], (ROWS, 1))
    history, tokens, asked = start_history(SOURCE), [], []
    for t in range(LENGTH):
        active = jnp.asarray(t < ends)
        may = jnp.ones(ROWS, bool) if rule is None else rule.allowed(history)
        asked.append(jnp.asarray(wish[:, t]) & may & active)
        tokens.append(jnp.where(active, jnp.asarray(rng.integers(2, 9, ROWS), jnp.int32), 0))
        history = advance(history, tokens[-1], asked[-1], active)
    return jnp.stack(tokens, 1), jnp.stack(asked, 1)


@pytest.mark.parametrize("constraint", ALL[:-1], ids=lambda c: c.name)
def test_the_mask_keeps_every_output_within_its_budget_and_no_mask_does_not(constraint: Constraint) -> None:
    rng = np.random.default_rng(1)
    for seed in range(4):
        budget = jnp.asarray(rng.uniform(constraint.low, constraint.high, ROWS), jnp.float32)
        if constraint.name not in ("share", "compute"):
            budget = jnp.round(budget)
        tokens, asked = eager(Rule((constraint,), (budget,)), seed)
        rounding = 1e-4 * constraint.high
        assert (excess(constraint, budget, SOURCE, tokens, asked) <= rounding).all()
        assert asked.any()
        assert (excess(constraint, budget, SOURCE, *eager(None, seed)) > rounding).any()


def breaks(name: str, budget: int, asked: list[bool]) -> bool:
    """Whether calls at these places break a rule on single steps, by what its words say."""
    places = [t for t, a in enumerate(asked) if a]
    runs = [sum(1 for _ in group) for value, group in itertools.groupby(asked) if value]
    return {
        "pause": any(later - one - 1 < budget for one, later in itertools.pairwise(places)),
        "in_a_row": max(runs, default=0) > budget,
        "first": any(t + 1 > budget for t in places),
        "after": any(t + 1 <= budget for t in places),
        "calls": len(places) > budget,
    }[name]


@pytest.mark.parametrize("constraint", [c for c in ALL if c.name in ("pause", "in_a_row", "first", "after", "calls")])
def test_rules_mean_what_they_say_in_mask_and_cost(constraint: Constraint) -> None:
    for budget in (1, 2, 4):
        tokens, asked = eager(Rule((constraint,), (jnp.float32(budget),)), budget)
        over = excess(constraint, jnp.float32(budget), SOURCE, *eager(None, budget))
        free = eager(None, budget)[1]
        touched = 0
        for row in range(ROWS):
            count = int((tokens[row] != 0).sum())
            kept = [bool(a) for a in asked[row, :count]]
            assert not breaks(constraint.name, budget, kept)
            assert breaks(constraint.name, budget, [bool(a) for a in free[row]]) == bool(over[row] > 1e-3)
            for t in range(count):  # and no call is refused that would have been within the rule
                more = [*kept[:t], True]
                if not kept[t] and not breaks(constraint.name, budget, more):
                    history = History(*(leaf[t] for leaf in histories(SOURCE, tokens, asked)))
                    assert bool(constraint.allowed(history, jnp.float32(budget))[row])
                    touched += 1
            if touched > 20:
                break
        assert touched


def test_several_constraints_hold_together() -> None:
    rule = Rule((ALL[0], ALL[2], ALL[5]), (jnp.float32(0.3), jnp.float32(2), jnp.float32(3)))
    tokens, asked = eager(rule, 0)
    for constraint, budget in zip(*rule, strict=True):
        assert (excess(constraint, budget, SOURCE, tokens, asked) <= 1e-3).all()
    assert asked.any()


@pytest.mark.parametrize(("part", "whole"), [(1, 10), (7, 10), (13, 22), (15, 29), (1, 41)])
def test_a_share_is_used_up_to_the_last_token_whatever_float32_makes_of_it(part: int, whole: int) -> None:
    constraint = make_share()
    history = start_history(SOURCE[:1])
    for _ in range(whole):  # 22 times the float32 nearest to 13 / 22 is below 13
        asked = constraint.allowed(history, jnp.float32(part / whole))
        history = advance(history, jnp.ones(1, jnp.int32), asked, jnp.ones(1, bool))
    assert int(history.calls_B[0]) == part


def test_history_is_what_a_slow_count_says() -> None:
    tokens, asked = eager(None, 3)
    found = jax.device_get(histories(SOURCE, tokens, asked))
    for row in range(0, ROWS, 7):
        written = [int(token) for token in tokens[row] if token]
        for t in range(LENGTH + 1):
            past = [bool(a) for a in asked[row, : min(t, len(written))]]
            expected: dict[str, Any] = {
                "length_B": len(past),
                "calls_B": sum(past),
                "in_a_row_B": len(past) - max((i + 1 for i, a in enumerate(past) if not a), default=0),
                "positions_B": max((i + 1 for i, a in enumerate(past) if a), default=0),
                "last_B": written[len(past) - 1] if past else 0,
                "source_B": 5,
            }
            if any(past):
                expected["own_B"] = past[::-1].index(True)
            for name, value in expected.items():
                assert getattr(found, name)[t, row] == value, (name, row, t)
            if not any(past):
                assert found.own_B[t, row] > 1000


def test_compute_counts_the_spans_that_a_call_catches_up_with() -> None:
    constraint = make_compute(costs(TEACHER))
    tokens = jnp.ones((3, 6), jnp.int32)
    asked = jnp.asarray([[0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0]], bool)
    none, early, late = (float(x) for x in total_cost(constraint, jnp.float32(0), SOURCE[:3], tokens, asked))
    assert none == 0
    position = (late - early) / 4  # positions 0 and 0 .. 4; both encoded the source once
    assert early > position > 0
    # Two FLOPs a parameter: the decoder's matrices without the keys and values of cross-attention, and the head.
    c = TEACHER
    matrices = c.num_decoder_layers * (6 * c.d_model * c.num_heads * c.d_kv + 2 * c.d_model * c.d_ff)
    assert position == pytest.approx(2e-9 * (matrices + c.d_model * c.vocab_size), rel=1e-5)


@pytest.mark.parametrize("constraint", ALL, ids=lambda c: c.name)
def test_words_say_the_budget_in_every_template(constraint: Constraint) -> None:
    rng = np.random.default_rng(0)
    count = len(constraint.wording.templates) + len(constraint.wording.held_out)
    assert not set(constraint.wording.templates) & set(constraint.wording.held_out)
    for index in range(count):
        for drawn in rng.uniform(constraint.low, constraint.high, 5):
            budget = round(float(drawn), 2) if constraint.name == "share" else float(f"{drawn:.3g}")
            if constraint.name not in ("share", "compute"):
                budget = float(round(drawn))
            text = word_rule([constraint], [budget], [index])
            for said in (text, text.upper() + ".", f"  {text}  "):
                rule = parse_rule(said, ALL)
                assert [c.name for c in rule.constraints] == [constraint.name]
                assert float(rule.budgets[0]) == pytest.approx(budget, rel=1e-6)


def test_rules_of_several_clauses_and_fixed_sentences() -> None:
    rule = parse_rule("Ask the teacher for at most 12.5% of the words; pause for 2 words after each call.", ALL)
    assert [c.name for c in rule.constraints] == ["share", "pause"]
    assert [float(b) for b in rule.budgets] == [0.125, 2.0]
    assert float(parse_rule("do not ask the teacher", ALL).budgets[0]) == 0
    assert float(parse_rule("ask the teacher as often as you like", ALL).budgets[0]) == 1
    both = parse_rule("at most 3 calls to the teacher and at most 2 calls in a row", ALL)
    assert word_rule(both.constraints, [float(b) for b in both.budgets], [0, 0]) == (
        "ask the teacher at most 3 times; never ask the teacher more than 2 times in a row"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the rule is empty"),
        (
            "ask me anything",
            r'"ask me anything" is not a rule that is understood; understood are, for example: "ask the',
        ),
        ("ask the teacher for at most 120% of the words", "a share of the words is 0 to 100%, not 120%"),
        ("ask the teacher for at most -3% of the words", "0 to 100%, not -3%"),
        ("ask the teacher at most 2.5 times", "whole number of at least 0, not 2.5"),
        ("spend at most -1 GFLOP of the teacher", "at least 0 GFLOP"),
        ("do not ask the teacher; ask the teacher as often as you like", "contradict each other"),
        ("ask the teacher at most 2 times and at most 3 calls to the teacher", "contradict each other"),
    ],
)
def test_rules_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_rule(text, ALL)


def test_finished_rows_stay_as_they_are() -> None:
    history = start_history(SOURCE[:2])
    active = jnp.asarray([True, False])
    after = advance(history, jnp.full(2, 7, jnp.int32), jnp.ones(2, bool), active)
    assert after.length_B.tolist() == [1, 0]
    assert History(*(leaf[1:] for leaf in after)) == History(*(leaf[1:] for leaf in history))
    assert math.isclose(float(after.last_B[0]), 7)


def characters(text: str) -> list[int]:
    return [ord(c) for c in text]


def test_drawn_rules_are_what_their_words_say() -> None:
    room = words_room(ALL, characters, together=2)
    never = (0.1, 0.2, 0.25, 0.3)
    drawn = draw_rules(ALL, 400, characters, np.random.default_rng(0), room=room, held_out=never, joint_share=0.3)
    said = set()
    for row, words in enumerate(drawn.words_BxR):
        text = "".join(map(chr, words[words > 0]))
        assert text.endswith(":")
        rule = parse_rule(text, ALL)
        found = {c.name: float(b) for c, b in zip(rule.constraints, rule.budgets, strict=True)}
        active = drawn.terms.active_BxC[row]
        kept = {c.name: float(drawn.terms.budget_BxC[row, i]) for i, c in enumerate(ALL) if active[i]}
        assert found == pytest.approx(kept)
        said.add(len(found))
        if 0 < found.get("share", 0) < 1:
            assert all(abs(found["share"] - budget) > 0.005 for budget in never)
            assert not any(re.fullmatch(t.replace("{}", ".*") + ":", text) for t in make_share().wording.held_out)
    assert said == {1, 2}
    shares = drawn.terms.budget_BxC[drawn.terms.active_BxC[:, 0], 0]
    assert {0.0, 1.0} < set(np.round(shares.tolist(), 6))  # sentences without a number
    assert len(set(shares.tolist())) > 0.5 * len(shares)  # a range, not a few bins


def test_rows_under_different_rules_are_kept_each_to_its_own() -> None:
    constraints = (make_share(), make_pause())
    rng = np.random.default_rng(0)
    budgets = jnp.asarray(np.stack([rng.uniform(0, 0.6, ROWS), rng.integers(1, 6, ROWS)], 1), jnp.float32)
    which = np.arange(ROWS) % 3
    active = jnp.asarray(np.stack([which != 1, which != 0], 1))
    tokens, asked = eager(as_rule(constraints, Terms(budgets, active)), 0)
    over = [np.asarray(excess(c, budgets[:, i], SOURCE, tokens, asked)) > 1e-3 for i, c in enumerate(constraints)]
    for index in range(2):
        assert not over[index][active[:, index]].any()
        assert over[index][~active[:, index]].any()


def test_room_for_words_and_names_of_constraints() -> None:
    assert words_room([make_share()], characters) % 4 == 0
    with pytest.raises(UserError, match="a rule of 5 pieces; there is room for 4"):
        pad_words([[1, 2, 3, 4, 5]], 4)
    assert [c.name for c in known_constraints(["pause", "share"], TEACHER)] == ["pause", "share"]
    with pytest.raises(UserError, match="unknown constraint 'pauses'; known are share"):
        known_constraints(["pauses"], TEACHER)


def test_a_price_may_be_the_only_one() -> None:
    (one,) = known_constraints(["price=2.25"], TEACHER)
    assert one.price is not None and (one.name, one.low, one.high) == ("price", 2.25, 2.25)
    drawn = draw_rules([one], 20, lambda text: [ord(c) for c in text], np.random.default_rng(0), room=400)
    said = {"".join(map(chr, row[row > 0])).removesuffix(":") for row in drawn.words_BxR}
    assert len(said) > 2 and all(float(parse_rule(text, [one]).budgets[0]) == 2.25 for text in said)
    assert (drawn.terms.budget_BxC == 2.25).all()
    for name, message in (
        ("price=", "must have a number after the =, as in price=2.5"),
        ("price=-1", "must have a number"),
        ("share=20", "of a price alone"),
        ("prize=2", "prize"),
    ):
        with pytest.raises(UserError, match=message):
            known_constraints([name], TEACHER)
