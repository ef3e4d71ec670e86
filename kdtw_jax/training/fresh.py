"""The loop of methods that learn from each batch once: given targets, or outputs written for it a moment ago."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch
from kdtw_jax.decoding.sample import generate
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.losses.vocabulary import compare_distributions
from kdtw_jax.models import Model, shift_right
from kdtw_jax.training.context import Chunks, TrainContext
from kdtw_jax.training.distribution import distribution
from kdtw_jax.training.loop import Report, run_loop
from kdtw_jax.training.state import (
    Coefficient,
    LossFn,
    Params,
    TrainState,
    Whole,
    init_state,
    make_optimizer,
    make_update,
    part_of,
)
from kdtw_jax.training.streams import Streams

PyTree = Any

# Distributions of two models are made at so many positions at a time, where nothing else is asked for.
SIDE_BY_SIDE = Chunks(16)


class Prepare(Protocol):
    """Makes of a batch what the loss takes as rows, everything on its devices. `params` are there already."""

    def __call__(self, params: Params, batch: Batch, key_data: jax.Array, step: int) -> PyTree: ...


class Draw(Protocol):
    """Takes the batch of a step from one of the two streams; by a key, if that is a matter of chance."""

    def __call__(self, streams: Streams, key_data: jax.Array, step: int) -> Batch: ...


def of_pairs(streams: Streams, key_data: jax.Array, step: int) -> Batch:
    """Takes pairs at every step."""
    return streams.pairs()


def of_prompts(streams: Streams, key_data: jax.Array, step: int) -> Batch:
    """Takes prompts at every step."""
    return streams.prompts()


def train_fresh(
    context: TrainContext,
    params: Params,
    loss: LossFn,
    coefficients: Mapping[str, Coefficient],
    prepare: Prepare,
    draw: Draw = of_pairs,
) -> Params:
    """Trains from `params`, one update per batch, going on from what the folder holds; returns parameters (numpy).

    Args:
      context: the student's place in the run.
      params: those to begin with.
      loss: of what `prepare` makes.
      coefficients: weights of its terms.
      prepare: makes the rows of a batch.
      draw: takes the batches.

    Raises:
      UserError: as `run_loop` does.
    """
    loop, devices = context.training.loop, context.devices
    optimizer = make_optimizer(context.training.optimizer, loop.steps, context.student.role)
    part = part_of(context.student.role, context.learning)
    step_fn = make_update(loss, coefficients, optimizer, accumulate=context.training.optimizer.accumulate, part=part)
    update = parallel.data_parallel(step_fn, devices, donate=(0,))
    streams = Streams(context)
    state = init_state(params, optimizer, context.seed, part=part)
    key_data = state.key_data

    def advance(carry: TrainState, step: int) -> tuple[TrainState, Report]:
        batch = draw(streams, key_data, step)
        state, metrics = update(carry, prepare(carry.params, batch, key_data, step))
        return state, Report(metrics, np.asarray(batch.example_B))

    def thaw(state: PyTree) -> TrainState:
        return parallel.replicate(state, devices)

    final = run_loop(
        context.name,
        context.folder,
        loop,
        thaw(state),
        advance,
        streams,
        freeze=parallel.unreplicate,
        thaw=thaw,
        watch=context.watching(lambda state: parallel.unreplicate(state.params)),
        stop_after=context.stop_after,
    )
    return parallel.unreplicate(final.params)


class Sampler:
    """Samples outputs of a model at temperature 1; they do not depend on the number of devices.

    With a teacher, `model` takes the pair of the student's parameters and the teacher's.
    """

    def __init__(
        self,
        model: Model,
        banned: tuple[int, ...],
        devices: parallel.Devices,
        teacher: parallel.PlacedParams | None = None,
    ):
        self.devices = devices

        def write(params: Params, source_BxS: jax.Array, noise_BxT: jax.Array) -> jax.Array:
            length = noise_BxT.shape[-1]
            return generate(model, params, source_BxS, noise_BxT, max_len=length, banned=banned).tokens_BxT

        if teacher is None:
            self._write = parallel.data_parallel(write, devices)
        else:
            self._write = parallel.map_batch_with_frozen(lambda own, other, *rows: write((own, other), *rows), teacher)

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        """As long as the batch's targets at the most, split between devices as its rows are. The noise is drawn for the
        whole batch; `params` are the student's."""
        noise_BxT = jax.random.uniform(key, batch.target_BxT.shape)
        tokens: jax.Array = self._write(params, *parallel.shard((batch.source_BxS, noise_BxT), self.devices))
        return tokens


class TeacherStates(NamedTuple):
    """What a teacher makes of outputs up to its last layer, and that layer.

    Its distributions are made of them where they are needed, some positions at a time, and are nowhere held for all.
    """

    hidden_BxTxD: jax.Array
    output: Whole  # `Model.output_layer` of its parameters


class TeacherForward:
    """Has the teacher read outputs before the student's step, so that no device need hold all of it."""

    def __init__(self, teacher: tuple[Model, Params], devices: parallel.Devices):
        model = teacher[0]
        self.teacher = parallel.place_params(teacher[1], devices)
        self._output = Whole(parallel.copied(model.output_layer(self.teacher.params), self.teacher))
        self._listen = parallel.map_batch_with_frozen(lambda _, params, *rows: read(model, params, *rows), self.teacher)

    def __call__(self, source_BxS: jax.Array, tokens_BxT: jax.Array) -> TeacherStates:
        """Of rows split between devices (`parallel.shard`), as is what comes back."""
        return TeacherStates(self._listen((), source_BxS, tokens_BxT), self._output)


def read(
    model: Model, params: Params, source_BxS: jax.Array, tokens_BxT: jax.Array, key: jax.Array | None = None
) -> jax.Array:
    """Reads the outputs `tokens_BxT` after `source_BxS`; with a `key` there is dropout.

    Returns:
      The states, BxTxD. Their logits are not used and so never made.
    """
    keys = (None, None) if key is None else tuple(jax.random.split(key))
    encoded = model.encode(params, source_BxS, keys[0])
    states_BxTxD: jax.Array = model.decode(params, encoded, shift_right(tokens_BxT), keys[1]).hidden_BxTxD
    return states_BxTxD


def compare_policies(
    student: tuple[Model, Params],
    teacher: tuple[Model, TeacherStates],
    source_BxS: jax.Array,
    tokens_BxT: jax.Array,
    terms: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    banned: tuple[int, ...],
    chunk: int,
    vocab_chunk: int,
    teacher_temperature: float = 1.0,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Compares the policies of student and teacher on given outputs.

    The student reads them in this very step, with its dropout if there is a key; no gradient reaches the teacher.

    Args:
      student: the model and its parameters.
      teacher: the model and what it made of the outputs.
      source_BxS: what the outputs are written for.
      tokens_BxT: the outputs.
      terms: of the two log-policies, by token of the vocabulary; they are summed over it.
      banned: ids that are never written.
      chunk: positions at a time; 0: all.
      vocab_chunk: tokens of the vocabulary at a time; 0: all.
      teacher_temperature: of the teacher's policy, softmax(logits / temperature).
      key: of dropout.

    Returns:
      The sums of `terms` and the log-probabilities of the tokens, the student's and the teacher's, BxT each
      (`losses.vocabulary.compare_distributions`).
    """

    def part(
        own_BxXxD: jax.Array, other_BxXxD: jax.Array, tokens_BxX: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        said = partial(distribution, banned=banned, vocab_chunk=vocab_chunk)
        mu = said(teacher[0], output.value, other_BxXxD, temperature=teacher_temperature)
        return compare_distributions(terms, said(*student, own_BxXxD), mu, tokens_BxX)

    other_BxTxD, output = jax.lax.stop_gradient(teacher[1])
    tokens_BxT = jnp.asarray(tokens_BxT)
    what = (read(*student, source_BxS, tokens_BxT, key), other_BxTxD, tokens_BxT)
    found: tuple[jax.Array, jax.Array, jax.Array] = over_positions(part, what, chunk)
    return found
