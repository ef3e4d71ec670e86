"""Maximum likelihood of given targets; teachers and the start of all students are trained so, too."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch
from kdtw_jax.flags import flags
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.methods.protocol import Method
from kdtw_jax.models import Model
from kdtw_jax.ranges import check_ranges
from kdtw_jax.training.context import WHOLE, Chunks, StudentTraining, TrainContext
from kdtw_jax.training.distribution import distribution
from kdtw_jax.training.fresh import read, train_fresh
from kdtw_jax.training.state import LossFn, Metrics, Params


@dataclass(frozen=True)
class MLEConfig:
    """Maximum likelihood."""

    label_smoothing: float = field(default=0.0, metadata=flags())
    z_loss: float = field(default=1e-4, metadata=flags())
    """keeps logsumexp of the logits near 0, where the unified value parameterisation starts from"""

    def __post_init__(self) -> None:
        check_ranges(self, label_smoothing="[0, 1)", z_loss="[0, inf)")


@dataclass(frozen=True)
class FitConfig(StudentTraining):
    """A training by maximum likelihood that is none of a method: with a loop and an optimiser of its own."""

    likelihood: MLEConfig = field(default_factory=MLEConfig, metadata=flags())


def likelihood_loss(model: Model, config: MLEConfig, chunks: Chunks = WHOLE) -> LossFn:
    """Makes the loss with the term "nll" of the targets of a batch, which is the rows, in nats per token."""

    def loss(params: Params, _: Params, batch: Batch, key: jax.Array) -> Metrics:
        target_BxT = jnp.asarray(batch.target_BxT)
        mask = target_BxT != 0

        def part(own_BxXxD: jax.Array, target_BxX: jax.Array) -> jax.Array:
            own = distribution(model, params, own_BxXxD, (), vocab_chunk=chunks.vocab_chunk)
            return own.token_loss(target_BxX, config.label_smoothing, config.z_loss)

        own_BxTxD = read(model, params, jnp.asarray(batch.source_BxS), target_BxT, key)
        nll_BxT: jax.Array = over_positions(part, (own_BxTxD, target_BxT), chunks.chunk)
        tokens = Weighted(jnp.sum(mask.astype(jnp.float32)), jnp.ones(()))
        return {"nll": weighted(nll_BxT, mask), "tokens": tokens}

    return loss


def mle(context: TrainContext, params: Params, config: MLEConfig) -> Params:
    """Trains `params` on the data's targets, going on from what the folder holds.

    Raises:
      UserError: as `run_loop` does.
    """

    def prepare(params: Params, batch: Batch, key_data: jax.Array, step: int) -> Batch:
        rows: Batch = parallel.shard(batch, context.devices)
        return rows

    loss = likelihood_loss(context.student, config, context.training.chunks())
    return train_fresh(context, params, loss, {"nll": 1.0}, prepare)


MLE = Method(
    name="mle",
    describe="student that goes on by maximum likelihood",
    config=MLEConfig,
    train=mle,
    uses_teacher=False,
    color="#E69F00",
    curve="nll",
)
