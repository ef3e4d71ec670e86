"""Training on given targets: maximum likelihood, and word-level distillation when a teacher is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit
from kdtw_jax.losses.masked import kl_terms
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.losses.vocabulary import compare
from kdtw_jax.models import Model
from kdtw_jax.ranges import check_ranges
from kdtw_jax.train import parallel
from kdtw_jax.train.distribution import distribution
from kdtw_jax.train.fresh import Heard, Listener, read, train_fresh
from kdtw_jax.train.loop import LoopConfig
from kdtw_jax.train.state import LossFn, Metrics, OptimizerConfig, Params, Whole


@dataclass(frozen=True)
class FitConfig:
    """Maximum likelihood, or word-level distillation (Kim and Rush 2016, arXiv 1606.07947) where a teacher is given."""

    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    label_smoothing: float = 0.0
    z_loss: float = 1e-4  # keeps logsumexp of the logits near 0, where the unified value parameterisation starts from
    kl_weight: float = 0.5  # with a teacher: weight of the forward KL; the likelihood term gets the rest
    chunk: int = 0  # positions whose distributions over the vocabulary are held at once; 0: all, faster with memory
    vocab_chunk: int = 0  # tokens of the vocabulary of which they are held at once; 0: all, faster with memory

    def __post_init__(self) -> None:
        check_ranges(self, label_smoothing="[0, 1)", z_loss="[0, inf)", kl_weight="[0, 1]")
        check_ranges(self, chunk="[0, inf)", vocab_chunk="[0, inf)")


def likelihood_loss(model: Model, config: FitConfig, banned: tuple[int, ...], teacher: Model | None) -> LossFn:
    """Terms "nll" and, with a teacher, "kl" = KL(mu || pi) a token, both on the targets of the batch.

    Rows are `(Batch, what the teacher made of it)`, () without a teacher.
    """

    def loss(params: Params, _: Params, rows: tuple[Batch, Heard | tuple[()]], key: jax.Array) -> Metrics:
        batch, heard = rows
        target_BxT = jnp.asarray(batch.target_BxT)
        mask = target_BxT != 0
        own_BxTxD = read(model, params, jnp.asarray(batch.source_BxS), target_BxT, key)
        other_BxTxD, output = jax.lax.stop_gradient(heard) if heard else ((), Whole(()))

        def part(own_BxXxD: jax.Array, other_BxXxD: jax.Array, target_BxX: jax.Array) -> dict[str, jax.Array]:
            said = partial(distribution, vocab_chunk=config.vocab_chunk)
            own = said(model, params, own_BxXxD, ())
            found = {"nll": own.token_loss(target_BxX, config.label_smoothing, config.z_loss)}
            if teacher is not None:
                pi, mu = said(model, params, own_BxXxD, banned), said(teacher, output.value, other_BxXxD, banned)
                found["kl"] = compare(lambda pi, mu: kl_terms(mu, pi), pi, mu, target_BxX)[0]
            return found

        found = over_positions(part, (own_BxTxD, other_BxTxD, target_BxT), config.chunk)
        tokens = Weighted(jnp.sum(mask.astype(jnp.float32)), jnp.ones(()))
        return {**{name: weighted(x_BxT, mask) for name, x_BxT in found.items()}, "tokens": tokens}

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
    listener = None if teacher is None else Listener(teacher, devices)

    def prepare(params: Params, batch: Batch, key_data: jax.Array, step: int) -> tuple[Batch, Heard | tuple[()]]:
        rows = parallel.shard(batch, devices)
        return rows, () if listener is None else listener(rows.source_BxS, rows.target_BxT)

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
