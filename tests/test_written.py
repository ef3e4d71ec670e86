"""Writing with help and looking back on it: rules, rows, devices, thresholds; on networks of random weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax import parallel
from kdtw_jax.data.batches import Bucket
from kdtw_jax.data.tokenizer import EOS_ID
from kdtw_jax.decoding import generate
from kdtw_jax.decoding.gates import compared_gates
from kdtw_jax.evaluation.calibration import calibrate
from kdtw_jax.evaluation.decode import decode_split
from kdtw_jax.evaluation.decoder import make_decoder
from kdtw_jax.evaluation.obedience import rule_excess
from kdtw_jax.evaluation.rows import spaced_pairs
from kdtw_jax.evaluation.written import DecodeSpec, review_split, write_split
from kdtw_jax.models import split_axis
from tests.asking import (
    BUCKETS,
    DATA,
    DECODER,
    KNOWN,
    LENGTH,
    PHRASINGS,
    STUDENT,
    TEACHER,
    WIDE,
    WORLD,
    decoder,
    endless,
    want,
)


@pytest.mark.parametrize("spread", [False, True])
def test_several_devices_write_and_review_what_one_does(spread: bool) -> None:
    devices = parallel.select_devices(4)
    teacher = (
        TEACHER[0],
        parallel.shard_params(TEACHER[1], devices, 2 if spread else 1, partial(split_axis, TEACHER[0].role)),
    )
    settings = {"alpha": 1.0, "sampled_gate": True, "sampled_tokens": True, "seed": 3}
    one, several = (
        make_decoder(STUDENT, other, WORLD.tokenizer, KNOWN, **settings, devices=chosen)  # type: ignore[arg-type]
        for other, chosen in ((TEACHER, None), (teacher, devices))
    )
    data = spaced_pairs(WORLD.data, 37)  # a number that does not divide
    rows = (BUCKETS[0]._replace(rows=37),)
    for wanted in (want("learned"), want("learned", guard=True), want("oracle_regret", level=1.0)):
        written = [write_split(each, data, rows, wanted) for each in (one, several)]
        for x, y in zip(*(w[1:] for w in written), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-4)
        assert 0 < written[0].calls_N.sum() < written[0].lengths_N.sum()
        reviews = [review_split(each, data, rows, wanted, written[0]) for each in (one, several)]
        for x, y in zip(*reviews, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-4)


def test_gates_thresholds_budgets_words_and_guards_change_without_a_new_trace() -> None:
    traces = []
    model, params = STUDENT

    def counting(*args: Any) -> Any:
        traces.append(1)
        return model.extend(*args)

    counted = decoder((model._replace(extend=counting), params))
    write_split(counted, DATA, WIDE, want("learned"))
    first = len(traces)
    assert first
    for gate in compared_gates():
        write_split(counted, DATA, WIDE, want(gate, 0.35, level=0.7, guard=True))
    assert len(traces) == first


@pytest.mark.parametrize("gate", ["entropy", "max_prob", "oracle_kl", "oracle_regret"])
def test_calibration_finds_the_level_of_a_wanted_use(gate: str) -> None:
    silent = write_split(DECODER, DATA, WIDE, want(gate, 0.3, level=np.inf))
    assert silent.used == 0
    scores = silent.score_NxT[silent.tokens_NxT != 0]
    level, used, _ = calibrate(DECODER, DATA, WIDE, want(gate, 0.3), scores, tries=6)
    assert abs(used - 0.3) < 0.03
    assert write_split(DECODER, DATA, WIDE, want(gate, 0.3, level=level)).used == used


@pytest.mark.parametrize("gate", compared_gates())
def test_guarded_outputs_never_exceed_their_rule(gate: str) -> None:
    # Eager: every gate would ask everywhere but for the guard (the random one by its probability).
    level = 1.0 if gate == "random" else -1.0
    for budget in (0.0, 0.15, 0.5):
        written = write_split(DECODER, DATA, WIDE, want(gate, budget, level=level, guard=True))
        assert (written.calls_N <= budget * written.lengths_N + 1e-3).all()
        assert (written.calls_N + 1 > budget * written.lengths_N).all()  # eager, it asks for all it may
        assert (written.excess_N <= 1e-3).all()
        np.testing.assert_allclose(written.excess_N, written.calls_N - budget * written.lengths_N, atol=1e-4)
    free = write_split(DECODER, DATA, WIDE, want(gate, 0.15, level=level))
    assert free.used == 1.0
    assert (free.excess_N > 0).all()


def test_other_constraints_and_conjunctions_are_enforced_and_their_excess_is_told() -> None:
    for share, calls in ((None, 2.0), (0.5, 3.0), (0.1, 9.0)):
        wanted = DecodeSpec("entropy", PHRASINGS.of(0.2, "seen"), share, level=-1.0, others=((0, calls),))
        free, kept = (write_split(DECODER, DATA, WIDE, wanted._replace(guard=guard)) for guard in (False, True))
        for written in (free, kept):
            over = [written.calls_N - calls] + ([] if share is None else [written.calls_N - share * written.lengths_N])
            np.testing.assert_allclose(written.excess_N, np.max(over, axis=0), atol=1e-4)
        assert (free.excess_N > 0).any() and (kept.excess_N <= 1e-3).all()
        assert share is not None or kept.calls_N.max() == calls


def test_outputs_stand_in_the_order_of_examples_whatever_the_batches() -> None:
    """By length into buckets, and the last batch filled up."""
    mixed = (Bucket(8, 12, 20), Bucket(12, 12, 24))
    one, other = (write_split(DECODER, DATA, buckets, want("learned", level=0.9)) for buckets in (WIDE, mixed))
    assert 0 < (DATA.sources.lengths <= 8).sum() < len(DATA)
    np.testing.assert_array_equal(one.tokens_NxT, other.tokens_NxT)
    np.testing.assert_array_equal(one.asked_NxT, other.asked_NxT)
    assert one.texts == other.texts
    assert len(set(one.texts)) > 10


def test_a_review_sees_what_the_oracle_saw() -> None:
    wanted = want("oracle_kl", level=2.0)
    written = write_split(DECODER, DATA, WIDE, wanted)
    review = review_split(DECODER, DATA, WIDE, wanted, written)
    np.testing.assert_allclose(review.kl_NxT, written.score_NxT, atol=2e-4)
    assert review.cost_N.std() > 0


def test_outputs_say_how_many_of_them_did_not_end() -> None:
    model, params = TEACHER
    outputs = decode_split("t", model, params, DATA, WIDE, WORLD.tokenizer)
    source = DATA.sources.padded(np.arange(len(DATA)), LENGTH)
    tokens = generate(model, params, jnp.asarray(source), None, max_len=LENGTH, banned=WORLD.banned).tokens_BxT
    ended = (np.asarray(tokens) == EOS_ID).any(axis=1)
    assert 0 < ended.sum() < len(DATA)
    assert outputs.unfinished == pytest.approx(1 - ended.mean())
    assert decode_split("t", model, params, DATA, WIDE, endless()).unfinished == 1
    ends = replace(WORLD.tokenizer, banned_ids=tuple(i for i in range(WORLD.tokenizer.vocab_size) if i != EOS_ID))
    few = spaced_pairs(DATA, WIDE[0].rows - 1)  # rows that fill the last batch up are no outputs
    assert len(few) % WIDE[0].rows and decode_split("t", model, params, few, WIDE, ends).unfinished == 0
    written = write_split(DECODER, DATA, WIDE, want("random", level=1.0))  # by the teacher alone
    assert written.unfinished == pytest.approx(outputs.unfinished)
    assert rule_excess(written)["unfinished"] == written.unfinished
