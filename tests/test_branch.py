"""Branching: both outputs are what a slow loop without caches writes; and what they are worth, by hand."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.constraints.history import History, histories
from kdtw_jax.decoding import generate, generate_with_help
from kdtw_jax.decoding.branch import Help, Rest, States, Writer, branch, look_ahead, outcome, write_rest
from kdtw_jax.decoding.gate import Gate, own_gate
from kdtw_jax.decoding.gates import oracle_gate, regret
from kdtw_jax.decoding.utility import UTILITIES, log_mu, log_mu_and_entropy, log_mu_per_token, nearness, ngram_f
from tests.test_help_decoding import BANNED, LENGTH, PLAIN, ROWS, SOURCE, STUDENT, TEACHER

MINE = Writer(*STUDENT, STUDENT[0].encode(STUDENT[1], SOURCE))
THEIRS = Writer(*TEACHER, TEACHER[0].encode(TEACHER[1], PLAIN))
OWN = own_gate(*STUDENT, MINE.read)
OF_REGRET = oracle_gate(regret)
ALONE = jax.jit(lambda: generate(*STUDENT, SOURCE, None, max_len=LENGTH, banned=BANNED).tokens_BxT)()
NOISE = jnp.asarray(np.random.default_rng(1).random((ROWS, LENGTH)), jnp.float32)


def helped(gate: Gate, level: float, noise: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    found = jax.jit(
        lambda: generate_with_help(
            STUDENT, TEACHER, SOURCE, PLAIN, None, noise, banned=BANNED, max_len=LENGTH,
            threshold=level, gate=gate, read_along=True,
        )
    )()  # fmt: skip
    return found.tokens_BxT, found.asked_BxT


@pytest.mark.parametrize("noise", [None, NOISE], ids=["greedy", "sampled"])
@pytest.mark.parametrize(("gate", "level"), [(OWN, 0.2), (OF_REGRET, 3.0)], ids=["own", "oracle"])
def test_an_output_goes_on_from_any_of_its_states_as_it_went_on_by_itself(
    gate: Gate, level: float, noise: jax.Array | None
) -> None:
    """Each row from another place, with what comes later overwritten by rubbish."""
    tokens, asked = helped(gate, level, noise)
    assert 0 < asked.sum() < (tokens != 0).sum()
    length = (tokens != 0).sum(axis=1)
    before = histories(PLAIN, tokens, asked)

    @jax.jit
    def go_on(states: States, first: jax.Array, asked: jax.Array) -> Rest:
        return write_rest(MINE, states, first, asked, noise, banned=BANNED, help=Help(THEIRS, gate, level))

    for shift in range(3):
        place = (jnp.arange(ROWS) * 5 + shift * 3) % length
        states = States(
            jnp.where(jnp.arange(LENGTH)[None] < place[:, None], tokens, 7),
            place,
            History(*(leaf[place, jnp.arange(ROWS)] for leaf in before)),
        )
        row = jnp.arange(ROWS)
        rest = go_on(states, tokens[row, place], asked[row, place])
        np.testing.assert_array_equal(rest.tokens_BxT, tokens)
        later = jnp.arange(LENGTH)[None] >= place[:, None]
        np.testing.assert_array_equal(rest.asked_BxT, asked & later)


def test_alone_it_is_the_students_own_output_and_a_horizon_is_its_beginning() -> None:
    states = States(jnp.zeros((ROWS, LENGTH), jnp.int32), jnp.zeros(ROWS, jnp.int32))
    first, nobody = ALONE[:, 0], jnp.zeros(ROWS, bool)
    np.testing.assert_array_equal(write_rest(MINE, states, first, nobody, banned=BANNED).tokens_BxT, ALONE)
    short = write_rest(MINE, states, first, nobody, banned=BANNED, horizon=2).tokens_BxT
    np.testing.assert_array_equal(short, jnp.where(jnp.arange(LENGTH) < 3, ALONE, 0))
    assert (short != ALONE).any()


@functools.cache
def by_two() -> tuple[States, jax.Array, jax.Array, Rest, Rest]:
    tokens = ALONE
    place = jnp.minimum(jnp.arange(ROWS), (tokens != 0).sum(axis=1) - 1)
    states = States(tokens, place)
    own = tokens[jnp.arange(ROWS), place]
    other = jnp.where(own == 9, 8, 9)
    return states, own, other, *branch(MINE, states, own, other, banned=BANNED)


def test_branches_share_their_beginning_and_part_at_the_place() -> None:
    states, _, other, mine, theirs = by_two()
    row = jnp.arange(ROWS)
    np.testing.assert_array_equal(mine.tokens_BxT, states.tokens_BxT)  # greedy: its own token leads to its own output
    np.testing.assert_array_equal(theirs.tokens_BxT[row, states.place_B], other)
    before = jnp.arange(LENGTH)[None] < states.place_B[:, None]
    np.testing.assert_array_equal(jnp.where(before, theirs.tokens_BxT, 0), jnp.where(before, states.tokens_BxT, 0))
    assert not mine.asked_BxT.any() and (theirs.asked_BxT.sum(axis=1) == 1).all()


def test_what_asking_is_worth_is_the_difference_of_what_the_teacher_makes_of_both_outputs() -> None:
    states, own, other, *both = by_two()
    reference = ALONE[::-1]
    judged = [outcome(MINE, THEIRS, rest, reference, BANNED) for rest in both]

    @jax.jit
    def worths(other: jax.Array) -> list[jax.Array]:
        arguments = (MINE, THEIRS, states, own, other)
        return [look_ahead(*arguments, u, reference, banned=BANNED) for u in UTILITIES.values()]

    for (name, utility), worth in zip(UTILITIES.items(), worths(other), strict=True):
        np.testing.assert_allclose(worth, utility(judged[1]) - utility(judged[0]), atol=1e-4, err_msg=name)
        assert (jnp.abs(worth) > 1e-6).any()
    np.testing.assert_allclose(worths(own), 0.0, atol=1e-4)  # where both say the same there is nothing to gain


def test_later_questions_have_their_price() -> None:
    states, own, other, *_ = by_two()
    history = histories(PLAIN, states.tokens_BxT, jnp.zeros((ROWS, LENGTH), bool))
    states = states._replace(history=History(*(leaf[states.place_B, jnp.arange(ROWS)] for leaf in history)))
    help, reference = Help(THEIRS, OF_REGRET, 3.0), jnp.ones((ROWS, LENGTH), jnp.int32)

    def worth(price: float) -> jax.Array:
        arguments = (MINE, THEIRS, states, own, other, log_mu, reference)
        return look_ahead(*arguments, banned=BANNED, help=help, price=price)

    mine, theirs = branch(MINE, states, own, other, banned=BANNED, help=help)
    more = theirs.asked_BxT.sum(axis=1) - 1 - mine.asked_BxT.sum(axis=1)
    assert (more != 0).any()
    np.testing.assert_allclose(worth(0.0) - worth(2.0), 2.0 * more, atol=1e-4)


def f_by_hand(one: Sequence[int], other: Sequence[int]) -> float:
    found = []
    for n in range(1, 5):
        a, b = (Counter(zip(*(x[i:] for i in range(n)), strict=False)) for x in (one, other))
        if total := sum(a.values()) + sum(b.values()):
            found.append(2 * sum((a & b).values()) / total)
    return sum(found) / len(found) if found else 1.0


def test_nearness_is_the_f_score_of_n_grams() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(1, 4, (2, 40, 9))
    for x in (one, other):
        x[np.arange(9)[None] >= rng.integers(0, 10, 40)[:, None]] = 0
    expected = [f_by_hand(a[a > 0].tolist(), b[b > 0].tolist()) for a, b in zip(one, other, strict=True)]
    assert min(expected) == 0 and 0.1 < np.mean(expected) < 0.8
    found = ngram_f(jnp.asarray(one), jnp.asarray(other))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(ngram_f(jnp.asarray(other), jnp.asarray(one)), found, atol=1e-6)


def test_utilities_of_lengths() -> None:
    """Sums reward what ends early; the form per token does not; nearness looks at neither."""
    rest = Rest(jnp.asarray([[5, 1, 0, 0], [5, 6, 7, 1]]), *jnp.zeros((2, 2, 4), bool))
    reference = jnp.asarray([[5, 6, 1, 0]] * 2)
    seen = outcome(MINE.take(jnp.arange(2)), THEIRS.take(jnp.arange(2)), rest, reference, BANNED)
    seen = seen._replace(log_mu_BxT=jnp.where(rest.tokens_BxT != 0, -0.5, 0.0))
    np.testing.assert_allclose(log_mu(seen), [-1.0, -2.0])
    np.testing.assert_allclose(log_mu_per_token(seen), [-1.5, -1.5])
    assert (log_mu_and_entropy(seen) > log_mu(seen)).all() and (seen.entropy_BxT[0, 2:] == 0).all()
    np.testing.assert_allclose(nearness(seen), ngram_f(rest.tokens_BxT, reference))
