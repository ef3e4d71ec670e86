"""What the verbs of drafting hand on: what stays the same through a decoding, and what changes from token to token."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.history import History, start_history
from kdtw_jax.constraints.record import Rule
from kdtw_jax.constraints.unit import TOKENS, Unit
from kdtw_jax.decoding.sample import PAD
from kdtw_jax.decoding.spans import spare
from kdtw_jax.decoding.strategy import Strategy
from kdtw_jax.models import Cache, Model, Params


class DraftContext(NamedTuple):
    """What stays the same through a decoding."""

    student: tuple[Model, Params]
    teacher: tuple[Model, Params]
    strategy: Strategy
    banned: tuple[int, ...]
    rule: Rule | None  # enforced
    noise_3xBxT: jax.Array | None  # uniforms of the student's tokens, the verdicts and the teacher's tokens
    unit: Unit = TOKENS  # what is counted

    def noise_of(self, index: int) -> jax.Array | None:
        """float32 [B, T]: 0 is that of the student's tokens, 1 of the verdicts, 2 of the teacher's tokens."""
        return None if self.noise_3xBxT is None else self.noise_3xBxT[index]


class DraftState(NamedTuple):
    """What has been written: tokens that stand for good, then drafts that the teacher has not seen."""

    length_B: jax.Array  # int32, tokens written, drafts included
    seen_B: jax.Array  # int32, tokens that stand for good: the teacher has processed as many positions
    waiting_B: jax.Array  # bool, for the teacher
    finished_B: jax.Array  # bool
    tokens_BxT: jax.Array  # int32, with drafts
    asked_BxT: jax.Array  # bool, the teacher wrote it
    may_BxT: jax.Array  # bool, the rule lets the teacher write here
    log_pi_BxTxV: jax.Array  # the student's policy where it was asked for it last
    risk_B: jax.Array  # float32, scores of the span added up
    owed_B: jax.Array  # int32, tokens of a call that are still to come
    settled: History  # up to what stands for good
    calls_B: jax.Array  # int32
    positions_B: jax.Array  # int32, that the teacher processed
    passes_B: jax.Array  # int32, positions that the student processed
    student: Cache
    teacher: Cache
    gate: Any  # the gate's own memory: nothing, or int32 [B], positions that the student processed for it


def start_drafts(
    context: DraftContext, source_BxS: jax.Array, teacher_source_BxS: jax.Array, max_len: int
) -> DraftState:
    """Nothing is written yet; both models have read their sources."""
    rows, zero_B = len(source_BxS), jnp.zeros(len(source_BxS), jnp.int32)
    (student, student_params), (teacher, teacher_params) = context.student, context.teacher
    read = teacher.encode(teacher_params, teacher_source_BxS)
    return DraftState(
        length_B=zero_B,
        seen_B=zero_B,
        waiting_B=jnp.zeros(rows, bool),
        finished_B=jnp.zeros(rows, bool),
        tokens_BxT=jnp.full((rows, max_len), PAD, jnp.int32),
        asked_BxT=jnp.zeros((rows, max_len), bool),
        may_BxT=jnp.ones((rows, max_len), bool),
        log_pi_BxTxV=jnp.zeros((rows, max_len, student.config.vocab_size), jnp.float32),
        risk_B=jnp.zeros(rows),
        owed_B=zero_B,
        settled=start_history(teacher_source_BxS),
        calls_B=zero_B,
        positions_B=zero_B,
        passes_B=zero_B,
        student=student.start(student_params, student.encode(student_params, source_BxS), max_len),
        teacher=teacher.start(teacher_params, read, max_len + spare(rows)),
        gate=context.strategy.gate.start,
    )


def at_place(x_BxT: jax.Array, place_B: jax.Array) -> jax.Array:
    """Of every row what stands at its place, [B]; past the end, what stands last."""
    return x_BxT[jnp.arange(len(x_BxT)), jnp.minimum(place_B, x_BxT.shape[1] - 1)]
