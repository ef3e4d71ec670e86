"""Decoding with help: the student writes, and where it asks, the teacher writes the next token, word or tokens.

Two decisions per step: *who* (the gate, sampled or by threshold, within the rule where one is enforced) and *what*
(greedy or sampled). The teacher is lazy: it has not seen the tokens since its last call, so a call first processes them
(`kdtw_jax.decoding.spans`) and then answers. Rows that asked are answered together, and the others are read with them.

Where a call buys more than a token, the teacher goes on unasked. Whether its word is over it says itself: it says the
next token, and where that begins another word, the gate decides anew who writes it.

Three verbs over one state: `look` says who asks, `_answer` what the teacher says to them, `conclude` what is written.
A teacher elsewhere answers between the first and the last (`kdtw_jax.decoding.elsewhere`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.credit import Credit, Room, Turns, turns
from kdtw_jax.constraints.history import History, advance, called, start_history
from kdtw_jax.constraints.record import Rule
from kdtw_jax.constraints.unit import TOKENS, Unit
from kdtw_jax.decoding.gate import DecodeState, Gate, own_gate
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import EOS, PAD, choose, mask_to_eos
from kdtw_jax.decoding.spans import follow, spare
from kdtw_jax.decoding.withhold import only_keeping, withhold_end
from kdtw_jax.errors import UserError
from kdtw_jax.models import Cache, Model, Params


class Helped(NamedTuple):
    """Targets written by student and teacher."""

    tokens_BxT: jax.Array  # int32, end-of-sequence included, 0 after
    asked_BxT: jax.Array  # bool, the teacher wrote it
    called_BxT: jax.Array  # bool, it was asked for it, and did not go on
    score_BxT: jax.Array  # float32, what the gate said, whether or not the rule let it; 0 after the end
    mask_BxT: jax.Array  # bool, True up to and including the end-of-sequence token
    finished_B: jax.Array  # bool, False where T tokens were not enough
    history: History  # at the end
    memory: Any = ()  # the gate's own, at the end

    @property
    def positions_B(self) -> jax.Array:
        """Decoder positions that the teacher had to process for this row, int32; beside others it may read more."""
        return self.history.positions_B


class Helping(NamedTuple):
    """What stays the same through a decoding: the arguments of `generate_with_help`."""

    student: tuple[Model, Params]
    teacher: tuple[Model, Params] | None  # None: it is elsewhere
    gate: Gate
    banned: tuple[int, ...]
    gate_noise_BxT: jax.Array | None = None
    token_noise_BxT: jax.Array | None = None
    threshold: float | jax.Array = 0.5
    rule: Rule | None = None
    credit: Credit | None = None
    read_along: bool = False
    unit: Unit = TOKENS

    def room(self, state: HelpState) -> Room:
        return Room(self.unit, state.tokens_BxT.shape[1] - state.step)


class HelpState(NamedTuple):
    """Between two tokens."""

    step: jax.Array  # [] int32, tokens written so far
    token_Bx1: jax.Array  # int32, the student's next input
    finished_B: jax.Array  # bool
    tokens_BxT: jax.Array  # int32
    asked_BxT: jax.Array  # bool
    called_BxT: jax.Array  # bool
    score_BxT: jax.Array  # float32
    history: History
    student: Cache
    gate: Any  # the gate's own memory
    read: jax.Array  # [] int32, positions that the teacher has processed, of all rows
    teacher: Cache  # filled up to there; what lies beyond is overwritten before it is seen


class Looked(NamedTuple):
    """What a step finds out before anybody is heard."""

    log_pi_BxV: jax.Array  # float32, the student's policy of the next token
    log_mu_BxV: jax.Array | None  # float32, the teacher's, if it reads along
    turn: Turns
    score_B: jax.Array  # float32, what the gate says

    @property
    def heard_B(self) -> jax.Array:
        """Rows in which the teacher is heard, bool."""
        return self.turn.ask_B | self.turn.on_B


def generate_with_help(
    student: tuple[Model, Params],
    teacher: tuple[Model, Params],
    source_BxS: jax.Array,
    teacher_source_BxS: jax.Array,
    gate_noise_BxT: jax.Array | None,
    token_noise_BxT: jax.Array | None,
    *,
    banned: tuple[int, ...],
    max_len: int,
    threshold: float | jax.Array = 0.5,
    rule: Rule | None = None,
    credit: Credit | None = None,
    gate: Gate | None = None,
    read_along: bool = False,
    unit: Unit = TOKENS,
) -> Helped:
    """Continues every source until its end-of-sequence token or `max_len` tokens, whichever is first.

    Meant to be jitted by the caller.

    Args:
      source_BxS: what the student reads; it may hold the rule in words.
      teacher_source_BxS: what the teacher reads.
      gate_noise_BxT: uniforms in [0, 1): ask where the gate's score exceeds them; None: where it exceeds `threshold`.
      token_noise_BxT: uniforms in [0, 1) that sample the token, whoever writes it; None: the most probable token.
      banned: never written; the help token is among them.
      rule: enforced: nobody asks where it says no. None: only the gate decides.
      credit: how far outputs may ask ahead of the rule, which is then kept at their end: end-of-sequence is withheld
        from both writers before. None: the rule holds after every token.
      gate: who decides; by default the student's own gate.
      read_along: the teacher processes every token as it is written. The same outputs, and `positions_B` still those of
        the lazy teacher; faster for a batch in which some row asks at nearly every step, as in training.
      unit: what a call buys, and what the rule counts.

    Raises:
      UserError: `max_len` is below 1, or noise has another shape.
    """
    rows = source_BxS.shape[0]
    if max_len < 1:
        raise UserError(f"max_len is {max_len}; it has to be at least 1")
    for noise in (gate_noise_BxT, token_noise_BxT):
        if noise is not None and noise.shape != (rows, max_len):
            raise UserError(f"noise has shape {noise.shape}; it has to be {(rows, max_len)}, rows by max_len")
    (model, params), (other, other_params) = student, teacher
    read = model.encode(params, source_BxS)
    gate = own_gate(model, params, read) if gate is None else gate
    if credit is not None:
        credit = credit._replace(length_B=jnp.minimum(credit.length_B, max_len))  # what can be reached
    context = Helping(
        student, teacher, gate, banned, gate_noise_BxT, token_noise_BxT, threshold, rule, credit, read_along, unit
    )
    encoded = other.encode(other_params, teacher_source_BxS)
    cache = other.start(other_params, encoded, max_len if read_along else max_len + spare(rows))
    start = start_help(context, model.start(params, read, max_len), cache, teacher_source_BxS, max_len)
    end = jax.lax.while_loop(
        lambda state: (state.step < max_len) & ~jnp.all(state.finished_B), partial(_step, context), start
    )
    return Helped(
        tokens_BxT=end.tokens_BxT,
        asked_BxT=end.asked_BxT,
        called_BxT=end.called_BxT,
        score_BxT=end.score_BxT,
        mask_BxT=mask_to_eos(end.tokens_BxT),
        finished_B=end.finished_B,
        history=end.history,
        memory=end.gate,
    )


def start_help(
    context: Helping, student: Cache, teacher: Cache, teacher_source_BxS: jax.Array, max_len: int
) -> HelpState:
    """Before the first token.

    Args:
      context: how it goes on.
      student: the cache of what it has read.
      teacher: its cache; of one elsewhere, ().
      teacher_source_BxS: what the teacher reads.
      max_len: tokens of an output at the most.
    """
    rows = len(teacher_source_BxS)
    return HelpState(
        step=jnp.zeros((), jnp.int32),
        token_Bx1=jnp.full((rows, 1), PAD, jnp.int32),
        finished_B=jnp.zeros(rows, bool),
        tokens_BxT=jnp.full((rows, max_len), PAD, jnp.int32),
        asked_BxT=jnp.zeros((rows, max_len), bool),
        called_BxT=jnp.zeros((rows, max_len), bool),
        score_BxT=jnp.zeros((rows, max_len), jnp.float32),
        history=start_history(teacher_source_BxS),
        student=student,
        gate=context.gate.start,
        read=jnp.zeros((), jnp.int32),
        teacher=teacher,
    )


def _step(context: Helping, before: HelpState) -> HelpState:
    """One token in every row that is not finished."""
    state, looked = look(context, before)
    log_pi_BxV, log_mu_BxV = looked[:2]
    if log_mu_BxV is None:
        hear, nobody = partial(_answer, context, state, looked), lambda: (log_pi_BxV, state.read, state.teacher)
        log_mu_BxV, read, teacher = jax.lax.cond(jnp.any(looked.heard_B), hear, nobody)
        state = state._replace(read=read, teacher=teacher)
    return conclude(context, state, looked, log_mu_BxV)


def look(context: Helping, state: HelpState) -> tuple[HelpState, Looked]:
    """Has the student read its last token and say who is to write the next one.

    Args:
      context: of the decoding.
      state: between two tokens.

    Returns:
      The state with what has been read, and what was found out; `conclude` writes the token.
    """
    model, params = context.student
    decoded, student = model.extend(params, state.student, state.token_Bx1, state.step)
    log_pi_BxV, log_mu_BxV = log_policy(decoded.logits_BxTxV[:, 0], context.banned), None
    teacher = state.teacher
    if context.read_along and context.teacher is not None:
        other, other_params = context.teacher
        heard, teacher = other.extend(other_params, state.teacher, state.token_Bx1, state.step)
        log_mu_BxV = log_policy(heard.logits_BxTxV[:, 0], context.banned)
    seen = DecodeState(log_pi_BxV, decoded.hidden_BxTxD[:, 0], state.tokens_BxT, state.history, log_mu_BxV)
    turn, score_B, gate = _decide(context, state, seen)
    read = state._replace(student=student, gate=gate, teacher=teacher)
    return read, Looked(log_pi_BxV, log_mu_BxV, turn, score_B)


def conclude(context: Helping, state: HelpState, looked: Looked, log_mu_BxV: jax.Array) -> HelpState:
    """Writes the next token.

    Args:
      context: of the decoding.
      state: that `look` has left.
      looked: what it found out.
      log_mu_BxV: float32, the teacher's policy in rows where it is heard; the others are not looked at.
    """
    turn, log_pi_BxV = looked.turn, looked.log_pi_BxV
    asked_B = turn.ask_B | _goes_on(context, state, turn.on_B, log_mu_BxV)
    written_BxV = jnp.where(asked_B[:, None], log_mu_BxV, log_pi_BxV)
    rule, credit = context.rule, context.credit
    if rule is not None and credit is not None:
        bound_B = ~turn.idle_B & ~state.finished_B
        written_BxV = only_keeping(rule, credit, state.history, written_BxV, bound_B, context.room(state))
    return _write(context, state, written_BxV, asked_B, looked.score_B, looked.heard_B)


def _decide(context: Helping, state: HelpState, seen: DecodeState) -> tuple[Turns, jax.Array, Any]:
    """Who may ask and would; the gate's score, float32 [B]; and its memory."""
    score_B, memory = context.gate.score(state.gate, seen)
    noise_BxT = context.gate_noise_BxT
    level = context.threshold if noise_BxT is None else _column(noise_BxT, state.step)
    open_B = ~state.finished_B
    wish_B, rule, credit = open_B & (score_B > level), context.rule, context.credit
    if rule is not None and credit is not None:
        return turns(rule, credit, state.history, wish_B, open_B, context.room(state)), score_B, memory
    on_B = open_B & (state.history.owed_B > 0)
    if rule is not None:
        wish_B &= rule.allowed(state.history, context.unit)
        on_B &= context.unit.one_token or rule.lets_go_on(state.history, context.unit)
    return Turns(wish_B, on_B, open_B), score_B, memory


def _goes_on(context: Helping, state: HelpState, on_B: jax.Array, log_mu_BxV: jax.Array) -> jax.Array:
    """Where the answer that runs goes on with what the teacher would write, bool [B]."""
    if context.unit.one_token:
        return jnp.zeros_like(on_B)
    noise_BxT = context.token_noise_BxT
    token_B = choose(log_mu_BxV, None if noise_BxT is None else _column(noise_BxT, state.step))
    return on_B & context.unit.goes_on(state.history.owed_B, token_B, state.history.last_B)


def _answer(context: Helping, state: HelpState, looked: Looked) -> tuple[jax.Array, jax.Array, Cache]:
    """The policy of the next token, the teacher's in rows where it is heard; what it has read then, and its cache."""
    assert context.teacher is not None
    logits_BxV, cache = follow(context.teacher, state.teacher, state.tokens_BxT, state.read, state.step)
    log_mu_BxV = log_policy(logits_BxV, context.banned)
    return jnp.where(looked.heard_B[:, None], log_mu_BxV, looked.log_pi_BxV), state.step + 1, cache


def _write(
    context: Helping,
    state: HelpState,
    log_policy_BxV: jax.Array,
    asked_B: jax.Array,
    score_B: jax.Array,
    heard_B: jax.Array,
) -> HelpState:
    """The next token of rows that are not finished, padding in the others."""
    active_B, noise_BxT = ~state.finished_B, context.token_noise_BxT
    noise_B = None if noise_BxT is None else _column(noise_BxT, state.step)
    token_B = jnp.where(active_B, choose(log_policy_BxV, noise_B), PAD)
    rule, credit = context.rule, context.credit
    if rule is not None and credit is not None:
        given = (rule, credit, state.history, log_policy_BxV, noise_B, token_B, asked_B, active_B)
        token_B = withhold_end(*given, context.room(state))
    return state._replace(
        step=state.step + 1,
        token_Bx1=token_B[:, None],
        finished_B=state.finished_B | (token_B == EOS),
        tokens_BxT=_put(state.tokens_BxT, token_B, state.step),
        asked_BxT=_put(state.asked_BxT, asked_B, state.step),
        called_BxT=_put(state.called_BxT, called(state.history, token_B, asked_B, context.unit), state.step),
        score_BxT=_put(state.score_BxT, jnp.where(active_B, score_B, 0.0), state.step),
        history=advance(state.history, token_B, asked_B, active_B, context.unit, heard_B),
    )


def _column(x_BxT: jax.Array, step: jax.Array) -> jax.Array:
    column_B: jax.Array = jax.lax.dynamic_index_in_dim(x_BxT, step, axis=1, keepdims=False)
    return column_B


def _put(x_BxT: jax.Array, new_B: jax.Array, step: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(x_BxT, new_B, step, axis=1)
