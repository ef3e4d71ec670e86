"""Tokens that the rule does not let stand next: the end of a text too early, and too late all that begins no word."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.credit import TOKEN_ROOM, Credit, Room, keeping, may_end
from kdtw_jax.constraints.history import History, advance
from kdtw_jax.constraints.record import Rule
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import EOS, choose

_BELOW_1 = 1 - 2.0**-24


def withhold_end(
    rule: Rule,
    credit: Credit,
    history: History,
    log_policy_BxV: jax.Array,
    noise_B: jax.Array | None,
    token_B: jax.Array,
    asked_B: jax.Array,
    open_B: jax.Array,
    room: Room = TOKEN_ROOM,
) -> jax.Array:
    """The next token, int32 [B]: another one than end-of-sequence where the output may not end yet.

    Args:
      rule: enforced.
      credit: how far it may be asked ahead.
      history: before that token.
      log_policy_BxV: what it was chosen from.
      noise_B: the uniforms that drew it; None: it is the most probable one.
      token_B: the token.
      asked_B: bool, the teacher writes it.
      open_B: bool, the output is not finished.
      room: that token included.
    """
    ends_B = open_B & (token_B == EOS)
    after = advance(history, token_B, asked_B, open_B, room.unit)
    withheld_B = ends_B & ~may_end(rule, credit, after, ends_B, open_B, room.less())

    def another() -> jax.Array:
        stretched_B = noise_B
        if noise_B is not None:  # what drew the end is even over the end's part: stretched, it draws one of the others
            prob_BxV = jnp.exp(log_policy_BxV)
            before_B = jnp.sum(prob_BxV[:, :EOS], axis=-1)
            stretched_B = jnp.clip((noise_B - before_B) / prob_BxV[:, EOS], 0.0, _BELOW_1)
        return jnp.where(withheld_B, choose(log_policy(log_policy_BxV, (EOS,)), stretched_B), token_B)

    other_B: jax.Array = jax.lax.cond(jnp.any(withheld_B), another, lambda: token_B)
    return other_B


def only_keeping(
    rule: Rule, credit: Credit, history: History, log_policy_BxV: jax.Array, bound_B: jax.Array, room: Room
) -> jax.Array:
    """What the next token is chosen from, float32 [B, V]: in rows that are bound to, tokens that begin a word, or the
    space before one where there is room for both.

    Args:
      rule: enforced.
      credit: how far it may be asked ahead.
      history: before that token.
      log_policy_BxV: the student's.
      bound_B: bool.
      room: that token included.
    """
    unit, vocabulary = room.unit, log_policy_BxV.shape[-1]
    if unit.marks is None:
        return log_policy_BxV

    def masked() -> jax.Array:
        begins_B, blank_B = keeping(rule, credit, history, room)
        token_BxV = jnp.broadcast_to(jnp.arange(vocabulary), log_policy_BxV.shape)
        last_BxV = jnp.broadcast_to(history.last_B[:, None], log_policy_BxV.shape)
        keeps_BxV = unit.begins(token_BxV, last_BxV) & begins_B[:, None]
        keeps_BxV |= unit.blank(token_BxV) & blank_B[:, None]
        return jnp.where(keeps_BxV | ~bound_B[:, None], log_policy_BxV, -jnp.inf)

    one_BxV: jax.Array = jax.lax.cond(jnp.any(bound_B), masked, lambda: log_policy_BxV)
    return one_BxV
