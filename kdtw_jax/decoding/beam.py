"""Beam search over a batch, in one `while_loop`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import EOS, PAD, Generation, mask_to_eos
from kdtw_jax.errors import UserError
from kdtw_jax.models import Cache, Model, Params


class _State(NamedTuple):
    """Of the loop, between two tokens. K beams per row, best first; T = max_len."""

    step: jax.Array  # [] int32, tokens written so far
    tokens_BxKxT: jax.Array  # int32, open hypotheses, PAD where nothing was written
    log_prob_BxKxT: jax.Array  # float32, of each of their tokens
    total_BxK: jax.Array  # float32, sum of these; -inf for a beam that holds no hypothesis
    cache: Cache  # B*K rows
    ended_tokens_BxT: jax.Array  # int32, best ended hypothesis so far
    ended_log_prob_BxT: jax.Array  # float32
    ended_score_B: jax.Array  # float32, its penalised score; -inf while there is none
    ended_count_B: jax.Array  # int32, hypotheses that have ended
    done_B: jax.Array  # bool


def beam_search(
    model: Model,
    params: Params,
    source_BxS: jax.Array,
    *,
    beam_size: int,
    max_len: int,
    length_penalty: float,
    banned: tuple[int, ...],
) -> Generation:
    """Returns the best hypothesis of each source, by log-probability over ((5 + length) / 6) ** `length_penalty`.

    That is the length penalty of GNMT (Wu et al., arXiv 1609.08144, equation 14, no coverage term); the
    length counts the end-of-sequence token, 0 is no penalty, 0.6 is customary for translation. All open
    hypotheses of a step have one length, so they are ranked by plain log-probability:

    - of the extensions of the K = `beam_size` open hypotheses the best 2K are looked at; one that ends
      counts as ended if it is among the best K, and the best K that do not end stay open;
    - a row is done when K hypotheses have ended, or when no open one can still beat the best ended one (its
      log-probability can only fall, its penalty only grow to that of `max_len`), which alters no result;
    - equals are resolved in favour of the earlier, then the better-ranked beam, then the lower token id.

    Where none ended within `max_len` tokens the best open hypothesis is returned, `finished_B` False.

    K = 1 is greedy decoding; K at least the number of all prefixes is exhaustive search. Meant to be jitted
    by the caller.

    Args:
      beam_size: K.
      max_len: of outputs, in tokens, the end-of-sequence token included.
      length_penalty: the exponent, 0 or more.
      banned: tokens that are never written.

    Raises:
      UserError: the beam size or `max_len` is below 1, the penalty negative; and as `log_policy` does.
    """
    if beam_size < 1:
        raise UserError(f"beam_size is {beam_size}; it has to be at least 1")
    if max_len < 1:
        raise UserError(f"max_len is {max_len}; it has to be at least 1")
    if not length_penalty >= 0.0:
        raise UserError(f"length_penalty is {length_penalty}; it has to be 0 or more")
    rows, beams = source_BxS.shape[0], beam_size
    first_row_B = jnp.arange(rows, dtype=jnp.int32) * beams

    def unfinished(state: _State) -> jax.Array:
        return (state.step < max_len) & ~jnp.all(state.done_B)

    def step(state: _State) -> _State:
        previous = jnp.maximum(state.step - 1, 0)
        inputs_BxK = jax.lax.dynamic_index_in_dim(state.tokens_BxKxT, previous, axis=2, keepdims=False)
        decoded, cache = model.extend(params, state.cache, inputs_BxK.reshape(rows * beams, 1), state.step)
        log_prob_BxKxV = log_policy(decoded.logits_BxTxV[:, 0], banned).reshape(rows, beams, -1)

        vocabulary = log_prob_BxKxV.shape[-1]
        extended = (state.total_BxK[:, :, None] + log_prob_BxKxV).reshape(rows, beams * vocabulary)
        total_Bx2K, flat_Bx2K = jax.lax.top_k(extended, 2 * beams)
        parent_Bx2K, token_Bx2K = flat_Bx2K // vocabulary, flat_Bx2K % vocabulary
        gain_Bx2K = jnp.take_along_axis(log_prob_BxKxV.reshape(rows, -1), flat_Bx2K, axis=1)
        ends_Bx2K = token_Bx2K == EOS

        def grown(choice_BxX: jax.Array) -> tuple[jax.Array, jax.Array]:
            """Tokens and log-probabilities of these of the 2K candidates, [B, X, T]."""
            parent_BxX = jnp.take_along_axis(parent_Bx2K, choice_BxX, axis=1)[:, :, None]
            token_BxX = jnp.take_along_axis(token_Bx2K, choice_BxX, axis=1)
            gain_BxX = jnp.take_along_axis(gain_Bx2K, choice_BxX, axis=1)
            tokens = jnp.take_along_axis(state.tokens_BxKxT, parent_BxX, axis=1)
            log_prob = jnp.take_along_axis(state.log_prob_BxKxT, parent_BxX, axis=1)
            return (
                jax.lax.dynamic_update_index_in_dim(tokens, token_BxX, state.step, axis=2),
                jax.lax.dynamic_update_index_in_dim(log_prob, gain_BxX, state.step, axis=2),
            )

        rank_2K = jnp.arange(2 * beams, dtype=jnp.int32)[None, :]
        ending_Bx2K = ends_Bx2K & (rank_2K < beams) & (total_Bx2K > -jnp.inf) & ~state.done_B[:, None]
        winner_Bx1 = jnp.argmax(ending_Bx2K, axis=1)[:, None]  # the candidates are sorted, so the first is the best
        score_B = jnp.take_along_axis(total_Bx2K, winner_Bx1, axis=1)[:, 0] / _penalty(state.step + 1, length_penalty)
        better_B = jnp.any(ending_Bx2K, axis=1) & (score_B > state.ended_score_B)
        winner_tokens_Bx1xT, winner_log_prob_Bx1xT = grown(winner_Bx1)
        ended_score_B = jnp.where(better_B, score_B, state.ended_score_B)
        ended_count_B = state.ended_count_B + jnp.sum(ending_Bx2K, axis=1)

        # At most K candidates end, one a beam, so K that do not are always left.
        open_BxK = jnp.argsort(jnp.where(ends_Bx2K, rank_2K + 2 * beams, rank_2K), axis=1)[:, :beams]
        tokens_BxKxT, log_prob_BxKxT = grown(open_BxK)
        total_BxK = jnp.take_along_axis(total_Bx2K, open_BxK, axis=1)
        parent_BxK = jnp.take_along_axis(parent_Bx2K, open_BxK, axis=1)
        hopeless_B = ended_score_B >= total_BxK[:, 0] / _penalty(max_len, length_penalty)
        return _State(
            step=state.step + 1,
            tokens_BxKxT=tokens_BxKxT,
            log_prob_BxKxT=log_prob_BxKxT,
            total_BxK=total_BxK,
            cache=model.reorder(cache, (first_row_B[:, None] + parent_BxK).reshape(-1)),
            ended_tokens_BxT=jnp.where(better_B[:, None], winner_tokens_Bx1xT[:, 0], state.ended_tokens_BxT),
            ended_log_prob_BxT=jnp.where(better_B[:, None], winner_log_prob_Bx1xT[:, 0], state.ended_log_prob_BxT),
            ended_score_B=ended_score_B,
            ended_count_B=ended_count_B,
            done_B=state.done_B | (ended_count_B >= beams) | ((ended_count_B > 0) & hopeless_B),
        )

    encoded = model.encode(params, source_BxS)
    repeated = jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), encoded)
    # One empty hypothesis per row: K equal ones would fill the beam with copies.
    total_K = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)
    end = jax.lax.while_loop(
        unfinished,
        step,
        _State(
            step=jnp.zeros((), jnp.int32),
            tokens_BxKxT=jnp.full((rows, beams, max_len), PAD, jnp.int32),
            log_prob_BxKxT=jnp.zeros((rows, beams, max_len), jnp.float32),
            total_BxK=jnp.tile(total_K[None, :], (rows, 1)),
            cache=model.start(params, repeated, max_len),
            ended_tokens_BxT=jnp.full((rows, max_len), PAD, jnp.int32),
            ended_log_prob_BxT=jnp.zeros((rows, max_len), jnp.float32),
            ended_score_B=jnp.full(rows, -jnp.inf),
            ended_count_B=jnp.zeros(rows, jnp.int32),
            done_B=jnp.zeros(rows, bool),
        ),
    )
    finished_B = end.ended_count_B > 0
    tokens_BxT = jnp.where(finished_B[:, None], end.ended_tokens_BxT, end.tokens_BxKxT[:, 0])
    log_prob_BxT = jnp.where(finished_B[:, None], end.ended_log_prob_BxT, end.log_prob_BxKxT[:, 0])
    return Generation(tokens_BxT, log_prob_BxT, mask_to_eos(tokens_BxT), finished_B)


def _penalty(length: jax.Array | int, exponent: float) -> jax.Array:
    return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** exponent
