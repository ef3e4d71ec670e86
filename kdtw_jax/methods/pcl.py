"""Distillation by Path Consistency Learning from a replay buffer of student, teacher and ground-truth paths.

One iteration (algorithm of arXiv 2502.17717; PCL: Nachum et al. 2017, arXiv 1702.08892): the student rolls out, the
teacher scores every path once, rows go into the buffer, and `updates_per_rollout` minibatches with fixed shares a
source follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax

from kdtw_jax.data.batches import Batch
from kdtw_jax.methods.path_terms import coefficients, path_loss
from kdtw_jax.methods.pcl_config import DistilConfig
from kdtw_jax.methods.protocol import Cost, Method
from kdtw_jax.training.collect import Collector, empty_row, minibatch_shares
from kdtw_jax.training.context import TrainContext
from kdtw_jax.training.demonstrations import PromptTargets, check_answered, prompt_targets
from kdtw_jax.training.readings import Kept
from kdtw_jax.training.replayed import Replayed, train_replayed
from kdtw_jax.training.scoring import REFERENCE, SOURCES, Trajectories
from kdtw_jax.training.state import Coefficient, LossFn, Params


class Objective(NamedTuple):
    """What replayed rows teach."""

    loss: LossFn  # of a `replay.Sample` of `Trajectories`
    coefficients: Mapping[str, Coefficient]


def pcl(context: TrainContext, params: Params, config: DistilConfig, objective: Objective | None = None) -> Params:
    """Distils the teacher into the student from `params`, going on from what the folder holds.

    The objective is path consistency unless another one is given, which is then trained on the very same rows.

    Raises:
      UserError: there is no teacher, and as `check_answered` and `train_replayed` do.
    """
    student, banned, chunks = context.student, context.banned, context.training.chunks()
    check_answered(context, config.demonstrations, kept_ahead(config))
    fresh = Collector(
        student,
        None if context.reader is not None or not without_teacher(config, True) else context.needed_teacher(),
        config,
        banned,
        context.devices,
        alpha=config.pcl.alpha,
        chunks=chunks,
        apart=context.prompts is not None,
        steps=context.training.loop.steps,
        readings=context.readings,
        reader=context.reader,
    )
    taught = objective or Objective(path_loss(student, config, banned, chunks), coefficients(config))

    def collect(
        params: Params, extra: tuple[()], batch: Batch, key_data: jax.Array, step: int
    ) -> tuple[dict[int, Trajectories], tuple[()]]:
        return fresh(params, batch, key_data, step), extra

    method = Replayed(
        loss=taught.loss,
        coefficients=taught.coefficients,
        sources=SOURCES,
        shares=partial(minibatch_shares, config),
        empty_row=partial(empty_row, top_k=config.top_k),
        collect=collect,
        demonstrate=lambda batch, place: fresh.scored(batch),
        reference=REFERENCE if config.reference_share else None,
        refresh=lambda sample, extra, key: sample,
        extra=(),
        target_decay=config.target_decay,
        updates_per_rollout=config.updates_per_rollout,
        capacity=config.capacity,
        reference_batches=config.reference_batches,
        own_rows=config.own_rows,
    )
    return train_replayed(context, params, method)[0]


def cost(config: DistilConfig) -> Cost:
    """Counts passes: a batch is written, scored thrice and answered in part once in so many updates."""
    shown = 2 if config.demonstrations == "sampled" else 0 if config.read_ahead else 1  # otherwise that is done ahead
    read = config.rollout_fraction + shown * config.demonstration_fraction + config.reference_batches
    often = config.updates_per_rollout
    return Cost(config.rollout_fraction / often, read / often, copies=1 if config.target_decay else 0)


def prompts(config: DistilConfig, given: bool) -> PromptTargets:
    """Says what prompts have for targets: the teacher's outputs where it does not sample while the student learns."""
    return prompt_targets(config.demonstrations)


def kept_ahead(config: DistilConfig) -> Kept | None:
    """Says what is kept of the teacher's distributions at what it wrote ahead; None: nothing."""
    return Kept(config.top_k, config.pcl.alpha) if config.read_ahead else None


def without_teacher(config: DistilConfig, given: bool) -> dict[str, Any]:
    """Says what would have to be set for the teacher's outputs, read ahead, to be all that is needed of it."""
    ahead = {"read_ahead": True, "student_share": 0.0, "reference_share": 0.0}
    return {name: value for name, value in ahead.items() if vars(config)[name] != value}


def elsewhere(config: DistilConfig, given: bool) -> dict[str, Any]:
    """Says what would have to be set for a teacher elsewhere, which writes greedily, to be enough."""
    return {"demonstrations": "greedy"} if config.demonstrations == "sampled" and config.teacher_share else {}


def rows_kept(config: DistilConfig) -> Kept:
    """Says what is kept of a teacher's distributions at rows that it reads while the student is trained."""
    return Kept(config.top_k, config.pcl.alpha)


PCL = Method(
    name="pcl",
    describe="student that goes on by Path Consistency Learning",
    config=DistilConfig,
    train=pcl,
    cost=cost,
    prompts=prompts,
    readings=kept_ahead,
    without_teacher=without_teacher,
    elsewhere=elsewhere,
    rows_kept=rows_kept,
    top_k="top_k",
    color="#009E73",
)
