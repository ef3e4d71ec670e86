"""Generalised knowledge distillation: a divergence of whole distributions, on the student's own outputs now and then.

Agarwal et al. 2023, arXiv 2306.13649, algorithm 1. No gradient passes through what was sampled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch
from kdtw_jax.flags import flags
from kdtw_jax.losses.jsd import generalized_jsd, jsd_terms
from kdtw_jax.losses.kl import TopK, teacher_outcomes
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.methods.protocol import Cost, Method
from kdtw_jax.models import Model
from kdtw_jax.ranges import check_ranges
from kdtw_jax.training.context import Chunks, TrainContext
from kdtw_jax.training.demonstrations import Demonstrator, check_answered, check_read_ahead, prompt_targets
from kdtw_jax.training.distribution import distribution
from kdtw_jax.training.fresh import (
    SIDE_BY_SIDE,
    Sampler,
    TeacherForward,
    TeacherStates,
    compare_policies,
    read,
    train_fresh,
)
from kdtw_jax.training.ramp import Ramp
from kdtw_jax.training.readings import Kept
from kdtw_jax.training.state import LossFn, Metrics, Params, step_key
from kdtw_jax.training.streams import Streams


@dataclass(frozen=True)
class GKDConfig:
    """Generalised knowledge distillation (arXiv 2306.13649)."""

    student_share: float = 0.5
    """lambda: probability that a batch's outputs are fresh samples of the student, and not `demonstrations`"""
    beta: float = 0.5
    """of the Jensen-Shannon divergence: near 0 it ranks like the forward KL, near 1 like the reverse KL, and 0 and 1
    stand for these themselves"""
    own_rows: Ramp = field(default_factory=Ramp, metadata=flags())
    """how student_share rises over the training"""
    alpha: float = field(default=1.0, metadata=flags())
    """weight of the entropy: what is matched, and demonstrates, is mu^(1/alpha), normalised per token"""

    demonstrations: Literal["reference", "sampled", "greedy", "beam"] = field(default="reference", metadata=flags())
    """the outputs that are not the student's: ground truth, or the teacher's, of prompts, too"""
    top_k: int = field(default=0, metadata=flags())
    """on demonstrations, tokens of the teacher's distributions that the divergence is over, with one outcome for all
    others; the teacher then reads what it wrote ahead once for all students; 0: all tokens, and it reads along"""

    def __post_init__(self) -> None:
        check_ranges(self, "gkd.", student_share="[0, 1]", beta="[0, 1]", alpha="(0, inf)", top_k="[0, inf)")
        check_read_ahead(self.top_k, self.demonstrations)


def divergence_loss(
    student: Model, teacher: Model | None, config: GKDConfig, banned: tuple[int, ...], chunks: Chunks = SIDE_BY_SIDE
) -> LossFn:
    """Makes the loss with the term "jsd", nats per token, over distributions without the `banned` ids.

    Rows are `(Batch, TeacherStates)`, the batch's targets being the outputs, or `(Batch, TopK)` of what the teacher
    read ahead, which then need not be there.
    """
    said = partial(distribution, banned=banned, vocab_chunk=chunks.vocab_chunk)

    def loss(params: Params, _: Params, rows: tuple[Batch, TeacherStates | TopK], key: jax.Array) -> Metrics:
        batch, heard = rows
        source_BxS, tokens_BxT = jnp.asarray(batch.source_BxS), jnp.asarray(batch.target_BxT)
        mask_BxT = tokens_BxT != 0

        def kept(own_BxXxD: jax.Array, known: TopK, tokens_BxX: jax.Array) -> jax.Array:
            stats = said(student, params, own_BxXxD).token_stats(tokens_BxX, known.ids_BxTxK)
            outcomes: Any = stats.outcomes_BxXxK
            return generalized_jsd(outcomes, teacher_outcomes(known, outcomes.shape[-1]), config.beta)

        if isinstance(heard, TopK):
            own_BxTxD = read(student, params, source_BxS, tokens_BxT, key)
            jsd_BxT: jax.Array = over_positions(kept, (own_BxTxD, heard, tokens_BxT), chunks.chunk)
        else:
            how: dict[str, Any] = {"banned": banned, "key": key, **chunks._asdict()}
            how["teacher_temperature"] = config.alpha
            terms = partial(jsd_terms, beta=config.beta)
            assert teacher is not None
            models = (student, params), (teacher, heard)
            jsd_BxT, _, _ = compare_policies(*models, source_BxS, tokens_BxT, terms, **how)
        tokens = jnp.sum(mask_BxT.astype(jnp.float32))
        return {"jsd": weighted(jsd_BxT, mask_BxT), "tokens": Weighted(tokens, jnp.ones(()))}

    return loss


def student_writes(config: GKDConfig, key_data: jax.Array, step: int, steps: int = 1) -> bool:
    """Draws whether the outputs of this `step` of so many are the student's own, by the key of the run, `key_data`."""
    share = config.student_share * config.own_rows.scale(step, steps)
    return bool(jax.random.uniform(step_key(key_data, step, 5)) < share)


def gkd(context: TrainContext, params: Params, config: GKDConfig) -> Params:
    """Distils the teacher into the student from `params`, going on from what the folder holds.

    Raises:
      UserError: there is no teacher, and as `check_answered` and `run_loop` do.
    """
    check_answered(context, config.demonstrations, kept_ahead(config))
    devices, steps, readings = context.devices, context.training.loop.steps, context.readings
    about = (config, context.banned, context.training.chunks(SIDE_BY_SIDE))

    def draw(streams: Streams, key_data: jax.Array, step: int) -> Batch:
        by_models = config.demonstrations != "reference" or student_writes(config, key_data, step, steps)
        return streams.prompts() if by_models else streams.pairs()

    def recall(params: Params, batch: Batch, key_data: jax.Array, step: int) -> tuple[Batch, TopK]:
        assert readings is not None
        return parallel.shard((batch, readings.of(batch).top), devices)

    if not without_teacher(config, context.prompts is not None):  # nothing is asked of a teacher any more
        return train_fresh(context, params, divergence_loss(context.student, None, *about), {"jsd": 1.0}, recall, draw)
    write = Sampler(context.student, context.banned, devices)
    if (reader := context.reader) is not None:
        kept = Kept(config.top_k, config.alpha)

        def ask(params: Params, batch: Batch, key_data: jax.Array, step: int) -> tuple[Batch, TopK]:
            if not student_writes(config, key_data, step, steps):
                return recall(params, batch, key_data, step)
            own = batch._replace(target_BxT=np.asarray(write(params, batch, step_key(key_data, step, 1))))
            own = own._replace(target_BxT=own.target_BxT.reshape(batch.target_BxT.shape))
            return parallel.shard((own, reader(own, kept)().top), devices)

        return train_fresh(context, params, divergence_loss(context.student, None, *about), {"jsd": 1.0}, ask, draw)
    teacher = context.needed_teacher()
    listener = TeacherForward(teacher, devices)
    demonstrate = Demonstrator(
        config.demonstrations, teacher[0], listener.teacher, context.banned, temperature=config.alpha
    )

    def prepare(params: Params, batch: Batch, key_data: jax.Array, step: int) -> tuple[Batch, TeacherStates | TopK]:
        own = student_writes(config, key_data, step, steps)
        if not own and config.top_k and readings is not None:
            return recall(params, batch, key_data, step)
        if not own and config.demonstrations != "reference":
            batch = demonstrate(batch, step_key(key_data, step, 2))
        rows = parallel.shard(batch, devices)
        if own:
            rows = rows._replace(target_BxT=write(params, batch, step_key(key_data, step, 1)))
        return rows, listener(rows.source_BxS, rows.target_BxT)

    loss = divergence_loss(context.student, teacher[0], *about)
    return train_fresh(context, params, loss, {"jsd": 1.0}, prepare, draw)


def kept_ahead(config: GKDConfig) -> Kept | None:
    """Says what is kept of the teacher's distributions, where it writes ahead."""
    return Kept(config.top_k, config.alpha) if config.top_k else None


def without_teacher(config: GKDConfig, given: bool) -> dict[str, Any]:
    """Says what would have to be set for the teacher's outputs, read ahead, to be all that is needed of it."""
    found: dict[str, Any] = {} if config.student_share == 0 else {"student_share": 0}
    ahead = config.demonstrations in ("greedy", "beam")
    return {**found, **({} if ahead else {"demonstrations": "greedy"}), **({} if config.top_k else {"top_k": 64})}


GKD = Method(
    name="gkd",
    describe="student that goes on by generalised knowledge distillation, in part on its own outputs",
    config=GKDConfig,
    train=gkd,
    cost=lambda config: Cost(student=1, teacher=1 + (config.demonstrations == "sampled")),
    prompts=lambda config, given: prompt_targets(config.demonstrations),
    readings=kept_ahead,
    without_teacher=without_teacher,
    elsewhere=lambda config, given: {k: x for k, x in without_teacher(config, given).items() if k != "student_share"},
    rows_kept=kept_ahead,
    color="#0072B2",
    curve="jsd",
)
