"""What a strategy of drafting is: when the teacher is called, and which of the student's tokens it lets stand.

Speculative decoding and its relatives are strategies (`kdtw_jax.decoding.baselines`), and so is verified asking: the
student's own forecast of what a check would save, summed over the span, against a price.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.decoding.gate import Gate


class Verdict(NamedTuple):
    """What is decided on N drafted tokens, on each as if all before it stood."""

    accepted_BxN: jax.Array  # bool
    residual_logits_BxNxV: jax.Array  # log-weights of the token that is written where the draft is refused
    bonus_logits_BxNxV: jax.Array  # log-weights of the token that is written where there is no draft: after the span


# (log_pi_BxNxV, log_mu_BxNxV, draft_BxN, uniforms_BxN or None for greedy decoding) -> verdict
Judge = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], Verdict]


class Strategy(NamedTuple):
    """When the teacher is called, and what it lets stand.

    Before each token the gate scores the student's state; the teacher is called where the score, or with `summed` that
    of the whole span since the last call, exceeds `level`, and where the span has `draft_length` tokens. With
    `verify_at_end` the student goes on drafting all the same, and whether the score exceeds `level` decides at its end
    of the output.
    """

    judge: Judge
    gate: Gate  # without a memory, or with one of int32 [B]: positions that the student processed for it
    level: float | jax.Array = jnp.inf
    summed: bool | jax.Array = False
    draft_length: int | jax.Array = 1 << 20
    check_end: bool | jax.Array = True  # the last span is checked, too; if not, the student may end an output by itself
    tokens_per_call: int | jax.Array = 1  # tokens that the teacher writes at a call
    verify_at_end: bool | jax.Array = False
