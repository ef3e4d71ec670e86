"""Distributions over the vocabulary: held whole, or made a slice of tokens at a time and never held.

In slices, a distribution costs the memory of `width` tokens per state instead of V, and is made again in the backward
pass and for every further question: the streamed logsumexp of arXiv 1805.02867 (algorithm 3), for losses as in
arXiv 2411.09009.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from kdtw_jax.losses.kl import TopK, top_k_with_tail
from kdtw_jax.losses.likelihood import loss_of, partition_and_pick, token_loss
from kdtw_jax.losses.outcomes import kept_and_rest, outcomes

PyTree = Any

# Stands for the logsumexp of nothing: finite, so that it can be subtracted, and nothing next to any logit.
_NOTHING = -1e30


class TokenStats(NamedTuple):
    """What a path needs to know of its states."""

    partition_BxX: jax.Array  # logsumexp of the logits
    picked_BxX: jax.Array  # the logit of the token taken
    # If some tokens were given: log of their probabilities and of any other's, BxXx(K + 1): `outcomes.student_outcomes`
    outcomes_BxXxK: jax.Array | None


def _reading(rest_BxX: jax.Array, kept_BxXxK: jax.Array, picked_BxX: jax.Array, vocabulary: int) -> TokenStats:
    partition_BxX = jax.nn.logsumexp(jnp.concatenate([kept_BxXxK, rest_BxX[..., None]], axis=-1), axis=-1)
    return TokenStats(partition_BxX, picked_BxX, outcomes(rest_BxX, kept_BxXxK, vocabulary))


class DenseLogits(NamedTuple):
    """softmax of `logits_BxXxV`, -inf at tokens that can never be."""

    logits_BxXxV: jax.Array

    def token_loss(self, targets_BxX: jax.Array, label_smoothing: float = 0.0, z_loss: float = 0.0) -> jax.Array:
        """As `likelihood.token_loss`."""
        return token_loss(self.logits_BxXxV, targets_BxX, label_smoothing, z_loss)

    def token_stats(self, tokens_BxX: jax.Array, ids_BxXxK: jax.Array | None = None) -> TokenStats:
        if ids_BxXxK is None:
            return TokenStats(*partition_and_pick(self.logits_BxXxV, tokens_BxX), None)
        found = kept_and_rest(self.logits_BxXxV.astype(jnp.float32), ids_BxXxK, tokens_BxX)
        return _reading(*found, self.logits_BxXxV.shape[-1])

    def top_k(self, k: int) -> TopK:
        """As `kl.top_k_with_tail`, of logits; without an array of log-probabilities of all tokens."""
        best = top_k_with_tail(self.logits_BxXxV, k)
        partition_BxX = jax.nn.logsumexp(self.logits_BxXxV, axis=-1)
        return best._replace(log_prob_BxTxK=best.log_prob_BxTxK - partition_BxX[..., None])


class ChunkedLogits(NamedTuple):
    """The same distribution, with the same answers."""

    logits: Callable[[PyTree], jax.Array]  # of a slice, [B, X, width] float32, -inf also where there is no token
    slices: PyTree  # leaves [C, ...], in the order of the tokens
    width: int
    vocabulary: int

    def token_loss(self, targets_BxX: jax.Array, label_smoothing: float = 0.0, z_loss: float = 0.0) -> jax.Array:
        partition_BxX, picked_BxX, _ = self.token_stats(targets_BxX)
        mean_BxX = self._mean(targets_BxX.shape) if label_smoothing else None
        return loss_of(partition_BxX, picked_BxX, mean_BxX, label_smoothing, z_loss)

    def token_stats(self, tokens_BxX: jax.Array, ids_BxXxK: jax.Array | None = None) -> TokenStats:
        if ids_BxXxK is None:
            partition_BxX, picked_BxXx1 = self._read(tokens_BxX[..., None])
            return TokenStats(partition_BxX, picked_BxXx1[..., 0], None)
        k = ids_BxXxK.shape[-1]
        rest_BxX, picked = self._read(jnp.concatenate([ids_BxXxK, tokens_BxX[..., None]], axis=-1), left_out=k)
        return _reading(rest_BxX, picked[..., :k], picked[..., k], self.vocabulary)

    def top_k(self, k: int) -> TopK:
        if not 1 <= k <= self.vocabulary:
            raise ValueError(f"k must be between 1 and the vocabulary's size {self.vocabulary}, got {k}")

        def step(best: TopK, first: jax.Array, logits_BxXxW: jax.Array) -> TopK:
            ids_BxXxW = jnp.broadcast_to(first + jnp.arange(self.width), logits_BxXxW.shape)
            logits, ids = (jnp.concatenate(x, axis=-1) for x in zip(best, (logits_BxXxW, ids_BxXxW), strict=True))
            found, place = jax.lax.top_k(logits, k)
            return TopK(found, jnp.take_along_axis(ids, place, axis=-1))

        shape = jax.eval_shape(self.logits, jax.tree.map(lambda x: x[0], self.slices)).shape[:2]
        start = TopK(jnp.full((*shape, k), -jnp.inf), jnp.zeros((*shape, k), jnp.int32))
        partition_BxX, _ = self._read(jnp.zeros((*shape, 0), jnp.int32))
        best: TopK = self.fold(step, start)
        return best._replace(log_prob_BxTxK=best.log_prob_BxTxK - partition_BxX[..., None])

    def fold(self, step: Callable[..., PyTree], start: PyTree, *others: ChunkedLogits) -> PyTree:
        """`step(carry, id of the first token, logits of this, of the others)` over the slices of the vocabulary."""
        all_of_them = (self, *others)
        first_C = jnp.arange(-(-self.vocabulary // self.width)) * self.width

        def body(carry: PyTree, piece: tuple[jax.Array, list[PyTree]]) -> tuple[PyTree, None]:
            first, slices = piece
            return step(carry, first, *(x.logits(part) for x, part in zip(all_of_them, slices, strict=True))), None

        return jax.lax.scan(jax.checkpoint(body), start, (first_C, [x.slices for x in all_of_them]))[0]

    def _read(self, ids_BxXxK: jax.Array, left_out: int = 0) -> tuple[jax.Array, jax.Array]:
        """logsumexp over all tokens but the first `left_out` of the ids (distinct), BxX; logits of the ids, BxXxK."""
        rows_B, cols_X = (x[..., None] for x in jnp.indices(ids_BxXxK.shape[:2], sparse=True))

        def step(carry: tuple[jax.Array, ...], first: jax.Array, logits_BxXxW: jax.Array) -> tuple[jax.Array, ...]:
            top_BxX, mass_BxX, picked_BxXxK = carry
            place_BxXxK = ids_BxXxK - first
            here_BxXxK = (place_BxXxK >= 0) & (place_BxXxK < self.width)
            found_BxXxK = jnp.take_along_axis(logits_BxXxW, jnp.clip(place_BxXxK, 0, self.width - 1), axis=-1)
            gone = jnp.where(here_BxXxK, place_BxXxK, self.width)[..., :left_out]  # `width` is no place, and is dropped
            logits_BxXxW = logits_BxXxW.at[rows_B, cols_X, gone].set(-jnp.inf, mode="drop")
            # Only shifts exponents, so that no gradient has to pass.
            higher_BxX = jax.lax.stop_gradient(jnp.maximum(top_BxX, jnp.max(logits_BxXxW, axis=-1)))
            more_BxX = jnp.sum(jnp.exp(logits_BxXxW - higher_BxX[..., None]), axis=-1)
            mass_BxX = mass_BxX * jnp.exp(top_BxX - higher_BxX) + more_BxX
            return higher_BxX, mass_BxX, jnp.where(here_BxXxK, found_BxXxK, picked_BxXxK)

        shape = ids_BxXxK.shape[:2]
        start = (jnp.full(shape, _NOTHING), jnp.zeros(shape), jnp.full(ids_BxXxK.shape, -jnp.inf))
        top_BxX, mass_BxX, picked_BxXxK = self.fold(step, start)
        return top_BxX + jnp.log(jnp.maximum(mass_BxX, jnp.finfo(jnp.float32).tiny)), picked_BxXxK

    def _mean(self, shape: tuple[int, ...]) -> jax.Array:
        """Of the finite logits, BxX."""

        def step(
            carry: tuple[jax.Array, jax.Array], first: jax.Array, logits_BxXxW: jax.Array
        ) -> tuple[jax.Array, ...]:
            finite = jnp.isfinite(logits_BxXxW)
            total_BxX = jnp.sum(jnp.where(finite, logits_BxXxW, 0.0), axis=-1)
            return carry[0] + total_BxX, carry[1] + jnp.sum(finite, axis=-1)

        total_BxX, count_BxX = self.fold(step, (jnp.zeros(shape), jnp.zeros(shape, jnp.int32)))
        return total_BxX / count_BxX


Distribution: TypeAlias = DenseLogits | ChunkedLogits


def compare_distributions(
    terms: Callable[[jax.Array, jax.Array], jax.Array],
    student: Distribution,
    teacher: Distribution,
    tokens_BxX: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums up what two distributions say of each token of the vocabulary.

    Args:
      terms: of log pi and log mu, elementwise.
      student: both dense, or both cut alike.
      teacher: likewise.
      tokens_BxX: int, the tokens taken.

    Returns:
      The sum of `terms` over the vocabulary, and the log-probabilities of the tokens under the student and under the
      teacher, all BxX.
    """
    if isinstance(student, DenseLogits) and isinstance(teacher, DenseLogits):
        pi_BxXxV, mu_BxXxV = (jax.nn.log_softmax(x.logits_BxXxV, axis=-1) for x in (student, teacher))
        log_pi_BxX, log_mu_BxX = (
            jnp.take_along_axis(x, tokens_BxX[..., None], axis=-1)[..., 0] for x in (pi_BxXxV, mu_BxXxV)
        )
        return jnp.sum(terms(pi_BxXxV, mu_BxXxV), axis=-1), log_pi_BxX, log_mu_BxX
    assert isinstance(student, ChunkedLogits) and isinstance(teacher, ChunkedLogits)
    own, other = student.token_stats(tokens_BxX), teacher.token_stats(tokens_BxX)

    def step(total_BxX: jax.Array, _: jax.Array, own_BxXxW: jax.Array, other_BxXxW: jax.Array) -> jax.Array:
        pi, mu = own_BxXxW - own.partition_BxX[..., None], other_BxXxW - other.partition_BxX[..., None]
        return total_BxX + jnp.sum(terms(pi, mu), axis=-1)

    total_BxX = student.fold(step, jnp.zeros(tokens_BxX.shape), teacher)
    return total_BxX, own.picked_BxX - own.partition_BxX, other.picked_BxX - other.partition_BxX
