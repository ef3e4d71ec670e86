"""The loop of methods with a replay buffer: fresh rows now and then, minibatches with fixed shares per source."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch, Bucket
from kdtw_jax.models import Role
from kdtw_jax.replay import Replay, ReplayState, Rows, Sample, make_replay
from kdtw_jax.training.context import TrainContext
from kdtw_jax.training.loop import Report, run_loop
from kdtw_jax.training.ramp import Ramp
from kdtw_jax.training.state import (
    Coefficient,
    LossFn,
    Params,
    TrainState,
    init_state,
    make_optimizer,
    make_update,
    part_of,
    step_key,
)
from kdtw_jax.training.streams import Streams

Extra = Any  # what a method keeps between steps beside parameters and rows, a pytree of arrays


class Carry(NamedTuple):
    """The training state on its devices, one buffer a length bucket, and what else the method keeps."""

    train: TrainState
    replay: dict[str, ReplayState]
    extra: Extra
    newest: np.ndarray | jax.Array  # int32 []: which buffer has the newest rollouts, from which updates draw


class Collect(Protocol):
    """Makes fresh rows by source from prompts, and may change what the method keeps by what they show.

    Where prompts come apart from the pairs (`Streams`), no ground truth is among the rows.
    """

    def __call__(
        self, params: Params, extra: Extra, batch: Batch, key_data: jax.Array, step: int
    ) -> tuple[dict[int, Rows], Extra]: ...


class Replayed(NamedTuple):
    """What differs between methods that replay."""

    loss: LossFn
    coefficients: Mapping[str, Coefficient]
    sources: tuple[str, ...]
    shares: Callable[[int, float], tuple[int, ...]]  # rows of a minibatch, `Ramp.level` -> rows from each source
    empty_row: Callable[[Bucket], Rows]  # of the shapes that a bucket's buffer holds
    collect: Collect
    demonstrate: Callable[[Batch, int], Rows]  # a further batch of ground truth as rows; the number is its place
    reference: int | None  # the source those belong to; None: there is no ground truth
    refresh: Callable[[Sample, Extra, jax.Array], Sample]  # what replayed rows know only now (traced; with a key)
    extra: Extra
    target_decay: float
    updates_per_rollout: int
    capacity: int
    reference_batches: int
    own_rows: Ramp = Ramp()
    learning: tuple[Role, ...] = ()  # the roles whose parameters learn; () for those of the context


def bucket_name(bucket: Bucket) -> str:
    """Names the buffer of a length bucket."""
    return f"{bucket.source}x{bucket.target}"


def _buffer_of(batch: Batch) -> str:
    return bucket_name(Bucket(batch.source_BxS.shape[1], batch.target_BxT.shape[1], 0))


def train_replayed(context: TrainContext, params: Params, method: Replayed) -> tuple[Params, Extra]:
    """Trains from `params`, going on from what the folder holds; returns parameters and what was kept (numpy).

    Raises:
      UserError: as `run_loop` does, and when a bucket's rows do not divide over the devices.
    """
    training, buckets, devices = context.training, context.buckets, context.devices
    optimizer = make_optimizer(training.optimizer, training.loop.steps, context.student.role)
    part = part_of(context.student.role, method.learning or context.learning)
    update = parallel.data_parallel(
        make_update(
            method.loss,
            method.coefficients,
            optimizer,
            target_decay=method.target_decay,
            accumulate=training.optimizer.accumulate,
            part=part,
        ),
        devices,
        donate=(0,),
    )
    steps = training.loop.steps

    def replay_of(bucket: Bucket, level: float) -> Replay:
        """The buffer of a bucket, whose rows are all the same at any level of the student's share."""
        return make_replay(max(method.capacity, bucket.rows), method.shares(bucket.rows, level), method.sources)

    replays = {bucket_name(b): replay_of(b, 1.0) for b in buckets}
    add = {k: jax.jit(r.add, static_argnums=2, donate_argnums=0) for k, r in replays.items()}

    @cache
    def draw(bucket: Bucket, level: float) -> Callable[[ReplayState, jax.Array, Extra], Sample]:
        def fresh(state: ReplayState, key: jax.Array, extra: Extra) -> Sample:
            return method.refresh(replay_of(bucket, level).sample(state, key), extra, jax.random.fold_in(key, 1000))

        return jax.jit(fresh)

    streams = Streams(context, paired=method.reference is not None)
    apart = streams.apart and method.reference is not None  # then no batch of prompts has ground truth
    further = 0 if method.reference is None else method.reference_batches - (not apart)
    full_ones: set[str] = set()  # buffers that are known to have ground truth: looking waits for the device
    state = init_state(params, optimizer, context.seed, target=method.target_decay > 0, part=part)
    key_data = state.key_data
    names = tuple(replays)

    def full(name: str, replay: dict[str, ReplayState]) -> bool:
        """Whether a minibatch can be drawn: of a bucket, pairs that come apart may come later than prompts."""
        if name not in full_ones and (not apart or bool(replay[name].size_R[method.reference] > 0)):
            full_ones.add(name)
        return name in full_ones

    def advance(carry: Carry, step: int) -> tuple[Carry, Report]:
        train, replay, extra, newest = carry
        current = names[int(newest)]
        if step % method.updates_per_rollout == 0:
            batch = streams.prompts()
            current = _buffer_of(batch)
            newest = np.asarray(names.index(current), np.int32)
            rows, extra = method.collect(train.params, extra, batch, key_data, step)
            for source, fresh in rows.items():
                replay = {**replay, current: add[current](replay[current], fresh, source)}
            for place in itertools.count():
                if place >= further and full(current, replay):
                    break
                more = streams.pairs()
                other, demonstrated = _buffer_of(more), method.demonstrate(more, step + place + 1)
                replay = {**replay, other: add[other](replay[other], demonstrated, method.reference)}
        level = method.own_rows.level(step - step % method.updates_per_rollout, steps)  # as it was collected
        bucket = buckets[names.index(current)]
        sampled = draw(bucket, level)(replay[current], step_key(key_data, step, 3), extra)
        train, metrics = update(train, parallel.shard(sampled, devices))
        return Carry(train, replay, extra, newest), Report(metrics, sampled.rows.example_B)

    def freeze(carry: Carry) -> Carry:
        return carry._replace(train=parallel.unreplicate(carry.train))

    def thaw(carry: Carry) -> Carry:
        return carry._replace(train=parallel.replicate(carry.train, devices))

    empty = {bucket_name(b): replays[bucket_name(b)].init(method.empty_row(b)) for b in buckets}
    start = thaw(Carry(state, empty, method.extra, np.zeros((), np.int32)))
    final = run_loop(
        context.name,
        context.folder,
        training.loop,
        start,
        advance,
        streams,
        freeze=freeze,
        thaw=thaw,
        watch=context.watching(lambda carry: parallel.unreplicate(carry.train.params)),
        stop_after=context.stop_after,
    )
    return parallel.unreplicate(final.train.params), jax.device_get(final.extra)
