"""What an answer changes about the rest: from one state an output is written to its end twice.

In a state s the student would write a, the teacher y. Under greedy tokens asking is worth

    D(s) = U(the output that goes on with y) - U(the output that goes on with a),

U a utility of whole outputs (`kdtw_jax.decoding.utility`). With U the sum of log mu, D is the regret at s and what the
answer changes about all that follows. Where a call buys a word or several tokens, the teacher writes these. Both are
written by the same writers with the same noise, so that the difference has no noise but theirs; for greedy tokens it
has none.

Rows may stand at different places of their outputs. Everything is meant to be jitted by the caller.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.history import History, advance, called, start_history
from kdtw_jax.constraints.unit import TOKENS, Unit
from kdtw_jax.decoding.gate import DecodeState, Gate
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import EOS, PAD, choose
from kdtw_jax.decoding.utility import Outcome, Utility
from kdtw_jax.losses.masked import entropy
from kdtw_jax.models import Cache, Encoded, Model, Params, shift_right


class Writer(NamedTuple):
    """A model and what it has read."""

    model: Model
    params: Params
    read: Encoded

    def take(self, row_X: jax.Array) -> Writer:
        """The same of some rows, int32 [X]."""
        return self._replace(read=jax.tree.map(lambda leaf: leaf[row_X], self.read))


class Help(NamedTuple):
    """By which gate the rest is written with help; the teacher then reads along."""

    teacher: Writer
    gate: Gate  # a score without a memory
    level: float | jax.Array  # ask where the score is above it


class States(NamedTuple):
    """States of outputs: the tokens before a place."""

    tokens_BxT: jax.Array  # int32; from the place on they count for nothing
    place_B: jax.Array  # int32, below T
    history: History | None = None  # before the place; None: nobody has asked, and it is not looked at

    def take(self, row_X: jax.Array) -> States:
        """Some of them, int32 [X]."""
        return States(*jax.tree.map(lambda leaf: leaf[row_X], tuple(self)))


class Rest(NamedTuple):
    """Whole outputs: what stood before the place, a token there, and the rest."""

    tokens_BxT: jax.Array  # int32, end-of-sequence included, 0 after
    asked_BxT: jax.Array  # bool, the teacher wrote it; False before the place
    called_BxT: jax.Array  # bool, of these, those that a call was made for


class _Loop(NamedTuple):
    step: jax.Array  # [] int32, tokens written after the first one
    place_B: jax.Array  # int32, the next one to be written
    finished_B: jax.Array  # bool
    rest: Rest
    history: History
    student: Cache
    teacher: Cache | None


def write_rest(
    student: Writer,
    states: States,
    first_B: jax.Array,
    asked_B: jax.Array,
    noise_BxT: jax.Array | None = None,
    *,
    banned: tuple[int, ...],
    help: Help | None = None,
    horizon: int | None = None,
    answering: Writer | None = None,
    unit: Unit = TOKENS,
) -> Rest:
    """Writes every output on from its state, after a token that is given.

    Args:
      student: who writes.
      first_B: int32, the token at the place.
      asked_B: bool, the teacher wrote that one.
      noise_BxT: uniforms in [0, 1) that sample the token at each place, whoever writes it; None: the most probable one.
      banned: tokens that are never written.
      help: None: the student writes alone.
      horizon: tokens after the first at the most; by default as many as fit.
      answering: the teacher that ends its answer, where one buys more than a token; None: that of `help`, or nobody.
      unit: what a call buys.
    """
    if help is not None:
        answering = help.teacher
    rows, length = states.tokens_BxT.shape
    row_B, at_T = jnp.arange(rows), jnp.arange(length)[None, :]
    history = start_history(states.tokens_BxT) if states.history is None else states.history
    before_BxT = jnp.where(at_T < states.place_B[:, None], states.tokens_BxT, PAD)
    tokens_BxT = before_BxT.at[row_B, states.place_B].set(first_B)
    here_BxT = at_T == states.place_B[:, None]
    calls_B = called(history, first_B, asked_B, unit)
    first = _Loop(
        step=jnp.zeros((), jnp.int32),
        place_B=states.place_B + 1,
        finished_B=(first_B == EOS) | (states.place_B + 1 >= length),
        rest=Rest(tokens_BxT, here_BxT & asked_B[:, None], here_BxT & calls_B[:, None]),
        history=advance(history, first_B, asked_B, jnp.ones(rows, bool), unit),
        student=_prefill(student, tokens_BxT),
        teacher=None if answering is None else _prefill(answering, tokens_BxT),
    )

    def going(now: _Loop) -> jax.Array:
        return ~jnp.all(now.finished_B) & (now.step < (length if horizon is None else horizon))

    def step(now: _Loop) -> _Loop:
        slot_B = jnp.minimum(now.place_B, length - 1)
        before_Bx1 = now.rest.tokens_BxT[row_B, slot_B - 1][:, None]
        decoded, own = student.model.extend(student.params, now.student, before_Bx1, slot_B)
        log_policy_BxV, theirs = log_policy(decoded.logits_BxTxV[:, 0], banned), now.teacher
        asks_B, noise_B = jnp.zeros(rows, bool), None if noise_BxT is None else noise_BxT[row_B, slot_B]
        if answering is not None:
            heard, theirs = answering.model.extend(answering.params, now.teacher, before_Bx1, slot_B)
            log_mu_BxV = log_policy(heard.logits_BxTxV[:, 0], banned)
            if help is not None:
                seen = (log_policy_BxV, decoded.hidden_BxTxD[:, 0], now.rest.tokens_BxT, now.history, log_mu_BxV)
                asks_B = help.gate.score(help.gate.start, DecodeState(*seen))[0] > help.level
            if not unit.one_token:
                asks_B |= unit.goes_on(now.history.owed_B, choose(log_mu_BxV, noise_B), now.history.last_B)
            log_policy_BxV = jnp.where(asks_B[:, None], log_mu_BxV, log_policy_BxV)
        active_B = ~now.finished_B
        token_B = choose(log_policy_BxV, noise_B)
        calls_B = called(now.history, token_B, asks_B, unit)
        here_BxT = (at_T == slot_B[:, None]) & active_B[:, None]
        return _Loop(
            step=now.step + 1,
            place_B=now.place_B + active_B,
            finished_B=now.finished_B | (token_B == EOS) | (now.place_B + 1 >= length),
            rest=Rest(
                jnp.where(here_BxT, token_B[:, None], now.rest.tokens_BxT),
                jnp.where(here_BxT, asks_B[:, None], now.rest.asked_BxT),
                jnp.where(here_BxT, calls_B[:, None], now.rest.called_BxT),
            ),
            history=advance(now.history, token_B, asks_B, active_B, unit),
            student=own,
            teacher=theirs,
        )

    return jax.lax.while_loop(going, step, first).rest


def branch(
    student: Writer,
    states: States,
    own_B: jax.Array,
    other_B: jax.Array,
    noise_BxT: jax.Array | None = None,
    *,
    banned: tuple[int, ...],
    help: Help | None = None,
    horizon: int | None = None,
    answering: Writer | None = None,
    unit: Unit = TOKENS,
) -> tuple[Rest, Rest]:
    """Writes every output on twice: after the student's own token, and after another that the teacher is asked for.

    Args:
      student: who writes.
      own_B: int32, what the student would write at the place.
      other_B: int32, what the teacher would.
      noise_BxT: the same for both, as in `write_rest`.
      banned: tokens that are never written.
      help: None: the student writes both alone.
      horizon: tokens after those two at the most; by default as many as fit.
      answering: as in `write_rest`; of no consequence for the student's own token.
      unit: as in `write_rest`.
    """
    how: dict[str, Any] = {"banned": banned, "help": help, "horizon": horizon, "unit": unit}
    nobody_B = jnp.zeros(len(own_B), bool)
    return (
        write_rest(student, states, own_B, nobody_B, noise_BxT, **how),
        write_rest(student, states, other_B, ~nobody_B, noise_BxT, answering=answering, **how),
    )


def look_ahead(
    student: Writer,
    teacher: Writer,
    states: States,
    own_B: jax.Array,
    other_B: jax.Array,
    utility: Utility,
    reference_BxT: jax.Array,
    noise_BxT: jax.Array | None = None,
    *,
    banned: tuple[int, ...],
    help: Help | None = None,
    price: float | jax.Array = 0.0,
    unit: Unit = TOKENS,
) -> jax.Array:
    """What asking is worth in each state, by the outputs that follow: float32 [B], in units of the utility.

    Args:
      student: who writes.
      teacher: who reads what was written, and answers.
      own_B: int32, what the student would write at the place.
      other_B: int32, what the teacher would.
      utility: of whole outputs.
      reference_BxT: int32, the teacher's own outputs, which the utility may look at.
      noise_BxT: as in `write_rest`.
      banned: tokens that are never written.
      help: None: the student writes both alone.
      price: of each later question; that of the first is what the worth is to be compared with.
      unit: what a call buys.
    """
    answering = None if unit.one_token else teacher
    how: dict[str, Any] = {"banned": banned, "help": help, "answering": answering, "unit": unit}
    both = branch(student, states, own_B, other_B, noise_BxT, **how)
    own, other = (utility(outcome(student, teacher, rest, reference_BxT, banned)) for rest in both)
    later = jnp.sum(both[1].called_BxT, axis=1) - 1 - jnp.sum(both[0].called_BxT, axis=1)
    return other - own - price * later


def outcome(student: Writer, teacher: Writer, rest: Rest, reference_BxT: jax.Array, banned: tuple[int, ...]) -> Outcome:
    """Whole outputs as the teacher reads them."""
    mask_BxT, inputs_BxT = rest.tokens_BxT != PAD, shift_right(rest.tokens_BxT)

    def policy(writer: Writer) -> jax.Array:
        return log_policy(writer.model.decode(writer.params, writer.read, inputs_BxT).logits_BxTxV, banned)

    log_mu_BxT = jnp.take_along_axis(policy(teacher), rest.tokens_BxT[..., None], axis=-1)[..., 0]
    return Outcome(
        tokens_BxT=rest.tokens_BxT,
        log_mu_BxT=jnp.where(mask_BxT, log_mu_BxT, 0.0),
        entropy_BxT=jnp.where(mask_BxT, entropy(policy(student)), 0.0),
        reference_BxT=reference_BxT,
    )


def _prefill(writer: Writer, tokens_BxT: jax.Array) -> Cache:
    """A cache that has seen the tokens; what is fed anew at a place counts from there on."""
    cache: Any = writer.model.start(writer.params, writer.read, tokens_BxT.shape[1])
    return writer.model.extend(writer.params, cache, shift_right(tokens_BxT), jnp.zeros((), jnp.int32))[1]
