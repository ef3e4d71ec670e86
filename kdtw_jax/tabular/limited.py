"""Students that cannot tell some states apart, trained by path consistency in expectation on an enumerated MDP.

No paths are sampled: gradients are weighted by the student's own probabilities of all paths, so what comes out is what
the loss asks for and nothing else (`kdtw_jax.losses.expected`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.losses.expected import expected_path_loss
from kdtw_jax.tabular.mdp import EnumerableMDP, all_paths, path_log_prob, random_mdp


class Tables(NamedTuple):
    """A policy, and its KL from the teacher, KL(pi || mu), in each state."""

    log_pi_SxA: jax.Array  # about -1e30 where a token may not be produced
    divergence_S: jax.Array


def tables(mdp: EnumerableMDP, logits_SxA: jax.Array) -> Tables:
    """The policy of logits."""
    log_pi = jax.nn.log_softmax(jnp.where(mdp.allowed_SxA, logits_SxA, -1e30), axis=-1)
    apart = jnp.where(mdp.allowed_SxA, log_pi - jnp.where(mdp.allowed_SxA, mdp.log_mu_SxA, 0.0), 0.0)
    return Tables(log_pi, jnp.sum(jnp.exp(log_pi) * apart, axis=-1))


def expected_gradient(
    mdp: EnumerableMDP,
    logits_SxA: jax.Array,
    path_lambda: float | jax.Array,
    value_S: jax.Array | None = None,
    segment_lengths: Sequence[int] = (0,),
) -> jax.Array:
    """The policy's slope, SxA: that of the sum over a path's tokens, in expectation over the student's paths.

    Args:
      mdp: with the teacher.
      logits_SxA: the student's.
      path_lambda: 0 matches distributions where the paths lead, 1 is the KL of whole sequences.
      value_S: V, which is of no consequence for segments to the end; by default 0.
      segment_lengths: tokens; 0 is to the end.
    """
    paths = all_paths(mdp)
    value_S = jnp.zeros(len(mdp.prefixes)) if value_S is None else value_S
    weight_N = jnp.exp(path_log_prob(tables(mdp, logits_SxA).log_pi_SxA, paths))
    how: dict[str, Any] = {"path_lambda": path_lambda, "segment_lengths": tuple(segment_lengths)}

    def total(logits_SxA: jax.Array) -> jax.Array:
        found = tables(mdp, logits_SxA)

        def one(states_T: jax.Array, tokens_T: jax.Array, mask_T: jax.Array) -> jax.Array:
            row = (found.log_pi_SxA[states_T, tokens_T], found.divergence_S[states_T], value_S[states_T], mask_T)
            log_pi_1xT, divergence_1xT, value_1xT, mask_1xT = (x[None] for x in row)
            ended_1 = jnp.ones(1, bool)
            return expected_path_loss(log_pi_1xT, divergence_1xT, value_1xT, mask_1xT, ended_1, **how)[0].total

        rows = (jnp.asarray(x) for x in (paths.states_NxT, paths.tokens_NxT, paths.mask_NxT))
        return jnp.sum(weight_N * jax.vmap(one)(*rows))

    return jax.grad(total)(logits_SxA)


class Limited(NamedTuple):
    """A task for a student that cannot tell some states apart."""

    mdp: EnumerableMDP
    row_S: np.ndarray  # int32, states of the same number have the same distribution
    rows: int


def two_ways(seed: int = 4) -> Limited:
    """A teacher that tosses a coin between two first tokens, and a student that goes on alike after both.

    After one of them the teacher goes on as a student can, more or less, that tells no way from the other.
    """
    drawn = random_mdp(3, 3, seed=seed, spread=2.0)
    either = np.log([[0.02, 0.49, 0.49]])
    mdp = replace(drawn, log_mu_SxA=np.concatenate([either, drawn.log_mu_SxA[1:]]))
    states = len(mdp.prefixes)
    return Limited(mdp, np.array([0, 1, 1, *range(2, states - 1)], np.int32), states - 1)


def train_limited(
    task: Limited, path_lambda: float | jax.Array, *, steps: int = 3000, learning_rate: float = 0.5
) -> jax.Array:
    """Descends the expected gradient from equal logits to a policy, log pi, SxA. It may be traced and vectorised."""
    row_S = jnp.asarray(task.row_S)

    def step(_: int, logits_RxA: jax.Array) -> jax.Array:
        slope_SxA = expected_gradient(task.mdp, logits_RxA[row_S], path_lambda)
        return logits_RxA - learning_rate * jnp.zeros_like(logits_RxA).at[row_S].add(slope_SxA)

    start_RxA = jnp.zeros((task.rows, task.mdp.log_mu_SxA.shape[1]))
    return tables(task.mdp, jax.lax.fori_loop(0, steps, step, start_RxA)[row_S]).log_pi_SxA
