"""Distillation by Path Consistency Learning from a replay buffer of student, teacher and ground-truth paths.

One iteration (algorithm of arXiv 2502.17717; PCL: Nachum et al. 2017, arXiv 1702.08892): the student rolls out, the
teacher scores every path once, rows go into the buffer, and `updates_per_rollout` minibatches with fixed shares a
source follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.data.batches import Batch
from kdtw_jax.errors import UserError
from kdtw_jax.flags import flags
from kdtw_jax.losses.kl import Direction, TopK, outcomes_divergence
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.pcl import PCLConfig, path_of, pcl_loss
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.losses.vocabulary import Distribution
from kdtw_jax.methods.protocol import Cost, Method
from kdtw_jax.models import Model, shift_right
from kdtw_jax.ranges import check_ranges
from kdtw_jax.replay import Sample
from kdtw_jax.training.collect import Collector, empty_row, minibatch_shares
from kdtw_jax.training.context import WHOLE, Chunks, TrainContext
from kdtw_jax.training.demonstrations import PromptTargets, check_answered, prompt_targets
from kdtw_jax.training.distribution import distribution
from kdtw_jax.training.replayed import Replayed, train_replayed
from kdtw_jax.training.rows import RowsConfig
from kdtw_jax.training.scoring import REFERENCE, SOURCES, STUDENT, Trajectories, finished
from kdtw_jax.training.state import Coefficient, LossFn, Metrics, Params


@dataclass(frozen=True)
class DistilConfig(RowsConfig):
    """PCL from a mixed replay buffer.

    Raises:
      UserError: numbers out of their range, shares that do not add up, or a KL term without a stored distribution.
    """

    pcl: PCLConfig = field(default_factory=PCLConfig, metadata=flags("values", "segment_lengths"))
    pcl_weight: float = 1.0  # weight of the path-consistency loss in what the policy learns
    value_weight: float = field(default=1.0, metadata=flags())  # and in what V learns
    # Updates in which V alone learns from path residuals: until V is about right, all of them say "less of everything"
    value_warmup: int = 0
    kl_weight: float = 1.0  # weight of the exact divergence from the teacher's stored top-k and tail; 0 leaves it out
    kl_direction: Direction = "reverse"
    # EMA decay of the parameters that give V at the far end of a segment; 0: the current ones
    target_decay: float = field(default=0.0, metadata=flags())
    # V learns from student rollouts only: it is then V of the student, not of the mix
    fit_value_on_policy: bool = field(default=True, metadata=flags())

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, pcl_weight="[0, inf)", value_weight="[0, inf)", value_warmup="[0, inf)")
        check_ranges(self, kl_weight="[0, inf)", target_decay="[0, 1)")
        if self.kl_weight > 0 and self.top_k == 0:
            raise UserError("kl_weight is above 0, so top_k must be at least 1: the term reads the stored distribution")


def path_loss(model: Model, config: DistilConfig, banned: tuple[int, ...], chunks: Chunks = WHOLE) -> LossFn:
    """Makes the loss with the terms of `path_terms` over replayed rows, for a policy without the `banned` ids."""
    judge = make_student_stats(model, config, banned, chunks)

    def loss(params: Params, target_params: Params, sampled: Sample, key: jax.Array) -> Metrics:
        rows: Trajectories = sampled.rows
        own = judge(params, rows)
        far_BxT = judge(target_params, rows).value_BxT if config.target_decay else None
        taken = PathTerms(own.log_pi_BxT, rows.teacher_log_prob_BxT, own.value_BxT, far_BxT)
        return path_terms(config, rows, taken, own.divergence_BxT, sampled.source_X == STUDENT)

    return loss


class StudentStats(NamedTuple):
    """The student's opinion of given paths."""

    log_pi_BxT: jax.Array  # of each token
    value_BxT: jax.Array  # V of the state it was taken in
    divergence_BxT: jax.Array  # there, from the stored distribution of the teacher; 0 where it is not asked for


def make_student_stats(
    model: Model, config: DistilConfig, banned: tuple[int, ...], chunks: Chunks
) -> Callable[[Params, Trajectories], StudentStats]:
    """Makes a function of parameters and rows, for a policy without the `banned` ids.

    It holds `chunks` of the distributions at a time.
    """
    said = partial(distribution, model, banned=banned, vocab_chunk=chunks.vocab_chunk)

    def judge(params: Params, rows: Trajectories) -> StudentStats:
        decoded = model.decode(params, model.encode(params, rows.source_BxS), shift_right(rows.tokens_BxT))

        def part(hidden_BxXxD: jax.Array, head_BxX: jax.Array, tokens_BxX: jax.Array, top: TopK) -> StudentStats:
            return student_stats(config, said(params, hidden_BxXxD), head_BxX, tokens_BxX, top)

        what = (decoded.hidden_BxTxD, decoded.value_BxT, rows.tokens_BxT, rows.top)
        found: StudentStats = over_positions(part, what, chunks.chunk)
        return found

    return judge


def student_stats(
    config: DistilConfig, own: Distribution, head_BxX: jax.Array, tokens_BxX: jax.Array, top: TopK
) -> StudentStats:
    """Computes what the student's policy, softmax(logits), and its value head say of these tokens.

    Args:
      config: which values and which divergence.
      own: the policy at X positions.
      head_BxX: what the value head says there.
      tokens_BxX: the tokens taken there.
      top: the teacher's likeliest tokens there.
    """
    taken = own.token_stats(tokens_BxX, top.ids_BxTxK if config.kl_weight else None)
    divergence_BxX = jnp.zeros(tokens_BxX.shape)
    if taken.outcomes_BxXxK is not None:
        divergence_BxX = outcomes_divergence(taken.outcomes_BxXxK, top, config.kl_direction)
    return StudentStats(
        *path_of(taken.partition_BxX, taken.picked_BxX, head_BxX, **config.pcl.of_values), divergence_BxX
    )


class PathTerms(NamedTuple):
    """The actions of paths: log pi and reward of each, V of the state it was taken in (far: by the EMA), BxT."""

    log_pi_BxT: jax.Array
    reward_BxT: jax.Array
    value_BxT: jax.Array
    far_value_BxT: jax.Array | None


def path_terms(
    config: DistilConfig, rows: Trajectories, taken: PathTerms, divergence_BxT: jax.Array, on_policy_B: jax.Array
) -> Metrics:
    """Computes the terms of the loss and diagnostics.

    "pcl" is half the squared path residual as a function of the policy, "value_error" the same as a function of V: they
    have one value and add up to the gradient of the whole; apart, they can be weighted and scheduled. "kl", if asked
    for, is the mean of `divergence_BxT`.

    Args:
      config: how residuals are made and weighed.
      rows: the paths.
      taken: their actions.
      divergence_BxT: of the student from the teacher at every token, nats.
      on_policy_B: bool, rows that the student has written, to which V is fitted.
    """
    mask_BxT = rows.tokens_BxT != 0
    residual_loss = partial(
        pcl_loss,
        teacher_log_prob_BxT=taken.reward_BxT,
        mask_BxT=mask_BxT,
        finished_B=finished(rows.tokens_BxT),
        **config.pcl.of_loss,
        far_value_BxT=taken.far_value_BxT,
        fit_value_B=on_policy_B if config.fit_value_on_policy else None,
    )
    of_policy, diagnostics = residual_loss(
        log_pi_BxT=taken.log_pi_BxT, value_BxT=jax.lax.stop_gradient(taken.value_BxT)
    )
    of_value, _ = residual_loss(log_pi_BxT=jax.lax.stop_gradient(taken.log_pi_BxT), value_BxT=taken.value_BxT)
    terms = {
        "pcl": of_policy,
        "value_error": of_value,
        **diagnostics,
        "tokens": Weighted(jnp.sum(mask_BxT.astype(jnp.float32)), jnp.ones(())),
    }
    return {**terms, **({"kl": weighted(divergence_BxT, mask_BxT)} if config.kl_weight else {})}


def coefficients(config: DistilConfig) -> dict[str, Coefficient]:
    """Says how the terms of `path_terms` are weighted in the objective."""
    weights: dict[str, Coefficient] = {
        "pcl": lambda step: config.pcl_weight * (step >= config.value_warmup),
        "value_error": config.value_weight,
    }
    return {**weights, "kl": config.kl_weight} if config.kl_weight else weights


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
    check_answered(context, config.demonstrations)
    fresh = Collector(
        student,
        context.needed_teacher(),
        config,
        banned,
        context.devices,
        alpha=config.pcl.alpha,
        chunks=chunks,
        apart=context.prompts is not None,
        steps=context.training.loop.steps,
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
    written = config.demonstrations == "sampled"  # otherwise that is done ahead
    read = config.rollout_fraction + (1 + written) * config.demonstration_fraction + config.reference_batches
    often = config.updates_per_rollout
    return Cost(config.rollout_fraction / often, read / often, copies=1 if config.target_decay else 0)


def prompts(config: DistilConfig, given: bool) -> PromptTargets:
    """Says what prompts have for targets: the teacher's outputs where it does not sample while the student learns."""
    return prompt_targets(config.demonstrations)


PCL = Method(
    name="pcl",
    describe="student that goes on by Path Consistency Learning",
    config=DistilConfig,
    train=pcl,
    cost=cost,
    prompts=prompts,
    top_k="top_k",
    color="#009E73",
)
