"""What has happened in an output so far, as far as rules on help may look at it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

LONG_AGO = 1 << 20


class History(NamedTuple):
    """Counts over the tokens written so far, each int32 [B]. The token about to be written is number `length`."""

    length_B: jax.Array  # tokens, whoever wrote them, end-of-sequence included
    calls_B: jax.Array  # tokens that the teacher wrote: one per call
    own_B: jax.Array  # tokens of the student's own since the last call; `LONG_AGO` or more where there was none
    in_a_row_B: jax.Array  # calls without a token of the student's own in between, up to now
    positions_B: jax.Array  # decoder positions that the teacher has processed
    last_B: jax.Array  # the last token; 0 (padding) at the start
    source_B: jax.Array  # tokens of the source, which the teacher's encoder processes at the first call


def start_history(source_BxS: jax.Array) -> History:
    """Nothing written yet. `source_BxS` is what the teacher reads, padded with 0."""
    nothing = jnp.zeros(source_BxS.shape[0], jnp.int32)
    source_B = jnp.sum(source_BxS != 0, axis=1).astype(jnp.int32)
    return History(nothing, nothing, nothing + LONG_AGO, nothing, nothing, nothing, source_B)


def advance(history: History, token_B: jax.Array, asked_B: jax.Array, active_B: jax.Array) -> History:
    """The history after `token_B` was written, by the teacher where `asked_B`; rows not `active_B` stay as they are.

    The teacher has not seen the student's tokens since its last call: a call processes them all, so afterwards it has
    processed every position up to the one it answers for (lazy prefill).
    """
    length_B = history.length_B + 1
    after = History(
        length_B=length_B,
        calls_B=history.calls_B + asked_B,
        own_B=jnp.where(asked_B, 0, history.own_B + 1),
        in_a_row_B=jnp.where(asked_B, history.in_a_row_B + 1, 0),
        positions_B=jnp.where(asked_B, length_B, history.positions_B),
        last_B=token_B.astype(jnp.int32),
        source_B=history.source_B,
    )
    return History(*(jnp.where(active_B, new, old) for new, old in zip(after, history, strict=True)))


def after_own(history: History, count_B: jax.Array, last_B: jax.Array) -> History:
    """The history after `count_B` more tokens of the student's own, the last of which is `last_B`."""
    some_B = count_B > 0
    return history._replace(
        length_B=history.length_B + count_B,
        own_B=history.own_B + count_B,
        in_a_row_B=jnp.where(some_B, 0, history.in_a_row_B),
        last_B=jnp.where(some_B, last_B, history.last_B).astype(jnp.int32),
    )


def histories(source_BxS: jax.Array, tokens_BxT: jax.Array, asked_BxT: jax.Array) -> History:
    """The history before every token of finished outputs: leaves [T + 1, B], the last being that of the whole.

    Args:
      source_BxS: int, what the teacher reads, padded with 0.
      tokens_BxT: int; those after the end (0) change nothing.
      asked_BxT: bool, the teacher wrote the token.
    """

    def step(history: History, now: tuple[jax.Array, jax.Array]) -> tuple[History, History]:
        token_B, asked_B = now
        return advance(history, token_B, asked_B, token_B != 0), history

    end, before = jax.lax.scan(step, start_history(source_BxS), (tokens_BxT.T, asked_BxT.T))
    return History(*(jnp.concatenate([b, e[None]]) for b, e in zip(before, end, strict=True)))
