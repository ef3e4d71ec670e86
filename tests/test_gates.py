"""Gates: their scores are what whole passes of both models say; on networks of random weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.decoding import gates, generate
from kdtw_jax.decoding.ahead import for_rows
from kdtw_jax.decoding.branch import States, Writer, look_ahead
from kdtw_jax.decoding.gate import Gate
from kdtw_jax.decoding.utility import log_mu, nearness
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


AHEAD = decoder(gates=gates.compared_gates(ahead=True))


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
