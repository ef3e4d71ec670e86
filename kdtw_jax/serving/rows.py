"""Compiled programs of a server: rows that come and go at every token, each with a source and a rule of its own.

What `write_under_rule` does with a batch is done here with rows that stand at different places, so that a row that
comes is not held up by one that is under way. A row of an enforced rule is first drafted, as there: it is written
without help to its end, and then written anew. What it writes does not depend on the other rows.

The teacher is in the program, or somewhere else: then rows that want to hear it stand still until its word is there,
and the others go on. A tool's words come with each step, too, and stand where the student's would.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.constraints import Constraint, Terms, Unit, as_rule
from kdtw_jax.constraints.credit import Credit, Purse, Room, turns
from kdtw_jax.constraints.history import History, advance, called, start_history
from kdtw_jax.decoding.enforced import trusted_length
from kdtw_jax.decoding.gate import DecodeState, gate_that_read
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import EOS, PAD, choose
from kdtw_jax.decoding.spans import catch_up, spare
from kdtw_jax.decoding.view import encoder_inputs
from kdtw_jax.decoding.withhold import only_keeping, withhold_end
from kdtw_jax.models import Cache, Model, Params

THRESHOLD = 0.5  # of the gate's score, as `generate_with_help` has it
TOP_K = 8  # tokens that a teacher elsewhere says of


class RowSpec(NamedTuple):
    """How one row is to be written; leaves [1] or [1, C] for C constraints."""

    most_B: Any  # int32, tokens at the most
    drafted_B: Any  # bool, its credit is found by a draft
    budget_BxC: Any  # float32
    active_BxC: Any  # bool, this constraint is enforced
    saved_BxC: Any  # float32, what its account has saved for it
    member_B: Any  # bool, it is written on an account


class Rows(NamedTuple):
    """R rows, taken or free."""

    open_R: jax.Array  # bool, taken and not finished
    drafting_R: jax.Array  # bool
    drafted_R: jax.Array  # int32, tokens of the draft
    credit_R: jax.Array  # int32, units that the output is trusted to reach
    input_R: jax.Array  # int32, the student's next input
    tokens_RxT: jax.Array  # int32, written so far, of the draft or of the output
    order: RowSpec
    history: History
    rule: Any  # what the student's gate made of the rule, [R, P]; None: the student has no gate
    student: Cache
    teacher: Cache | None  # None: it is elsewhere, or there is none


class TeacherReply(NamedTuple):
    """What a teacher elsewhere has said."""

    ids_RxK: Any  # int32
    log_probs_RxK: Any  # float32, nats
    has_R: Any  # bool, it has answered for the next token of this row
    gone_R: Any  # bool, there is no answer to be had


class ToolWord(NamedTuple):
    """What a tool writes, such as a calculator."""

    token_R: Any  # int32, the next token; 0: it has nothing to say
    left_R: Any  # int32, tokens of its word that are not written, that one included
    closed_R: Any  # bool, its word is over: the student does not go on with letters or digits


class StepResult(NamedTuple):
    """What a step did; `unpack` finds it in the array that the program gives."""

    wrote: Any  # bool [R], a token of the output was written
    token: Any
    asked: Any  # the teacher wrote it
    called: Any
    ended: Any  # the output ends with it
    waits: Any  # it would hear the teacher, which is elsewhere
    refused: Any  # it would have, and there is no answer to be had
    history: History  # leaves [R]


class Programs(NamedTuple):
    """The programs of R rows."""

    empty: Callable[[Params, Params], Rows]
    seat: Callable[..., Rows]  # (params, teacher's, rows, row [], source_1xS, words_1xW, order): a row is taken
    step: Callable[..., tuple[Rows, jax.Array]]  # (params, teacher's, rows, keep_R, word, tool): one token in every row


def make_programs(
    student: Model,
    teacher: Model | None,
    constraints: tuple[Constraint, ...],
    *,
    rows: int,
    source: int,
    words: int,
    max_len: int,
    alpha: float,
    banned: tuple[int, ...],
    unit: Unit,
    elsewhere: bool,
    apart: tuple[int, ...] = (),
) -> Programs:
    """Makes the programs, which compile at their first call.

    Args:
      student: who writes and decides.
      teacher: whom it asks; None: nobody.
      constraints: all that a row's rule may be about.
      rows: how many rows there are.
      source: pieces of a source at the most.
      words: pieces of a rule in words at the most.
      max_len: tokens of an output at the most.
      alpha: the temperature of the student's gate, nats.
      banned: never written.
      unit: what rules count, and what a call buys.
      elsewhere: the teacher's word comes with each step; `teacher` is only who is asked.
      apart: tokens that do not go on with a word's letters and digits; of use where a tool writes.
    """
    apart_V = np.zeros(student.config.vocab_size, bool)
    apart_V[list(apart)] = True
    inside = None if elsewhere else teacher
    count = len(constraints)

    def fresh(params: Params, other: Params, source_1xS: jax.Array, words_1xW: jax.Array, order: RowSpec) -> Rows:
        read_1xX, rule_1xX = encoder_inputs(student.config, words_1xW, source_1xS)
        found = None if teacher is None else student.read_rule(params, student.encode(params, rule_1xX))
        cache = None
        if inside is not None:
            cache = inside.start(other, inside.encode(other, source_1xS), max_len + spare(1))
        nothing_R = jnp.zeros(1, jnp.int32)
        return Rows(
            open_R=jnp.ones(1, bool),
            drafting_R=order.drafted_B,
            drafted_R=nothing_R,
            credit_R=nothing_R,
            input_R=nothing_R,
            tokens_RxT=jnp.full((1, max_len), PAD, jnp.int32),
            order=order,
            history=start_history(source_1xS),
            rule=found,
            student=student.start(params, student.encode(params, read_1xX), max_len),
            teacher=cache,
        )

    def seat(
        params: Params,
        other: Params,
        taken: Rows,
        row: jax.Array,
        source_1xS: jax.Array,
        words_1xW: jax.Array,
        order: RowSpec,
    ) -> Rows:
        one = fresh(params, other, source_1xS, words_1xW, order)
        after: Rows = jax.tree.map(lambda all_R, new: all_R.at[row].set(new[0]), taken, one)
        return after

    def step(
        params: Params, other: Params, now: Rows, keep_R: jax.Array, word: TeacherReply | None, tool: ToolWord | None
    ) -> tuple[Rows, jax.Array]:
        order, history = now.order, now.history
        open_R = now.open_R & keep_R
        drafting_R, writing_R = open_R & now.drafting_R, open_R & ~now.drafting_R
        place_R = jnp.clip(jnp.where(now.drafting_R, now.drafted_R, history.tokens_B), 0, max_len - 1)
        decoded, cache = student.extend(params, now.student, now.input_R[:, None], place_R)
        log_pi_RxV = log_policy(decoded.logits_BxTxV[:, 0], banned)
        rule = as_rule(constraints, Terms(order.budget_BxC, order.active_BxC))
        purse = Purse(tuple(order.saved_BxC[:, i] for i in range(count)), order.member_B)
        credit, room = Credit(now.credit_R, purse), Room(unit, order.most_B - history.tokens_B)

        wish_R = jnp.zeros(rows, bool)
        if teacher is not None:
            gate = gate_that_read(student, params, now.rule, alpha)
            seen = DecodeState(log_pi_RxV, decoded.hidden_BxTxD[:, 0], now.tokens_RxT, history)
            wish_R = writing_R & (gate.score(gate.start, seen)[0] > THRESHOLD)
        tools_R = jnp.zeros(rows, bool)
        if tool is not None:
            # Begun only where all of it may stand, none of its other tokens being the beginning of a word.
            later = Room(unit, room.left - jnp.maximum(tool.left_R - 1, 0))
            fits_R = turns(rule, credit, history, wish_R & False, writing_R, later).idle_B | (tool.left_R <= 1)
            tools_R = writing_R & (tool.token_R > 0) & fits_R
            wish_R &= ~(tools_R | tool.closed_R)
            log_pi_RxV = jnp.where(tool.closed_R[:, None] & ~apart_V[None, :], -jnp.inf, log_pi_RxV)
        turn = turns(rule, credit, history, wish_R, writing_R, room)
        wants_R = turn.ask_B | (turn.on_B & ~tools_R)
        heard_R, ready_R, heard_by = wants_R, writing_R, now.teacher
        log_mu_RxV = log_pi_RxV
        if word is not None:
            heard_R = wants_R & ~word.gone_R
            ready_R = writing_R & (~heard_R | word.has_R)
            log_mu_RxV = _said(word, log_pi_RxV, banned)
        elif inside is not None:
            tokens = (now.tokens_RxT, history.positions_B, place_R, heard_R)

            def hear() -> tuple[jax.Array, Cache]:
                logits_RxV, filled = catch_up((inside, other), now.teacher, *tokens)
                return jnp.where(heard_R[:, None], log_policy(logits_RxV, banned), log_pi_RxV), filled

            log_mu_RxV, heard_by = jax.lax.cond(jnp.any(heard_R), hear, lambda: (log_pi_RxV, now.teacher))
        on_R = turn.on_B & unit.goes_on(history.owed_B, choose(log_mu_RxV, None), history.last_B)
        asked_R = (turn.ask_B | on_R) & heard_R & ready_R
        written_RxV = jnp.where(asked_R[:, None], log_mu_RxV, log_pi_RxV)
        written_RxV = only_keeping(rule, credit, history, written_RxV, ready_R & ~turn.idle_B, room)
        token_R = jnp.where(ready_R, choose(written_RxV, None), PAD)
        if tool is not None:  # where the rule lets its token stand, which may have to be one that begins a word
            stands_R = jnp.take_along_axis(written_RxV, tool.token_R[:, None], axis=1)[:, 0] > -jnp.inf
            token_R = jnp.where(tools_R & stands_R, tool.token_R, token_R)
        token_R = withhold_end(rule, credit, history, written_RxV, None, token_R, asked_R, ready_R, room)
        called_R = called(history, token_R, asked_R, unit)
        after = advance(history, token_R, asked_R, ready_R, unit, heard_R)
        ended_R = ready_R & ((token_R == EOS) | (after.tokens_B >= order.most_B))

        own_R = jnp.where(drafting_R, choose(log_pi_RxV, None), token_R)
        moved_R = drafting_R | ready_R
        tokens_RxT = jnp.where(
            moved_R[:, None] & (jnp.arange(max_len)[None, :] == place_R[:, None]), own_R[:, None], now.tokens_RxT
        )
        drafted_R = now.drafted_R + drafting_R
        over_R = drafting_R & ((own_R == EOS) | (drafted_R >= order.most_B))
        units_R = drafted_R if unit.marks is None else unit.count(tokens_RxT)
        trusted_R = jnp.minimum(trusted_length(units_R, own_R == EOS), order.most_B)
        done = Rows(
            open_R=open_R & ~ended_R,
            drafting_R=drafting_R & ~over_R,
            drafted_R=drafted_R,
            credit_R=jnp.where(over_R, trusted_R, now.credit_R),
            input_R=jnp.where(over_R, PAD, jnp.where(moved_R, own_R, now.input_R)),
            tokens_RxT=jnp.where(over_R[:, None], PAD, tokens_RxT),
            order=order,
            history=after,
            rule=now.rule,
            student=cache,
            teacher=heard_by,
        )
        happened = (ready_R, token_R, asked_R, called_R, ended_R, heard_R & ~ready_R, wants_R & ~heard_R, *after)
        return done, jnp.stack([x.astype(jnp.int32) for x in happened])

    return Programs(
        partial(_nothing, fresh, rows, source, words, count),
        jax.jit(seat, donate_argnums=2),
        jax.jit(step, donate_argnums=2),
    )


def unpack(packed: Any) -> StepResult:
    """What a step did, from the array that it gives.

    Args:
      packed: int32 [7 + the number of counts in a history, R].
    """
    wrote, token, asked, call, ended, waits, refused = packed[:7]
    counts = History(*packed[7:])
    return StepResult(wrote != 0, token, asked != 0, call != 0, ended != 0, waits != 0, refused != 0, counts)


def _said(word: TeacherReply, log_pi_RxV: jax.Array, banned: tuple[int, ...]) -> jax.Array:
    """The policy of a teacher elsewhere, of the tokens that it says of; the student's in the other rows."""
    row_Rx1 = jnp.arange(len(log_pi_RxV))[:, None]
    log_mu_RxV = jnp.full_like(log_pi_RxV, -jnp.inf).at[row_Rx1, word.ids_RxK].set(word.log_probs_RxK)
    return jnp.where(word.has_R[:, None], log_policy(log_mu_RxV, banned), log_pi_RxV)


def _nothing(
    fresh: Callable[..., Rows], rows: int, source: int, words: int, count: int, params: Params, other: Params
) -> Rows:
    """Free rows."""
    one, wide = jnp.zeros(1, jnp.int32), jnp.zeros((1, count), jnp.float32)
    order = RowSpec(one, one != 0, wide, wide != 0, wide, one != 0)
    given = (jnp.zeros((1, source), jnp.int32), jnp.zeros((1, words), jnp.int32), order)
    shapes = jax.eval_shape(fresh, params, other, *given)
    empty: Rows = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape[1:]), leaf.dtype), shapes)
    return empty
