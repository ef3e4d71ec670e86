"""Drafting with checks: the student writes a span, a call of the teacher checks it and writes the next token.

A call has to process the student's tokens since the last call in any case (`kdtw_jax.decoding.help`), so the teacher's
verdict on each of them is free. Here the span stands up to the first token that the verdict refuses; what follows is
rolled back, and the teacher writes that token, or the one after the span where nothing is refused. A `Strategy` says
when to call and what to refuse; speculative decoding and its relatives are strategies (`kdtw_jax.decoding.baselines`),
and so is verified asking: the student's own forecast of what a check would save, summed over the span, against a price.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.history import History, advance, start_history
from kdtw_jax.constraints.record import Rule
from kdtw_jax.decoding.help import DecodeState, Gate
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import EOS, PAD, choose, mask_to_eos
from kdtw_jax.errors import UserError
from kdtw_jax.models import Cache, Model, Params

# Positions that the teacher processes at once: the few of a short span, or many; a longer span takes several passes.
_FEW, _SPAN = 2, 8


class Verdict(NamedTuple):
    """On N drafted tokens, each as if all before it stood."""

    accepted_BxN: jax.Array  # bool
    residual_logits_BxNxV: jax.Array  # log-weights of the token that is written where the draft is refused
    bonus_logits_BxNxV: jax.Array  # log-weights of the token that is written where there is no draft: after the span


# (log_pi_BxNxV, log_mu_BxNxV, draft_BxN, uniforms_BxN or None for greedy decoding) -> verdict
Judge = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], Verdict]


class Strategy(NamedTuple):
    """When the teacher is called, and what it lets stand.

    Before each token the student scores the moment; the teacher is called where the score, or with `summed` that of the
    whole span since the last call, exceeds `level`, and where the span has `draft_length` tokens. With `verify_at_end`
    the student goes on drafting all the same, and whether the score exceeds `level` decides at its end of the output.
    """

    judge: Judge
    gate: Gate  # a score without a state
    level: float | jax.Array = jnp.inf
    summed: bool | jax.Array = False
    draft_length: int | jax.Array = 1 << 20
    check_end: bool | jax.Array = (
        True  # the last span is checked, too; otherwise the student may end an output by itself
    )
    tokens_per_call: int | jax.Array = 1  # tokens that the teacher writes at a call
    verify_at_end: bool | jax.Array = False


class Checked(NamedTuple):
    """Targets written by student and teacher."""

    tokens_BxT: jax.Array  # int32, end-of-sequence included, 0 after
    asked_BxT: jax.Array  # bool, the teacher wrote it
    mask_BxT: jax.Array  # bool, True up to and including the end-of-sequence token
    finished_B: jax.Array  # bool, False where T tokens were not enough
    calls_B: jax.Array  # int32
    positions_B: jax.Array  # int32, decoder positions that the teacher processed, those rolled back included
    passes_B: jax.Array  # int32, positions that the student processed, likewise


class _State(NamedTuple):
    length_B: jax.Array  # int32, tokens written, drafts included
    seen_B: jax.Array  # int32, tokens that stand for good: the teacher has processed as many positions
    waiting_B: jax.Array  # bool, for the teacher
    finished_B: jax.Array  # bool
    tokens_BxT: jax.Array  # int32, with drafts
    asked_BxT: jax.Array  # bool
    may_BxT: jax.Array  # bool, the rule lets the teacher write here
    log_pi_BxTxV: jax.Array  # the student's policy where it was asked for it last
    risk_B: jax.Array  # float32, scores of the span added up
    owed_B: jax.Array  # int32, tokens of a call that are still to come
    settled: History  # up to what stands for good
    calls_B: jax.Array
    positions_B: jax.Array
    passes_B: jax.Array
    student: Cache
    teacher: Cache


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
) -> Checked:
    """Continues every source until its end-of-sequence token or `max_len` tokens, whichever is first.

    Args:
      source_BxS, teacher_source_BxS: what each of the two reads.
      noise_3xBxT: uniforms in [0, 1) that draw the student's tokens, the verdicts and the teacher's tokens; None: the
        most probable token, and verdicts without chance. A position that is drafted again draws the same: what was
        rolled back has decided nothing that stands.
      rule: enforced: the teacher writes nothing where it says no, so a draft stands there whatever the verdict, and
        nobody calls. Of what the teacher processed, a rule sees the positions that stand.

    Meant to be jitted by the caller; the numbers of the strategy may be traced. Raises UserError for a `max_len` below
    1 and noise of another shape.
    """
    rows = source_BxS.shape[0]
    if max_len < 1:
        raise UserError(f"max_len is {max_len}; it has to be at least 1")
    if noise_3xBxT is not None and noise_3xBxT.shape != (3, rows, max_len):
        raise UserError(f"noise has shape {noise_3xBxT.shape}; it has to be {(3, rows, max_len)}, 3 by rows by max_len")
    (student_model, student_params), (teacher_model, teacher_params) = student, teacher
    vocabulary = student_model.config.vocab_size
    row_B = jnp.arange(rows)

    def at(x_BxT: jax.Array, place_B: jax.Array) -> jax.Array:
        return x_BxT[row_B, jnp.minimum(place_B, max_len - 1)]

    def drafting(state: _State) -> jax.Array:
        return ~state.finished_B & ~state.waiting_B

    def draft(state: _State) -> _State:
        """One position of the student's in every row that is drafting."""
        place_B, active_B = state.length_B, drafting(state)
        before_B = jnp.where(place_B > 0, at(state.tokens_BxT, place_B - 1), PAD)
        # Rows that wait fill a slot with what belongs there, or with what is written anew before it is seen.
        slot_B = jnp.minimum(place_B, max_len - 1)
        decoded, cache = student_model.extend(student_params, state.student, before_B[:, None], slot_B)
        log_pi_BxV = log_policy(decoded.logits_BxTxV[:, 0], banned)
        history = _own(state.settled, place_B - state.seen_B, before_B)
        moment = DecodeState(log_pi_BxV, decoded.hidden_BxTxD[:, 0], state.tokens_BxT, history)
        score_B, _ = strategy.gate.score(strategy.gate.start, moment)
        risk_B = jnp.where(active_B, state.risk_B + score_B, state.risk_B)
        risky_B = jnp.where(strategy.summed, risk_B, score_B) > strategy.level
        wants_B = risky_B & ~jnp.asarray(strategy.verify_at_end)
        wants_B |= (place_B - state.seen_B >= strategy.draft_length) | (state.owed_B > 0)
        may_B = jnp.ones(rows, bool) if rule is None else rule.allowed(history)
        wants_B &= may_B
        calls_B = active_B & wants_B
        writes_B = active_B & ~wants_B
        noise_B = None if noise_3xBxT is None else at(noise_3xBxT[0], place_B)
        token_B = choose(log_pi_BxV, noise_B)
        ended_B = writes_B & ((token_B == EOS) | (place_B + 1 >= max_len))
        # One place a row is written: the whole buffer, copied at every token, would cost more than the student.
        policy_BxV = jnp.where(active_B[:, None], log_pi_BxV, state.log_pi_BxTxV[row_B, slot_B])
        place_BxT = jnp.arange(max_len)[None, :]
        here_BxT = place_BxT == place_B[:, None]
        may_BxT = jnp.where(here_BxT & active_B[:, None], may_B[:, None], state.may_BxT)
        span_BxT = (place_BxT >= state.seen_B[:, None]) & (place_BxT <= place_B[:, None])
        last_B = jnp.any(may_BxT & span_BxT, axis=1) & (strategy.check_end | (risky_B & strategy.verify_at_end))
        kept_BxT = here_BxT & writes_B[:, None]
        return state._replace(
            length_B=place_B + writes_B,
            waiting_B=state.waiting_B | calls_B | (ended_B & last_B),
            finished_B=state.finished_B | (ended_B & ~last_B),
            tokens_BxT=jnp.where(kept_BxT, token_B[:, None], state.tokens_BxT),
            log_pi_BxTxV=state.log_pi_BxTxV.at[row_B, slot_B].set(policy_BxV),
            may_BxT=may_BxT,
            risk_B=risk_B,
            owed_B=jnp.where(writes_B, 0, state.owed_B),  # where the rule says no
            passes_B=state.passes_B + active_B,
            student=cache,
        )

    def check(state: _State) -> _State:
        """The teacher's answer to every row that waits."""
        waits_B = state.waiting_B
        count_B = state.length_B - state.seen_B  # drafts
        complete_B = (state.length_B >= max_len) | ((count_B > 0) & (at(state.tokens_BxT, state.length_B - 1) == EOS))
        inputs_BxX = jnp.pad(state.tokens_BxT, ((0, 0), (1, _SPAN)))  # the start token, PAD, comes first
        drafts_BxX = jnp.pad(state.tokens_BxT, ((0, 0), (0, _SPAN)))

        def unresolved(carry: Any) -> Any:
            return jnp.any(~carry[1])

        def look(carry: Any) -> Any:
            cursor_B, done_B = carry[:2]
            needed = jnp.max(jnp.where(done_B, 0, state.length_B + 1 - cursor_B))
            return jax.lax.cond(needed <= _FEW, partial(look_at, _FEW), partial(look_at, _SPAN), carry)

        def look_at(count: int, carry: Any) -> Any:
            cursor_B, done_B, stands_B, token_B, written_B, cache = carry
            at_BxN = jnp.minimum(cursor_B, max_len)[:, None] + jnp.arange(count, dtype=jnp.int32)[None, :]
            span_BxN = jnp.take_along_axis(inputs_BxX, at_BxN, axis=1)
            decoded, cache = teacher_model.extend(teacher_params, cache, span_BxN, at_BxN[:, 0])
            log_mu_BxNxV = log_policy(decoded.logits_BxTxV, banned)
            own_BxN = jnp.minimum(at_BxN, max_len - 1)
            log_pi_BxNxV = jnp.take_along_axis(state.log_pi_BxTxV, own_BxN[:, :, None], axis=1)
            drafts_BxN = jnp.take_along_axis(drafts_BxX, at_BxN, axis=1)
            noises: list[jax.Array | None] = [None, None]
            if noise_3xBxT is not None:
                noises = [jnp.take_along_axis(noise_3xBxT[i], own_BxN, axis=1) for i in (1, 2)]
            verdict = strategy.judge(log_pi_BxNxV, log_mu_BxNxV, drafts_BxN, noises[0])
            drafted_BxN = at_BxN < state.length_B[:, None]
            refused_BxN = drafted_BxN & ~verdict.accepted_BxN & jnp.take_along_axis(state.may_BxT, own_BxN, axis=1)
            # The first token that does not stand, or the place after the span; nothing comes after a complete output.
            stops_BxN = refused_BxN | (at_BxN == state.length_B[:, None])
            found_B = jnp.any(stops_BxN, axis=1)
            first_B = jnp.argmax(stops_BxN, axis=1)
            after_B = at_BxN[row_B, first_B] >= state.length_B
            weights_BxV = jnp.where(
                after_B[:, None],
                verdict.bonus_logits_BxNxV[row_B, first_B],
                verdict.residual_logits_BxNxV[row_B, first_B],
            )
            noise_B = None if noises[1] is None else noises[1][row_B, first_B]
            newly_B = found_B & ~done_B
            return (
                cursor_B + count,
                done_B | found_B,
                jnp.where(newly_B, at_BxN[row_B, first_B], stands_B),
                jnp.where(newly_B, choose(weights_BxV, noise_B), token_B),
                written_B | (newly_B & ~(after_B & complete_B)),
                cache,
            )

        nothing_B = jnp.zeros(rows, jnp.int32)
        start = (state.seen_B, ~waits_B, nothing_B, nothing_B, jnp.zeros(rows, bool), state.teacher)
        _, _, stands_B, token_B, written_B, cache = jax.lax.while_loop(unresolved, look, start)
        # `stands_B` tokens stand; the teacher's comes after them unless the output is complete.
        place_BxT = jnp.arange(max_len)[None, :]
        new_BxT = (place_BxT == stands_B[:, None]) & written_B[:, None]
        keep_BxT = place_BxT < stands_B[:, None]
        tokens_BxT = jnp.where(new_BxT, token_B[:, None], jnp.where(keep_BxT, state.tokens_BxT, PAD))
        asked_BxT = new_BxT | (state.asked_BxT & keep_BxT)
        last_B = jnp.where(stands_B > 0, at(state.tokens_BxT, stands_B - 1), PAD)
        settled = _own(state.settled, stands_B - state.seen_B, last_B)
        settled = advance(settled, token_B, written_B, written_B)
        length_B = stands_B + written_B
        ended_B = ~written_B | (token_B == EOS) | (length_B >= max_len)
        tokens_per_call_B = jnp.where(state.owed_B > 0, state.owed_B, strategy.tokens_per_call) - 1
        owed_B = jnp.where(ended_B, 0, tokens_per_call_B)
        after = state._replace(
            length_B=length_B,
            seen_B=length_B,
            waiting_B=jnp.zeros(rows, bool),
            finished_B=ended_B,
            tokens_BxT=tokens_BxT,
            asked_BxT=asked_BxT,
            risk_B=jnp.zeros(rows),
            owed_B=owed_B,
            settled=settled,
            calls_B=state.calls_B + (state.owed_B == 0),
            positions_B=state.positions_B + count_B + ~complete_B,
        )

        def of_waiting(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(waits_B.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

        big = {"log_pi_BxTxV", "student", "teacher"}  # not changed here, or where it is written anew before it is seen
        small = {
            name: jax.tree.map(of_waiting, getattr(after, name), x)
            for name, x in state._asdict().items()
            if name not in big
        }
        return state._replace(**small, teacher=cache)

    def step(state: _State) -> _State:
        state = jax.lax.while_loop(lambda s: jnp.any(drafting(s)), draft, state)
        return jax.lax.cond(jnp.any(state.waiting_B), check, lambda s: s, state)

    zero_B = jnp.zeros(rows, jnp.int32)
    end = jax.lax.while_loop(
        lambda state: ~jnp.all(state.finished_B),
        step,
        _State(
            length_B=zero_B,
            seen_B=zero_B,
            waiting_B=jnp.zeros(rows, bool),
            finished_B=jnp.zeros(rows, bool),
            tokens_BxT=jnp.full((rows, max_len), PAD, jnp.int32),
            asked_BxT=jnp.zeros((rows, max_len), bool),
            may_BxT=jnp.ones((rows, max_len), bool),
            log_pi_BxTxV=jnp.zeros((rows, max_len, vocabulary), jnp.float32),
            risk_B=jnp.zeros(rows),
            owed_B=zero_B,
            settled=start_history(teacher_source_BxS),
            calls_B=zero_B,
            positions_B=zero_B,
            passes_B=zero_B,
            student=student_model.start(student_params, student_model.encode(student_params, source_BxS), max_len),
            # Spans are written whole, also where they reach past the end.
            teacher=teacher_model.start(
                teacher_params, teacher_model.encode(teacher_params, teacher_source_BxS), max_len + _SPAN
            ),
        ),
    )
    return Checked(
        tokens_BxT=end.tokens_BxT,
        asked_BxT=end.asked_BxT,
        mask_BxT=mask_to_eos(end.tokens_BxT) & (end.tokens_BxT != PAD),
        finished_B=jnp.any(end.tokens_BxT == EOS, axis=1),
        calls_B=end.calls_B,
        positions_B=end.positions_B,
        passes_B=end.passes_B,
    )


def _own(history: History, count_B: jax.Array, last_B: jax.Array) -> History:
    """The history after `count_B` more tokens of the student's own, the last of which is `last_B`."""
    some_B = count_B > 0
    return history._replace(
        length_B=history.length_B + count_B,
        own_B=history.own_B + count_B,
        in_a_row_B=jnp.where(some_B, 0, history.in_a_row_B),
        last_B=jnp.where(some_B, last_B, history.last_B).astype(jnp.int32),
    )
