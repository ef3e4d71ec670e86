"""Trajectories and the teacher's verdict on them: what the replay buffer stores."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.losses.kl import TopK
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.models import Model, shift_right
from kdtw_jax.training.distribution import distribution
from kdtw_jax.training.state import Params

# Who produced a row's tokens; also the row's ring in the replay buffer.
STUDENT, TEACHER, REFERENCE = 0, 1, 2
SOURCES = ("student", "teacher", "reference")


class Trajectories(NamedTuple):
    """Scored paths, from whichever source. The teacher is asked once per path; only these numbers are kept."""

    example_B: jax.Array  # int32: id of the prompt in its data set
    source_BxS: jax.Array  # int32: the prompt
    tokens_BxT: jax.Array  # int32: the path's tokens, EOS included, then pad
    teacher_log_prob_BxT: jax.Array  # float32: log mu(y_t | s_t); 0 on pad
    top: TopK  # the teacher's k likeliest tokens at each step (k may be 0)


def finished(tokens_BxT: jax.Array, eos_id: int = 1) -> jax.Array:
    """Finds the rows of `tokens_BxT` that end in `eos_id`: bool [B]. V after the last token of others is unknown."""
    return jnp.any(tokens_BxT == eos_id, axis=-1)


def score_paths(
    teacher: Model,
    params: Params,
    example_B: jax.Array,
    source_BxS: jax.Array,
    tokens_BxT: jax.Array,
    *,
    top_k: int,
    banned: tuple[int, ...],
    alpha: float = 1.0,
    chunk: int = 0,
    vocab_chunk: int = 0,
) -> Trajectories:
    """Scores finished paths in one teacher-forced pass of the teacher.

    Args:
      teacher: the model.
      params: its parameters.
      example_B: ids of the prompts.
      source_BxS: the prompts.
      tokens_BxT: the paths.
      top_k: how many of the teacher's likeliest tokens are kept per step.
      banned: ids that are never written.
      alpha: weight of the entropy: the likeliest tokens have their probabilities by mu^(1/alpha), normalised, which a
        student is matched to; the taken ones have theirs by mu itself, which is the reward.
      chunk: positions whose distributions are held at once; 0: all.
      vocab_chunk: tokens of the vocabulary of which they are; 0: all.
    """
    hidden_BxTxD = teacher.decode(params, teacher.encode(params, source_BxS), shift_right(tokens_BxT)).hidden_BxTxD
    said = partial(distribution, teacher, params, banned=banned, vocab_chunk=vocab_chunk)

    def part(hidden_BxXxD: jax.Array, tokens_BxX: jax.Array) -> tuple[jax.Array, TopK]:
        mu = said(hidden_BxXxD)
        partition_BxX, picked_BxX, _ = mu.token_stats(tokens_BxX)
        none = jnp.zeros((*tokens_BxX.shape, 0))
        sharp = mu if alpha == 1 else said(hidden_BxXxD, temperature=alpha)
        return picked_BxX - partition_BxX, sharp.top_k(top_k) if top_k else TopK(none, none.astype(jnp.int32))

    mask_BxT = tokens_BxT != 0
    taken_BxT, top = over_positions(part, (hidden_BxTxD, tokens_BxT), chunk)
    return Trajectories(
        example_B=example_B,
        source_BxS=source_BxS,
        tokens_BxT=tokens_BxT,
        teacher_log_prob_BxT=jnp.where(mask_BxT, taken_BxT, 0.0),
        top=top,
    )
