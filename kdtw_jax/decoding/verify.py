"""The teacher's part of drafting: `verify` finds how much of each draft stands, `commit` makes it final."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.history import advance, after_drafts
from kdtw_jax.decoding.draft_state import DraftContext, DraftState, at_place
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import EOS, PAD, choose
from kdtw_jax.decoding.spans import SPAN, decoder_inputs, read_span, successive
from kdtw_jax.models import Cache

_FEW = 2  # positions that are processed at once where no row has more left


class Verification(NamedTuple):
    """The teacher's answers, found span by span. Rows that do not wait count as answered, by nothing."""

    cursor_B: jax.Array  # int32, the next position to process
    answered_B: jax.Array  # bool
    stands_B: jax.Array  # int32, tokens of the output that stand
    token_B: jax.Array  # int32, the teacher's, which comes after these
    writes_B: jax.Array  # bool; where not, the output is complete without it
    cache: Cache  # the teacher's


def verify(context: DraftContext, state: DraftState) -> Verification:
    """Answers every row that waits: how much of its draft stands, and the token after that."""
    nothing_B = jnp.zeros_like(state.length_B)
    inputs_BxX, complete_B = decoder_inputs(state.tokens_BxT), _complete(state)

    def verify_next(found: Verification) -> Verification:
        left = jnp.max(jnp.where(found.answered_B, 0, state.length_B + 1 - found.cursor_B))
        few, many = (partial(_verify_span, context, state, inputs_BxX, complete_B, count) for count in (_FEW, SPAN))
        after: Verification = jax.lax.cond(left <= _FEW, few, many, found)
        return after

    start = Verification(
        state.seen_B, ~state.waiting_B, nothing_B, nothing_B, jnp.zeros_like(state.waiting_B), state.teacher
    )
    end: Verification = jax.lax.while_loop(lambda found: jnp.any(~found.answered_B), verify_next, start)
    return end


def _verify_span(
    context: DraftContext,
    state: DraftState,
    inputs_BxX: jax.Array,
    complete_B: jax.Array,
    count: int,
    found: Verification,
) -> Verification:
    """Judges the next `count` = N positions of every row that has no answer yet."""
    rows, max_len = state.tokens_BxT.shape
    row_B = jnp.arange(rows)
    place_BxN = successive(jnp.minimum(found.cursor_B, max_len), count)
    decoded, cache = read_span(context.teacher, found.cache, inputs_BxX, place_BxN)
    log_mu_BxNxV = log_policy(decoded.logits_BxTxV, context.banned)
    inside_BxN = jnp.minimum(place_BxN, max_len - 1)
    log_pi_BxNxV = jnp.take_along_axis(state.log_pi_BxTxV, inside_BxN[:, :, None], axis=1)
    drafts_BxN = jnp.take_along_axis(inputs_BxX, place_BxN + 1, axis=1)
    judged_BxN, drawn_BxN = (
        None if noise_BxT is None else jnp.take_along_axis(noise_BxT, inside_BxN, axis=1)
        for noise_BxT in (context.noise_of(1), context.noise_of(2))
    )
    verdict = context.strategy.judge(log_pi_BxNxV, log_mu_BxNxV, drafts_BxN, judged_BxN)
    drafted_BxN = place_BxN < state.length_B[:, None]
    refused_BxN = drafted_BxN & ~verdict.accepted_BxN & jnp.take_along_axis(state.may_BxT, inside_BxN, axis=1)
    # The first token that does not stand, or the place after the span; nothing comes after a complete output.
    stops_BxN = refused_BxN | (place_BxN == state.length_B[:, None])
    stopped_B = jnp.any(stops_BxN, axis=1)
    first_B = jnp.argmax(stops_BxN, axis=1)
    stop_B = place_BxN[row_B, first_B]
    after_B = stop_B >= state.length_B
    weights_BxV = jnp.where(
        after_B[:, None], verdict.bonus_logits_BxNxV[row_B, first_B], verdict.residual_logits_BxNxV[row_B, first_B]
    )
    noise_B = None if drawn_BxN is None else drawn_BxN[row_B, first_B]
    newly_B = stopped_B & ~found.answered_B
    return Verification(
        cursor_B=found.cursor_B + count,
        answered_B=found.answered_B | stopped_B,
        stands_B=jnp.where(newly_B, stop_B, found.stands_B),
        token_B=jnp.where(newly_B, choose(weights_BxV, noise_B), found.token_B),
        writes_B=found.writes_B | (newly_B & ~(after_B & complete_B)),
        cache=cache,
    )


def commit(context: DraftContext, state: DraftState, found: Verification) -> DraftState:
    """Rolls back what does not stand and writes the teacher's token, in the rows that waited and in no other."""
    max_len = state.tokens_BxT.shape[1]
    place_BxT = jnp.arange(max_len)[None, :]
    new_BxT = (place_BxT == found.stands_B[:, None]) & found.writes_B[:, None]
    keep_BxT = place_BxT < found.stands_B[:, None]
    last_B = jnp.where(found.stands_B > 0, at_place(state.tokens_BxT, found.stands_B - 1), PAD)
    settled = after_drafts(state.settled, state.tokens_BxT, found.stands_B, last_B, context.unit)
    length_B = found.stands_B + found.writes_B
    ended_B = ~found.writes_B | (found.token_B == EOS) | (length_B >= max_len)
    owed_B = jnp.where(state.owed_B > 0, state.owed_B, context.strategy.tokens_per_call) - 1
    drafts_B = state.length_B - state.seen_B
    after = {
        "length_B": length_B,
        "seen_B": length_B,
        "waiting_B": jnp.zeros_like(state.waiting_B),
        "finished_B": ended_B,
        "tokens_BxT": jnp.where(new_BxT, found.token_B[:, None], jnp.where(keep_BxT, state.tokens_BxT, PAD)),
        "asked_BxT": new_BxT | (state.asked_BxT & keep_BxT),
        "risk_B": jnp.zeros_like(state.risk_B),
        "owed_B": jnp.where(ended_B, 0, owed_B),
        "settled": advance(settled, found.token_B, found.writes_B, found.writes_B, context.unit),
        "calls_B": state.calls_B + (state.owed_B == 0),
        "positions_B": state.positions_B + drafts_B + ~_complete(state),
    }

    def where_waiting(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(state.waiting_B.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    # The caches and the student's policies stay whole: what is rolled back there is written anew before it is seen.
    changed = {name: jax.tree.map(where_waiting, new, getattr(state, name)) for name, new in after.items()}
    return state._replace(**changed, teacher=found.cache)


def _complete(state: DraftState) -> jax.Array:
    """Whether the draft reaches the end of the output, bool [B]: nothing comes after it where all of it stands."""
    drafted_B = state.length_B > state.seen_B
    ended_B = at_place(state.tokens_BxT, state.length_B - 1) == EOS
    return (state.length_B >= state.tokens_BxT.shape[1]) | (drafted_B & ended_B)
