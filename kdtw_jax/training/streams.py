"""The batches of a training: of pairs, and of prompts, which may be more than these."""

from __future__ import annotations

from typing import Any

from kdtw_jax.data.batches import Batch, training_batches
from kdtw_jax.data.unanswered import beside
from kdtw_jax.training.context import TrainContext

_APART = 1 << 10  # between the seeds of the two streams


class Streams:
    """Endless batches of pairs and of prompts, with one place in both that can be saved.

    Where a training has no prompts, its pairs are the prompts, and there is one stream.
    """

    def __init__(self, context: TrainContext, *, paired: bool = False):
        """`paired`: no prompts come from a bucket that pairs are not in, too."""
        data, buckets, seed = context.prompts, context.buckets, context.seed
        self._pairs = training_batches(context.data, buckets, seed=seed)
        self.apart = data is not None
        self._prompts = self._pairs
        if data is not None:
            data = beside(data, context.data, buckets) if paired else data
            self._prompts = training_batches(data, buckets, seed=seed + _APART)

    def pairs(self) -> Batch:
        """Takes the next batch of pairs."""
        return next(self._pairs)

    def prompts(self) -> Batch:
        """Takes the next batch of prompts; its targets are for the method to know."""
        return next(self._prompts)

    def get_state(self) -> Any:
        """Returns the place as plain JSON."""
        state = self._pairs.get_state()
        return {"pairs": state, "prompts": self._prompts.get_state()} if self.apart else state

    def set_state(self, state: Any) -> None:
        """Goes to a place that `get_state` gave."""
        self._pairs.set_state(state["pairs"] if self.apart else state)
        if self.apart:
            self._prompts.set_state(state["prompts"])
