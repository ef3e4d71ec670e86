"""Distillation by Path Consistency Learning from a replay buffer of student, teacher and ground-truth paths.

One iteration (algorithm of arXiv 2502.17717; PCL: Nachum et al. 2017, arXiv 1702.08892): the student rolls out, the
teacher scores every path once, rows go into the buffer, and `updates_per_rollout` minibatches with fixed shares a
source follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit
from kdtw_jax.decoding.policy import without
from kdtw_jax.decoding.sample import generate
from kdtw_jax.errors import UserError
from kdtw_jax.losses import pcl
from kdtw_jax.losses.kl import Direction, TopK, topk_divergence
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.models import Model, shift_right
from kdtw_jax.replay import Sample
from kdtw_jax.train import parallel
from kdtw_jax.train.loop import LoopConfig
from kdtw_jax.train.replayed import Method, train_replayed
from kdtw_jax.train.scoring import SOURCES, STUDENT, TEACHER, TRUTH, Trajectories, finished, score
from kdtw_jax.train.state import (
    Coefficient,
    LossFn,
    Metrics,
    OptimizerConfig,
    Params,
    step_key,
)


@dataclass(frozen=True)
class DistilConfig:
    """PCL from a mixed replay buffer."""

    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    pcl: pcl.PCLConfig = field(default_factory=pcl.PCLConfig)
    pcl_weight: float = 1.0  # weight of the path-consistency loss in what the policy learns
    value_weight: float = 1.0  # and in what V learns
    # Updates in which V alone learns from path residuals: until V is about right, all of them say "less of everything"
    value_warmup: int = 0
    kl_weight: float = 1.0  # weight of the exact divergence from the teacher's stored top-k and tail; 0 leaves it out
    kl_direction: Direction = "reverse"
    top_k: int = 16  # tokens of the teacher's distribution kept a step
    # EMA decay of the parameters that give V at the far end of a segment; 0: the current ones
    target_decay: float = 0.0
    # V learns from student rollouts only: it is then V of the student, not of the mix
    fit_value_on_policy: bool = True
    updates_per_rollout: int = 8  # minibatches replayed for each batch of fresh paths
    capacity: int = 2048  # rows a source and length bucket
    student_share: float = 0.5  # of a minibatch; the shares are kept exactly, up to rounding to rows
    teacher_share: float = 0.25
    truth_share: float = 0.25
    student_rows: float = 1.0  # share of each batch of prompts that the student answers
    teacher_rows: float = 0.25  # and that the teacher answers
    # Below 1 the teacher demonstrates what it finds likely, nearer to what greedy decoding is after. Any path is a
    # valid demonstration: nothing in the residual asks how it was drawn.
    teacher_temperature: float = 1.0
    # Of the teacher whose log-probability is the reward and whose top k is matched; below 1 it is sharper than it is.
    reward_temperature: float = 1.0
    truth_batches: int = 1  # batches of ground truth added with each batch of rollouts: more of the data is seen
    chunk: int = 0  # positions whose distributions over the vocabulary are held at once; 0: all, faster with memory

    def __post_init__(self) -> None:
        shares = (self.student_share, self.teacher_share, self.truth_share)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise UserError(
                f"student_share, teacher_share and truth_share must be at least 0 and add to 1, got {shares}"
            )
        if min(self.updates_per_rollout, self.capacity, self.truth_batches) < 1:
            raise UserError("updates_per_rollout, capacity and truth_batches must be at least 1")
        if min(self.top_k, self.value_warmup, self.chunk, self.pcl_weight, self.value_weight, self.kl_weight) < 0:
            raise UserError("top_k, value_warmup, chunk and the weights must be at least 0")
        for name in ("teacher_temperature", "reward_temperature"):
            if not vars(self)[name] > 0:
                raise UserError(f"{name} must be above 0, got {vars(self)[name]}")
        if not 0 <= self.target_decay < 1 or not all(0 <= x <= 1 for x in (self.student_rows, self.teacher_rows)):
            raise UserError("target_decay must be in [0, 1), student_rows and teacher_rows in [0, 1]")
        for name in ("student", "teacher"):
            if vars(self)[f"{name}_share"] > 0 and vars(self)[f"{name}_rows"] == 0:
                raise UserError(
                    f"{name}_share is above 0, so {name}_rows must be too: the buffer would hold no such rows"
                )
        if self.kl_weight > 0 and self.top_k == 0:
            raise UserError("kl_weight is above 0, so top_k must be at least 1: the term reads the stored distribution")


def path_loss(model: Model, config: DistilConfig, banned: tuple[int, ...]) -> LossFn:
    """The terms of `path_terms` over replayed rows."""
    judge = make_judge(model, config, banned)

    def loss(params: Params, target_params: Params, sampled: Sample, key: jax.Array) -> Metrics:
        rows: Trajectories = sampled.rows
        own = judge(params, rows)
        far_BxT = judge(target_params, rows).value_BxT if config.target_decay else None
        taken = Taken(own.log_pi_BxT, rows.teacher_log_prob_BxT, own.value_BxT, far_BxT)
        return path_terms(config, rows, taken, own.divergence_BxT, sampled.source_X == STUDENT)

    return loss


class Judged(NamedTuple):
    """The student's opinion of given paths, BxT: log pi of each token, V of the state it was taken in, and the
    divergence there from the stored distribution of the teacher (0 where it is not asked for)."""

    log_pi_BxT: jax.Array
    value_BxT: jax.Array
    divergence_BxT: jax.Array


def make_judge(model: Model, config: DistilConfig, banned: tuple[int, ...]) -> Callable[[Params, Trajectories], Judged]:
    """A function of parameters and rows; it holds the distributions of `config.chunk` positions at a time."""

    def judge(params: Params, rows: Trajectories) -> Judged:
        decoded = model.decode(params, model.encode(params, rows.source_BxS), shift_right(rows.tokens_BxT))

        def part(hidden_BxXxD: jax.Array, head_BxX: jax.Array, tokens_BxX: jax.Array, top: TopK) -> Judged:
            logits_BxXxV = without(model.logits(params, hidden_BxXxD), banned)
            log_pi_BxX, value_BxX = pcl.policy_and_value(logits_BxXxV, head_BxX, tokens_BxX, config.pcl)
            return Judged(log_pi_BxX, value_BxX, stored_divergence(config, logits_BxXxV, top))

        what = (decoded.hidden_BxTxD, decoded.value_BxT, rows.tokens_BxT, rows.top)
        judged: Judged = over_positions(part, what, config.chunk)
        return judged

    return judge


class Taken(NamedTuple):
    """The actions of paths: log pi and reward of each, V of the state it was taken in (far: by the EMA), BxT."""

    log_pi_BxT: jax.Array
    reward_BxT: jax.Array
    value_BxT: jax.Array
    far_value_BxT: jax.Array | None


def path_terms(
    config: DistilConfig, rows: Trajectories, taken: Taken, divergence_BxT: jax.Array, on_policy_B: jax.Array
) -> Metrics:
    """Terms of the loss: "pcl", half the squared path residual as a function of the policy; "value_error", the same as
    a function of V; "kl", the mean of `divergence_BxT`, if asked for; and diagnostics.

    The first two have one value and add up to the gradient of the whole; apart, they can be weighted and scheduled.
    """
    mask_BxT = rows.tokens_BxT != 0
    residual_loss = partial(
        pcl.pcl_loss,
        teacher_log_prob_BxT=taken.reward_BxT,
        mask_BxT=mask_BxT,
        finished_B=finished(rows.tokens_BxT),
        config=config.pcl,
        far_value_BxT=taken.far_value_BxT,
        fit_value_B=on_policy_B if config.fit_value_on_policy else None,
    )
    of_policy, diagnostics = residual_loss(taken.log_pi_BxT, value_BxT=jax.lax.stop_gradient(taken.value_BxT))
    of_value, _ = residual_loss(jax.lax.stop_gradient(taken.log_pi_BxT), value_BxT=taken.value_BxT)
    terms = {
        "pcl": of_policy,
        "value_error": of_value,
        **diagnostics,
        "tokens": Weighted(jnp.sum(mask_BxT.astype(jnp.float32)), jnp.ones(())),
    }
    return {**terms, **({"kl": weighted(divergence_BxT, mask_BxT)} if config.kl_weight else {})}


def stored_divergence(config: DistilConfig, logits_BxTxV: jax.Array, top: TopK) -> jax.Array:
    """Of the student's own tokens from the stored distribution of the teacher, BxT nats; 0 if it is not asked for."""
    if not config.kl_weight:
        return jnp.zeros(logits_BxTxV.shape[:2])
    return topk_divergence(logits_BxTxV / config.pcl.alpha, top, config.kl_direction)


def coefficients(config: DistilConfig) -> dict[str, Coefficient]:
    """Weights of the terms of `path_terms` in the objective."""
    weights: dict[str, Coefficient] = {
        "pcl": lambda step: config.pcl_weight * (step >= config.value_warmup),
        "value_error": config.value_weight,
    }
    return {**weights, "kl": config.kl_weight} if config.kl_weight else weights


def with_targets(batch: Batch, tokens_BxT: Any) -> Batch:
    """The prompts of a batch with other outputs, which stay on their device."""
    return batch._replace(target_BxT=tokens_BxT)


def minibatch_shares(config: DistilConfig, rows: int) -> tuple[int, int, int]:
    """Rows of a minibatch from each of `SOURCES`: the shares rounded, the remainder given to ground truth."""
    student, teacher = round(rows * config.student_share), round(rows * config.teacher_share)
    if config.truth_share == 0:
        teacher = rows - student if config.teacher_share else 0
        student = rows - teacher
    return student, teacher, rows - student - teacher


class Collector:
    """Makes fresh rows: student rollouts, teacher samples and ground truth, each scored by one teacher pass."""

    def __init__(
        self,
        student: Model,
        teacher: tuple[Model, Params],
        config: DistilConfig,
        banned: tuple[int, ...],
        devices: parallel.Devices,
    ):
        self.config = config
        self.devices = devices

        def roll_out(
            model: Model, temperature: float, params: Params, source_BxS: jax.Array, noise_BxT: jax.Array
        ) -> jax.Array:
            limits: dict[str, Any] = {"max_len": noise_BxT.shape[-1], "banned": banned, "temperature": temperature}
            return generate(model, params, source_BxS, noise_BxT, **limits).tokens_BxT

        def score_rows(params: Params, example: jax.Array, source: jax.Array, tokens: jax.Array) -> Trajectories:
            how: dict[str, Any] = {"top_k": config.top_k, "banned": banned, "temperature": config.reward_temperature}
            return score(teacher[0], params, example, source, tokens, **how)

        # The student's policy is softmax(logits / alpha), and V is that of its own samples: no temperature there.
        self._student = parallel.data_parallel(partial(roll_out, student, config.pcl.alpha), devices)
        self.teacher = parallel.hold(teacher[1], devices)
        self._teacher = parallel.by_rows(partial(roll_out, teacher[0], config.teacher_temperature), self.teacher)
        self._score = parallel.by_rows(score_rows, self.teacher)

    def some(self, batch: Any, source: int) -> Any:
        """The prompts of a batch that the student or the teacher answers: the first ones, perhaps none."""
        config = self.config
        share, part = {
            STUDENT: (config.student_share, config.student_rows),
            TEACHER: (config.teacher_share, config.teacher_rows),
        }[source]
        count = math.ceil(part * len(jax.tree.leaves(batch)[0])) if share else 0
        return jax.tree.map(lambda x: x[:count], batch)

    def __call__(self, params: Params, batch: Batch, key_data: jax.Array, step: int) -> dict[int, Trajectories]:
        """Rows by source. Noise is drawn for all answered prompts at once, whatever the number of devices."""
        paths: list[tuple[int, Batch]] = []
        own: Batch = self.some(batch, STUDENT)
        if len(own.example_B):
            noise = jax.random.uniform(step_key(key_data, step, 1), own.target_BxT.shape)
            tokens = parallel.map_rows(self._student, (params,), (own.source_BxS, noise), self.devices)
            paths.append((STUDENT, with_targets(own, tokens)))
        shown: Batch = self.some(batch, TEACHER)
        if len(shown.example_B):
            paths.append((TEACHER, with_targets(shown, self.teacher_writes(shown, key_data, step))))
        if self.config.truth_share:
            paths.append((TRUTH, batch))
        return {source: self.scored(rows) for source, rows in paths}

    def teacher_writes(self, prompts: Batch, key_data: jax.Array, step: int) -> jax.Array:
        """The teacher's own answers."""
        noise = jax.random.uniform(step_key(key_data, step, 2), prompts.target_BxT.shape)
        tokens_BxT: jax.Array = self._teacher(prompts.source_BxS, noise)
        return tokens_BxT

    def scored(self, rows: Batch) -> Trajectories:
        """Paths as the buffer keeps them: with the teacher's opinion of every token."""
        scored: Trajectories = self._score(rows.example_B, rows.source_BxS, rows.target_BxT)
        return scored


def empty_row(bucket: Bucket, top_k: int) -> Trajectories:
    """A row of the shapes that a bucket's buffer holds."""
    return Trajectories(
        example_B=jnp.zeros((), jnp.int32),
        source_BxS=jnp.zeros((bucket.source,), jnp.int32),
        tokens_BxT=jnp.zeros((bucket.target,), jnp.int32),
        teacher_log_prob_BxT=jnp.zeros((bucket.target,), jnp.float32),
        top=TopK(jnp.zeros((bucket.target, top_k), jnp.float32), jnp.zeros((bucket.target, top_k), jnp.int32)),
    )


class Objective(NamedTuple):
    """What replayed rows teach."""

    loss: LossFn  # of a `replay.Sample` of `Trajectories`
    coefficients: Mapping[str, Coefficient]


def distil(
    name: str,
    folder: Path,
    student: Model,
    params: Params,
    teacher: tuple[Model, Params],
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    config: DistilConfig,
    *,
    seed: int,
    devices: parallel.Devices,
    banned: tuple[int, ...],
    objective: Objective | None = None,
    stop_after: int | None = None,
) -> Params:
    """Distils `teacher` into `student` starting from `params`; resumes what is in `folder`; returns parameters (numpy).

    The objective is path consistency unless another one is given, which is then trained on the very same rows.

    Raises UserError as `train_replayed` does.
    """
    fresh = Collector(student, teacher, config, banned, devices)
    taught = objective or Objective(path_loss(student, config, banned), coefficients(config))

    def collect(
        params: Params, extra: tuple[()], batch: Batch, key_data: jax.Array, step: int
    ) -> tuple[dict[int, Trajectories], tuple[()]]:
        return fresh(params, batch, key_data, step), extra

    method = Method(
        loop=config.loop,
        optimizer=config.optimizer,
        loss=taught.loss,
        coefficients=taught.coefficients,
        sources=SOURCES,
        shares=partial(minibatch_shares, config),
        empty_row=partial(empty_row, top_k=config.top_k),
        collect=collect,
        demonstrate=lambda batch, place: fresh.scored(batch),
        truth=TRUTH if config.truth_share else None,
        refresh=lambda sample, extra, key: sample,
        extra=(),
        target_decay=config.target_decay,
        updates_per_rollout=config.updates_per_rollout,
        capacity=config.capacity,
        truth_batches=config.truth_batches,
    )
    return train_replayed(
        name, folder, method, params, data, buckets, seed=seed, devices=devices, stop_after=stop_after
    )[0]
