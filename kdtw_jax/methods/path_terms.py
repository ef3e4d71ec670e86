"""What replayed paths teach policy and V: residuals of paths, and divergences of distributions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax import parallel
from kdtw_jax.losses.expected import expected_path_loss
from kdtw_jax.losses.kl import TopK, outcomes_divergence
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.pcl import path_of, pcl_loss
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.losses.vocabulary import Distribution
from kdtw_jax.methods.pcl_config import DistilConfig
from kdtw_jax.models import Model, shift_right
from kdtw_jax.replay import Sample
from kdtw_jax.training.context import WHOLE, Chunks
from kdtw_jax.training.distribution import distribution
from kdtw_jax.training.scoring import STUDENT, Trajectories, finished
from kdtw_jax.training.state import Coefficient, LossFn, Metrics, Params


def path_loss(model: Model, config: DistilConfig, banned: tuple[int, ...], chunks: Chunks = WHOLE) -> LossFn:
    """Makes the loss of replayed rows for a policy without the `banned` ids: `path_terms` and `token_term`.

    With residuals that are expected it is to be called where `parallel.AXIS` is bound: their mean is over all devices.
    """
    judge = make_student_stats(model, config, banned, chunks)

    def loss(params: Params, target_params: Params, sampled: Sample, key: jax.Array) -> Metrics:
        rows: Trajectories = sampled.rows
        own = judge(params, rows)
        far_BxT = judge(target_params, rows).value_BxT if config.target_decay else None
        taken = PathTerms(own.log_pi_BxT, rows.teacher_log_prob_BxT, own.value_BxT, far_BxT, own.reverse_kl_BxT)
        on_policy_B = sampled.source_X == STUDENT
        terms = path_terms(config, rows, taken, own.divergence_BxT, on_policy_B)
        return {**terms, **token_term(config, rows, own.log_pi_BxT, on_policy_B)}

    return loss


class StudentStats(NamedTuple):
    """The student's opinion of given paths."""

    log_pi_BxT: jax.Array  # of each token
    value_BxT: jax.Array  # V of the state it was taken in
    divergence_BxT: jax.Array  # there, from the stored distribution of the teacher; 0 where it is not asked for
    reverse_kl_BxT: jax.Array  # likewise, for residuals that are expected


def make_student_stats(
    model: Model, config: DistilConfig, banned: tuple[int, ...], chunks: Chunks
) -> Callable[[Params, Trajectories], StudentStats]:
    """Makes a function of parameters and rows, for a policy without the `banned` ids.

    It holds `chunks` of the distributions at a time.
    """
    said = partial(distribution, model, banned=banned, vocab_chunk=chunks.vocab_chunk)

    def judge(params: Params, rows: Trajectories) -> StudentStats:
        decoded = model.decode(params, model.encode(params, rows.source_BxS), shift_right(rows.tokens_BxT))

        def part(hidden_BxXxD: jax.Array, head_BxX: jax.Array, tokens_BxX: jax.Array, top: TopK) -> StudentStats:
            return student_stats(config, said(params, hidden_BxXxD), head_BxX, tokens_BxX, top)

        what = (decoded.hidden_BxTxD, decoded.value_BxT, rows.tokens_BxT, rows.top)
        found: StudentStats = over_positions(part, what, chunks.chunk)
        return found

    return judge


def student_stats(
    config: DistilConfig, own: Distribution, head_BxX: jax.Array, tokens_BxX: jax.Array, top: TopK
) -> StudentStats:
    """Computes what the student's policy, softmax(logits), and its value head say of these tokens.

    Args:
      config: which values and which divergence.
      own: the policy at X positions.
      head_BxX: what the value head says there.
      tokens_BxX: the tokens taken there.
      top: the teacher's likeliest tokens there.
    """
    expected = config.residuals == "expected"
    taken = own.token_stats(tokens_BxX, top.ids_BxTxK if config.kl_weight or expected else None)
    divergence_BxX = reverse_BxX = jnp.zeros(tokens_BxX.shape)
    if taken.outcomes_BxXxK is not None and config.kl_weight:
        divergence_BxX = outcomes_divergence(taken.outcomes_BxXxK, top, config.kl_direction)
    if taken.outcomes_BxXxK is not None and expected:
        reverse_BxX = outcomes_divergence(taken.outcomes_BxXxK, top, "reverse")
    path = path_of(taken.partition_BxX, taken.picked_BxX, head_BxX, **config.pcl.of_values)
    return StudentStats(*path, divergence_BxX, reverse_BxX)


class PathTerms(NamedTuple):
    """The actions of paths: log pi and reward of each, V of the state it was taken in (far: by the EMA), BxT."""

    log_pi_BxT: jax.Array
    reward_BxT: jax.Array
    value_BxT: jax.Array
    far_value_BxT: jax.Array | None
    reverse_kl_BxT: jax.Array  # what they cost in expectation, KL(pi || mu), for residuals that are expected


def path_terms(
    config: DistilConfig, rows: Trajectories, taken: PathTerms, divergence_BxT: jax.Array, on_policy_B: jax.Array
) -> Metrics:
    """Computes the terms of the loss and diagnostics.

    "pcl" is half the squared path residual as a function of the policy, "value_error" the same as a function of V: they
    have one value and add up to the gradient of the whole; apart, they can be weighted and scheduled. "kl", if asked
    for, is the mean of `divergence_BxT`.

    Args:
      config: how residuals are made and weighed.
      rows: the paths.
      taken: their actions.
      divergence_BxT: of the student from the teacher at every token, nats.
      on_policy_B: bool, rows that the student has written, to which V is fitted.
    """
    mask_BxT = rows.tokens_BxT != 0
    path_BxT, match_BxT = tokens_that_teach(config, mask_BxT, on_policy_B)
    residual_loss = _expected if config.residuals == "expected" else _sampled
    of_policy, of_value, diagnostics = residual_loss(config, rows, taken, path_BxT, on_policy_B)
    terms = {
        "pcl": of_policy,
        "value_error": of_value,
        **diagnostics,
        "tokens": Weighted(jnp.sum(mask_BxT.astype(jnp.float32)), jnp.ones(())),
    }
    return {**terms, **({"kl": weighted(divergence_BxT, match_BxT)} if config.kl_weight else {})}


def tokens_that_teach(config: DistilConfig, mask_BxT: jax.Array, on_policy_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Says which tokens are of paths whose residuals count, and at which ones distributions are matched; bool, BxT.

    Args:
      config: whose rows teach what.
      mask_BxT: bool, the tokens there are.
      on_policy_B: bool, rows that the student has written.
    """
    own_Bx1 = on_policy_B[:, None]
    path_BxT = mask_BxT & own_Bx1 if config.path_rows == "student" else mask_BxT
    return path_BxT, mask_BxT & ~own_Bx1 if config.kl_rows == "others" else mask_BxT


def token_term(config: DistilConfig, rows: Trajectories, log_pi_BxT: jax.Array, on_policy_B: jax.Array) -> Metrics:
    """Computes "nll", the negative log-likelihood of the tokens that others wrote, if asked for."""
    if not config.likelihood_share:
        return {}
    return {"nll": weighted(-log_pi_BxT, (rows.tokens_BxT != 0) & ~on_policy_B[:, None])}


Learned = tuple[Weighted, Weighted, dict[str, Weighted]]  # by policy and by V, and diagnostics


def _sampled(
    config: DistilConfig, rows: Trajectories, taken: PathTerms, path_BxT: jax.Array, on_policy_B: jax.Array
) -> Learned:
    residual_loss = partial(
        pcl_loss,
        teacher_log_prob_BxT=taken.reward_BxT,
        mask_BxT=path_BxT,
        finished_B=finished(rows.tokens_BxT),
        **config.pcl.of_loss,
        far_value_BxT=taken.far_value_BxT,
        fit_value_B=on_policy_B if config.fit_value_on_policy else None,
    )
    of_policy, diagnostics = residual_loss(
        log_pi_BxT=taken.log_pi_BxT, value_BxT=jax.lax.stop_gradient(taken.value_BxT)
    )
    of_value, _ = residual_loss(log_pi_BxT=jax.lax.stop_gradient(taken.log_pi_BxT), value_BxT=taken.value_BxT)
    return of_policy, of_value, diagnostics


def _expected(
    config: DistilConfig, rows: Trajectories, taken: PathTerms, path_BxT: jax.Array, on_policy_B: jax.Array
) -> Learned:
    return expected_path_loss(
        taken.log_pi_BxT,
        taken.reverse_kl_BxT,
        taken.value_BxT,
        path_BxT,
        finished(rows.tokens_BxT),
        path_lambda=config.path_lambda,
        gamma=config.pcl.gamma,
        segment_lengths=config.pcl.segment_lengths,
        bound=config.path_bound,
        huber=config.pcl.huber,
        far_value_BxT=taken.far_value_BxT,
        mean=parallel.mean_over_devices,
    )


def coefficients(config: DistilConfig) -> dict[str, Coefficient]:
    """Says how the terms of `path_loss` are weighted in the objective."""
    weights: dict[str, Coefficient] = {
        "pcl": lambda step: config.pcl_weight * (step >= config.value_warmup),
        "value_error": config.value_weight,
    }
    return {**weights, **matching(config)}


def matching(config: DistilConfig) -> dict[str, Coefficient]:
    """Says how distributions, and the tokens of `token_term`, are weighted."""
    of_tokens = config.kl_weight * config.likelihood_share
    weights = {"kl": config.kl_weight - of_tokens, "nll": of_tokens}
    return {name: weight for name, weight in weights.items() if weight}
