"""The token MDP with help: asking is one more action, which the teacher answers. Exact optima, in numpy and float64.

After asking, the teacher's token y ~ mu is appended: Q(s, ask) = r(s, ask) + gamma sum_y mu(y|s) V(s.y). Two rewards:

- *normalised* (the default): r(s,a) = log mu(a|s) + log sigma(price), r(s,ask) = -price + log sigma(price). Teacher and
  asking are together one distribution, mu_price; with alpha = gamma = 1, V* = 0 and pi* = mu_price;
- *literal*, the Lagrangian itself: r(s,a) = log mu(a|s), r(s,ask) = -price. Two ways to every token are worth
  log(1 + e^-price) per step, so the optimum puts off the end of the sequence.

The price that makes q the share of tokens asked for under the first is log((1-q)/q): below zero for q above one half.
Axis letters as in `kdtw_jax.tabular.mdp`; X: actions and asking, the last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import brentq, minimize_scalar

from kdtw_jax.errors import UserError
from kdtw_jax.tabular.mdp import EnumerableMDP, Solution

_PRICES = np.linspace(30.0, -30.0, 121)  # highest first; shares change over prices of about 1
_TOUCH = 1e-12  # of a share, relative: so near is the same


class Use(NamedTuple):
    """What a policy does in an episode, in expectation."""

    calls: float  # tokens asked for
    length: float  # tokens, end-of-sequence included

    @property
    def share(self) -> float:
        """Of the tokens, how many the teacher writes."""
        return self.calls / self.length


def extended_reward(mdp: EnumerableMDP, price: float, *, normalize: bool = True) -> np.ndarray:
    """The rewards of tokens and of asking at a price, [SxX], normalised or literal: the module's docstring has both."""
    own, ask = mdp.log_mu_SxA, np.full((len(mdp.prefixes), 1), -float(price))
    both = np.concatenate([own, ask], axis=1)
    return both - np.logaddexp(0.0, -price) if normalize else both


def extended_optimum(
    mdp: EnumerableMDP, price: float, *, alpha: float = 1.0, gamma: float = 1.0, normalize: bool = True
) -> Solution:
    """Soft backward induction over tokens and asking.

    Args:
      mdp: without help.
      price: of asking, nats.
      alpha: weight of the entropy.
      gamma: discount per token.
      normalize: which of the two rewards.

    Returns:
      The optimum; its policy is [SxX].
    """
    reward_SxX, mu_SxA = extended_reward(mdp, price, normalize=normalize), np.exp(mdp.log_mu_SxA)
    value_S = np.zeros(len(mdp.prefixes))
    for _ in range(mdp.horizon):
        next_SxA = mdp.next_value(value_S)
        asked_S = np.sum(mu_SxA * next_SxA, axis=1, keepdims=True)
        q_SxX = reward_SxX + gamma * np.concatenate([next_SxA, asked_S], axis=1)
        value_S = alpha * np.logaddexp.reduce(q_SxX / alpha, axis=1, keepdims=True)[:, 0]
    return Solution(value_S, (q_SxX - value_S[:, None]) / alpha)


def emitted(mdp: EnumerableMDP, log_pi_SxX: np.ndarray) -> np.ndarray:
    """Probability of each next token under `log_pi_SxX`, whoever writes it, [SxA]."""
    pi_SxX = np.exp(log_pi_SxX)
    token_SxA: np.ndarray = pi_SxX[:, :-1] + pi_SxX[:, -1:] * np.exp(mdp.log_mu_SxA)
    return token_SxA


def use(mdp: EnumerableMDP, log_pi_SxX: np.ndarray) -> Use:
    """Expected calls and length of an episode under `log_pi_SxX`."""
    token_SxA = emitted(mdp, log_pi_SxX)
    reach = np.zeros(len(mdp.prefixes) + 1)
    reach[0] = 1.0
    for s in range(len(mdp.prefixes)):  # a prefix comes after all of its own prefixes
        np.add.at(reach, mdp.next_state_SxA[s], reach[s] * token_SxA[s])
    return Use(float(reach[:-1] @ np.exp(log_pi_SxX[:, -1])), float(reach[:-1].sum()))


def dual_optimum(solve: Callable[[float], Use], share: float) -> float:
    """The price at which the share asked for is `share`; of several the highest, where use falls as the price rises.

    Under the normalised reward there is one. Under the literal one use need not fall with the price everywhere: well
    below zero it may rise again, and what dual ascent finds is the highest price. The search is over a grid of prices
    between -30 and 30, refined at its turning points, which a share just short of the most has on either side of it.

    Args:
      solve: from a price to what the optimal policy does in expectation.
      share: of the tokens.

    Raises:
      UserError: a share that is not strictly between 0 and 1, or that no such price brings about.
    """
    if not 0.0 < share < 1.0:
        raise UserError(f"no price makes the share asked for {share}; it has to be strictly between 0 and 1")

    def over(price: float) -> float:
        return solve(price).share - share

    prices = _PRICES.tolist()
    excess = [over(price) for price in prices]
    turns: list[float] = []
    for i, (price, here) in enumerate(zip(prices, excess, strict=True)):
        if here == 0.0:
            return float(price)
        above, below = max(i - 1, 0), min(i + 1, len(prices) - 1)
        side = np.sign(here)
        if side * here <= side * excess[above] and side * here <= side * excess[below]:  # nearest to the share here
            turn = minimize_scalar(
                lambda p, side=side: side * over(p),
                bounds=(prices[below], prices[above]),
                method="bounded",
                options={"xatol": 1e-9},
            )
            if abs(turn.fun) <= _TOUCH * share:
                return float(turn.x)
            if turn.fun < 0.0:
                return float(brentq(over, turn.x, prices[above], xtol=1e-12))
            turns.append(side * turn.fun)
        if side * excess[below] < 0.0:
            return float(brentq(over, prices[below], price, xtol=1e-12))
    shares = [share + x for x in (*excess, *turns)]
    least, most = min(shares), max(shares)
    digits = 2 if f"{share:.2f}" not in (f"{least:.2f}", f"{most:.2f}") else 12
    raise UserError(
        f"no price makes the share asked for {share}: prices from {prices[-1]:g} to {prices[0]:g} make shares of "
        f"{least:.{digits}f} to {most:.{digits}f}"
    )


def limited_optimum(
    mdp: EnumerableMDP, price: float, row_S: tuple[int, ...], *, steps: int = 2000, learning_rate: float = 0.05
) -> np.ndarray:
    """The best a student can do that cannot tell states of equal `row_S` apart when it writes, [SxX] log-probabilities.

    Whether to ask may differ from state to state. Gradient ascent on the exact value of the root (alpha = gamma = 1).

    Args:
      mdp: without help.
      price: of asking, nats.
      row_S: states of one number are one to the student.
      steps: of Adam.
      learning_rate: at the first step; it falls to zero as a cosine.
    """
    reward_SxX = jnp.asarray(extended_reward(mdp, price))
    mu_SxA, next_state = jnp.exp(jnp.asarray(mdp.log_mu_SxA)), jnp.asarray(mdp.next_state_SxA)
    allowed_SxA, row = jnp.asarray(mdp.allowed_SxA), jnp.asarray(row_S)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def log_policy(student: tuple[jax.Array, jax.Array]) -> jax.Array:
        own_SxA = jax.nn.log_softmax(jnp.where(allowed_SxA, student[0][row], -jnp.inf))
        ask_S = student[1][:, None]
        return jnp.concatenate([own_SxA + jax.nn.log_sigmoid(-ask_S), jax.nn.log_sigmoid(ask_S)], axis=1)

    def root_value(student: tuple[jax.Array, jax.Array]) -> jax.Array:
        log_pi_SxX = log_policy(student)
        possible = jnp.isfinite(log_pi_SxX)
        safe_SxX = jnp.where(possible, log_pi_SxX, 0.0)
        gain_SxX = jnp.where(possible, jnp.where(possible, reward_SxX, 0.0) - safe_SxX, 0.0)
        pi_SxX = jnp.where(possible, jnp.exp(safe_SxX), 0.0)
        value_S = jnp.zeros(len(mdp.prefixes))
        for _ in range(mdp.horizon):
            next_SxA = jnp.append(value_S, 0.0)[next_state]
            later_SxX = jnp.concatenate([next_SxA, jnp.sum(mu_SxA * next_SxA, axis=1, keepdims=True)], axis=1)
            value_S = jnp.sum(pi_SxX * (gain_SxX + later_SxX), axis=1)
        return value_S[0]

    Carry = tuple[tuple[jax.Array, jax.Array], optax.OptState]

    def step(carry: Carry, _: None) -> tuple[Carry, None]:
        student, moments = carry
        updates, moments = optimizer.update(jax.grad(lambda s: -root_value(s))(student), moments)
        return (optax.apply_updates(student, updates), moments), None

    start = (jnp.zeros((max(row_S) + 1, mdp.log_mu_SxA.shape[1])), jnp.full(len(mdp.prefixes), -float(price)))
    (student, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return np.asarray(log_policy(student), np.float64)
