"""A training that replays may be cut between two rollouts: its state says which rows the updates draw from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.data.batches import Batch, training_batches
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.replay import Sample
from kdtw_jax.training.loop import LoopConfig
from kdtw_jax.training.replayed import Replayed, train_replayed
from tests.world import BUCKETS, TRAINING, World, same


class Ids(NamedTuple):
    """Rows of which nothing but the example is known."""

    example_B: jax.Array


def off(params: Any, _: Any, sampled: Sample, key: jax.Array) -> dict[str, Weighted]:
    """A parameter for each example, which moves when that is shown."""
    found_B = params["shown"][sampled.rows.example_B]
    everywhere = jnp.ones(found_B.shape, bool)
    return {"off": weighted(jnp.square(found_B - 1), everywhere), "tokens": weighted(found_B, everywhere)}


METHOD = Replayed(
    loss=off,
    coefficients={"off": 1.0},
    sources=("data",),
    shares=lambda rows, level: (rows,),
    empty_row=lambda bucket: Ids(jnp.zeros((), jnp.int32)),
    collect=lambda params, extra, batch, key_data, step: ({0: Ids(batch.example_B)}, extra),
    demonstrate=lambda batch, place: Ids(batch.example_B),
    reference=0,
    refresh=lambda sample, extra, key: sample,
    extra=(),
    target_decay=0.0,
    updates_per_rollout=3,
    capacity=16,
    reference_batches=3,  # with the one of the rollouts itself, so many batches for each
)


def test_resuming_between_two_rollouts_equals_never_having_stopped(tmp_path: Path) -> None:
    """The rollouts of step 0 go into the buffer of the narrow bucket, those of step 3 into that of the wide one; the
    cut is at step 4."""
    world = World()
    batches = iter(training_batches(world.data, BUCKETS, seed=0))
    first: list[Batch] = [next(batches) for _ in range(4)]
    assert [first[i].source_BxS.shape[1] for i in (0, 3)] == [bucket.source for bucket in BUCKETS]
    student = world.model._replace(role=lambda path: "matrix")
    training = replace(TRAINING, loop=LoopConfig(steps=6, log_every=2, checkpoint_every=4))

    def train(folder: str, stop_after: int | None = None) -> Any:
        context = world.context(tmp_path / folder, student=student, training=training, stop_after=stop_after)
        return train_replayed(context, {"shown": np.zeros(len(world.data), np.float32)}, METHOD)

    whole = train("whole")
    train("parts", stop_after=4)
    assert same(whole, train("parts"))
