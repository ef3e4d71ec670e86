"""Greedy decoding and sampling, one `while_loop` for a batch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.errors import UserError
from kdtw_jax.models import Cache, Model, Params

PAD, EOS = 0, 1
_BLOCK = 64  # of the vocabulary, in `inverse_cdf`


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
    """Continues every source until its end-of-sequence token or `max_len` tokens, whichever is first.

    Without noise the most probable token is taken (the lower id of equals). With `noise_BxT`, uniforms in
    [0, 1), token t of row b is the inverse of the cumulative distribution at `noise_BxT[b, t]`: the same
    noise gives the same tokens however rows are spread over devices. The loop ends when every row has
    ended. Meant to be jitted by the caller, with everything but the arrays static.

    Args:
      noise_BxT: T is `max_len`.
      banned: tokens that are never written.
      temperature: of what tokens are drawn from; the log-probabilities returned are those at 1.

    Raises:
      UserError: `max_len` is below 1, the noise has another shape; and as `log_policy` does.
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
            token_B = choose(log_prob_BxV, None)
        else:
            noise_B = jax.lax.dynamic_index_in_dim(noise_BxT, state.step, axis=1, keepdims=False)
            # Tempering what is already normalised is tempering the logits: a constant per row cancels.
            token_B = choose(log_policy(log_prob_BxV, banned, temperature), noise_B)
        chosen_B = jnp.take_along_axis(log_prob_BxV, token_B[:, None], axis=-1)[:, 0]
        token_B = jnp.where(state.finished_B, PAD, token_B)
        chosen_B = jnp.where(state.finished_B, 0.0, chosen_B)
        return _State(
            step=state.step + 1,
            token_Bx1=token_B[:, None],
            finished_B=state.finished_B | (token_B == EOS),
            tokens_BxT=jax.lax.dynamic_update_index_in_dim(state.tokens_BxT, token_B, state.step, axis=1),
            log_prob_BxT=jax.lax.dynamic_update_index_in_dim(state.log_prob_BxT, chosen_B, state.step, axis=1),
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


def choose(log_prob_BxV: jax.Array, noise_B: jax.Array | None) -> jax.Array:
    """The token at `noise_B` of the cumulative distribution, or without noise the most probable one; [B] int32."""
    return _first_max(log_prob_BxV) if noise_B is None else inverse_cdf(jnp.exp(log_prob_BxV), noise_B)


def inverse_cdf(prob_BxV: jax.Array, noise_B: jax.Array) -> jax.Array:
    """Per row the smallest index whose cumulative probability exceeds `noise_B` of the total; [B] int32.

    An index of probability zero is never returned, whatever the rounding of the sums and for every noise in [0, 1].
    Rows need not be normalised; one without a positive entry, of NaN say, gives PAD, which has no probability in any
    policy: so it is seen afterwards (`kdtw_jax.finite.check_written`). The search goes over sums of blocks, then
    within one block: a cumulative sum over the vocabulary is slow on a CPU and loses digits in float32.
    """
    rows, vocabulary = prob_BxV.shape
    padding = -vocabulary % _BLOCK
    blocks_BxCxX = jnp.pad(prob_BxV, ((0, 0), (0, padding))).reshape(rows, -1, _BLOCK)
    sum_BxC = jnp.sum(blocks_BxCxX, axis=-1)
    block_B, rest_B = _first_above(sum_BxC, noise_B * jnp.sum(sum_BxC, axis=-1))
    block_BxX = jnp.take_along_axis(blocks_BxCxX, block_B[:, None, None], axis=1)[:, 0]
    index_B = block_B * _BLOCK + _first_above(block_BxX, rest_B)[0]
    return jnp.where(jnp.any(sum_BxC > 0.0, axis=-1), index_B, PAD)


def _first_above(weight_BxC: jax.Array, threshold_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first index of positive weight whose cumulative weight exceeds the threshold, or else the last of
    positive weight; and what is left of the threshold after all weights before it."""
    cumulative_BxC = jnp.cumsum(weight_BxC, axis=-1)
    positive_BxC = weight_BxC > 0.0
    above_BxC = positive_BxC & (cumulative_BxC > threshold_B[:, None])
    last_B = weight_BxC.shape[-1] - 1 - jnp.argmax(positive_BxC[:, ::-1], axis=-1)
    index_B = jnp.where(jnp.any(above_BxC, axis=-1), jnp.argmax(above_BxC, axis=-1), last_B)
    before_BxC = cumulative_BxC - weight_BxC
    rest_B = threshold_B - jnp.take_along_axis(before_BxC, index_B[:, None], axis=-1)[:, 0]
    return index_B.astype(jnp.int32), rest_B


def _first_max(x_BxV: jax.Array) -> jax.Array:
    """`argmax` by two plain reductions; XLA's own, of pairs, is 40 times slower on a CPU. PAD for a row of NaN."""
    index_V = jnp.arange(x_BxV.shape[-1], dtype=jnp.int32)
    is_max_BxV = x_BxV == jnp.max(x_BxV, axis=-1, keepdims=True)
    none = x_BxV.shape[-1]  # where nothing equals the maximum
    first_B = jnp.min(jnp.where(is_max_BxV, index_V[None, :], none), axis=-1)
    return jnp.where(first_B < none, first_B, PAD)
