"""The loop of methods that learn from each batch once: given targets, or outputs written for it a moment ago."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit, training_batches
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import generate
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.models import Model, shift_right
from kdtw_jax.train import parallel
from kdtw_jax.train.loop import LoopConfig, Report, run_loop
from kdtw_jax.train.state import (
    Coefficient,
    LossFn,
    OptimizerConfig,
    Params,
    TrainState,
    init_state,
    make_optimizer,
    make_update,
)

PyTree = Any


class Prepare(Protocol):
    """Makes of a batch what the loss takes as rows, everything on its devices. `params` are there already."""

    def __call__(self, params: Params, batch: Batch, key_data: jax.Array, step: int) -> PyTree: ...


def train_fresh(
    name: str,
    folder: Path,
    loop: LoopConfig,
    optimizer_config: OptimizerConfig,
    loss: LossFn,
    coefficients: Mapping[str, Coefficient],
    prepare: Prepare,
    params: Params,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    *,
    seed: int,
    devices: parallel.Devices,
    stop_after: int | None = None,
) -> Params:
    """Trains from `params`, one update a batch; resumes what is in `folder`; returns parameters (numpy).

    Raises UserError as `run_loop` does.
    """
    optimizer = make_optimizer(optimizer_config, loop.steps)
    step_fn = make_update(loss, coefficients, optimizer, accumulate=optimizer_config.accumulate)
    update = parallel.data_parallel(step_fn, devices, donate=(0,))
    iterator = training_batches(data, buckets, seed=seed)
    state = init_state(params, optimizer, seed)
    key_data = state.key_data

    def advance(carry: TrainState, step: int) -> tuple[TrainState, Report]:
        batch: Batch = next(iterator)
        state, metrics = update(carry, prepare(carry.params, batch, key_data, step))
        return state, Report(metrics, np.asarray(batch.example_B))

    def thaw(state: PyTree) -> TrainState:
        return parallel.replicate(state, devices)

    final = run_loop(
        name,
        folder,
        loop,
        thaw(state),
        advance,
        iterator,
        freeze=parallel.unreplicate,
        thaw=thaw,
        stop_after=stop_after,
    )
    return parallel.unreplicate(final.params)


class Writer:
    """Samples outputs of a model at temperature 1; they do not depend on the number of devices."""

    def __init__(self, model: Model, banned: tuple[int, ...], devices: parallel.Devices):
        self.devices = devices

        def write(params: Params, source_BxS: jax.Array, noise_BxT: jax.Array) -> jax.Array:
            length = noise_BxT.shape[-1]
            return generate(model, params, source_BxS, noise_BxT, max_len=length, banned=banned).tokens_BxT

        self._write = parallel.data_parallel(write, devices)

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        """As long as the batch's targets at the most, split between devices as its rows are. The noise is drawn for the
        whole batch."""
        noise_BxT = jax.random.uniform(key, batch.target_BxT.shape)
        tokens: jax.Array = self._write(params, *parallel.shard((batch.source_BxS, noise_BxT), self.devices))
        return tokens


class Compare(Protocol):
    """Numbers a position, BxX, of the log-policies of student and teacher there and of the tokens taken."""

    def __call__(self, pi_BxXxV: jax.Array, mu_BxXxV: jax.Array, tokens_BxX: jax.Array) -> PyTree: ...


def side_by_side(
    student: tuple[Model, Params],
    teacher: tuple[Model, Params],
    source_BxS: jax.Array,
    tokens_BxT: jax.Array,
    compare: Compare,
    *,
    banned: tuple[int, ...],
    chunk: int,
    key: jax.Array | None = None,
) -> PyTree:
    """`compare` at every position of these outputs, BxT, `chunk` positions at a time (0: all).

    Both models read the outputs in this very step; nothing reaches the teacher's parameters. With a key the student
    has its dropout.
    """
    inputs_BxT = shift_right(tokens_BxT)
    keys = (None, None) if key is None else tuple(jax.random.split(key))

    def hidden(model: Model, params: Params, keys: tuple[jax.Array | None, ...]) -> jax.Array:
        # Its own logits are not used and so never made: they are made below, chunk by chunk.
        states: jax.Array = model.decode(
            params, model.encode(params, source_BxS, keys[0]), inputs_BxT, keys[1]
        ).hidden_BxTxD
        return states

    def part(own_BxXxD: jax.Array, other_BxXxD: jax.Array, tokens_BxX: jax.Array) -> PyTree:
        pi_BxXxV = log_policy(student[0].logits(student[1], own_BxXxD), banned)
        mu_BxXxV = log_policy(teacher[0].logits(frozen, other_BxXxD), banned)
        return compare(pi_BxXxV, mu_BxXxV, tokens_BxX)

    frozen = jax.lax.stop_gradient(teacher[1])
    states = (hidden(*student, keys), hidden(teacher[0], frozen, (None, None)))
    return over_positions(part, (*states, jnp.asarray(tokens_BxT)), chunk)
