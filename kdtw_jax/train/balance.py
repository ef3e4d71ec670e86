"""Trajectory balance on the replayed rows of path consistency: the sums of whole sequences instead of segments.

The rival nearest to PCL: rows, sources, shares, teacher passes and the KL term are the same; `kdtw_jax.losses.balance`
has the equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from kdtw_jax.data.batches import Bucket, EncodedSplit
from kdtw_jax.losses.balance import balance_loss, log_ratio
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.models import Model
from kdtw_jax.replay import Sample
from kdtw_jax.train import parallel
from kdtw_jax.train.distil import Objective, distil, make_judge
from kdtw_jax.train.distil_config import DistilConfig, check_uncut
from kdtw_jax.train.scoring import Trajectories
from kdtw_jax.train.state import LossFn, Metrics, Params


def replayed_balance(model: Model, config: DistilConfig, banned: tuple[int, ...]) -> LossFn:
    """Term "tb", half the squared deviation of a row's log-ratio from the mean of the minibatch, a token; "kl" if asked
    for. To be called where `parallel.AXIS` is bound: the mean is over all devices.
    """
    judge = make_judge(model, config, banned)

    def loss(params: Params, _: Params, sampled: Sample, key: jax.Array) -> Metrics:
        rows: Trajectories = sampled.rows
        mask_BxT = rows.tokens_BxT != 0
        own = judge(params, rows)
        ratio_B, counted_B = log_ratio(own.log_pi_BxT, rows.teacher_log_prob_BxT, mask_BxT, config.pcl)
        mean_ratio = weighted(ratio_B, counted_B)
        centre = parallel.mean_over_devices(mean_ratio)
        deviation_B = jnp.abs(ratio_B - centre)
        diagnostics = {
            "log_ratio": mean_ratio,
            "deviation": weighted(deviation_B, counted_B),
            "counted": Weighted(jnp.sum(counted_B.astype(jnp.float32)), jnp.float32(counted_B.size)),
            "tokens": Weighted(jnp.sum(mask_BxT.astype(jnp.float32)), jnp.ones(())),
        }
        return {
            "tb": balance_loss(ratio_B, counted_B, centre, mask_BxT, config.pcl),
            **({"kl": weighted(own.divergence_BxT, mask_BxT)} if config.kl_weight else {}),
            **jax.lax.stop_gradient(diagnostics),
        }

    return loss


def balance(
    name: str,
    folder: Path,
    student: Model,
    params: Params,
    teacher: tuple[Model, Params],
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    config: DistilConfig,
    *,
    seed: int,
    devices: parallel.Devices,
    banned: tuple[int, ...],
    stop_after: int | None = None,
) -> Params:
    """Distils `teacher` into `student` starting from `params`; resumes what is in `folder`; returns parameters (numpy).

    Of the config, everything about rows and the KL holds as in `distil`; `pcl_weight` is the weight of the balance
    loss, of `pcl` alpha, floor, huber and clip are used, and what is about V or segments is not.

    Raises UserError as `train_replayed` and `check_uncut` do.
    """
    check_uncut(config)
    weights = {"tb": config.pcl_weight, **({"kl": config.kl_weight} if config.kl_weight else {})}
    return distil(
        name,
        folder,
        student,
        params,
        teacher,
        data,
        buckets,
        config,
        seed=seed,
        devices=devices,
        banned=banned,
        objective=Objective(replayed_balance(student, config, banned), weights),
        stop_after=stop_after,
    )
