"""Training on given targets: maximum likelihood, and word-level distillation when a teacher is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp

from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.losses.kl import token_kl
from kdtw_jax.losses.likelihood import cross_entropy
from kdtw_jax.losses.metric import Weighted
from kdtw_jax.models import Model, shift_right
from kdtw_jax.train import parallel
from kdtw_jax.train.fresh import train_fresh
from kdtw_jax.train.loop import LoopConfig
from kdtw_jax.train.state import LossFn, Metrics, OptimizerConfig, Params


@dataclass(frozen=True)
class FitConfig:
    """Maximum likelihood, or word-level distillation (Kim and Rush 2016, arXiv 1606.07947) where a teacher is given."""

    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    label_smoothing: float = 0.0
    z_loss: float = 1e-4  # keeps logsumexp of the logits near 0, where the unified value parameterisation starts from
    kl_weight: float = 0.5  # with a teacher: weight of the forward KL; the likelihood term gets the rest


def likelihood_loss(model: Model, config: FitConfig, banned: tuple[int, ...], teacher: Model | None) -> LossFn:
    """Terms "nll" and, with a teacher, "kl" = KL(mu || pi) a token, both on the targets of the batch.

    Rows are `(Batch, teacher params)`; teacher params are () without a teacher.
    """

    def loss(params: Params, _: Params, rows: tuple[Batch, Params], key: jax.Array) -> Metrics:
        batch, teacher_params = rows
        target_BxT = jnp.asarray(batch.target_BxT)
        inputs, mask = shift_right(target_BxT), target_BxT != 0
        encoder_key, decoder_key = jax.random.split(key)
        encoded = model.encode(params, batch.source_BxS, encoder_key)
        logits = model.decode(params, encoded, inputs, decoder_key).logits_BxTxV
        terms = {
            "nll": cross_entropy(
                logits, target_BxT, mask, label_smoothing=config.label_smoothing, z_loss=config.z_loss
            ),
            "tokens": Weighted(jnp.sum(mask.astype(jnp.float32)), jnp.ones(())),
        }
        if teacher is not None:
            reference = teacher.decode(teacher_params, teacher.encode(teacher_params, batch.source_BxS), inputs)
            mu = jax.lax.stop_gradient(log_policy(reference.logits_BxTxV, banned))
            terms["kl"] = token_kl(log_policy(logits, banned), mu, mask, direction="forward")
        return terms

    return loss


def fit(
    name: str,
    folder: Path,
    model: Model,
    params: Params,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    config: FitConfig,
    *,
    seed: int,
    devices: parallel.Devices,
    banned: tuple[int, ...] = (),
    teacher: tuple[Model, Params] | None = None,
    stop_after: int | None = None,
) -> Params:
    """Trains `params` on the data's targets, resuming what is in `folder`; returns the trained parameters (numpy).

    Raises UserError as `run_loop` does.
    """
    coefficients = {"nll": 1.0} if teacher is None else {"nll": 1.0 - config.kl_weight, "kl": config.kl_weight}
    frozen_teacher = () if teacher is None else parallel.replicate(teacher[1], devices)

    def prepare(params: Params, batch: Batch, key_data: jax.Array, step: int) -> tuple[Batch, Params]:
        return parallel.shard(batch, devices), frozen_teacher

    return train_fresh(
        name,
        folder,
        config.loop,
        config.optimizer,
        likelihood_loss(model, config, banned, None if teacher is None else teacher[0]),
        coefficients,
        prepare,
        params,
        data,
        buckets,
        seed=seed,
        devices=devices,
        stop_after=stop_after,
    )
