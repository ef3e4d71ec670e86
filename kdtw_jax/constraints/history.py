"""What has happened in an output so far, as far as rules on help may look at it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.unit import TOKENS, Unit

LONG_AGO = 1 << 20


class History(NamedTuple):
    """Counts over what was written so far, each int32 [B], in units: tokens or words (`kdtw_jax.constraints.unit`).

    Of units that are tokens the one about to be written is number `length`, and `helped` and `calls` are the same.
    """

    length_B: jax.Array  # units begun, whoever wrote them; end-of-sequence is a token and no word
    calls_B: jax.Array  # answers of the teacher
    own_B: jax.Array  # units of the student's own since the last call; `LONG_AGO` or more where there was none
    in_a_row_B: jax.Array  # helped units (of n tokens: answers) without one of the student's own in between, up to now
    positions_B: jax.Array  # decoder positions that the teacher has processed
    last_B: jax.Array  # the last token; 0 (padding) at the start
    source_B: jax.Array  # tokens of the source, which the teacher's encoder processes at the first call
    helped_B: jax.Array  # units with a token of the teacher's
    tokens_B: jax.Array  # tokens, whoever wrote them, end-of-sequence included
    unit_helped_B: jax.Array  # 1: the last unit has a token of the teacher's
    own_before_B: jax.Array  # `own` before the last unit or answer
    row_before_B: jax.Array  # `in_a_row` before it
    owed_B: jax.Array  # what is left of the running answer, as `Unit.owed` says


def start_history(source_BxS: jax.Array) -> History:
    """Nothing written yet. `source_BxS` is what the teacher reads, padded with 0."""
    nothing = jnp.zeros(source_BxS.shape[0], jnp.int32)
    source_B = jnp.sum(source_BxS != 0, axis=1).astype(jnp.int32)
    long_ago = nothing + LONG_AGO
    start = dict.fromkeys(History._fields, nothing)
    return History(**{**start, "own_B": long_ago, "own_before_B": long_ago, "source_B": source_B})


def called(history: History, token_B: jax.Array, asked_B: jax.Array, unit: Unit = TOKENS) -> jax.Array:
    """Where the teacher wrote a token (`asked_B`), whether a call was made for it, bool [B]: no earlier one bought it.

    Args:
      history: before it.
      token_B: the token.
      asked_B: bool.
      unit: what a call buys.
    """
    return asked_B & ~unit.goes_on(history.owed_B, token_B, history.last_B)


def advance(
    history: History,
    token_B: jax.Array,
    asked_B: jax.Array,
    active_B: jax.Array,
    unit: Unit = TOKENS,
    heard_B: jax.Array | None = None,
) -> History:
    """The history after `token_B` was written, by the teacher where `asked_B`; rows not `active_B` stay as they are.

    The teacher has not seen the student's tokens since its last call: a call processes them all, so afterwards it has
    processed every position up to the one it answers for (lazy prefill).

    Args:
      unit: what is counted.
      heard_B: bool, the teacher said what it would write, whether or not it was written; by default where it wrote, and
        where an answer might have gone on.
    """
    called_B = called(history, token_B, asked_B, unit)
    begins_B, counts_B = unit.begins(token_B, history.last_B), unit.counts(token_B)
    anew_B = begins_B & ~(asked_B & ~called_B) if unit.marks is None else begins_B
    own_before_B = jnp.where(anew_B, history.own_B, history.own_before_B)
    row_before_B = jnp.where(anew_B, history.in_a_row_B, history.row_before_B)
    earlier_B = jnp.where(begins_B, 0, history.unit_helped_B)  # of the token's unit
    helped_B = jnp.where(counts_B, earlier_B | asked_B, earlier_B)
    if heard_B is None:
        heard_B = asked_B if unit.marks is None else asked_B | (history.owed_B > 0)
    tokens_B = history.tokens_B + 1
    after = History(
        length_B=history.length_B + begins_B,
        calls_B=history.calls_B + called_B,
        own_B=jnp.where(counts_B, jnp.where(helped_B > 0, 0, own_before_B + 1), history.own_B),
        in_a_row_B=jnp.where(counts_B, jnp.where(helped_B > 0, row_before_B + 1, 0), history.in_a_row_B),
        positions_B=jnp.where(heard_B, tokens_B, history.positions_B),
        last_B=token_B.astype(jnp.int32),
        source_B=history.source_B,
        helped_B=history.helped_B + (helped_B - earlier_B),
        tokens_B=tokens_B,
        unit_helped_B=helped_B,
        own_before_B=own_before_B,
        row_before_B=row_before_B,
        owed_B=unit.owed(history.owed_B, token_B, asked_B, called_B),
    )
    return History(*(jnp.where(active_B, new, old) for new, old in zip(after, history, strict=True)))


def before_unit(history: History, unit: Unit, *, answer: bool = False) -> History:
    """The history as if the unit under way were about to be written; where there is none, as it is.

    What a rule says of one unit more it then says of this one.

    Args:
      unit: what is counted.
      answer: the running answer is taken out, too: what a rule says of one call more it then says of this one.
    """
    inside_B = unit.under_way(history.last_B)
    back_B = (history.owed_B > 0) if answer and unit.marks is None else inside_B
    return history._replace(
        length_B=history.length_B - inside_B,
        helped_B=history.helped_B - jnp.where(inside_B, history.unit_helped_B, 0),
        own_B=jnp.where(back_B, history.own_before_B, history.own_B),
        in_a_row_B=jnp.where(back_B, history.row_before_B, history.in_a_row_B),
        calls_B=history.calls_B - (answer & (history.owed_B > 0)),
    )


def after_drafts(
    history: History, tokens_BxT: jax.Array, place_B: jax.Array, last_B: jax.Array, unit: Unit = TOKENS
) -> History:
    """The history after the student has written on up to a place.

    Args:
      history: of what stands before.
      tokens_BxT: int32, all that is written.
      place_B: int32, how many tokens of these.
      last_B: int32, the last of them.
      unit: what is counted.
    """
    count_B = place_B - history.tokens_B
    if unit.marks is None:
        return after_own(history, count_B, last_B)
    at_T = jnp.arange(tokens_BxT.shape[1])[None, :]
    new_BxT = (at_T >= history.tokens_B[:, None]) & (at_T < place_B[:, None])
    before_BxT = jnp.pad(tokens_BxT[:, :-1], ((0, 0), (1, 0)))
    words_B = jnp.sum(unit.begins(tokens_BxT, before_BxT) & new_BxT, axis=1)
    after = after_own(history, words_B, last_B)
    return after._replace(
        tokens_B=place_B,
        last_B=jnp.where(count_B > 0, last_B, history.last_B).astype(jnp.int32),
        owed_B=jnp.where(count_B > 0, 0, history.owed_B),
    )


def after_own(history: History, count_B: jax.Array, last_B: jax.Array) -> History:
    """The history after `count_B` more units of the student's own, a token each, the last of which is `last_B`."""
    some_B = count_B > 0
    return history._replace(
        length_B=history.length_B + count_B,
        own_B=history.own_B + count_B,
        in_a_row_B=jnp.where(some_B, 0, history.in_a_row_B),
        last_B=jnp.where(some_B, last_B, history.last_B).astype(jnp.int32),
        tokens_B=history.tokens_B + count_B,
        unit_helped_B=jnp.where(some_B, 0, history.unit_helped_B),
        owed_B=jnp.where(some_B, 0, history.owed_B),
    )


def histories(source_BxS: jax.Array, tokens_BxT: jax.Array, asked_BxT: jax.Array, unit: Unit = TOKENS) -> History:
    """The history before every token of finished outputs: leaves [T + 1, B], the last being that of the whole.

    Args:
      source_BxS: int, what the teacher reads, padded with 0.
      tokens_BxT: int; those after the end (0) change nothing.
      asked_BxT: bool, the teacher wrote the token.
      unit: what is counted.
    """

    def step(history: History, now: tuple[jax.Array, jax.Array]) -> tuple[History, History]:
        token_B, asked_B = now
        return advance(history, token_B, asked_B, token_B != 0, unit), history

    end, before = jax.lax.scan(step, start_history(source_BxS), (tokens_BxT.T, asked_BxT.T))
    return History(*(jnp.concatenate([b, e[None]]) for b, e in zip(before, end, strict=True)))
