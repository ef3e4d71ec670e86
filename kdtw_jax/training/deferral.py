"""Co-LLM's gate: when to leave the next token to the teacher, learned from the likelihood of the data alone.

Shen et al., arXiv 2403.03870: the next token is the teacher's with probability phi(s) and the student's otherwise, who
wrote it being a latent variable, so phi maximises the marginal likelihood sum_t log((1 - phi) pi + phi mu) of ground
truth. phi = sigma(<w, h> + b) of the decoder state h, first fitted to where mu(token) > pi(token). Unlike theirs, the
student is frozen: rival gates here decide for one and the same student.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdtw_jax.data.batches import Bucket, EncodedSplit, evaluation_batches
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.models import Model, Params, shift_right


class Deferral(NamedTuple):
    """phi = sigma(<weight, (h - mean) / scale> + bias)."""

    weight_D: jax.Array
    bias: jax.Array
    mean_D: jax.Array
    scale_D: jax.Array

    def logit(self, hidden_XxD: jax.Array) -> jax.Array:
        """Computes log-odds of phi, [X], at the states `hidden_XxD`."""
        x_XxD = (hidden_XxD.astype(jnp.float32) - self.mean_D[None, :]) / self.scale_D[None, :]
        return x_XxD @ self.weight_D + self.bias


class Seen(NamedTuple):
    """What is known at the N tokens of some texts."""

    hidden_NxD: np.ndarray  # the student's decoder state before each
    own_N: np.ndarray  # log pi(token)
    teacher_N: np.ndarray  # log mu(token)


def look_at(
    student: tuple[Model, Params],
    teacher: tuple[Model, Params],
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    banned: tuple[int, ...],
) -> Seen:
    """Runs both models, which write no `banned` ids, on the targets of `data`."""

    @jax.jit
    def run(params: tuple[Params, Params], source_BxS: jax.Array, target_BxT: jax.Array) -> tuple[jax.Array, ...]:
        decoded = [
            model.decode(own, model.encode(own, source_BxS), shift_right(target_BxT))
            for (model, _), own in zip((student, teacher), params, strict=True)
        ]
        said = [
            jnp.take_along_axis(log_policy(d.logits_BxTxV, banned), target_BxT[..., None], axis=-1)[..., 0]
            for d in decoded
        ]
        return decoded[0].hidden_BxTxD, said[0], said[1]

    found: list[tuple[np.ndarray, ...]] = []
    for batch in evaluation_batches(data, buckets):
        here = jax.device_get(run((student[1], teacher[1]), batch.source_BxS, batch.target_BxT))
        real = (batch.target_BxT != 0) & (batch.example_B >= 0)[:, None]
        found.append(tuple(x[real] for x in here))
    return Seen(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def train_deferral(seen: Seen, *, steps: int = 400, learning_rate: float = 0.03) -> Deferral:
    """Fits phi to all of `seen` at once.

    Args:
      seen: what is known at some tokens.
      steps: half of them go to the hard labels and half to the marginal likelihood.
      learning_rate: of Adam.
    """
    hidden_NxD = jnp.asarray(seen.hidden_NxD, jnp.float32)
    own_N, teacher_N = jnp.asarray(seen.own_N), jnp.asarray(seen.teacher_N)
    mean_D, scale_D = hidden_NxD.mean(axis=0), hidden_NxD.std(axis=0) + 1e-6
    optimizer = optax.adam(learning_rate)

    def gate(learned: tuple[jax.Array, jax.Array]) -> jax.Array:
        return Deferral(*learned, mean_D, scale_D).logit(hidden_NxD)

    def first(learned: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.mean(optax.sigmoid_binary_cross_entropy(gate(learned), (teacher_N > own_N).astype(jnp.float32)))

    def marginal(learned: tuple[jax.Array, jax.Array]) -> jax.Array:
        logit_N = gate(learned)
        return -jnp.mean(jnp.logaddexp(jax.nn.log_sigmoid(-logit_N) + own_N, jax.nn.log_sigmoid(logit_N) + teacher_N))

    learned = (jnp.zeros(hidden_NxD.shape[1]), jnp.zeros(()))
    for objective in (first, marginal):

        def step(carry: tuple[jax.Array, optax.OptState], _: None, objective=objective) -> tuple:  # type: ignore
            learned, moments = carry
            updates, moments = optimizer.update(jax.grad(objective)(learned), moments)
            return (optax.apply_updates(learned, updates), moments), None

        start = (learned, optimizer.init(learned))
        (learned, _), _ = jax.jit(lambda start, step=step: jax.lax.scan(step, start, length=steps // 2))(start)
    return Deferral(*learned, mean_D, scale_D)
