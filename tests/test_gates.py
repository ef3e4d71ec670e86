"""Gates: their scores are what whole passes of both models say; on networks of random weights."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.decoding import gates
from kdtw_jax.decoding.gate import Gate
from kdtw_jax.decoding.view import encoder_inputs
from kdtw_jax.evaluation.written import write_split
from tests.asking import (
    DATA,
    DECODER,
    LENGTH,
    STUDENT,
    WIDE,
    WORLD,
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
