"""Operating points: ways to share the writing between student and teacher, on one harness with one accounting."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit, Ragged, evaluation_batches
from kdtw_jax.decoding.draft import Checked, generate_with_checks
from kdtw_jax.decoding.gate import DecodeState, Gate, stateless
from kdtw_jax.decoding.gates import GATES, GateContext, GateEntry, find_gate, score_by
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import generate
from kdtw_jax.decoding.strategy import Strategy, Verdict
from kdtw_jax.decoding.view import encoder_inputs
from kdtw_jax.evaluation.helped import Decoder, places
from kdtw_jax.evaluation.strategies import Point, every_strategy
from kdtw_jax.finite import check_written
from kdtw_jax.models import Model, ModelConfig, Params, costs, shift_right
from kdtw_jax.runs import Progress
from kdtw_jax.training.deferral import Deferral


class Outcome(NamedTuple):
    """What was written for N examples, and what it cost."""

    texts: list[str]
    tokens_NxT: np.ndarray  # int32, end-of-sequence included, 0 after
    lengths_N: np.ndarray  # int32, tokens
    teacher_N: np.ndarray  # int32, those that the teacher wrote
    calls_N: np.ndarray  # int32
    positions_N: np.ndarray  # int32, decoder positions that the teacher processed
    passes_N: np.ndarray  # int32, decoder positions that the student processed


class Harness(NamedTuple):
    """Student, teacher and one program for all points; `make_harness` makes it."""

    decoder: Decoder
    deferral: Deferral
    gates: tuple[str, ...]  # that its program has, by number
    judges: Mapping[str, int]  # the number of each strategy's
    write: Callable[..., Checked]
    alone: Mapping[str, Callable[..., jax.Array]]  # each model's own greedy outputs
    reward: Callable[..., jax.Array]  # (teacher's params, source_BxS, tokens_BxT) -> float32 [B]


def make_harness(decoder: Decoder, deferral: Deferral, alpha: float) -> Harness:
    """Tokens are greedy. What changes from point to point is an argument: there is one trace a shape."""
    (model, _), (other, _) = decoder.student, decoder.teacher
    banned = decoder.tokenizer.banned_ids
    gates = {name: entry for name, entry in GATES.items() if not entry.oracle}
    strategies = every_strategy()
    judges = list(dict.fromkeys(sharing.judge for sharing in strategies.values()))
    judge_of = {name: judges.index(sharing.judge) for name, sharing in strategies.items()}

    @jax.jit
    def write(
        params: tuple[Params, Params],
        deferral: Deferral,
        source_BxS: jax.Array,
        words_BxR: jax.Array,
        noise_BxT: jax.Array,
        gate: jax.Array,  # int32 [], of the gates
        drawn: jax.Array,  # bool [], its decisions are
        judge: jax.Array,  # int32 [], of the judges
        numbers: tuple[
            jax.Array, ...
        ],  # level, number, summed, draft length, end checked, tokens_per_call, verify_at_end
    ) -> Checked:
        level, number, summed, draft_length, check_end, tokens_per_call, verify_at_end = numbers
        read_BxX, rule_BxX = encoder_inputs(model.config, words_BxR, source_BxS)
        rule = model.encode(params[0], rule_BxX)

        context = GateContext(model, params[0], rule, alpha, level, deferral.logit)
        asking = score_by([_by_threshold(entry, context, noise_BxT) for entry in gates.values()], gate)
        made = [one(number) for one in judges]

        def verdict(log_pi: jax.Array, log_mu: jax.Array, draft_BxN: jax.Array, noise: jax.Array | None) -> Verdict:
            options = [lambda *args, one=one: one(*args, None) for one in made]
            found: Verdict = jax.lax.switch(judge, options, log_pi, log_mu, draft_BxN)
            return found

        strategy = Strategy(
            verdict,
            asking,
            jnp.where(drawn, 0.0, level),
            summed,
            draft_length,
            check_end,
            tokens_per_call,
            verify_at_end,
        )
        return generate_with_checks(
            (model, params[0]),
            (other, params[1]),
            read_BxX,
            source_BxS,
            None,
            strategy,
            banned=banned,
            max_len=noise_BxT.shape[1],
        )

    def own(model: Model, params: Params, source_BxS: jax.Array, length: int) -> jax.Array:
        return generate(model, params, source_BxS, None, max_len=length, banned=banned).tokens_BxT

    alone = {name: jax.jit(partial(own, m), static_argnums=2) for name, m in (("student", model), ("teacher", other))}

    @jax.jit
    def reward(params: Params, source_BxS: jax.Array, tokens_BxT: jax.Array) -> jax.Array:
        decoded = other.decode(params, other.encode(params, source_BxS), shift_right(tokens_BxT))
        log_mu_BxTxV = log_policy(decoded.logits_BxTxV, banned)
        taken_BxT = jnp.take_along_axis(log_mu_BxTxV, tokens_BxT[..., None], axis=-1)[..., 0]
        return jnp.sum(jnp.where(tokens_BxT != 0, taken_BxT, 0.0), axis=1)

    return Harness(decoder, deferral, tuple(gates), judge_of, write, alone, reward)


def write_batch(harness: Harness, point: Point, batch: Batch, rows_B: np.ndarray, seed: int) -> Checked:
    """Of a batch, whose rows are those of the split; they take the phrasings of the point's rule in turn."""
    params = {"student": harness.decoder.student[1], "teacher": harness.decoder.teacher[1]}
    if point.alone:
        tokens = harness.alone[point.alone](params[point.alone], batch.source_BxS, batch.target_BxT.shape[1])
        return _by_one(tokens, by_teacher=point.alone == "teacher")
    words_KxR = np.zeros((1, 4), np.int32) if point.words_KxR is None else point.words_KxR
    noise = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), int(rows_B[0])), batch.target_BxT.shape)
    return harness.write(
        (params["student"], params["teacher"]),
        harness.deferral,
        batch.source_BxS,
        words_KxR[rows_B % len(words_KxR)],
        noise,
        np.int32(harness.gates.index(point.gate)),
        np.bool_(find_gate(point.gate).drawn),
        np.int32(harness.judges[point.method]),
        (
            np.float32(point.level),
            np.float32(point.number),
            np.bool_(point.summed),
            np.int32(point.draft_length),
            np.bool_(point.check_end),
            np.int32(point.tokens_per_call),
            np.bool_(point.verify_at_end),
        ),
    )


def write_point(harness: Harness, point: Point, data: EncodedSplit, buckets: Sequence[Bucket], room: int) -> Outcome:
    """Writes an output for every example. `room`: tokens for rules, the same for all points, so that shapes agree.
    Raises UserError where scores are not finite."""
    point = point._replace(words_KxR=_padded(point.words_KxR, room))
    count = len(data)
    length = max(bucket.target for bucket in buckets)
    tokens = np.zeros((count, length), np.int32)
    numbers = np.zeros((4, count), np.int32)
    for batch in evaluation_batches(data, buckets):
        rows_B, real_B = places(data, batch.example_B)
        found = jax.device_get(write_batch(harness, point, batch, rows_B, harness.decoder.seed))
        asked_BxT = None if point.alone else found.asked_BxT[real_B]
        check_written(f"{point.method} {point.setting}", found.tokens_BxT[real_B], asked_BxT)
        tokens[rows_B[real_B], : batch.target_BxT.shape[1]] = found.tokens_BxT[real_B]
        for row, x_B in zip(
            numbers, (found.asked_BxT.sum(1), found.calls_B, found.positions_B, found.passes_B), strict=True
        ):
            row[rows_B[real_B]] = x_B[real_B]
    texts = [harness.decoder.tokenizer.decode(row.tolist()) for row in tokens]
    return Outcome(texts, tokens, (tokens != 0).sum(1).astype(np.int32), *numbers)


def rewards(
    harness: Harness, data: EncodedSplit, buckets: Sequence[Bucket], outputs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The teacher's log-probability of each output, nats, [N] for tokens [N, T]: what students are trained to earn.

    Many outputs of an example are the same from point to point; each is looked at once.
    """
    keys = [[(i, row[row != 0].tobytes()) for i, row in enumerate(tokens_NxT)] for tokens_NxT in outputs]
    place = {key: x for x, key in enumerate(dict.fromkeys(key for some in keys for key in some))}
    sources = Ragged.pack([data.sources[i].tolist() for i, _ in place])
    targets = Ragged.pack([np.frombuffer(written, np.int32).tolist() for _, written in place])
    distinct = EncodedSplit(sources, targets, np.arange(len(place), dtype=np.int32), 0, 0, 0)
    found_X = np.zeros(len(place))
    with Progress("what outputs earn", total=len(place)) as bar:
        done = 0
        for batch in evaluation_batches(distinct, buckets):
            real_B = batch.example_B >= 0
            earned_B = harness.reward(harness.decoder.teacher[1], batch.source_BxS, batch.target_BxT)
            found_X[batch.example_B[real_B]] = np.asarray(earned_B)[real_B]
            done += int(real_B.sum())
            bar.update(done)
    return [found_X[[place[key] for key in some]] for some in keys]


def _padded(words_KxR: np.ndarray | None, room: int) -> np.ndarray:
    if words_KxR is None:
        return np.zeros((1, room), np.int32)
    return np.pad(words_KxR, ((0, 0), (0, room - words_KxR.shape[1])))


def per_token(outcome: Outcome, student: ModelConfig, teacher: ModelConfig, source_N: np.ndarray) -> dict[str, float]:
    """The accounting of a point, per output token. FLOPs are two a parameter and position (arXiv 2001.08361, section
    2.1): an encoder works where its decoder does."""
    tokens = float(outcome.lengths_N.sum())
    called_N = outcome.positions_N > 0
    encoder, decoder = (2.0 * p for p in costs(teacher)[:2])
    own_encoder, own_decoder = (2.0 * p for p in costs(student)[:2])
    return {
        "teacher_tokens": float(outcome.teacher_N.sum()) / tokens,
        "calls": float(outcome.calls_N.sum()) / tokens,
        "positions": float(outcome.positions_N.sum()) / tokens,
        "no_call_share": float((~called_N).mean()),
        "teacher_flops": float((encoder * source_N * called_N + decoder * outcome.positions_N).sum()) / tokens,
        "student_flops": float((own_encoder * source_N * (outcome.passes_N > 0) + own_decoder * outcome.passes_N).sum())
        / tokens,
    }


def time_points(
    harness: Harness,
    points: Sequence[Point],
    data: EncodedSplit,
    bucket: Bucket,
    rows: int,
    room: int,
    *,
    batches: int,
    repeats: int,
    tick: Callable[[], None],
) -> np.ndarray:
    """Milliseconds a sentence in batches of `rows`, [points]: medians over batches and repeats, points interleaved, so
    that whatever else the machine does meets all of them alike."""
    some = list(evaluation_batches(data, [bucket._replace(rows=rows)]))[:batches]
    rows_B = np.arange(rows)
    found = np.zeros((repeats, len(some), len(points)))
    for repeat in range(-1, repeats):  # the first round compiles and warms up
        for i, batch in enumerate(some):
            for j, point in enumerate(points):
                padded = point._replace(words_KxR=_padded(point.words_KxR, room))
                started = time.perf_counter()
                jax.block_until_ready(write_batch(harness, padded, batch, rows_B, 0))
                if repeat >= 0:
                    found[repeat, i, j] = 1000 * (time.perf_counter() - started) / rows
        tick()
    medians: np.ndarray = np.median(found, axis=0).mean(axis=0)
    return medians


def _by_one(tokens_BxT: jax.Array, *, by_teacher: bool) -> Checked:
    mask_BxT = tokens_BxT != 0
    length_B, nothing_B = mask_BxT.sum(axis=1), jnp.zeros(len(tokens_BxT), jnp.int32)
    counts = (length_B, length_B, nothing_B) if by_teacher else (nothing_B, nothing_B, length_B)
    return Checked(tokens_BxT, mask_BxT & by_teacher, mask_BxT, jnp.any(tokens_BxT == 1, axis=1), *counts)


def _by_threshold(entry: GateEntry, context: GateContext, noise_BxT: jax.Array) -> Gate:
    """A gate that asks where its score is above a level; one whose decisions are drawn, above 0."""
    gate = entry.make(context)
    if not entry.drawn:
        return gate

    def score(state: DecodeState) -> jax.Array:
        place_B = jnp.minimum(state.history.length_B, noise_BxT.shape[1] - 1)
        probability_B: jax.Array = gate.score((), state)[0]
        return probability_B - noise_BxT[jnp.arange(len(place_B)), place_B]

    return stateless(score)
