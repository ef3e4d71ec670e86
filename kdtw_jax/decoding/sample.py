"""Greedy decoding and sampling, one `while_loop` for a batch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.errors import UserError
from kdtw_jax.models import Cache, Model, Params

PAD, EOS = 0, 1


class Generation(NamedTuple):
    """Generated targets, in the form targets have in a batch: end-of-sequence included, padding after it."""

    tokens_BxT: jax.Array  # int32
    log_prob_BxT: jax.Array  # float32, of each token at temperature 1, nothing banned counted; 0 after
    mask_BxT: jax.Array  # bool, True up to and including the end-of-sequence token
    finished_B: jax.Array  # bool, False where T tokens were not enough


class _State(NamedTuple):
    """Of the loop, between two tokens; T = max_len."""

    step: jax.Array  # [] int32, tokens written so far
    token_Bx1: jax.Array  # int32, the decoder's next input
    finished_B: jax.Array  # bool
    tokens_BxT: jax.Array  # int32, PAD where nothing was written
    log_prob_BxT: jax.Array  # float32, 0 where nothing was written
    cache: Cache


def generate(
    model: Model,
    params: Params,
    source_BxS: jax.Array,
    noise_BxT: jax.Array | None,
    *,
    max_len: int,
    banned: tuple[int, ...],
    temperature: float = 1.0,
) -> Generation:
    """Continue every source until its end-of-sequence token or `max_len` tokens, whichever is first.

    Without noise the most probable token is taken (the lower id of equals). With `noise_BxT`, uniforms in
    [0, 1), token t of row b is the inverse of the cumulative distribution at `noise_BxT[b, t]`: the same
    noise gives the same tokens however rows are spread over devices. The loop ends when every row has
    ended. Meant to be jitted by the caller, with everything but the arrays static.

    Raises `UserError` for a `max_len` below 1, for noise of another shape, and as `log_policy` does.
    """
    rows = source_BxS.shape[0]
    if max_len < 1:
        raise UserError(f"max_len is {max_len}; it has to be at least 1")
    if noise_BxT is not None and noise_BxT.shape != (rows, max_len):
        raise UserError(f"noise has shape {noise_BxT.shape}; it has to be {(rows, max_len)}, rows by max_len")

    def unfinished(state: _State) -> jax.Array:
        return (state.step < max_len) & ~jnp.all(state.finished_B)

    def step(state: _State) -> _State:
        decoded, cache = model.extend(params, state.cache, state.token_Bx1, state.step)
        log_prob_BxV = log_policy(decoded.logits_BxTxV[:, 0], banned)
        if noise_BxT is None:
            token_B = jnp.argmax(log_prob_BxV, axis=-1).astype(jnp.int32)
        else:
            noise_B = jax.lax.dynamic_index_in_dim(noise_BxT, state.step, axis=1, keepdims=False)
            # Tempering what is already normalised is tempering the logits: a constant a row cancels.
            tempered_BxV = log_policy(log_prob_BxV, banned, temperature)
            token_B = inverse_cdf(jnp.exp(tempered_BxV), noise_B)
        chosen_B = jnp.take_along_axis(log_prob_BxV, token_B[:, None], axis=-1)[:, 0]
        token_B = jnp.where(state.finished_B, PAD, token_B)
        chosen_B = jnp.where(state.finished_B, 0.0, chosen_B)
        return _State(
            step=state.step + 1,
            token_Bx1=token_B[:, None],
            finished_B=state.finished_B | (token_B == EOS),
            tokens_BxT=jax.lax.dynamic_update_index_in_dim(state.tokens_BxT, token_B, state.step, axis=1),
            log_prob_BxT=jax.lax.dynamic_update_index_in_dim(
                state.log_prob_BxT, chosen_B, state.step, axis=1
            ),
            cache=cache,
        )

    end = jax.lax.while_loop(
        unfinished,
        step,
        _State(
            step=jnp.zeros((), jnp.int32),
            token_Bx1=jnp.full((rows, 1), PAD, jnp.int32),
            finished_B=jnp.zeros(rows, bool),
            tokens_BxT=jnp.full((rows, max_len), PAD, jnp.int32),
            log_prob_BxT=jnp.zeros((rows, max_len), jnp.float32),
            cache=model.start(params, model.encode(params, source_BxS), max_len),
        ),
    )
    return Generation(end.tokens_BxT, end.log_prob_BxT, mask_to_eos(end.tokens_BxT), end.finished_B)


def mask_to_eos(tokens_BxT: jax.Array) -> jax.Array:
    """True up to and including the first end-of-sequence token (everywhere in a row that has none)."""
    ended_BxT = jnp.cumsum(tokens_BxT == EOS, axis=1) - (tokens_BxT == EOS)
    return ended_BxT == 0


def inverse_cdf(prob_BxV: jax.Array, noise_B: jax.Array) -> jax.Array:
    """Per row the smallest index whose cumulative probability exceeds `noise_B` of the total; [B] int32.

    An index of probability zero is never returned, whatever the rounding of the cumulative sum and for
    every noise in [0, 1]. Rows have to hold a positive entry; they need not be normalised.
    """
    possible_BxV = prob_BxV > 0.0
    cumulative_BxV = jnp.cumsum(prob_BxV, axis=-1)
    threshold_B = noise_B * cumulative_BxV[:, -1]
    reached_BxV = possible_BxV & (cumulative_BxV > threshold_B[:, None])
    last_B = prob_BxV.shape[-1] - 1 - jnp.argmax(possible_BxV[:, ::-1], axis=-1)
    return jnp.where(jnp.any(reached_BxV, axis=-1), jnp.argmax(reached_BxV, axis=-1), last_B).astype(
        jnp.int32
    )
