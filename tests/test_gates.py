"""Gates: their scores are what whole passes of both models say; on networks of random weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.constraints import start_history
from kdtw_jax.decoding import gates, generate
from kdtw_jax.decoding.ahead import Ahead, drafts_gate, for_rows
from kdtw_jax.decoding.branch import States, Writer, branch, look_ahead
from kdtw_jax.decoding.gate import DecodeState, Gate, stateless
from kdtw_jax.decoding.utility import log_mu, nearness, ngram_f
from kdtw_jax.decoding.view import encoder_inputs
from kdtw_jax.evaluation.written import write_split
from tests.asking import (
    DATA,
    DECODER,
    LENGTH,
    STUDENT,
    TEACHER,
    WIDE,
    WORLD,
    decoder,
    distributions,
    want,
)


def score_by_hand(gate: str, pi: np.ndarray, mu: np.ndarray) -> np.ndarray:
    p = np.exp(pi)
    if gate == "entropy":
        return -np.where(p > 0, p * np.where(p > 0, pi, 0.0), 0.0).sum(-1)
    if gate == "max_prob":
        return 1 - p.max(-1)
    if gate == "oracle_kl":
        return (p * (np.where(p > 0, pi, 0.0) - np.where(p > 0, mu, 0.0))).sum(-1)
    return mu.max(-1) - np.take_along_axis(mu, pi.argmax(-1)[..., None], -1)[..., 0]


SOURCE = jnp.asarray(WORLD.data.sources.padded(np.arange(6), LENGTH))

TOLD = jnp.asarray(WORLD.data.sources.padded(np.arange(6, 12), LENGTH))  # the student reads another text


def check_scores(gate: str, written: Any, source: Any, read: Any, threshold: float) -> None:
    tokens, score, asked = (np.asarray(x) for x in written)
    pi, mu = (np.asarray(x, np.float64) for x in distributions(jnp.asarray(tokens), source, read))
    by_hand, mask = score_by_hand(gate, pi, mu), tokens != 0
    np.testing.assert_allclose(score[mask], by_hand[mask], atol=2e-4)
    clear = mask & (np.abs(by_hand - threshold) > 1e-3)
    np.testing.assert_array_equal(asked[clear], by_hand[clear] > threshold)
    assert 0 < asked.sum() < mask.sum()


@pytest.mark.parametrize("gate", ["entropy", "max_prob", "oracle_kl", "oracle_regret"])
def test_rival_gates_score_what_whole_passes_of_both_models_say(gate: str) -> None:
    silent = write_split(DECODER, DATA, WIDE, want(gate, level=np.inf))
    wanted = want(gate, level=float(np.median(silent.score_NxT[silent.tokens_NxT != 0])))
    found = write_split(DECODER, DATA, WIDE, wanted)
    source = jnp.asarray(DATA.sources.padded(np.arange(len(DATA)), LENGTH))
    words = wanted.words_KxR[np.arange(len(DATA)) % len(wanted.words_KxR)]  # the phrasings in turn
    read, _ = encoder_inputs(STUDENT[0].config, jnp.asarray(words), source)
    check_scores(gate, (found.tokens_NxT, found.score_NxT, found.asked_NxT), source, read, wanted.level)


def test_the_random_gate_asks_never_always_or_at_its_rate() -> None:
    for level, low, high in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.3, 0.22, 0.38)):
        assert low <= write_split(DECODER, DATA, WIDE, want("random", level=level)).used <= high
    gate: Gate = gates.random_gate(0.25)
    state: Any = type("M", (), {"history": type("H", (), {"length_B": jnp.zeros(3, jnp.int32)})()})()
    np.testing.assert_array_equal(gate.score((), state)[0], [0.25] * 3)


AHEAD = decoder(gates=("oracle_rest", "oracle_nearness"))


def worth_by_hand(utility: Any, read: jax.Array, source: jax.Array, tokens: jax.Array) -> tuple[np.ndarray, ...]:
    """What an answer is worth at every state of written rows, the teacher's choice there, and where choices differ."""
    choices = [x.argmax(-1).astype(jnp.int32) for x in distributions(tokens, source, read)]
    pair = ((STUDENT, read), (TEACHER, source))
    writers = [Writer(model, params, model.encode(params, text)) for (model, params), text in pair]
    reference = generate(*TEACHER, source, None, max_len=LENGTH, banned=WORLD.banned).tokens_BxT

    @jax.jit
    def at(place: jax.Array) -> jax.Array:
        states = States(tokens, jnp.full(len(tokens), place))
        return look_ahead(*writers, states, *(c[:, place] for c in choices), utility, reference, banned=WORLD.banned)

    return np.stack([at(t) for t in range(LENGTH)], 1), np.asarray(choices[1]), np.asarray(choices[0] != choices[1])


@pytest.mark.parametrize(("gate", "utility"), [("oracle_rest", log_mu), ("oracle_nearness", nearness)])
def test_an_oracle_that_looks_ahead_asks_where_what_follows_is_worth_more(gate: str, utility: Any) -> None:
    """In every state that it visits, with help before or not; and there the teacher writes."""
    source = jnp.asarray(DATA.sources.padded(np.arange(len(DATA)), LENGTH))
    levels = [np.inf, 0.0]
    for level in levels:
        wanted = want(gate, level=level)
        found = write_split(AHEAD, DATA, WIDE, wanted)
        words = wanted.words_KxR[np.arange(len(DATA)) % len(wanted.words_KxR)]
        read, _ = encoder_inputs(STUDENT[0].config, jnp.asarray(words), source)
        worth, theirs, differ = worth_by_hand(utility, read, source, jnp.asarray(found.tokens_NxT))
        mask = found.tokens_NxT != 0
        np.testing.assert_allclose(found.score_NxT[mask], np.where(differ, worth, 0.0)[mask], atol=1e-3)
        np.testing.assert_array_equal(found.asked_NxT, mask & (found.score_NxT > level))
        np.testing.assert_array_equal(found.tokens_NxT[found.asked_NxT], theirs[found.asked_NxT])
    assert 0 < found.asked_NxT.sum() < (differ & mask).sum()


def test_only_wanted_rows_are_computed_some_at_a_time() -> None:
    rng, value = np.random.default_rng(0), jnp.arange(1.0, 14.0)
    for count in (0, 1, 4, 5, 13):
        wanted = jnp.asarray(rng.permutation(13) < count)
        found = jax.jit(lambda wanted: for_rows(wanted, lambda row: value[row], 4))(wanted)
        np.testing.assert_array_equal(found, jnp.where(wanted, value, 0.0))
    nobody = jnp.zeros(13, bool)
    np.testing.assert_array_equal(for_rows(nobody, lambda row: jnp.full(len(row), jnp.nan), 4), 0.0)


def test_drafts_are_drawn_above_a_floor_and_what_they_say_is_how_far_they_lead_apart() -> None:
    """And their positions are counted."""
    source = jnp.asarray(DATA.sources.padded(np.arange(16), LENGTH))
    model, params = STUDENT
    reader = Writer(model, params, model.encode(params, source))
    tokens = jax.jit(lambda: generate(*STUDENT, source, None, max_len=LENGTH, banned=WORLD.banned).tokens_BxT)()
    log_pi = distributions(tokens, source, source)[0]
    first, second = jnp.moveaxis(jax.lax.top_k(log_pi, 2)[1], -1, 0)
    row, expected = jnp.arange(16), jnp.linspace(-1.0, 2.0, 16)
    gate = drafts_gate(Ahead(reader, WORLD.banned), stateless(lambda state: expected), 0.5)
    place = jnp.minimum(row % 5, (tokens != 0).sum(axis=1) - 1)
    before = jnp.where(jnp.arange(LENGTH)[None] < place[:, None], tokens, 0)
    history = start_history(source)._replace(length_B=place, tokens_B=place)
    state = DecodeState(log_pi[row, place], jnp.zeros((16, 1)), before, history)
    score, spent = jax.jit(gate.score)(jnp.full(16, 100), state)
    own, other = branch(reader, States(tokens, place), first[row, place], second[row, place], banned=WORLD.banned)
    apart = 1 - ngram_f(own.tokens_BxT, other.tokens_BxT)
    drawn = expected > 0.5
    np.testing.assert_allclose(score, jnp.where(drawn, expected * apart, 0.0), atol=1e-5)
    positions = sum((draft.tokens_BxT != 0).sum(axis=1) - place for draft in (own, other))
    np.testing.assert_array_equal(spent, 100 + jnp.where(drawn, positions, 0))
    assert drawn.any() and len(np.unique(score[drawn])) > 3
    assert jax.jit(gate.score)((), state)[1] == ()
