"""A teacher that reads its outputs ahead, in the parts in which it wrote them, by which an interrupted job goes on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit, Int64
from kdtw_jax.data.unanswered import join
from kdtw_jax.errors import UserError
from kdtw_jax.models import Model, Params
from kdtw_jax.training.beforehand import ALONE, BATCHES_A_FILE, Made, Share, make_beforehand, parts_of
from kdtw_jax.training.context import WHOLE, Chunks
from kdtw_jax.training.readings import Kept, Readings
from kdtw_jax.training.scoring import Trajectories, score_paths


def read_ahead(
    name: str,
    folder: Path,
    teacher: tuple[Model, Params],
    data: Sequence[EncodedSplit],
    buckets: Sequence[Bucket],
    kept: Kept,
    *,
    banned: tuple[int, ...],
    devices: parallel.Devices,
    chunks: Chunks = WHOLE,
    batches_a_file: int = BATCHES_A_FILE,
    share: Share = ALONE,
    stop_after: int | None = None,
) -> Readings:
    """Has the teacher read the targets of splits; what `folder` holds is not read anew.

    Args:
      name: beside the progress bar.
      folder: keeps what is read.
      teacher: the model and its parameters.
      data: the splits, each with targets that it wrote; their rows come after each other.
      buckets: lengths and rows of batches, those of training.
      kept: what is kept of its distributions.
      banned: ids that are never written.
      devices: where it reads.
      chunks: how much of the distributions is held at once.
      batches_a_file: as they were written, in so many batches a file.
      share: which rows are read.
      stop_after: ends after as many new files (tests of resuming), the rest being empty.

    Raises:
      UserError: the teacher's scores are not finite, as `parallel.shard` does, and where `folder` cannot be written or
        read.
    """
    model, params = teacher
    ids = np.uint16 if model.config.vocab_size <= 1 << 16 else np.uint32

    def score(params: Params, example: jax.Array, source: jax.Array, tokens: jax.Array) -> Trajectories:
        how: dict[str, Any] = {"top_k": kept.top_k, "alpha": kept.alpha, "banned": banned, **chunks._asdict()}
        return score_paths(model, params, example, source, tokens, **how)

    reading = parallel.map_batch(score, parallel.place_params(params, devices))

    def make(batch: Batch) -> list[Made]:
        found: Any = jax.device_get(reading(batch.example_B, batch.source_BxS, batch.target_BxT))
        if not np.isfinite(found.teacher_log_prob_BxT).all():
            raise UserError(f"{name}: the teacher's scores are not finite; take another one, or compute in float32")
        rows = zip((batch.target_BxT != 0).sum(axis=1), found.teacher_log_prob_BxT, *found.top, strict=True)
        return [{"log_prob": x[:n], "top": top[:n], "ids": at[:n].astype(ids)} for n, x, top, at in rows]

    whole, parts, before = reduce(join, data), list[Int64](), 0
    for split in data:
        parts += [before + part for part in parts_of(split, buckets, batches_a_file, share)]
        before += len(split)
    made, offsets = make_beforehand(name, folder, whole, parts, buckets, make, stop_after=stop_after)
    nothing = {"log_prob": np.zeros(0, np.float32), "top": np.zeros((0, kept.top_k), np.float32)}
    made = made or {**nothing, "ids": np.zeros((0, kept.top_k), ids)}
    return Readings(kept, whole.examples, offsets, made["log_prob"], made["top"], made["ids"])
