"""What a teacher makes of outputs that it wrote ahead: read once, for all students that learn from them.

To write and to read a demonstration costs several times what a small student's own step on it does, and every method
and seed learns from the same ones. So the teacher's likeliest tokens at each of their places are kept beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from kdtw_jax.data.batches import Batch, Int64
from kdtw_jax.decoding.elsewhere import Answer
from kdtw_jax.errors import UserError
from kdtw_jax.losses.kl import TopK
from kdtw_jax.training.scoring import Trajectories


class Reader(Protocol):
    """A teacher elsewhere that reads rows while a student is trained."""

    def __call__(self, rows: Batch, kept: Kept) -> Callable[[], Trajectories]:
        """Asks for its opinion of the targets of `rows`, now; what it returns waits for the answer, numpy arrays.

        One row after the other is asked for, in the order of the calls.
        """
        ...


class Answering(Protocol):
    """A teacher elsewhere that is asked for tokens while a student writes."""

    def __call__(self, source_BxS: np.ndarray, kept: Kept) -> Answer:
        """Returns whom to ask about outputs of `source_BxS`; it says at least the tokens of a place that are `kept`."""
        ...


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
          UserError: an example is not of the split, or its target is of another length.
        """
        place_B = np.searchsorted(self.example_N, batch.example_B)
        if not np.array_equal(self.example_N[np.minimum(place_B, len(self.example_N) - 1)], batch.example_B):
            raise UserError("the teacher has not read all of these examples ahead; give it the split they are of")
        at_BxT = self.offsets[place_B][:, None] + np.arange(batch.target_BxT.shape[1])[None]
        real_BxT = batch.target_BxT != 0
        if not np.array_equal(real_BxT.sum(axis=1), (self.offsets[1:] - self.offsets[:-1])[place_B]):
            raise UserError("the teacher has read other targets of these examples ahead; give it those that it wrote")
        at_BxT = np.where(real_BxT, at_BxT, 0)
        rows: Any = batch
        log_prob_BxT: Any = np.where(real_BxT, self.log_prob_X[at_BxT], 0.0).astype(np.float32)
        # After the end nothing is looked at; that it is a distribution keeps gradients finite there.
        top: tuple[Any, ...] = (self.top_log_prob_XxK[at_BxT], self.top_ids_XxK[at_BxT].astype(np.int32))
        return Trajectories(rows.example_B, rows.source_BxS, rows.target_BxT, log_prob_BxT, TopK(*top))
