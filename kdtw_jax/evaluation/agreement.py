"""How close a student is to its teacher, and whether its value function knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Bucket, EncodedSplit, evaluation_batches
from kdtw_jax.decoding.policy import log_policy, without_banned
from kdtw_jax.decoding.sample import generate
from kdtw_jax.evaluation import diagnostics
from kdtw_jax.losses.kl import top_k_with_tail, topk_divergence
from kdtw_jax.losses.masked import kl_divergence
from kdtw_jax.losses.pcl import PCLConfig, policy_and_value
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.models import Model, shift_right
from kdtw_jax.training.scoring import finished

Params = Any


def compare_with_teacher(
    student: tuple[Model, Params],
    teacher: tuple[Model, Params],
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    *,
    banned: tuple[int, ...],
    values: PCLConfig,
    top_k: int = 0,
    seed: int = 0,
    devices: parallel.Devices | None = None,
) -> dict[str, float]:
    """How close the student is to its teacher, and whether its V knows how far it will be.

    `agreement` (same likeliest token), `kl_forward`, `kl_reverse` (nats per token) on the references;
    `kl_on_policy` (nats per token, reverse) on the student's own samples, and there the Spearman correlation of
    V(s_t) with minus the KL-to-go over the samples that ended: `v_spearman`, summing the exact KL of each step, with
    `v_slope` and `v_rmse` (nats) of the same fit; NaN where they are not defined, as when no sample ended.
    With `top_k`, also both KLs from the teacher's k likeliest tokens and a tail bucket: what a replayed row knows of
    them.
    """
    student_model = student[0]

    def roll_out(params: Params, source: jax.Array, noise: jax.Array) -> jax.Array:
        limits: dict[str, Any] = {"max_len": noise.shape[1], "banned": banned}
        return generate(student_model, params, source, noise, **limits).tokens_BxT

    devices = devices or parallel.one_device()
    compare = make_comparison(student_model, teacher[0], banned, values, top_k)
    comparing = parallel.map_batch(compare, parallel.place_params((student[1], teacher[1]), devices))
    sampled = parallel.map_batch(roll_out, parallel.place_params(student[1], devices))
    given: list[_Compared] = []
    own: list[_Compared] = []
    whole: list[np.ndarray] = []
    for index, batch in enumerate(evaluation_batches(data, buckets)):
        real = batch.example_B >= 0
        noise = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), index), batch.target_BxT.shape)
        rollouts = sampled(batch.source_BxS, noise)
        for tokens, found in ((batch.target_BxT, given), (rollouts, own)):
            result = comparing(batch.source_BxS, tokens)
            found.append(_Compared(*(np.asarray(x)[real] for x in result)))
        whole.append(np.asarray(finished(rollouts))[real])

    def mean(results: list[_Compared], name: str) -> float:
        total = sum(float(getattr(r, name)[r.mask].sum()) for r in results)
        return total / sum(int(r.mask.sum()) for r in results)

    # Only whole outputs have a whole KL-to-go.
    values_at, to_go = [], []
    for r, whole_B in zip(own, whole, strict=True):
        mask = np.asarray(r.mask) & whole_B[:, None]
        values_at.append(np.asarray(r.value)[mask])
        to_go.append(diagnostics.kl_to_go(r.kl_reverse, mask)[mask])
    value, measured = np.concatenate(values_at), np.concatenate(to_go)
    fit = diagnostics.value_calibration(value, measured, np.ones_like(value, bool))
    return {
        "agreement": mean(given, "agree"),
        "kl_forward": mean(given, "kl_forward"),
        "kl_reverse": mean(given, "kl_reverse"),
        "kl_on_policy": mean(own, "kl_reverse"),
        **({f"kl_forward_top{top_k}": mean(given, "top_forward")} if top_k else {}),
        **({f"kl_reverse_top{top_k}": mean(given, "top_reverse")} if top_k else {}),
        "v_spearman": fit.spearman,
        "v_slope": fit.slope,
        "v_rmse": fit.rmse,
    }


class _Compared(NamedTuple):
    """Student beside teacher at every state of a batch, [B, T]."""

    top_forward: jax.Array | np.ndarray
    top_reverse: jax.Array | np.ndarray
    agree: jax.Array | np.ndarray
    kl_forward: jax.Array | np.ndarray
    kl_reverse: jax.Array | np.ndarray
    value: jax.Array | np.ndarray
    mask: jax.Array | np.ndarray


def make_comparison(
    student: Model, teacher: Model, banned: tuple[int, ...], values: PCLConfig, top_k: int, chunk: int = 16
) -> Callable[[tuple[Params, Params], jax.Array, jax.Array], _Compared]:
    """Makes the function that compares two models at every state of given outputs.

    Args:
      values: what V is made of.
      top_k: tokens of the teacher that its truncated divergences know; 0: none is computed.
      chunk: positions for which distributions over the vocabulary exist at a time; 0: all.

    Returns:
      A function of (both models' parameters, source_BxS, tokens_BxT).
    """

    def compare(params: tuple[Params, Params], source_BxS: jax.Array, tokens_BxT: jax.Array) -> _Compared:
        own, other = (
            model.decode(of_model, model.encode(of_model, source_BxS), shift_right(tokens_BxT))
            for model, of_model in zip((student, teacher), params, strict=True)
        )

        def part(own_BxXxD: jax.Array, other_BxXxD: jax.Array, head_BxX: jax.Array, tokens_BxX: jax.Array) -> _Compared:
            logits_BxXxV = student.unembed(params[0], own_BxXxD)
            pi = log_policy(logits_BxXxV, banned)
            mu = log_policy(teacher.unembed(params[1], other_BxXxD), banned)
            possible_BxXxV = values.alpha * without_banned(logits_BxXxV, banned)  # Q, where V is made of it
            _, value_BxX = policy_and_value(possible_BxXxV, head_BxX, tokens_BxX, **values.of_values)
            top_forward, top_reverse = (
                topk_divergence(pi, top_k_with_tail(mu, top_k), direction) if top_k else jnp.zeros(tokens_BxX.shape)
                for direction in ("forward", "reverse")
            )
            return _Compared(
                top_forward=top_forward,
                top_reverse=top_reverse,
                agree=pi.argmax(-1) == mu.argmax(-1),
                kl_forward=kl_divergence(mu, pi),
                kl_reverse=kl_divergence(pi, mu),
                value=value_BxX,
                mask=tokens_BxX != 0,
            )

        what = (own.hidden_BxTxD, other.hidden_BxTxD, own.value_BxT, tokens_BxT)
        found: _Compared = over_positions(part, what, chunk)
        return found

    return compare
