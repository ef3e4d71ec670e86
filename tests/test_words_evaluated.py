"""Students that ask for words are judged in words: writing a split, looking back, and ways to share the writing."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.constraints import make_unit
from kdtw_jax.decoding.gates import compared_gates
from kdtw_jax.evaluation.asking import evaluate_asking
from kdtw_jax.evaluation.cells import Texts
from kdtw_jax.evaluation.harness import make_harness
from kdtw_jax.evaluation.operating import costs_per_token, units_written, write_point
from kdtw_jax.evaluation.strategies import Point
from kdtw_jax.evaluation.written import Written, write_split
from kdtw_jax.text.words import WordMarks
from kdtw_jax.training.deferral import Deferral
from tests.asking import BUCKETS, DATA, PHRASINGS, STUDENT, TEACHER, WIDE, WORLD, decoder, want
from tests.counting import count_words, pieces_of, random_outputs, unit_of

SIZE = WORLD.tokenizer.vocab_size
# Every second token begins a word, so that words are short and many.
PIECES = ["", "</s>", *(("▁" if i % 2 else "") + chr(97 + i % 26) for i in range(2, SIZE))]
UNIT = make_unit("word", WordMarks(np.arange(SIZE) % 2 == 1, np.arange(SIZE) == 0))
IN_WORDS = decoder(unit=UNIT)


def slow(tokens: np.ndarray, asked: np.ndarray) -> Any:
    there = tokens != 0
    return count_words([PIECES[i] for i in tokens[there]], asked[there])


def check(written: Written) -> None:
    for i in range(len(written.texts)):
        found = slow(written.tokens_NxT[i], written.asked_NxT[i])
        told = (written.lengths_N[i], written.helped_N[i], written.calls_N[i])
        assert told == (found.length, found.helped, found.calls)


@pytest.mark.parametrize("gate", ["learned", "entropy", "oracle_regret"])
def test_guarded_outputs_keep_their_share_of_words_and_what_is_told_is_the_slow_count(gate: str) -> None:
    for budget in (0.0, 0.15, 0.5):
        written = write_split(IN_WORDS, DATA, WIDE, want(gate, budget, level=-1.0, guard=True))
        check(written)
        assert (written.helped_N <= budget * written.lengths_N + 1e-3).all()
        assert (written.excess_N <= 1e-3).all()
        np.testing.assert_allclose(written.excess_N, written.helped_N - budget * written.lengths_N, atol=1e-4)
    free = write_split(IN_WORDS, DATA, WIDE, want(gate, 0.15, level=-1.0))
    check(free)
    assert free.used == 1.0 and free.calls_N.sum() < np.count_nonzero(free.asked_NxT)


def test_other_rules_are_kept_in_words_too() -> None:
    wanted = want("entropy", 0.5, level=-1.0, guard=True)._replace(others=((0, 2.0),))
    kept = write_split(IN_WORDS, DATA, WIDE, wanted)
    check(kept)
    assert kept.calls_N.max() == 2 and (kept.excess_N <= 1e-3).all()


def test_a_study_is_told_in_words_and_says_so() -> None:
    few = want("learned")
    assert few.budget == 0.2
    sources = [WORLD.tokenizer.decode(DATA.sources[i].tolist()) for i in range(len(DATA))]
    test = Texts(DATA, sources, sources, ("exact_match",))
    found = evaluate_asking(
        "toy", IN_WORDS, PHRASINGS, test, DATA, np.arange(2, 12), BUCKETS, held_out=(0.15,), twin=None, resamples=20
    )  # fmt: skip
    assert {(row["unit"], row["account"]) for row in found["rows"]} == {("word", "output")}
    for row in found["rows"]:
        if row["gate"] == "random" and row["asked"] > 0:  # by tokens it would ask for far more words
            assert abs(row["used"] - row["asked"]) < 0.12
        if row["guard"]:
            assert row["used"] <= row["asked"] + 1e-6
    assert set(compared_gates()) == {row["gate"] for row in found["rows"]}


def test_what_strategies_mark_is_counted_by_the_same_function() -> None:
    tokens, asked = random_outputs(20, 15, 0)
    found = units_written(unit_of("word"), tokens, asked)
    for row in range(20):
        there = tokens[row] != 0
        expected = count_words([pieces_of("word")[i] for i in tokens[row][there]], asked[row][there])
        assert (found[0][row], found[1][row]) == (expected.length, expected.helped)
    plain = units_written(unit_of("token"), tokens, asked)
    np.testing.assert_array_equal(plain, [(tokens != 0).sum(1), asked.sum(1)])


def test_ways_to_share_the_writing_are_compared_in_words_and_asking_buys_them() -> None:
    width = STUDENT[0].config.d_model
    nothing = Deferral(jnp.zeros(width), jnp.zeros(()), jnp.zeros(width), jnp.ones(width))
    harness = make_harness(IN_WORDS, nothing, 1.0)
    room = PHRASINGS.of(0.2, "seen").shape[1]
    points = {
        "asking": Point("asking", "0.2", gate="learned", level=0.5, words_KxR=PHRASINGS.of(0.2, "seen")),
        "entropy": Point("entropy", "x", gate="entropy", level=1.0),
        "checks": Point("speculative", "draft 3", draft_length=3, check_end=True),
        "teacher": Point("teacher_only", "greedy", alone="teacher"),
    }
    found = {name: write_point(harness, point, DATA, WIDE, room) for name, point in points.items()}
    asked = write_split(IN_WORDS, DATA, WIDE, want("learned", 0.2))
    for name in ("tokens_NxT", "lengths_N", "calls_N", "positions_N"):
        np.testing.assert_array_equal(getattr(found["asking"], name), getattr(asked, name))
    np.testing.assert_array_equal(found["asking"].teacher_N, asked.helped_N)
    assert found["asking"].teacher_N.sum() > 0
    costs = {n: costs_per_token(o, STUDENT[0].config, TEACHER[0].config, np.ones(len(DATA))) for n, o in found.items()}
    assert costs["teacher"]["teacher_tokens"] == 1.0 and costs["asking"]["teacher_tokens"] == asked.used
    tokens = np.count_nonzero(asked.tokens_NxT)
    assert costs["asking"]["calls"] == pytest.approx(asked.calls_N.sum() / tokens)
    assert found["checks"].teacher_N.sum() > 0 and (found["checks"].teacher_N <= found["checks"].lengths_N).all()
