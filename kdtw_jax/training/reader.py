"""A teacher that reads its outputs ahead, in files of a few batches each, by which an interrupted job goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit
from kdtw_jax.errors import UserError
from kdtw_jax.models import Model, Params
from kdtw_jax.training.beforehand import BATCHES_A_FILE, Made, make_beforehand
from kdtw_jax.training.context import WHOLE, Chunks
from kdtw_jax.training.readings import Kept, Readings
from kdtw_jax.training.scoring import Trajectories, score_paths


def read_ahead(
    name: str,
    folder: Path,
    teacher: tuple[Model, Params],
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    kept: Kept,
    *,
    banned: tuple[int, ...],
    devices: parallel.Devices,
    chunks: Chunks = WHOLE,
    batches_a_file: int = BATCHES_A_FILE,
    stop_after: int | None = None,
) -> Readings:
    """Has the teacher read the targets of a split; what `folder` holds is not read anew.

    Args:
      name: beside the progress bar.
      folder: keeps what is read.
      teacher: the model and its parameters.
      data: the split.
      buckets: lengths and rows of batches, those of training.
      kept: what is kept of its distributions.
      banned: ids that are never written.
      devices: where it reads.
      chunks: how much of the distributions is held at once.
      batches_a_file: after so many batches a file is written.
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

    how: dict[str, Any] = {"batches_a_file": batches_a_file, "stop_after": stop_after}
    made, offsets = make_beforehand(name, folder, data, buckets, make, **how)
    return Readings(kept, data.examples, offsets, made["log_prob"], made["top"], made["ids"])
