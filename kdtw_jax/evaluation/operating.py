"""Operating points: ways to share the writing between student and teacher, on one harness with one accounting."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from kdtw_jax.constraints import Unit, histories
from kdtw_jax.data.batches import Bucket, EncodedSplit, Ragged, evaluation_batches
from kdtw_jax.evaluation.harness import Harness, write_batch
from kdtw_jax.evaluation.rows import rows_of_batch
from kdtw_jax.evaluation.strategies import Point
from kdtw_jax.finite import check_written
from kdtw_jax.models import ModelConfig, costs
from kdtw_jax.runs import Progress


class Outcome(NamedTuple):
    """What was written for N examples, and what it cost."""

    texts: list[str]
    tokens_NxT: np.ndarray  # int32, end-of-sequence included, 0 after
    lengths_N: np.ndarray  # int32, units: words where those are counted, otherwise tokens
    teacher_N: np.ndarray  # int32, those with a token of the teacher's, whatever wrote it
    calls_N: np.ndarray  # int32
    positions_N: np.ndarray  # int32, decoder positions that the teacher processed
    passes_N: np.ndarray  # int32, decoder positions that the student processed


def write_point(harness: Harness, point: Point, data: EncodedSplit, buckets: Sequence[Bucket], room: int) -> Outcome:
    """Writes an output for every example.

    Args:
      room: tokens for rules, the same for all points, so that shapes agree.

    Raises:
      UserError: scores are not finite.
    """
    point = point._replace(words_KxR=_padded(point.words_KxR, room))
    count = len(data)
    length = max(bucket.target for bucket in buckets)
    tokens = np.zeros((count, length), np.int32)
    numbers = np.zeros((5, count), np.int32)
    for batch in evaluation_batches(data, buckets):
        rows_B, real_B = rows_of_batch(data, batch.example_B)
        found = jax.device_get(write_batch(harness, point, batch, rows_B, harness.decoder.seed))
        asked_BxT = None if point.alone else found.asked_BxT[real_B]
        check_written(f"{point.method} {point.setting}", found.tokens_BxT[real_B], asked_BxT)
        tokens[rows_B[real_B], : batch.target_BxT.shape[1]] = found.tokens_BxT[real_B]
        counts = units_written(harness.decoder.unit, found.tokens_BxT, found.asked_BxT)
        for row, x_B in zip(numbers, (*counts, found.calls_B, found.positions_B, found.passes_B), strict=True):
            row[rows_B[real_B]] = x_B[real_B]
    texts = [harness.decoder.tokenizer.decode(row.tolist()) for row in tokens]
    return Outcome(texts, tokens, *numbers)


def units_written(unit: Unit, tokens_BxT: np.ndarray, asked_BxT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts the units of outputs, and those with a token of the teacher's; int32 [B] each.

    Args:
      unit: what is counted.
      tokens_BxT: int32, 0 after the end.
      asked_BxT: bool, the teacher wrote it.
    """
    if unit.marks is None:
        return (tokens_BxT != 0).sum(axis=1).astype(np.int32), asked_BxT.sum(axis=1).astype(np.int32)
    end = _histories(tokens_BxT[:, :1], tokens_BxT, asked_BxT, unit)  # of sources there is nothing to know
    return np.asarray(end.length_B[-1]), np.asarray(end.helped_B[-1])


_histories = jax.jit(histories, static_argnums=3)


def teacher_log_probs(
    harness: Harness, data: EncodedSplit, buckets: Sequence[Bucket], outputs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Returns the teacher's log-probability of each output, which students are trained to earn.

    Many outputs of an example are the same from point to point; each is looked at once.

    Args:
      outputs: int32 [N, T] each, for the N examples in their order.

    Returns:
      float64 [N] for each of the outputs, nats.
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


def costs_per_token(
    outcome: Outcome, student: ModelConfig, teacher: ModelConfig, source_N: np.ndarray
) -> dict[str, float]:
    """Returns what a point cost per output token, and the share of the teacher's units, by the table's columns.

    FLOPs are two per parameter and position (arXiv 2001.08361, section 2.1): an encoder works where its decoder does.

    Args:
      source_N: tokens of each source.
    """
    tokens = float(np.count_nonzero(outcome.tokens_NxT))
    called_N = outcome.positions_N > 0
    encoder, decoder = (2.0 * p for p in costs(teacher)[:2])
    own_encoder, own_decoder = (2.0 * p for p in costs(student)[:2])
    return {
        "teacher_tokens": float(outcome.teacher_N.sum()) / max(float(outcome.lengths_N.sum()), 1.0),
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
    """Returns milliseconds per sentence in batches of `rows`, [points]: medians over batches and repeats.

    Points are interleaved, so that whatever else the machine does meets all of them alike.

    Args:
      room: tokens for rules, as in `write_point`.
      batches: how many batches of the split are timed.
      repeats: how often each is timed, after a round that compiles.
      tick: is called after every round.
    """
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
