"""MiniLLM: the reverse KL between sequences by policy gradient, on outputs that the teacher helps to write.

Gu et al. 2023, arXiv 2306.08543; the equations are in `kdtw_jax.losses.policy_gradient`. A batch of prompts is
answered, used for one update, and forgotten: nothing is there for a clipped ratio to hold back, so there is none. The
likelihood of the batch's ground truth stands for the paper's language-modelling loss on a corpus.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.flags import flags
from kdtw_jax.losses.masked import kl_terms
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.policy_gradient import importance_weights, sequence_kl_surrogate
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.methods.protocol import Cost, Method
from kdtw_jax.models import Decoded, Model
from kdtw_jax.ranges import check_ranges
from kdtw_jax.training.context import Chunks, TrainContext
from kdtw_jax.training.distribution import distribution
from kdtw_jax.training.fresh import (
    SIDE_BY_SIDE,
    Sampler,
    TeacherForward,
    TeacherStates,
    compare_policies,
    of_prompts,
    read,
    train_fresh,
)
from kdtw_jax.training.state import LossFn, Metrics, Params, step_key


@dataclass(frozen=True)
class MiniLLMConfig:
    """Reverse KL between sequences by policy gradient (MiniLLM, arXiv 2306.08543), one update per rollout."""

    teacher_mix: float = 0.2
    """share of the teacher in the policy that outputs are sampled from; importance weights make up for it"""
    length_normalize: bool = field(default=True, metadata=flags())
    """divide the rewards to go by the number of tokens they are summed over"""
    reference_weight: float = field(default=1.0, metadata=flags())
    """of the likelihood of the ground truth, beside the policy gradient; of a batch of prompts, that of its pairs"""

    def __post_init__(self) -> None:
        check_ranges(self, "minillm.", teacher_mix="[0, 1)", reference_weight="[0, inf)")


def mixture(student: Model, teacher: Model, teacher_mix: float, banned: tuple[int, ...]) -> Model:
    """Makes a model to sample from whose policy is a mu + (1 - a) pi at every token, a being `teacher_mix`.

    Its parameters are those of both; neither writes `banned` ids. Of its functions only encode, start and
    extend are those of a mixture.
    """

    def encode(params: Params, source_BxS: jax.Array) -> Any:
        return student.encode(params[0], source_BxS), teacher.encode(params[1], source_BxS)

    def start(params: Params, encoded: Any, max_len: int) -> Any:
        return student.start(params[0], encoded[0], max_len), teacher.start(params[1], encoded[1], max_len)

    def extend(params: Params, cache: Any, tokens_BxN: jax.Array, position: jax.Array) -> tuple[Decoded, Any]:
        own, own_cache = student.extend(params[0], cache[0], tokens_BxN, position)
        other, other_cache = teacher.extend(params[1], cache[1], tokens_BxN, position)
        pi, mu = log_policy(own.logits_BxTxV, banned), log_policy(other.logits_BxTxV, banned)
        mixed = jnp.logaddexp(math.log(teacher_mix) + mu, math.log1p(-teacher_mix) + pi)
        return own._replace(logits_BxTxV=mixed), (own_cache, other_cache)

    return student._replace(encode=encode, start=start, extend=extend)


def rollout_loss(
    student: Model, teacher: Model, config: MiniLLMConfig, banned: tuple[int, ...], chunks: Chunks = SIDE_BY_SIDE
) -> LossFn:
    """Makes the loss of outputs without `banned` ids, all terms per token.

    They are "single" and "long" of the policy gradient, "nll" of the ground truth, "kl", the reverse KL on the outputs,
    and what else tells how it goes. Rows are `(Batch, outputs [B, T], TeacherStates)`. There is no dropout: the policy
    is the one that wrote.
    """

    def loss(params: Params, _: Params, rows: tuple[Batch, jax.Array, TeacherStates], key: jax.Array) -> Metrics:
        batch, written_BxT, heard = rows
        source_BxS, target_BxT = jnp.asarray(batch.source_BxS), jnp.asarray(batch.target_BxT)
        models = (student, params), (teacher, heard)

        how: dict[str, Any] = {"banned": banned, **chunks._asdict()}
        kl_BxT, log_pi_BxT, log_mu_BxT = compare_policies(*models, source_BxS, written_BxT, kl_terms, **how)
        mask_BxT = written_BxT != 0
        single_BxT, long_BxT = sequence_kl_surrogate(
            kl_BxT,
            log_pi_BxT,
            log_mu_BxT,
            mask_BxT,
            teacher_mix=config.teacher_mix,
            length_normalize=config.length_normalize,
        )
        terms = {
            "single": weighted(single_BxT, mask_BxT),
            "long": weighted(long_BxT, mask_BxT),
            "kl": weighted(kl_BxT, mask_BxT),
            "reward": weighted(log_mu_BxT - log_pi_BxT, mask_BxT),
            "weight": weighted(importance_weights(log_pi_BxT, log_mu_BxT, config.teacher_mix), mask_BxT),
            "tokens": Weighted(jnp.sum(mask_BxT.astype(jnp.float32)), jnp.ones(())),
        }
        if config.reference_weight:
            hidden_BxTxD = read(student, params, source_BxS, target_BxT)

            def nll(hidden_BxXxD: jax.Array, target_BxX: jax.Array) -> jax.Array:
                return distribution(student, params, hidden_BxXxD, (), vocab_chunk=chunks.vocab_chunk).token_loss(
                    target_BxX
                )

            nll_BxT = over_positions(nll, (hidden_BxTxD, target_BxT), chunks.chunk)
            terms["nll"] = weighted(nll_BxT, target_BxT != 0)
        return terms

    return loss


def minillm(context: TrainContext, params: Params, config: MiniLLMConfig) -> Params:
    """Distils the teacher into the student from `params`, going on from what the folder holds.

    Raises:
      UserError: there is no teacher, and as `run_loop` does.
    """
    student, banned, devices = context.student, context.banned, context.devices
    teacher = context.needed_teacher()
    listener = TeacherForward(teacher, devices)
    if config.teacher_mix:
        write = Sampler(mixture(student, teacher[0], config.teacher_mix, banned), banned, devices, listener.teacher)
    else:
        write = Sampler(student, banned, devices)

    def prepare(params: Params, batch: Batch, key_data: jax.Array, step: int) -> tuple[Batch, jax.Array, TeacherStates]:
        rows, written = parallel.shard(batch, devices), write(params, batch, step_key(key_data, step, 1))
        return rows, written, listener(rows.source_BxS, written)

    weights = {"single": 1.0, "long": 1.0, **({"nll": config.reference_weight} if config.reference_weight else {})}
    loss = rollout_loss(student, teacher[0], config, banned, context.training.chunks(SIDE_BY_SIDE))
    return train_fresh(context, params, loss, weights, prepare, of_prompts)


MINILLM = Method(
    name="minillm",
    describe="student that goes on by policy gradient of the reverse KL between sequences (MiniLLM)",
    config=MiniLLMConfig,
    train=minillm,
    cost=lambda config: Cost(student=1, teacher=1),
    prompts=lambda config, given: "open",
    color="#D55E00",
)
