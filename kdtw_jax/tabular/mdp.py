"""A token MDP small enough to enumerate, and its exact optima.

States are the prefixes without EOS of at most `horizon` - 1 tokens, so every complete path is one state's
prefix followed by EOS and there are as many paths as states. At the last depth EOS is the only token allowed,
for teacher and student alike (log mu = -inf for the others): every path ends, and with alpha = gamma = 1
V* = 0 and pi* = mu hold exactly at every state, the last depth included.

The oracles are numpy in float64. Axis letters: S states, A actions (the vocabulary), N paths, T = horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.errors import UserError

EOS = 0


@dataclass(frozen=True)
class EnumerableMDP:
    """Tables over prefixes; index S in `next_state_SxA` stands for the end, whose value is 0."""

    prefixes: tuple[tuple[int, ...], ...]
    next_state_SxA: np.ndarray  # int32
    log_mu_SxA: np.ndarray  # float64, the teacher; -inf where a token may not be produced
    horizon: int

    @property
    def allowed_SxA(self) -> np.ndarray:
        """bool: the token may be produced."""
        return np.isfinite(self.log_mu_SxA)

    def next_value(self, value_S: np.ndarray) -> np.ndarray:
        """Expected value after each action, SxA: the one place that knows the transition."""
        return np.append(value_S, 0.0)[self.next_state_SxA]


class Solution(NamedTuple):
    """An optimum: values and the policy that goes with them."""

    value_S: np.ndarray
    log_pi_SxA: np.ndarray


class Paths(NamedTuple):
    """Complete paths as rows, padded with zeros after EOS."""

    states_NxT: np.ndarray  # int32
    tokens_NxT: np.ndarray  # int32
    mask_NxT: np.ndarray  # bool, True up to and including EOS
    asked_NxT: np.ndarray  # bool, the student asked and the teacher wrote the token (`kdtw_jax.tabular.help_tabular`)


def random_mdp(vocabulary: int, horizon: int, *, seed: int, spread: float = 1.0) -> EnumerableMDP:
    """An MDP whose teacher has random normal logits at every prefix.

    Args:
      vocabulary: number of tokens, EOS included.
      horizon: tokens of the longest path.
      seed: of the logits.
      spread: their standard deviation.

    Raises:
      UserError: a vocabulary beyond 4 or a horizon beyond 5, where enumeration stops being cheap.
    """
    if not 2 <= vocabulary <= 4 or not 1 <= horizon <= 5:
        raise UserError(f"need a vocabulary of 2 to 4 and a horizon of 1 to 5, got {vocabulary} and {horizon}")
    words = range(1, vocabulary)
    prefixes = tuple(p for length in range(horizon) for p in product(words, repeat=length))
    index = {prefix: s for s, prefix in enumerate(prefixes)}
    end = len(prefixes)
    next_state = [[end] + [index.get((*prefix, a), end) for a in words] for prefix in prefixes]
    logits = np.random.default_rng(seed).normal(size=(end, vocabulary)) * spread
    logits[[len(prefix) == horizon - 1 for prefix in prefixes], 1:] = -np.inf
    log_mu = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return EnumerableMDP(prefixes, np.array(next_state, np.int32), log_mu, horizon)


def soft_optimum(
    mdp: EnumerableMDP, alpha: float = 1.0, gamma: float = 1.0, reward_SxA: np.ndarray | None = None
) -> Solution:
    """Soft backward induction: Q = r + gamma V(next), V = alpha logsumexp(Q / alpha), pi = e^[(Q-V)/alpha].

    The reward is log mu unless given (-inf where a token may not be produced).
    """
    reward_SxA = mdp.log_mu_SxA if reward_SxA is None else reward_SxA
    value_S = np.zeros(len(mdp.prefixes))
    for _ in range(mdp.horizon):  # a sweep settles one more depth, from the last to the root
        q_SxA = reward_SxA + gamma * mdp.next_value(value_S)
        value_S = alpha * np.logaddexp.reduce(q_SxA / alpha, axis=1, keepdims=True)[:, 0]
    return Solution(value_S, (q_SxA - value_S[:, None]) / alpha)


def policy_value(mdp: EnumerableMDP, log_pi_SxA: np.ndarray, alpha: float = 1.0, gamma: float = 1.0) -> np.ndarray:
    """The value of a policy `log_pi_SxA`, [S]: E_pi sum_t gamma^t (log mu - alpha log pi) from each state on.

    At alpha = gamma = 1 it is minus KL(pi || mu) over the rest of the sequence.
    """
    pi_SxA = np.exp(log_pi_SxA)
    gain_SxA = np.where(pi_SxA > 0, mdp.log_mu_SxA - alpha * np.where(pi_SxA > 0, log_pi_SxA, 0.0), 0.0)
    value_S = np.zeros(len(mdp.prefixes))
    for _ in range(mdp.horizon):
        value_S = np.sum(pi_SxA * (gain_SxA + gamma * mdp.next_value(value_S)), axis=1)
    return value_S


def occupancy(mdp: EnumerableMDP, log_pi_SxA: np.ndarray) -> np.ndarray:
    """Probability that a path under a policy `log_pi_SxA` passes through each state, [S]."""
    reach = np.zeros(len(mdp.prefixes) + 1)
    reach[0] = 1.0
    for s in range(len(mdp.prefixes)):  # a prefix comes after all of its own prefixes
        np.add.at(reach, mdp.next_state_SxA[s], reach[s] * np.exp(log_pi_SxA[s]))
    return reach[:-1]


def all_paths(mdp: EnumerableMDP) -> Paths:
    """Every complete path once, written without help; path n is prefix n and then EOS, N = S."""
    shape = (len(mdp.prefixes), mdp.horizon)
    states, tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, bool)
    for n, prefix in enumerate(mdp.prefixes):
        state = 0
        for t, token in enumerate((*prefix, EOS)):
            states[n, t], tokens[n, t], mask[n, t] = state, token, True
            state = mdp.next_state_SxA[state, token]
    return Paths(states, tokens, mask, np.zeros(shape, bool))


def path_log_prob(log_pi_SxA: jax.Array, paths: Paths) -> jax.Array:
    """log-probability of each path under a policy `log_pi_SxA`, [N]."""
    return jnp.sum(jnp.where(paths.mask_NxT, log_pi_SxA[paths.states_NxT, paths.tokens_NxT], 0.0), axis=1)
