"""Decoding with help: the student writes, and where it asks, the teacher writes the next token.

Two decisions a step: *who* (the gate, sampled or by threshold, within the rule where one is enforced) and *what*
(greedy or sampled). The teacher is lazy: it has not seen the tokens since its last call, so a call first processes them
(in one pass or a few, as in the verification of speculative decoding, arXiv 2211.17192) and then answers. Rows that
asked are answered together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.history import History, advance, start_history
from kdtw_jax.constraints.record import Rule
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import EOS, PAD, choose, mask_to_eos
from kdtw_jax.decoding.view import gate_features
from kdtw_jax.errors import UserError
from kdtw_jax.models import Cache, Encoded, GateOutput, Model, Params

_SPAN = 8  # positions the teacher processes at once; a longer span takes several passes


class DecodeState(NamedTuple):
    """What a gate may look at before a token is written."""

    log_policy_BxV: jax.Array  # of the student's own token, help left out
    hidden_BxD: jax.Array  # the decoder state
    tokens_BxT: jax.Array  # int32, written so far, 0 beyond
    history: History
    # The teacher's next token, if it reads along: for oracles only
    teacher_log_policy_BxV: jax.Array | None = None


class Gate(NamedTuple):
    """Who decides: scores each moment, in [0, 1] if the decision is to be sampled. May keep a state between moments."""

    score: Callable[[Any, DecodeState], tuple[jax.Array, Any]]  # (state, moment) -> float32 [B], state
    start: Any = ()


class Helped(NamedTuple):
    """Targets written by student and teacher. Calls are `sum(asked_BxT)`."""

    tokens_BxT: jax.Array  # int32, end-of-sequence included, 0 after
    asked_BxT: jax.Array  # bool, the teacher wrote it
    score_BxT: jax.Array  # float32, what the gate said, whether or not the rule let it; 0 after the end
    mask_BxT: jax.Array  # bool, True up to and including the end-of-sequence token
    finished_B: jax.Array  # bool, False where T tokens were not enough
    positions_B: jax.Array  # int32, decoder positions that the teacher processed


class _State(NamedTuple):
    step: jax.Array  # [] int32, tokens written so far
    token_Bx1: jax.Array  # int32, the student's next input
    finished_B: jax.Array  # bool
    tokens_BxT: jax.Array  # int32
    asked_BxT: jax.Array  # bool
    score_BxT: jax.Array  # float32
    history: History
    student: Cache
    gate: Any  # the gate's own state
    teacher: Cache  # filled up to `history.positions_B`; what lies beyond is overwritten before it is seen


def own_gate(model: Model, params: Params, encoded: Encoded, alpha: float = 1.0) -> Gate:
    """The student's own: how probable asking is under its policy, having read the rule with the source `encoded`."""
    rule_BxP = model.read_rule(params, encoded)
    return stateless(lambda moment: jax.nn.sigmoid(_odds(model, params, rule_BxP, moment).logit(alpha)[:, 0]))


def priced_gate(
    model: Model, params: Params, encoded: Encoded, price: Callable[[History], jax.Array], alpha: float = 1.0
) -> Gate:
    """The student's own at a price that is given, nats [B] for what has happened so far, and not read from a rule."""
    rule_BxP = model.read_rule(params, encoded)  # of no consequence for what is saved

    def score(moment: DecodeState) -> jax.Array:
        saving_B = _odds(model, params, rule_BxP, moment).saving_BxT[:, 0]
        return jax.nn.sigmoid((saving_B - price(moment.history)) / alpha)

    return stateless(score)


def forecast(model: Model, params: Params, encoded: Encoded) -> Gate:
    """What the student expects an answer to save, nats; below 0 it counts as nothing."""
    rule_BxP = model.read_rule(params, encoded)  # of no consequence for this
    return stateless(lambda moment: jnp.maximum(_odds(model, params, rule_BxP, moment).saving_BxT[:, 0], 0.0))


def _odds(model: Model, params: Params, rule_BxP: jax.Array, moment: DecodeState) -> GateOutput:
    history = History(*(leaf[:, None] for leaf in moment.history))
    view = gate_features(
        moment.log_policy_BxV[:, None], moment.hidden_BxD[:, None], moment.tokens_BxT[:, None], history
    )
    return model.apply_gate(params, rule_BxP, view)


def stateless(score: Callable[[DecodeState], jax.Array]) -> Gate:
    """A gate that is a function of the moment alone."""
    return Gate(lambda state, moment: (score(moment), state))


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
    gate: Gate | None = None,
    read_along: bool = False,
) -> Helped:
    """Continues every source until its end-of-sequence token or `max_len` tokens, whichever is first.

    Args:
      source_BxS: what the student reads; it may hold the rule in words.
      teacher_source_BxS: what the teacher reads.
      gate_noise_BxT: uniforms in [0, 1): ask where the gate's score exceeds them; None: where it exceeds `threshold`.
      token_noise_BxT: uniforms in [0, 1) that sample the token, whoever writes it; None: the most probable token.
      banned: never written; the help token is among them.
      gate: who decides; by default the student's own gate.
      read_along: the teacher processes every token as it is written. The same outputs, and `positions_B` still those of
        the lazy teacher; faster for a batch in which some row asks at nearly every step, as in training.
      rule: enforced: nobody asks where it says no. None: only the gate decides.

    Meant to be jitted by the caller. Raises UserError for a `max_len` below 1 and noise of another shape.
    """
    rows = source_BxS.shape[0]
    if max_len < 1:
        raise UserError(f"max_len is {max_len}; it has to be at least 1")
    for noise in (gate_noise_BxT, token_noise_BxT):
        if noise is not None and noise.shape != (rows, max_len):
            raise UserError(f"noise has shape {noise.shape}; it has to be {(rows, max_len)}, rows by max_len")
    (student_model, student_params), (teacher_model, teacher_params) = student, teacher
    read = student_model.encode(student_params, source_BxS)
    decides = own_gate(student_model, student_params, read) if gate is None else gate

    def unfinished(state: _State) -> jax.Array:
        return (state.step < max_len) & ~jnp.all(state.finished_B)

    def answer(state: _State, asked_B: jax.Array) -> tuple[jax.Array, Cache]:
        """The teacher's logits for the next token of rows that asked, its caches filled up to there."""
        inputs_BxX = jnp.pad(state.tokens_BxT, ((0, 0), (1, _SPAN)))  # the start token, PAD, comes first

        def behind(carry: tuple[jax.Array, jax.Array, Cache]) -> jax.Array:
            return jnp.any(asked_B & (carry[0] <= state.step))

        def catch_up(carry: tuple[jax.Array, jax.Array, Cache]) -> tuple[jax.Array, jax.Array, Cache]:
            seen_B, logits_BxV, cache = carry
            at_BxX = seen_B[:, None] + jnp.arange(_SPAN, dtype=jnp.int32)[None, :]
            span_BxX = jnp.take_along_axis(inputs_BxX, at_BxX, axis=1)
            decoded, cache = teacher_model.extend(teacher_params, cache, span_BxX, seen_B)
            place_B = state.step - seen_B  # of the position that answers, within the span or beyond it
            last_B = jnp.clip(place_B, 0, _SPAN - 1)
            found_BxV = jnp.take_along_axis(decoded.logits_BxTxV, last_B[:, None, None], axis=1)[:, 0]
            here_B = asked_B & (place_B >= 0) & (place_B < _SPAN)
            logits_BxV = jnp.where(here_B[:, None], found_BxV, logits_BxV)
            seen_B = jnp.where(asked_B, jnp.minimum(seen_B + _SPAN, state.step + 1), seen_B)
            return seen_B, logits_BxV, cache

        nothing_BxV = jnp.zeros((rows, teacher_model.config.vocab_size), jnp.float32)
        start = (state.history.positions_B, nothing_BxV, state.teacher)
        _, logits_BxV, cache = jax.lax.while_loop(behind, catch_up, start)
        return logits_BxV, cache

    def step(state: _State) -> _State:
        decoded, student_cache = student_model.extend(student_params, state.student, state.token_Bx1, state.step)
        log_policy_BxV = log_policy(decoded.logits_BxTxV[:, 0], banned)
        hidden_BxD, teacher_cache, along_BxV = decoded.hidden_BxTxD[:, 0], state.teacher, None
        if read_along:
            heard, teacher_cache = teacher_model.extend(teacher_params, state.teacher, state.token_Bx1, state.step)
            along_BxV = log_policy(heard.logits_BxTxV[:, 0], banned)
        moment = DecodeState(log_policy_BxV, hidden_BxD, state.tokens_BxT, state.history, along_BxV)
        score_B, gate_state = decides.score(state.gate, moment)
        active_B = ~state.finished_B
        asked_B = active_B & (score_B > (threshold if gate_noise_BxT is None else _column(gate_noise_BxT, state.step)))
        if rule is not None:
            asked_B &= rule.allowed(state.history)

        def ask() -> tuple[jax.Array, Cache]:
            teacher_BxV, cache = answer(state, asked_B)
            return jnp.where(asked_B[:, None], log_policy(teacher_BxV, banned), log_policy_BxV), cache

        if along_BxV is None:
            written_BxV, teacher_cache = jax.lax.cond(jnp.any(asked_B), ask, lambda: (log_policy_BxV, state.teacher))
        else:
            written_BxV = jnp.where(asked_B[:, None], along_BxV, log_policy_BxV)
        noise_B = None if token_noise_BxT is None else _column(token_noise_BxT, state.step)
        token_B = jnp.where(active_B, choose(written_BxV, noise_B), PAD)
        return _State(
            step=state.step + 1,
            token_Bx1=token_B[:, None],
            finished_B=state.finished_B | (token_B == EOS),
            tokens_BxT=_put(state.tokens_BxT, token_B, state.step),
            asked_BxT=_put(state.asked_BxT, asked_B, state.step),
            score_BxT=_put(state.score_BxT, jnp.where(active_B, score_B, 0.0), state.step),
            history=advance(state.history, token_B, asked_B, active_B),
            student=student_cache,
            gate=gate_state,
            teacher=teacher_cache,
        )

    encoded = teacher_model.encode(teacher_params, teacher_source_BxS)
    end = jax.lax.while_loop(
        unfinished,
        step,
        _State(
            step=jnp.zeros((), jnp.int32),
            token_Bx1=jnp.full((rows, 1), PAD, jnp.int32),
            finished_B=jnp.zeros(rows, bool),
            tokens_BxT=jnp.full((rows, max_len), PAD, jnp.int32),
            asked_BxT=jnp.zeros((rows, max_len), bool),
            score_BxT=jnp.zeros((rows, max_len), jnp.float32),
            history=start_history(teacher_source_BxS),
            student=student_model.start(student_params, read, max_len),
            gate=decides.start,
            # Spans are written whole, also where they reach past the end.
            teacher=teacher_model.start(teacher_params, encoded, max_len if read_along else max_len + _SPAN),
        ),
    )
    return Helped(
        tokens_BxT=end.tokens_BxT,
        asked_BxT=end.asked_BxT,
        score_BxT=end.score_BxT,
        mask_BxT=mask_to_eos(end.tokens_BxT),
        finished_B=end.finished_B,
        positions_B=end.history.positions_B,
    )


def _column(x_BxT: jax.Array, step: jax.Array) -> jax.Array:
    column_B: jax.Array = jax.lax.dynamic_index_in_dim(x_BxT, step, axis=1, keepdims=False)
    return column_B


def _put(x_BxT: jax.Array, new_B: jax.Array, step: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(x_BxT, new_B, step, axis=1)
