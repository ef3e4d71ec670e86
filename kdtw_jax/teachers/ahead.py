"""A teacher elsewhere writes and reads ahead: what `write_outputs` and `read_ahead` make of weights, by questions.

Numbers are those of a teacher that is here up to rounding, under one condition each:

- The protocol has log-probabilities of the whole vocabulary, training those without the ids that are never written. So
  more tokens are asked for than are kept, the mass of such ids among them is taken out of all, and what those beyond
  have is not: at most the number of such ids times the least probability that is said of that place.
- At a temperature alpha below 1, mu^(1/alpha) is normalised over the tokens that are said. Those beyond have at most
  p^(1/alpha - 1) of it, p being the least probability said. Above 1 the whole vocabulary has to be said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit, Int64, Ragged
from kdtw_jax.data.tokenizer import EOS_ID
from kdtw_jax.data.unanswered import join
from kdtw_jax.errors import UserError
from kdtw_jax.losses.kl import TopK
from kdtw_jax.methods.seqkd import BeamTargets
from kdtw_jax.teachers.protocol import Prefix, RowScores, Teacher, TeacherAbout
from kdtw_jax.training.beforehand import ALONE, BATCHES_A_FILE, Made, Share, beam_buckets, make_beforehand, parts_of
from kdtw_jax.training.readings import Kept, Readings
from kdtw_jax.training.scoring import Trajectories

_LEAST = 128  # log-probabilities of a place that are asked for at least, where the teacher says as many
_PAIRS = 2**17  # ids with log-probabilities of an answer: 1 MiB, up to which kdtw serve-teacher keeps it


class Means(NamedTuple):
    """By what a teacher elsewhere is asked."""

    teacher: Teacher  # waits where it has to (`PatientTeacher`)
    under_way: int = 1  # batches at once, in threads of their own


def asked_for(about: TeacherAbout, kept: Kept, banned: Sequence[int]) -> int:
    """Counts the log-probabilities of a place that are asked for, so that `kept` can be made of them.

    Args:
      about: of the teacher.
      kept: of its distributions.
      banned: ids that are never written.

    Raises:
      UserError: it says too few; in one line that says of which k or alpha there would be enough.
    """
    most = min(about.max_top_k, about.vocab_size)
    if kept.top_k > most:
        raise UserError(
            f"the teacher {about.name} says the {most} likeliest tokens of a place at the most, and top_k is "
            f"{kept.top_k}: set top_k to {most} or less"
        )
    if kept.alpha > 1 and most < about.vocab_size:
        raise UserError(
            f"alpha is {kept.alpha:g}, above 1, for which the teacher {about.name} would have to say all "
            f"{about.vocab_size} log-probabilities of a place; it says {most}: set alpha to 1 or less"
        )
    return most if kept.alpha > 1 else min(most, max(kept.top_k + len(banned), _LEAST))


def write_elsewhere(
    name: str,
    folder: Path,
    means: Means,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    *,
    banned: tuple[int, ...],
    batches_a_file: int = BATCHES_A_FILE,
    share: Share = ALONE,
    stop_after: int | None = None,
) -> BeamTargets:
    """Has a teacher elsewhere write greedily, as `write_outputs` has one that is here; what `folder` holds stays.

    Args:
      name: beside the progress bar.
      folder: keeps what is written.
      means: whom to ask.
      data: the split whose sources are answered.
      buckets: lengths and rows of batches of training.
      banned: ids that are never written.
      batches_a_file: after so many batches a file is written.
      share: which rows are written, the others having empty targets.
      stop_after: ends after as many new files (tests of resuming), the rest being empty.

    Raises:
      UserError: the folder cannot be written or read.
      Unreachable: the teacher is not there.
    """

    def make(batch: Batch) -> list[Made]:
        real = np.flatnonzero(batch.example_B >= 0)
        prefixes = [_prefix(batch.source_BxS[i]) for i in real]
        rows = means.teacher.generate(prefixes, batch.target_BxT.shape[1], banned)
        return _placed(batch, real, [{"values": np.asarray(row, np.int32)} for row in rows])

    parts = parts_of(data, buckets, batches_a_file, share)
    how: dict[str, Any] = {"under_way": means.under_way, "stop_after": stop_after}
    made, offsets = make_beforehand(name, folder, data, parts, beam_buckets(buckets), make, **how)
    targets = Ragged(made["values"].astype(np.int32) if made else np.zeros(0, np.int32), offsets)
    some_N = targets.lengths > 0
    ended = int((targets.values[targets.offsets[1:][some_N] - 1] == EOS_ID).sum())
    return BeamTargets(dataclasses.replace(data, targets=targets, room=None), int(some_N.sum()) - ended)


def read_elsewhere(
    name: str,
    folder: Path,
    means: Means,
    data: Sequence[EncodedSplit],
    buckets: Sequence[Bucket],
    kept: Kept,
    *,
    banned: tuple[int, ...],
    batches_a_file: int = BATCHES_A_FILE,
    share: Share = ALONE,
    stop_after: int | None = None,
) -> Readings:
    """Has a teacher elsewhere read the targets of splits, as `read_ahead` has one that is here; arguments as there.

    Args:
      name: beside the progress bar.
      folder: keeps what is read.
      means: whom to ask.
      data: the splits, each with targets that it wrote; their rows come after each other.
      buckets: lengths and rows of batches, those of training.
      kept: what is kept of its distributions.
      banned: ids that are never written.
      batches_a_file: as they were written, in so many batches a file.
      share: which rows are read.
      stop_after: ends after as many new files (tests of resuming), the rest being empty.

    Raises:
      UserError: it says too little of a place, and where `folder` cannot be written or read.
      Unreachable: the teacher is not there.
    """
    ids = np.uint16 if means.teacher.about.vocab_size <= 1 << 16 else np.uint32
    asked_for(means.teacher.about, kept, banned)

    def make(batch: Batch) -> list[Made]:
        real = np.flatnonzero(batch.example_B >= 0)
        targets = [without_padding(batch.target_BxT[i]) for i in real]
        found = score_rows(means.teacher, [_prefix(batch.source_BxS[i]) for i in real], targets, kept, banned)
        rows = [
            {"log_prob": x.log_probs_T, "top": x.top_log_probs_TxK, "ids": x.top_ids_TxK.astype(ids)} for x in found
        ]
        return _placed(batch, real, rows)

    whole, parts, before = reduce(join, data), list[Int64](), 0
    for split in data:
        parts += [before + part for part in parts_of(split, buckets, batches_a_file, share)]
        before += len(split)
    how: dict[str, Any] = {"under_way": means.under_way, "stop_after": stop_after}
    made, offsets = make_beforehand(name, folder, whole, parts, buckets, make, **how)
    nothing = {"log_prob": np.zeros(0, np.float32), "top": np.zeros((0, kept.top_k), np.float32)}
    made = made or {**nothing, "ids": np.zeros((0, kept.top_k), ids)}
    return Readings(kept, whole.examples, offsets, made["log_prob"], made["top"], made["ids"])


def _places_at_once(wide: int) -> int:
    return _PAIRS // (wide + 1)


def rows_at_once(length: int, top_k: int) -> int:
    """Counts the rows of `length` tokens that are scored in one request, where `top_k` of a place are kept."""
    return max(_places_at_once(max(top_k, _LEAST)) // length, 1)


def score_rows(
    teacher: Teacher, prefixes: Sequence[Prefix], rows: Sequence[Sequence[int]], kept: Kept, banned: Sequence[int]
) -> list[RowScores]:
    """Scores rows as training has it: without the ids that are never written, and at a temperature.

    Args:
      teacher: who is asked, with answers of 1 MiB at the most.
      prefixes: what stands before the rows.
      rows: tokens, none of them `banned`.
      kept: so many of the likeliest tokens, of mu^(1/alpha), normalised; log-probabilities of the rows are by mu.
      banned: ids that are never written.

    Raises:
      UserError: the teacher says too little of a place.
    """
    wide, found, start = asked_for(teacher.about, kept, banned), list[RowScores](), 0
    while start < len(rows):
        end, room = start + 1, _places_at_once(wide) - len(rows[start])
        while end < len(rows) and len(rows[end]) <= room:
            room -= len(rows[end])
            end += 1
        said = teacher.score(prefixes[start:end], rows[start:end], wide)
        found += (without(scores, kept, banned, teacher.about) for scores in said)
        start = end
    return found


def read_batch(teacher: Teacher, rows: Batch, kept: Kept, banned: Sequence[int]) -> Trajectories:
    """Has a teacher elsewhere read the targets of a batch: what `score_paths` makes of it, as numpy arrays.

    Args:
      teacher: who is asked.
      rows: the batch.
      kept: of its distributions.
      banned: ids that are never written.

    Raises:
      UserError: the teacher says too little of a place, or its scores are not finite.
    """
    prefixes, targets = [_prefix(row) for row in rows.source_BxS], [without_padding(row) for row in rows.target_BxT]
    b, t = rows.target_BxT.shape
    log_prob_BxT = np.zeros((b, t), np.float32)
    top_BxTxK, ids_BxTxK = np.zeros((b, t, kept.top_k), np.float32), np.zeros((b, t, kept.top_k), np.int32)
    for i, scores in enumerate(score_rows(teacher, prefixes, targets, kept, banned)):
        n = len(scores.log_probs_T)
        log_prob_BxT[i, :n] = scores.log_probs_T
        # After the end nothing is looked at; that it is a distribution keeps gradients finite there.
        for filled, said in ((top_BxTxK, scores.top_log_probs_TxK), (ids_BxTxK, scores.top_ids_TxK)):
            filled[i, :n], filled[i, n:] = said, said[0]
    if not np.isfinite(log_prob_BxT).all():
        raise UserError(f"the scores of the teacher {teacher.about.name} are not finite; take another one")
    top: tuple[Any, ...] = (top_BxTxK, ids_BxTxK)
    found: Any = (rows.example_B, rows.source_BxS, rows.target_BxT, log_prob_BxT, TopK(*top))
    return Trajectories(*found)


def without(scores: RowScores, kept: Kept, banned: Sequence[int], about: TeacherAbout) -> RowScores:
    """Makes of what a teacher says of a row what is kept of it.

    Args:
      scores: of the whole vocabulary, at temperature 1.
      kept: tokens and temperature.
      banned: ids that are taken out, and their mass with them.
      about: of the teacher, for messages.

    Raises:
      UserError: too few tokens are left at a place.
    """
    said_TxW = scores.top_log_probs_TxK.astype(np.float64)
    out_TxW = np.isin(scores.top_ids_TxK, np.asarray(banned, np.int64))
    if (left := min([kept.top_k, *(~out_TxW).sum(axis=1).tolist()])) < kept.top_k:
        raise UserError(
            f"of the {said_TxW.shape[1]} tokens that the teacher {about.name} says of a place, {left} may be written, "
            f"and top_k is {kept.top_k}: set top_k to {left} or less"
        )
    mass_T = np.where(out_TxW, np.exp(said_TxW), 0.0).sum(axis=1)
    more_T = -np.log1p(-np.minimum(mass_T, 1 - 1e-12))
    order_TxK = np.argsort(out_TxW, axis=1, kind="stable")[:, : kept.top_k]  # they stay the most probable first
    top_TxK = np.take_along_axis(said_TxW, order_TxK, axis=1) + more_T[:, None]
    if kept.alpha != 1 and kept.top_k:
        sharp_TxW = np.where(out_TxW, -np.inf, said_TxW + more_T[:, None]) / kept.alpha
        peak_Tx1 = sharp_TxW.max(axis=1, keepdims=True)
        total_Tx1 = peak_Tx1 + np.log(np.exp(sharp_TxW - peak_Tx1).sum(axis=1, keepdims=True))
        top_TxK = top_TxK / kept.alpha - total_Tx1
    return RowScores(
        (scores.log_probs_T + more_T).astype(np.float32),
        np.take_along_axis(scores.top_ids_TxK, order_TxK, axis=1),
        top_TxK.astype(np.float32),
    )


def _prefix(source_S: np.ndarray) -> Prefix:
    return Prefix(tuple(without_padding(source_S)))


def without_padding(tokens_T: np.ndarray) -> list[int]:
    """The ids of a row of a batch, `tokens_T`, without the zeros after its end."""
    found: list[int] = tokens_T[tokens_T != 0].tolist()
    return found


def _placed(batch: Batch, real: np.ndarray, rows: Sequence[Made]) -> list[Made]:
    """Rows of a batch, of which fillers have what the first has."""
    found = [rows[0]] * len(batch.example_B)
    for place, row in zip(real, rows, strict=True):
        found[place] = row
    return found
