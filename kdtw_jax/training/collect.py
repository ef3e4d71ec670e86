"""Fresh rows for a replay buffer: who writes them, and the teacher's opinion of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch, Bucket
from kdtw_jax.decoding.sample import generate
from kdtw_jax.losses.kl import TopK
from kdtw_jax.models import Model
from kdtw_jax.training.context import WHOLE, Chunks
from kdtw_jax.training.demonstrations import Demonstrator
from kdtw_jax.training.readings import Kept, Reader, Readings
from kdtw_jax.training.rows import RowsConfig
from kdtw_jax.training.scoring import REFERENCE, STUDENT, TEACHER, Trajectories, score_paths
from kdtw_jax.training.state import Params, step_key


def with_targets(batch: Batch, tokens_BxT: Any) -> Batch:
    """The prompts of a batch with other outputs, which stay on their device."""
    return batch._replace(target_BxT=tokens_BxT)


def minibatch_shares(config: RowsConfig, rows: int, scale: float = 1.0) -> tuple[int, int, int]:
    """Divides the `rows` of a minibatch between `SOURCES`: shares are rounded, ground truth gets the remainder.

    Of the student's only a part, `scale`, is there; the teacher's, if it has any, make up for the others.
    """
    student, teacher = round(rows * config.student_share), round(rows * config.teacher_share)
    if config.reference_share == 0:
        teacher = rows - student if config.teacher_share else 0
        student = rows - teacher
    own = round(student * scale)
    teacher += student - own if config.teacher_share else 0
    return own, teacher, rows - own - teacher


class Collector:
    """Makes fresh rows: student rollouts, teacher samples and ground truth, each scored by one teacher pass.

    At a weight `alpha` of the entropy the teacher demonstrates, and is matched, by mu^(1/alpha). Of prompts that come
    apart from the pairs, `apart`, the targets are no ground truth, but, where written ahead, the demonstrations.
    Of `steps`, the first may have no rollouts. What it has read ahead, `readings`, it does not read again; where there
    are no other rows, or a teacher elsewhere is the `reader` of them, the teacher may be None. One elsewhere reads the
    ground truth and demonstrations while the student rolls out; the student's own rows are waited for.
    """

    def __init__(
        self,
        student: Model,
        teacher: tuple[Model, Params] | None,
        config: RowsConfig,
        banned: tuple[int, ...],
        devices: parallel.Devices,
        *,
        alpha: float = 1.0,
        chunks: Chunks = WHOLE,
        apart: bool = False,
        steps: int = 1,
        readings: Readings | None = None,
        reader: Reader | None = None,
    ):
        self.config, self.apart, self.steps, self.readings = config, apart, steps, readings
        self._reader, self._kept = reader, Kept(config.top_k, alpha)
        self.devices = devices

        def roll_out(params: Params, source_BxS: jax.Array, noise_BxT: jax.Array) -> jax.Array:
            length = noise_BxT.shape[-1]
            return generate(student, params, source_BxS, noise_BxT, max_len=length, banned=banned).tokens_BxT

        self._student = parallel.data_parallel(roll_out, devices)
        if teacher is None:
            return
        model, weights = teacher

        def score_rows(params: Params, example: jax.Array, source: jax.Array, tokens: jax.Array) -> Trajectories:
            how: dict[str, Any] = {"top_k": config.top_k, "banned": banned, "alpha": alpha}
            return score_paths(model, params, example, source, tokens, **how, **chunks._asdict())

        self.teacher = parallel.place_params(weights, devices)
        self._demonstrate = Demonstrator(
            config.demonstrations if apart else "sampled",
            model,
            self.teacher,
            banned,
            temperature=alpha * config.teacher_temperature,
        )
        self._score = parallel.map_batch(score_rows, self.teacher)

    def some(self, batch: Any, source: int, step: int) -> Any:
        """Takes the prompts of a batch that `source`, student or teacher, answers at a step: the first, perhaps none.

        The student answers none while its rows are not asked for.
        """
        config = self.config
        share, part = {
            STUDENT: (config.student_share * config.own_rows.level(step, self.steps), config.rollout_fraction),
            TEACHER: (config.teacher_share, config.demonstration_fraction),
        }[source]
        count = math.ceil(part * len(jax.tree.leaves(batch)[0])) if share else 0
        return jax.tree.map(lambda x: x[:count], batch)

    def __call__(self, params: Params, batch: Batch, key_data: jax.Array, step: int) -> dict[int, Trajectories]:
        """Makes rows by source, with the keys of a `step` from `key_data`.

        Noise is drawn for all answered prompts at once, whatever the number of devices.
        """
        own: Batch = self.some(batch, STUDENT, step)
        shown: Batch = self.some(batch, TEACHER, step)
        wanted: dict[int, Callable[[], Trajectories]] = {}
        tokens = None
        if len(own.example_B):
            noise = jax.random.uniform(step_key(key_data, step, 1), own.target_BxT.shape)
            tokens = parallel.map_rows(self._student, (params,), (own.source_BxS, noise), self.devices)
        if len(shown.example_B):
            wanted[TEACHER] = self._asked_for_demonstrations(shown, key_data, step)
        if self.config.reference_share and not self.apart:
            wanted[REFERENCE] = self._asked(batch)
        if tokens is not None:  # last, since what is elsewhere needs the tokens on the host
            wanted[STUDENT] = self._asked(with_targets(own, tokens))
        return {source: wanted[source]() for source in sorted(wanted)}

    def demonstrated(self, prompts: Batch, key_data: jax.Array, step: int) -> Trajectories:
        """Makes paths of the teacher's answers to prompts, drawn, if they are, by its key of a `step`."""
        return self._asked_for_demonstrations(prompts, key_data, step)()

    def scored(self, rows: Batch) -> Trajectories:
        """Makes paths as the buffer keeps them: with the teacher's opinion of every token."""
        return self._asked(rows)()

    def _asked_for_demonstrations(self, prompts: Batch, key_data: jax.Array, step: int) -> Callable[[], Trajectories]:
        if self.readings is not None:
            return partial(self.readings.of, prompts)
        if self._reader is not None:  # they were written ahead
            return self._asked(prompts)
        return self._asked(self._demonstrate(prompts, step_key(key_data, step, 2)))

    def _asked(self, rows: Batch) -> Callable[[], Trajectories]:
        if self._reader is not None:
            return self._reader(rows._replace(target_BxT=np.asarray(rows.target_BxT)), self._kept)
        scored: Trajectories = self._score(rows.example_B, rows.source_BxS, rows.target_BxT)
        return lambda: scored


def empty_row(bucket: Bucket, top_k: int) -> Trajectories:
    """Makes a row of the shapes that a bucket's buffer holds, with the teacher's `top_k` likeliest tokens."""
    return Trajectories(
        example_B=jnp.zeros((), jnp.int32),
        source_BxS=jnp.zeros((bucket.source,), jnp.int32),
        tokens_BxT=jnp.zeros((bucket.target,), jnp.int32),
        teacher_log_prob_BxT=jnp.zeros((bucket.target,), jnp.float32),
        top=TopK(jnp.zeros((bucket.target, top_k), jnp.float32), jnp.zeros((bucket.target, top_k), jnp.int32)),
    )
