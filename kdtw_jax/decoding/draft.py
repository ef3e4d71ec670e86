"""Drafting with checks: the student writes a span, a call of the teacher checks it and writes the next token.

A call has to process the student's tokens since the last call in any case (`kdtw_jax.decoding.spans`), so the teacher's
verdict on each of them is free. Here the span stands up to the first token that the verdict refuses; what follows is
rolled back, and the teacher writes that token, or the one after the span where nothing is refused. A `Strategy` says
when to call and what to refuse.

Three verbs over one state: `_draft` lets the student write a token in every row that does not wait, until all wait or
are finished; then `verify` asks the teacher, and `commit` keeps what stands.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.history import after_drafts
from kdtw_jax.constraints.record import Rule
from kdtw_jax.constraints.unit import TOKENS, Unit
from kdtw_jax.decoding.draft_state import DraftContext, DraftState, at_place, start_drafts
from kdtw_jax.decoding.gate import DecodeState
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import EOS, PAD, choose, mask_to_eos
from kdtw_jax.decoding.strategy import Strategy
from kdtw_jax.decoding.verify import commit, verify
from kdtw_jax.errors import UserError
from kdtw_jax.models import Model, Params


class Checked(NamedTuple):
    """Targets written by student and teacher."""

    tokens_BxT: jax.Array  # int32, end-of-sequence included, 0 after
    asked_BxT: jax.Array  # bool, the teacher wrote it
    mask_BxT: jax.Array  # bool, True up to and including the end-of-sequence token
    finished_B: jax.Array  # bool, False where T tokens were not enough
    calls_B: jax.Array  # int32
    positions_B: jax.Array  # int32, decoder positions that the teacher processed, those rolled back included
    passes_B: jax.Array  # int32, positions that the student processed, likewise, and those for its gate


def generate_with_checks(
    student: tuple[Model, Params],
    teacher: tuple[Model, Params],
    source_BxS: jax.Array,
    teacher_source_BxS: jax.Array,
    noise_3xBxT: jax.Array | None,
    strategy: Strategy,
    *,
    banned: tuple[int, ...],
    max_len: int,
    rule: Rule | None = None,
    unit: Unit = TOKENS,
) -> Checked:
    """Continues every source until its end-of-sequence token or `max_len` tokens, whichever is first.

    Meant to be jitted by the caller; the numbers of the strategy may be traced.

    Args:
      source_BxS: what the student reads.
      teacher_source_BxS: what the teacher reads.
      noise_3xBxT: uniforms in [0, 1) that draw the student's tokens, the verdicts and the teacher's tokens; None: the
        most probable token, and verdicts without chance. A position that is drafted again draws the same: what was
        rolled back has decided nothing that stands.
      banned: tokens that are never written.
      rule: enforced: the teacher writes nothing where it says no, so a draft stands there whatever the verdict, and
        nobody calls. Of what the teacher processed, a rule sees the positions that stand.
      unit: what gates see counted; the teacher is called for tokens.

    Raises:
      UserError: `max_len` is below 1, or the noise has another shape.
    """
    rows = source_BxS.shape[0]
    if max_len < 1:
        raise UserError(f"max_len is {max_len}; it has to be at least 1")
    if noise_3xBxT is not None and noise_3xBxT.shape != (3, rows, max_len):
        raise UserError(f"noise has shape {noise_3xBxT.shape}; it has to be {(3, rows, max_len)}, 3 by rows by max_len")
    context = DraftContext(student, teacher, strategy, banned, rule, noise_3xBxT, unit)
    start = start_drafts(context, source_BxS, teacher_source_BxS, max_len)
    end = jax.lax.while_loop(lambda state: ~jnp.all(state.finished_B), partial(_step, context), start)
    return Checked(
        tokens_BxT=end.tokens_BxT,
        asked_BxT=end.asked_BxT,
        mask_BxT=mask_to_eos(end.tokens_BxT) & (end.tokens_BxT != PAD),
        finished_B=jnp.any(end.tokens_BxT == EOS, axis=1),
        calls_B=end.calls_B,
        positions_B=end.positions_B,
        passes_B=sum(jax.tree.leaves(end.gate), end.passes_B),
    )


def _step(context: DraftContext, state: DraftState) -> DraftState:
    """Drafts until no row can go on alone, and one call of the teacher for all that wait."""
    state = jax.lax.while_loop(lambda now: jnp.any(_drafting(now)), partial(_draft, context), state)
    checked: DraftState = jax.lax.cond(jnp.any(state.waiting_B), partial(_check, context), lambda now: now, state)
    return checked


def _check(context: DraftContext, state: DraftState) -> DraftState:
    return commit(context, state, verify(context, state))


def _drafting(state: DraftState) -> jax.Array:
    return ~state.finished_B & ~state.waiting_B


def _draft(context: DraftContext, state: DraftState) -> DraftState:
    """One position of the student's in every row that is drafting: it writes a token, or waits for the teacher."""
    (model, params), strategy = context.student, context.strategy
    rows, max_len = state.tokens_BxT.shape
    place_B, active_B = state.length_B, _drafting(state)
    before_B = jnp.where(place_B > 0, at_place(state.tokens_BxT, place_B - 1), PAD)
    # Rows that wait fill a slot with what belongs there, or with what is written anew before it is seen.
    slot_B = jnp.minimum(place_B, max_len - 1)
    decoded, cache = model.extend(params, state.student, before_B[:, None], slot_B)
    log_pi_BxV = log_policy(decoded.logits_BxTxV[:, 0], context.banned)
    history = after_drafts(state.settled, state.tokens_BxT, place_B, before_B, context.unit)
    score_B, memory = strategy.gate.score(
        state.gate, DecodeState(log_pi_BxV, decoded.hidden_BxTxD[:, 0], state.tokens_BxT, history)
    )
    risk_B = jnp.where(active_B, state.risk_B + score_B, state.risk_B)
    risky_B = jnp.where(strategy.summed, risk_B, score_B) > strategy.level
    may_B = jnp.ones(rows, bool) if context.rule is None else context.rule.allowed(history)
    wants_B = may_B & (
        (risky_B & ~jnp.asarray(strategy.verify_at_end))
        | (place_B - state.seen_B >= strategy.draft_length)
        | (state.owed_B > 0)
    )
    writes_B = active_B & ~wants_B
    noise_BxT = context.noise_of(0)
    token_B = choose(log_pi_BxV, None if noise_BxT is None else at_place(noise_BxT, place_B))
    ended_B = writes_B & ((token_B == EOS) | (place_B + 1 >= max_len))
    # One place per row is written: the whole buffer, copied at every token, would cost more than the student.
    row_B = jnp.arange(rows)
    policy_BxV = jnp.where(active_B[:, None], log_pi_BxV, state.log_pi_BxTxV[row_B, slot_B])
    place_BxT = jnp.arange(max_len)[None, :]
    here_BxT = place_BxT == place_B[:, None]
    may_BxT = jnp.where(here_BxT & active_B[:, None], may_B[:, None], state.may_BxT)
    span_BxT = (place_BxT >= state.seen_B[:, None]) & (place_BxT <= place_B[:, None])
    # Whether the last span is checked: not where the rule lets the teacher write nowhere in it.
    checks_B = jnp.any(may_BxT & span_BxT, axis=1) & (strategy.check_end | (risky_B & strategy.verify_at_end))
    return state._replace(
        length_B=place_B + writes_B,
        waiting_B=state.waiting_B | (active_B & wants_B) | (ended_B & checks_B),
        finished_B=state.finished_B | (ended_B & ~checks_B),
        tokens_BxT=jnp.where(here_BxT & writes_B[:, None], token_B[:, None], state.tokens_BxT),
        log_pi_BxTxV=state.log_pi_BxTxV.at[row_B, slot_B].set(policy_BxV),
        may_BxT=may_BxT,
        risk_B=risk_B,
        owed_B=jnp.where(writes_B, 0, state.owed_B),  # where the rule says no
        passes_B=state.passes_B + active_B,
        student=cache,
        gate=jax.tree.map(lambda new_B, old_B: jnp.where(active_B, new_B, old_B), memory, state.gate),
    )
