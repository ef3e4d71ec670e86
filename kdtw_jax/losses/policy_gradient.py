"""The policy gradient of the reverse KL between sequences, as MiniLLM takes it (Gu et al., arXiv 2306.08543).

With r_t = log mu(y_t|s_t) - log pi(y_t|s_t) and R_t = sum_{u >= t} r_u, the gradient of KL(pi || mu) over sequences is
-E sum_t R_t grad log pi(y_t|s_t). Its first reward has an exact expectation, which leaves two parts (section 2.2):

    single-step:  E sum_t grad KL(pi(.|s_t) || mu(.|s_t))
    long-term:   -E sum_t R_{t+1} grad log pi(y_t|s_t)

Paths may be drawn from the mixture a mu + (1 - a) pi, token by token, with weights w_t = pi / (a mu + (1 - a) pi) on
both parts: the paper's approximation, since only the product of all weights up to t would be exact. R_{t+1} is divided
by the number of tokens it sums over, which takes away the gain of ending early. There is no clipped ratio: it only
matters when a rollout is used for several updates, and here each is used for one.

These are the paper's equations. Its authors' code (microsoft/LMOps, minillm) differs: rewards are summed from t itself,
the quotients are whitened over the batch, and only the long-term part has weights.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def later_rewards(reward_BxT: jax.Array, mask_BxT: jax.Array, *, length_normalize: bool) -> jax.Array:
    """R_{t+1}, the sum of the rewards after t, or their mean; BxT, 0 at the last token and after.

    Args:
      reward_BxT: r_t, nats.
      mask_BxT: bool, True up to and including the last token.
      length_normalize: take the mean over all tokens after t (the paper's denominator is one less, 0 for the last but
        one).
    """
    reward_BxT = jnp.where(mask_BxT, reward_BxT, 0.0)

    def after(x_BxT: jax.Array) -> jax.Array:
        to_go_BxT = jnp.flip(jnp.cumsum(jnp.flip(x_BxT, axis=1), axis=1), axis=1)
        return jnp.pad(to_go_BxT[:, 1:], ((0, 0), (0, 1)))

    later_BxT = after(reward_BxT)
    if length_normalize:
        later_BxT = later_BxT / jnp.maximum(after(mask_BxT.astype(jnp.float32)), 1.0)
    return jnp.where(mask_BxT, later_BxT, 0.0)


def importance_weights(log_pi_BxT: jax.Array, log_mu_BxT: jax.Array, teacher_mix: float) -> jax.Array:
    """w_t = pi / (a mu + (1 - a) pi) of the tokens taken, BxT, at most 1 / (1 - a).

    Args:
      log_pi_BxT: of these tokens.
      log_mu_BxT: likewise.
      teacher_mix: a, in [0, 1).
    """
    if teacher_mix == 0:
        return jnp.ones_like(log_pi_BxT)
    drawn_BxT = jnp.logaddexp(math.log(teacher_mix) + log_mu_BxT, math.log1p(-teacher_mix) + log_pi_BxT)
    return jnp.exp(log_pi_BxT - drawn_BxT)


def sequence_kl_surrogate(
    kl_BxT: jax.Array,
    log_pi_BxT: jax.Array,
    log_mu_BxT: jax.Array,
    mask_BxT: jax.Array,
    *,
    teacher_mix: float,
    length_normalize: bool,
) -> tuple[jax.Array, jax.Array]:
    """The single-step and the long-term part, BxT nats: their gradients are meant, the second's value says nothing.

    Args:
      kl_BxT: KL(pi(.|s_t) || mu(.|s_t)), to be differentiated.
      log_pi_BxT: of the tokens taken, to be differentiated.
      log_mu_BxT: likewise of the teacher, a constant.
      mask_BxT: bool, True up to and including the last token; what stands elsewhere is never read.
      teacher_mix: share a of the teacher in the policy that the paths were drawn from.
      length_normalize: divide R_{t+1} by its number of tokens.
    """
    log_pi_BxT, log_mu_BxT = (jnp.where(mask_BxT, x, 0.0) for x in (log_pi_BxT, log_mu_BxT))
    own_BxT, teacher_BxT = jax.lax.stop_gradient((log_pi_BxT, log_mu_BxT))
    weight_BxT = importance_weights(own_BxT, teacher_BxT, teacher_mix)
    later_BxT = later_rewards(teacher_BxT - own_BxT, mask_BxT, length_normalize=length_normalize)
    single_BxT = jnp.where(mask_BxT, weight_BxT * jnp.where(mask_BxT, kl_BxT, 0.0), 0.0)
    return single_BxT, -weight_BxT * later_BxT * log_pi_BxT
