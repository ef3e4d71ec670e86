"""The token MDP with several helpers, each with its price: exact optima, in numpy and float64.

An action is a token of the student's own or asking helper k, which appends y ~ mu_k(.|s):

    Q(s, a) = log mu(a|s) + gamma V(s.a)
    Q(s, ask k) = -price_k - fault_k(s) + gamma sum_y mu_k(y|s) V(s.y)

mu is the teacher whose log-probability is the reward. fault_k(s) = KL(mu_k || mu) is what the helper's words lose under
that teacher, who has none himself. A helper that is *trusted* is charged its price alone: a calculator may know better.
Where a helper declines it is no action. Two rewards, as in `kdtw_jax.tabular.help_mdp`: *literal*, as above, or
*normalised*, less log(1 + sum_k e^-price_k) over those that do not decline, which makes tokens and helpers one
distribution where no helper has a fault. Axis letters as in `kdtw_jax.tabular.mdp`; K: helpers, X: tokens and helpers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize, root
from scipy.special import logsumexp

from kdtw_jax.errors import UserError
from kdtw_jax.tabular.mdp import EnumerableMDP, Solution, occupancy

_NEVER = 1e-9  # expected calls; a budget of less than this is one of nothing
_TOP = 60.0  # nats, beyond which a price changes nothing


class TabularHelper(NamedTuple):
    """A helper as a table."""

    log_prob_SxA: np.ndarray  # of its next token; a state of -inf alone: it declines there
    trusted: bool = False  # charged its price alone

    @property
    def declines_S(self) -> np.ndarray:
        """Where it has nothing to say, bool [S]."""
        return ~np.isfinite(self.log_prob_SxA).any(axis=1)

    def fault_S(self, log_mu_SxA: np.ndarray) -> np.ndarray:
        """KL(mu_k || mu) against a teacher `log_mu_SxA`, nats [S]; 0 where it is trusted or declines."""
        said_SxA = np.isfinite(self.log_prob_SxA)
        if self.trusted:
            return np.zeros(len(said_SxA))
        log_prob_SxA = np.where(said_SxA, self.log_prob_SxA, 0.0)
        ratio_SxA = log_prob_SxA - np.where(said_SxA, log_mu_SxA, 0.0)
        fault_S: np.ndarray = np.sum(np.where(said_SxA, np.exp(log_prob_SxA), 0.0) * ratio_SxA, axis=1)
        return fault_S


class HelperUse(NamedTuple):
    """What a policy does in an episode, in expectation."""

    calls_K: np.ndarray  # tokens asked of each helper
    length: float  # tokens, end-of-sequence included

    @property
    def share_K(self) -> np.ndarray:
        """Of the tokens, how many each helper writes."""
        share_K: np.ndarray = self.calls_K / self.length
        return share_K


class HelperBudgets(NamedTuple):
    """Upper bounds of what an episode uses in expectation; infinite ones bind nothing."""

    calls_K: np.ndarray  # tokens of each helper
    units_K: np.ndarray  # cost units of a token of each
    cost: float = np.inf  # of their sum, in cost units


class HelperDual(NamedTuple):
    """Multipliers of budgets, each at least 0, and the prices that they add up to."""

    price_K: np.ndarray  # nats: multiplier_K + cost_multiplier units_K
    multiplier_K: np.ndarray  # nats per token, of each helper's own budget
    cost_multiplier: float  # nats per cost unit
    solution: Solution


def helpers_reward(
    mdp: EnumerableMDP, helpers: Sequence[TabularHelper], price_K: np.ndarray, *, normalize: bool = True
) -> np.ndarray:
    """The rewards of tokens and of asking each of the `helpers` of `mdp` at `price_K`, [SxX]; -inf where one declines.

    `normalize`: the second of the module's two rewards.
    """
    price_SxK = np.array([np.where(h.declines_S, np.inf, p) for h, p in zip(helpers, price_K, strict=True)]).T
    fault_SxK = np.array([h.fault_S(mdp.log_mu_SxA) for h in helpers]).T
    both_SxX = np.concatenate([mdp.log_mu_SxA, -price_SxK - fault_SxK], axis=1)
    total_S = np.logaddexp(0.0, logsumexp(-price_SxK, axis=1))
    return both_SxX - total_S[:, None] if normalize else both_SxX


def asked_value(helper: TabularHelper, next_SxA: np.ndarray) -> np.ndarray:
    """Expected value after a `helper`'s token, [S], where the values after tokens are `next_SxA`."""
    value_S: np.ndarray = np.sum(np.exp(helper.log_prob_SxA) * next_SxA, axis=1)
    return value_S


def helpers_optimum(
    mdp: EnumerableMDP,
    helpers: Sequence[TabularHelper],
    price_K: np.ndarray,
    *,
    alpha: float = 1.0,
    gamma: float = 1.0,
    normalize: bool = True,
) -> Solution:
    """Soft backward induction over tokens and asking each helper.

    Args:
      mdp: without help.
      helpers: whom to ask.
      price_K: of a token of each, nats; may be infinite.
      alpha: weight of the entropy.
      gamma: discount per token.
      normalize: which of the two rewards.

    Returns:
      The optimum; its policy is [SxX].
    """
    reward_SxX = helpers_reward(mdp, helpers, price_K, normalize=normalize)
    value_S = np.zeros(len(mdp.prefixes))
    for _ in range(mdp.horizon):
        next_SxA = mdp.next_value(value_S)
        later_SxX = np.column_stack([next_SxA, *(asked_value(helper, next_SxA) for helper in helpers)])
        q_SxX = reward_SxX + gamma * later_SxX
        value_S = alpha * logsumexp(q_SxX / alpha, axis=1)
    return Solution(value_S, (q_SxX - value_S[:, None]) / alpha)


def emitted_with_helpers(helpers: Sequence[TabularHelper], log_pi_SxX: np.ndarray) -> np.ndarray:
    """Probability of each next token under `log_pi_SxX`, whoever of the student and the `helpers` writes it, [SxA]."""
    pi_SxX = np.exp(log_pi_SxX)
    token_SxA = pi_SxX[:, : -len(helpers)].copy()
    for k, helper in enumerate(helpers, -len(helpers)):
        token_SxA += pi_SxX[:, [k]] * np.exp(helper.log_prob_SxA)
    return token_SxA


def helper_use(mdp: EnumerableMDP, helpers: Sequence[TabularHelper], log_pi_SxX: np.ndarray) -> HelperUse:
    """Expected calls of each of the `helpers` and length of an episode of `mdp` under `log_pi_SxX`."""
    with np.errstate(divide="ignore"):
        reach_S = occupancy(mdp, np.log(emitted_with_helpers(helpers, log_pi_SxX)))
    return HelperUse(reach_S @ np.exp(log_pi_SxX[:, -len(helpers) :]), float(reach_S.sum()))


def dual_prices(
    mdp: EnumerableMDP, helpers: Sequence[TabularHelper], budgets: HelperBudgets, *, alpha: float = 1.0
) -> HelperDual:
    """The prices under which the optimum of the literal reward keeps all budgets, and those that bind exactly.

    With multipliers l_k of the helpers' budgets b_k and l_0 of the cost budget b_0, a token of helper k is priced
    l_k + l_0 units_k. The dual function V(root) + sum_k l_k b_k + l_0 b_0 is convex, as the largest of functions that
    are linear in the multipliers, and its gradient is budget less use. It is minimised over multipliers of at least 0.

    Args:
      mdp: without help.
      helpers: whom to ask.
      budgets: of what an episode uses in expectation.
      alpha: weight of the entropy.

    Raises:
      UserError: a budget is not above 0. A helper that may never be asked is left out.
    """
    bounds = np.append(budgets.calls_K, budgets.cost)
    if not (bounds > _NEVER).all():
        raise UserError(f"budgets have to be above 0, got {bounds.tolist()}; leave out a helper that is never asked")
    count, binding = len(helpers), np.isfinite(bounds)

    def prices(multipliers: np.ndarray) -> np.ndarray:
        price_K: np.ndarray = multipliers[:count] + multipliers[count] * budgets.units_K
        return price_K

    def dual(free: np.ndarray) -> tuple[float, np.ndarray]:
        full = np.zeros(count + 1)
        full[binding] = free
        best = helpers_optimum(mdp, helpers, prices(full), alpha=alpha, normalize=False)
        calls_K = helper_use(mdp, helpers, best.log_pi_SxA).calls_K
        slack = bounds - np.append(calls_K, calls_K @ budgets.units_K)
        return float(best.value_S[0] + full[binding] @ bounds[binding]), slack[binding]

    full = np.zeros(count + 1)
    if binding.any():
        start = np.ones(int(binding.sum()))
        options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000}
        limits = [(0.0, _TOP)] * len(start)
        full[binding] = minimize(dual, start, jac=True, method="L-BFGS-B", bounds=limits, options=options).x
    best = helpers_optimum(mdp, helpers, prices(full), alpha=alpha, normalize=False)
    return HelperDual(prices(full), full[:count], float(full[count]), best)


def share_prices(mdp: EnumerableMDP, helpers: Sequence[TabularHelper], share_K: np.ndarray) -> np.ndarray:
    """The prices at which each helper writes its share of the tokens, under the normalised reward, nats [K].

    Where no helper has a fault they are log(q_0 / q_k), q_0 being the share that is left to the student; from there the
    root is searched for.

    Args:
      mdp: without help.
      helpers: whom to ask.
      share_K: of the tokens, of each helper.

    Raises:
      UserError: shares that are not above 0 and in sum below 1, or that no prices bring about.
    """
    if not ((share_K > 0).all() and share_K.sum() < 1):
        raise UserError(f"shares have to be above 0 and in sum below 1, got {share_K.tolist()}")

    def over(price_K: np.ndarray) -> np.ndarray:
        best = helpers_optimum(mdp, helpers, price_K)
        excess_K: np.ndarray = np.log(helper_use(mdp, helpers, best.log_pi_SxA).share_K) - np.log(share_K)
        return excess_K

    found = root(over, np.log((1 - share_K.sum()) / share_K), tol=1e-12)
    if not np.abs(over(found.x)).max() < 1e-6:
        raise UserError(f"no prices were found at which the helpers write {share_K.tolist()} of the tokens")
    price_K: np.ndarray = found.x
    return price_K


def savings(
    mdp: EnumerableMDP,
    helpers: Sequence[TabularHelper],
    log_own_SxA: np.ndarray,
    value_S: np.ndarray | None = None,
    *,
    alpha: float = 1.0,
    gamma: float = 1.0,
) -> np.ndarray:
    """What a word of each helper saves in each state, [SxK] nats: D_k, -inf where it declines.

        D_k(s) = sum_a pi(a|s) [alpha log pi - log mu](a|s) - fault_k(s) + gamma [E_{mu_k} V(s.y) - E_pi V(s.a)]

    Args:
      mdp: without help.
      helpers: whom to ask.
      log_own_SxA: the student's policy of its own tokens.
      value_S: V; None: one-step savings, which leave out what an answer changes about the rest.
      alpha: weight of the entropy.
      gamma: discount per token.
    """
    own_SxA = np.exp(log_own_SxA)
    may_SxA = own_SxA > 0
    ratio_SxA = alpha * np.where(may_SxA, log_own_SxA, 0.0) - np.where(may_SxA, mdp.log_mu_SxA, 0.0)
    next_SxA = np.zeros_like(own_SxA) if value_S is None else gamma * mdp.next_value(value_S)
    written_S = np.sum(own_SxA * (ratio_SxA - next_SxA), axis=1)
    saved = [written_S - h.fault_S(mdp.log_mu_SxA) + asked_value(h, next_SxA) for h in helpers]
    return np.array([np.where(h.declines_S, -np.inf, x) for h, x in zip(helpers, saved, strict=True)]).T


def gate_over_helpers(saving_SxK: np.ndarray, price_K: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """log-probabilities of writing and of asking each helper, [S, 1 + K]: softmax of (0, saving_k - price_k) / alpha.

    Args:
      saving_SxK: nats, -inf where a helper declines.
      price_K: nats.
      alpha: weight of the entropy.
    """
    ask_SxK = (saving_SxK - price_K[None, :]) / alpha
    logits = np.concatenate([np.zeros((len(ask_SxK), 1)), ask_SxK], axis=1)
    log_gate: np.ndarray = logits - logsumexp(logits, axis=1, keepdims=True)
    return log_gate
