"""Known ways to share the writing between a small and a large model, as strategies of `generate_with_checks`.

pi is the student (the small model, or draft model), mu the teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from kdtw_jax.decoding.gate import DecodeState, Gate, stateless
from kdtw_jax.decoding.gates import silent
from kdtw_jax.decoding.sample import choose
from kdtw_jax.decoding.strategy import Judge, Strategy, Verdict

CascadeRule = Literal["chow", "diff", "opt"]


def speculative(draft_length: int | jax.Array) -> Strategy:
    """Speculative decoding (Leviathan et al., arXiv 2211.17192): the output has the teacher's distribution, or is the
    teacher's own where tokens are greedy."""
    return Strategy(targeting(lambda log_pi, log_mu: log_mu), silent(), draft_length=draft_length)


def speculative_lossy(draft_length: int | jax.Array, tolerance: float | jax.Array) -> Strategy:
    """Speculative decoding with lenience (arXiv 2211.17192, appendix A.5), for greedy tokens: a draft stands unless its
    regret log mu(best) - log mu(draft) exceeds `tolerance` nats, which is minus the logarithm of their factor.

    It is also, for greedy tokens, the speculative cascade TokenV3 of arXiv 2405.19261 (equation 15) at an alpha of
    1 - exp(-tolerance)."""
    return Strategy(within(tolerance), silent(), draft_length=draft_length)


def speculative_cascade(rule: CascadeRule, alpha: float | jax.Array, draft_length: int | jax.Array) -> Strategy:
    """Speculative cascade (Narasimhan et al., arXiv 2405.19261): speculative execution of a cascade that takes each
    token from mu where the rule defers and from pi elsewhere.

    "chow" defers where max pi < 1 - alpha (equation 2); "diff" where max pi < max mu - alpha (5); "opt" where max pi <
    max mu - alpha TV(pi, mu), TV being the total variation (10). All three look at the distributions themselves, also
    where tokens are greedy. The authors' notebook (google-research, speculative_cascades) takes TV of what tokens are
    drawn from, which for greedy tokens is 0 or 1 and makes "opt" "diff"; here the two stay two rules.
    """

    def cascade(log_pi: jax.Array, log_mu: jax.Array) -> jax.Array:
        top_pi, top_mu = (jnp.exp(jnp.max(x, axis=-1)) for x in (log_pi, log_mu))
        if rule == "chow":
            deferred = top_pi < 1 - alpha
        elif rule == "diff":
            deferred = top_pi < top_mu - alpha
        else:
            variation = 0.5 * jnp.sum(jnp.abs(jnp.exp(log_pi) - jnp.exp(log_mu)), axis=-1)
            deferred = top_pi < top_mu - alpha * variation
        return jnp.where(deferred[..., None], log_mu, log_pi)

    return Strategy(targeting(cascade), silent(), draft_length=draft_length)


def big_little(
    fallback: float | jax.Array, rollback: float | jax.Array, draft_length: int | jax.Array = 10
) -> Strategy:
    """Big Little Decoder (Kim et al., arXiv 2302.07863): the student writes until its largest probability is below
    `fallback`, or the span long; the teacher then rolls back to the first token whose -log mu exceeds `rollback`."""

    def judge(log_pi: jax.Array, log_mu: jax.Array, draft_BxN: jax.Array, noise: jax.Array | None) -> Verdict:
        surprise_BxN = -jnp.take_along_axis(log_mu, draft_BxN[..., None], axis=-1)[..., 0]
        return Verdict(surprise_BxN <= rollback, log_mu, log_mu)

    def unsure(state: DecodeState) -> jax.Array:
        return -jnp.max(state.log_policy_BxV, axis=-1)

    level = -jnp.log(jnp.asarray(fallback, jnp.float32))
    return Strategy(judge, stateless(unsure), level, draft_length=draft_length, check_end=False)


def verified(
    gate: Gate,
    level: float | jax.Array,
    tolerance: float | jax.Array,
    *,
    summed: bool | jax.Array = True,
    tokens_per_call: int | jax.Array = 1,
    check_end: bool | jax.Array = False,
    verify_at_end: bool | jax.Array = False,
) -> Strategy:
    """Verified asking: the student calls where what a check is expected to save, by `gate` and summed over the span
    since the last call, exceeds `level`, a call's price; the span stands up to the first token of more than `tolerance`
    nats of regret. Infinite tolerance is asking without a check; 0 with `check_end` gives the teacher's own output. A
    call finds one mistake, however long the draft goes on after it: with `verify_at_end` the student writes to its end
    first, which saves calls at the price of its own positions, and asks for a check where the whole is worth it."""
    return Strategy(
        within(tolerance),
        gate,
        level,
        summed,
        check_end=check_end,
        tokens_per_call=tokens_per_call,
        verify_at_end=verify_at_end,
    )


def within(tolerance: float | jax.Array) -> Judge:
    """A draft stands unless log mu(best) - log mu(draft) exceeds `tolerance`; instead of it, mu writes."""

    def judge(log_pi: jax.Array, log_mu: jax.Array, draft_BxN: jax.Array, noise: jax.Array | None) -> Verdict:
        chosen_BxN = jnp.take_along_axis(log_mu, draft_BxN[..., None], axis=-1)[..., 0]
        return Verdict(jnp.max(log_mu, axis=-1) - chosen_BxN <= tolerance, log_mu, log_mu)

    return judge


def targeting(target: Callable[[jax.Array, jax.Array], jax.Array]) -> Judge:
    """Speculative sampling from any distribution nu = `target(log pi, log mu)`: a draft from pi stands with probability
    min(1, nu / pi), and instead of it comes a token of max(0, nu - pi), so that what is written has distribution nu
    exactly (arXiv 2211.17192, appendix A.1). Greedy: it stands where it is the most probable token of nu."""

    def judge(log_pi: jax.Array, log_mu: jax.Array, draft_BxN: jax.Array, noise_BxN: jax.Array | None) -> Verdict:
        log_nu = target(log_pi, log_mu)
        if noise_BxN is None:
            rows, length, vocabulary = log_nu.shape
            best_BxN = choose(log_nu.reshape(-1, vocabulary), None).reshape(rows, length)
            return Verdict(draft_BxN == best_BxN, log_nu, log_nu)
        of_nu, of_pi = (jnp.take_along_axis(x, draft_BxN[..., None], axis=-1)[..., 0] for x in (log_nu, log_pi))
        rest_BxNxV = jnp.maximum(jnp.exp(log_nu) - jnp.exp(log_pi), 0.0)
        # Where pi is nu nothing is ever refused; the rest is then all zeros, and nobody draws from it.
        return Verdict(jnp.log(noise_BxN) < of_nu - of_pi, jnp.log(rest_BxNxV), log_nu)

    return judge
