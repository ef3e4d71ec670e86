"""Asking for help: what it saves, asking as an action of a path, and the value of costs to come.

In a state s the student either writes, by its own policy pi, or asks at a price. With alpha = gamma = 1 asking saves

    D(s) = KL(pi || mu) + E_mu V(s.y) - E_pi V(s.a)

and the optimal probability of asking is sigma((D(s) - price) / alpha): a student equal to its teacher asks at the rate
sigma(-price) everywhere, one that cannot be asks where it is worth it (`kdtw_jax.tabular.help_mdp` has the exact
optimum). The functions here leave the difference of V out: it is what a single answer changes about the rest.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from kdtw_jax.losses.kl import TopK, topk_divergence
from kdtw_jax.losses.metric import Weighted, weighted


def help_logit(log_policy_BxTxX: jax.Array, help_id: int) -> jax.Array:
    """Log-odds of asking, BxT, under a policy `log_policy_BxTxX` over tokens and asking, whose place is `help_id`."""
    ask_BxT = log_policy_BxTxX[..., help_id]
    write_BxT = jax.nn.logsumexp(log_policy_BxTxX.at[..., help_id].set(-jnp.inf), axis=-1)
    return ask_BxT - write_BxT


def saving(own_logp_BxTxV: jax.Array, top: TopK, kind: Literal["kl", "regret"]) -> jax.Array:
    """What the teacher's answer is worth in nats, BxT; nothing to differentiate.

    "kl" = KL(pi || mu), over the teacher's top k and a tail: what is saved where tokens are sampled. "regret" =
    log mu(best) - log mu(the student's most probable token): where they are taken greedily. A token outside the top k
    counts as the least probable one inside, so the regret is a lower bound.

    Args:
      own_logp_BxTxV: the student's log-policy of its own token, help left out.
    """
    if kind == "kl":
        return jax.lax.stop_gradient(topk_divergence(own_logp_BxTxV, top, "reverse"))
    choice_BxT = jnp.argmax(own_logp_BxTxV, axis=-1)
    hit_BxTxK = top.ids_BxTxK == choice_BxT[..., None]
    least_BxT = top.log_prob_BxTxK[..., -1]
    chosen_BxT = jnp.where(
        jnp.any(hit_BxTxK, axis=-1), jnp.sum(jnp.where(hit_BxTxK, top.log_prob_BxTxK, 0.0), axis=-1), least_BxT
    )
    return jax.lax.stop_gradient(top.log_prob_BxTxK[..., 0] - chosen_BxT)


def asked_path(
    own_log_prob_BxT: jax.Array,
    help_logit_BxT: jax.Array,
    teacher_log_prob_BxT: jax.Array,
    asked_BxT: jax.Array,
    price_BxT: jax.Array,
    *,
    normalize: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """log pi of the actions taken and their rewards, both BxT: what `pcl_loss` takes for log pi and log mu.

        written by the student:  log pi = own_log_prob + log sigma(-z),   reward = log mu(token)
        asked for:               log pi = log sigma(z),                   reward = -price

    with z = `help_logit_BxT`, the log-odds of asking. `normalize` adds log sigma(price) to both rewards: they are
    then log-probabilities of one distribution, the teacher that asks at the rate sigma(-price), and asking makes no
    path worth drawing out (`kdtw_jax.tabular.help_mdp`).

    Args:
      own_log_prob_BxT: of the tokens under the student's policy of its own token, help left out; not read where asked.
      teacher_log_prob_BxT: log mu of the tokens; not read where asked.
      asked_BxT: bool, the student asked and the teacher wrote the token.
      price_BxT: of asking, may be negative; [B,1] will do.
    """
    write_BxT = own_log_prob_BxT + jax.nn.log_sigmoid(-help_logit_BxT)
    log_pi_BxT = jnp.where(asked_BxT, jax.nn.log_sigmoid(help_logit_BxT), write_BxT)
    reward_BxT = jnp.where(asked_BxT, -price_BxT, teacher_log_prob_BxT)
    if normalize:
        reward_BxT = reward_BxT + jax.nn.log_sigmoid(price_BxT)
    return log_pi_BxT, reward_BxT


def asked_divergence(
    divergence_BxT: jax.Array, help_logit_BxT: jax.Array, price_BxT: jax.Array, *, normalize: bool = True
) -> jax.Array:
    """What the actions of `asked_path` cost in expectation, log pi - reward, BxT nats.

    With g = sigma(z) the probability of asking it is

        g [log g + price] + (1 - g) [log(1 - g) + KL(pi || mu)],

    less log sigma(price) if `normalize`: then it is the KL of tokens and asking from the teacher that asks.

    Args:
      divergence_BxT: KL(pi || mu) of the student's own tokens.
      help_logit_BxT: z, as in `asked_path`.
      price_BxT: as in `asked_path`.
      normalize: as in `asked_path`.
    """
    ask_BxT = jax.nn.sigmoid(help_logit_BxT)
    asked_BxT = jax.nn.log_sigmoid(help_logit_BxT) + price_BxT
    cost_BxT = ask_BxT * asked_BxT + (1 - ask_BxT) * (jax.nn.log_sigmoid(-help_logit_BxT) + divergence_BxT)
    return cost_BxT - jax.nn.log_sigmoid(price_BxT) if normalize else cost_BxT


def cost_to_go(cost_BxT: jax.Array, mask_BxT: jax.Array, value_BxT: jax.Array, trace: float) -> jax.Array:
    """TD(lambda) targets of V_C, BxT: G_t = c_t + (1 - trace) V_C(s_{t+1}) + trace G_{t+1}, and 0 after the end.

    No discount: a budget is on the whole output.

    Args:
      cost_BxT: c_t, of the tokens, in units of the constraint.
      mask_BxT: bool, True up to and including the last token.
      value_BxT: V_C of the states that they were taken in.
      trace: lambda; 1 is Monte Carlo (the measured cost to go), 0 one-step TD.
    """
    cost_BxT = jnp.where(mask_BxT, cost_BxT, 0.0)
    next_BxT = jnp.pad(jnp.where(mask_BxT, value_BxT, 0.0)[:, 1:], ((0, 0), (0, 1)))

    def back(later_B: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        cost_B, next_B = now
        here_B = cost_B + (1 - trace) * next_B + trace * later_B
        return here_B, here_B

    _, target_TxB = jax.lax.scan(back, jnp.zeros(cost_BxT.shape[0]), (cost_BxT.T, next_BxT.T), reverse=True)
    return jnp.where(mask_BxT, target_TxB.T, 0.0)


def constraint_value_loss(
    value_BxT: jax.Array, cost_BxT: jax.Array, mask_BxT: jax.Array, fit_B: jax.Array, trace: float = 1.0
) -> Weighted:
    """Half the squared error of V_C, the expected cost to go, in the constraint's units squared.

    Args:
      value_BxT: as in `cost_to_go`; the targets are constants.
      cost_BxT: as in `cost_to_go`; the targets are constants.
      mask_BxT: as in `cost_to_go`; the targets are constants.
      trace: as in `cost_to_go`; the targets are constants.
      fit_B: bool, rows that count. They have to be finished paths of the student's own: V_C is the cost of *its*
        policy, a plain expectation without an entropy term.
    """
    target_BxT = jax.lax.stop_gradient(cost_to_go(cost_BxT, mask_BxT, value_BxT, trace))
    return weighted(0.5 * jnp.square(value_BxT - target_BxT), mask_BxT & fit_B[:, None])
