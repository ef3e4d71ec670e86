"""What a teacher makes of outputs that it wrote ahead: read once, for all students that learn from them.

To write and to read a demonstration costs several times what a small student's own step on it does, and every method
and seed learns from the same ones. So the teacher's likeliest tokens at each of their places are kept beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit, Int64
from kdtw_jax.errors import UserError
from kdtw_jax.losses.kl import TopK
from kdtw_jax.models import Model, Params
from kdtw_jax.training.ahead import BATCHES_A_FILE, Made, make_ahead
from kdtw_jax.training.context import WHOLE, Chunks
from kdtw_jax.training.scoring import Trajectories, score_paths


class Kept(NamedTuple):
    """What is kept of the teacher's distributions."""

    top_k: int  # of its tokens at each place
    alpha: float = 1.0  # they are those of mu^(1/alpha), normalised


@dataclass(frozen=True)
class Readings:
    """The teacher's verdict on every target of a split, X tokens in all."""

    kept: Kept
    example_N: np.ndarray  # int32, ids of the split's examples, ascending
    offsets: Int64  # [N + 1], where each begins
    log_prob_X: np.ndarray  # float32, log mu of the target's token
    top_log_prob_XxK: np.ndarray  # float32
    top_ids_XxK: np.ndarray  # unsigned

    def of(self, batch: Batch) -> Trajectories:
        """The rows of a batch as the teacher read them, numpy; the batch's targets have to be those of the split.

        Raises:
          UserError: an example is not of the split.
        """
        place_B = np.searchsorted(self.example_N, batch.example_B)
        if not np.array_equal(self.example_N[np.minimum(place_B, len(self.example_N) - 1)], batch.example_B):
            raise UserError("the teacher has not read all of these examples ahead; give it the split they are of")
        at_BxT = self.offsets[place_B][:, None] + np.arange(batch.target_BxT.shape[1])[None]
        real_BxT = batch.target_BxT != 0
        at_BxT = np.where(real_BxT, at_BxT, 0)
        rows: Any = batch
        log_prob_BxT: Any = np.where(real_BxT, self.log_prob_X[at_BxT], 0.0).astype(np.float32)
        # After the end nothing is looked at; that it is a distribution keeps gradients finite there.
        top: tuple[Any, ...] = (self.top_log_prob_XxK[at_BxT], self.top_ids_XxK[at_BxT].astype(np.int32))
        return Trajectories(rows.example_B, rows.source_BxS, rows.target_BxT, log_prob_BxT, TopK(*top))


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
    made, offsets = make_ahead(name, folder, data, buckets, make, **how)
    return Readings(kept, data.examples, offsets, made["log_prob"], made["top"], made["ids"])
