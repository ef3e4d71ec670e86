"""Trajectory balance on the replayed rows of path consistency: the sums of whole sequences instead of segments.

The rival nearest to PCL: rows, sources, shares, teacher passes and the KL term are the same; `kdtw_jax.losses.balance`
has the equations.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kdtw_jax import parallel
from kdtw_jax.errors import UserError
from kdtw_jax.losses.balance import balance_loss, log_ratio
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.methods.path_terms import make_student_stats, matching, token_term, tokens_that_teach
from kdtw_jax.methods.pcl import Objective, cost, elsewhere, kept_ahead, pcl, prompts, rows_kept, without_teacher
from kdtw_jax.methods.pcl_config import DistilConfig
from kdtw_jax.methods.protocol import Method
from kdtw_jax.models import Model, ModelConfig, Params
from kdtw_jax.replay import Sample
from kdtw_jax.training.context import WHOLE, Chunks, StudentTraining, TrainContext
from kdtw_jax.training.scoring import STUDENT, Trajectories
from kdtw_jax.training.state import LossFn, Metrics


def replayed_balance(model: Model, config: DistilConfig, banned: tuple[int, ...], chunks: Chunks = WHOLE) -> LossFn:
    """Makes the loss of replayed rows for a policy without the `banned` ids.

    Its terms are "tb", half the squared deviation of a row's log-ratio from the mean of the minibatch, per token, and
    "kl" and "nll" if asked for. To be called where `parallel.AXIS` is bound: the mean is over all devices.
    """
    judge, path = make_student_stats(model, config, banned, chunks), config.pcl

    def loss(params: Params, _: Params, sampled: Sample, key: jax.Array) -> Metrics:
        rows: Trajectories = sampled.rows
        mask_BxT = rows.tokens_BxT != 0
        on_policy_B = sampled.source_X == STUDENT
        path_BxT, match_BxT = tokens_that_teach(config, mask_BxT, on_policy_B)
        own = judge(params, rows)
        arrays = (own.log_pi_BxT, rows.teacher_log_prob_BxT, path_BxT)
        ratio_B, counted_B = log_ratio(*arrays, alpha=path.alpha, min_log_prob=path.min_log_prob)
        mean_ratio = weighted(ratio_B, counted_B)
        centre = parallel.mean_over_devices(*mean_ratio)
        deviation_B = jnp.abs(ratio_B - centre)
        diagnostics = {
            "log_ratio": mean_ratio,
            "deviation": weighted(deviation_B, counted_B),
            "counted": Weighted(jnp.sum(counted_B.astype(jnp.float32)), jnp.float32(counted_B.size)),
            "tokens": Weighted(jnp.sum(mask_BxT.astype(jnp.float32)), jnp.ones(())),
        }
        return {
            "tb": balance_loss(ratio_B, counted_B, centre, path_BxT, huber=path.huber, clip=path.clip),
            **({"kl": weighted(own.divergence_BxT, match_BxT)} if config.kl_weight else {}),
            **token_term(config, rows, own.log_pi_BxT, on_policy_B),
            **jax.lax.stop_gradient(diagnostics),
        }

    return loss


def tb(context: TrainContext, params: Params, config: DistilConfig) -> Params:
    """Distils the teacher into the student from `params`, going on from what the folder holds.

    Of the config, everything about rows and the KL holds as in `pcl`; `pcl_weight` is the weight of the balance
    loss, of `pcl` alpha, min_log_prob, huber and clip are used, and what is about V or segments is not.

    Raises:
      UserError: as `pcl` and `check_uncut` do.
    """
    check_uncut(context.training)
    weights = {"tb": config.pcl_weight, **matching(config)}
    loss = replayed_balance(context.student, config, context.banned, context.training.chunks())
    return pcl(context, params, config, Objective(loss, weights))


def check_uncut(training: StudentTraining) -> None:
    """Refuses a training whose minibatches are cut up.

    Raises:
      UserError: optimizer.accumulate is above 1.
    """
    if training.optimizer.accumulate > 1:
        raise UserError("trajectory balance (tb) compares the rows of a minibatch: its optimizer.accumulate must be 1")


def check(config: DistilConfig, training: StudentTraining, teacher: ModelConfig) -> None:
    """Refuses settings that fit no training.

    Raises:
      UserError: as `check_uncut` does.
    """
    check_uncut(training)


TB = Method(
    name="tb",
    describe="student that goes on by trajectory balance on the rows of Path Consistency Learning",
    config=DistilConfig,
    train=tb,
    cost=cost,
    prompts=prompts,
    readings=kept_ahead,
    without_teacher=without_teacher,
    elsewhere=elsewhere,
    rows_kept=rows_kept,
    check=check,
    top_k="top_k",
    flags=("pcl_weight", "kl_direction"),
    color="#999999",
)
