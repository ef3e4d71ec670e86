"""Word-level distillation (Kim and Rush 2016, arXiv 1606.07947): the forward KL beside the likelihood, on targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch
from kdtw_jax.flags import flags
from kdtw_jax.losses.kl import TopK, outcomes_divergence
from kdtw_jax.losses.masked import kl_terms
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.losses.vocabulary import compare_distributions
from kdtw_jax.methods.mle import MLEConfig
from kdtw_jax.methods.protocol import Cost, Method
from kdtw_jax.models import Model
from kdtw_jax.ranges import check_ranges
from kdtw_jax.training.context import WHOLE, Chunks, TrainContext
from kdtw_jax.training.demonstrations import (
    Demonstrator,
    PromptTargets,
    check_answered,
    check_read_ahead,
    prompt_targets,
)
from kdtw_jax.training.distribution import distribution
from kdtw_jax.training.fresh import TeacherForward, TeacherStates, of_pairs, of_prompts, read, train_fresh
from kdtw_jax.training.readings import Kept
from kdtw_jax.training.state import LossFn, Metrics, Params, step_key


@dataclass(frozen=True)
class WordKDConfig(MLEConfig):
    """Word-level distillation (arXiv 1606.07947)."""

    kl_weight: float = 0.5
    """weight of the forward KL; the likelihood term gets the rest"""
    alpha: float = field(default=1.0, metadata=flags())
    """weight of the entropy: the KL is from mu^(1/alpha), normalised per token, and so are samples of the teacher"""
    demonstrations: Literal["auto", "reference", "sampled", "greedy", "beam"] = field(default="auto", metadata=flags())
    """the targets: ground truth, or the teacher's outputs, of prompts, too; by default the former, but where there are
    prompts what the teacher writes greedily"""
    top_k: int = field(default=0, metadata=flags())
    """tokens of the teacher's distributions that the KL is over, with one outcome for all others; the teacher then
    reads outputs that it wrote ahead once for all students; 0: all tokens, and it reads along"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, kl_weight="[0, 1]", alpha="(0, inf)", top_k="[0, inf)")
        check_read_ahead(self.top_k, self.demonstrations)


def word_loss(
    student: Model,
    teacher: Model | None,
    config: MLEConfig,
    banned: tuple[int, ...],
    chunks: Chunks = WHOLE,
    *,
    alpha: float = 1.0,
    likelihood: bool = True,
) -> LossFn:
    """Makes the loss with the terms "nll" and "kl" = KL(mu || pi) per token, both on the targets of the batch.

    Without the likelihood the student's distributions are made once and not twice, most of a small student's step. Rows
    are `(Batch, TeacherStates)`, or `(Batch, TopK)` of what the teacher read ahead, which then need not be there; in
    "kl" the distributions are those without the `banned` ids, and that of the teacher is mu^(1/alpha).
    """

    def loss(params: Params, _: Params, rows: tuple[Batch, TeacherStates | TopK], key: jax.Array) -> Metrics:
        batch, heard = rows
        target_BxT = jnp.asarray(batch.target_BxT)
        mask = target_BxT != 0
        own_BxTxD = read(student, params, jnp.asarray(batch.source_BxS), target_BxT, key)
        known = heard if isinstance(heard, TopK) else heard.hidden_BxTxD

        def part(own_BxXxD: jax.Array, known: Any, target_BxX: jax.Array) -> dict[str, jax.Array]:
            said = partial(distribution, vocab_chunk=chunks.vocab_chunk)
            terms = {}
            if likelihood:
                own = said(student, params, own_BxXxD, ())
                terms["nll"] = own.token_loss(target_BxX, config.label_smoothing, config.z_loss)
            pi = said(student, params, own_BxXxD, banned)
            if isinstance(heard, TopK):
                outcomes_BxXxK: Any = pi.token_stats(target_BxX, known.ids_BxTxK).outcomes_BxXxK
                return {**terms, "kl": outcomes_divergence(outcomes_BxXxK, known, "forward")}
            assert teacher is not None
            mu = said(teacher, heard.output.value, known, banned, temperature=alpha)
            return {**terms, "kl": compare_distributions(lambda pi, mu: kl_terms(mu, pi), pi, mu, target_BxX)[0]}

        found = over_positions(part, (own_BxTxD, jax.lax.stop_gradient(known), target_BxT), chunks.chunk)
        tokens = Weighted(jnp.sum(mask.astype(jnp.float32)), jnp.ones(()))
        return {**{name: weighted(x_BxT, mask) for name, x_BxT in found.items()}, "tokens": tokens}

    return loss


def demonstrations(config: WordKDConfig, given: bool) -> str:
    """Says who writes the targets, where prompts are `given` beside the pairs and where not."""
    return config.demonstrations if config.demonstrations != "auto" else "greedy" if given else "reference"


def word_kd(context: TrainContext, params: Params, config: WordKDConfig) -> Params:
    """Distils the teacher on the data's targets, going on from what the folder holds.

    Raises:
      UserError: there is no teacher, and as `check_answered` and `run_loop` do.
    """
    how = demonstrations(config, context.prompts is not None)
    kept = kept_ahead(config) if prompt_targets(how) != "open" else None
    check_answered(context, how, kept)
    weights = {"kl": config.kl_weight, **({"nll": 1.0 - config.kl_weight} if config.kl_weight < 1 else {})}
    terms: dict[str, Any] = {"alpha": config.alpha, "likelihood": "nll" in weights}
    about = (config, context.banned, context.training.chunks())
    readings = context.readings
    if kept is not None and readings is not None:  # nothing is asked of a teacher any more

        def recall(params: Params, batch: Batch, key_data: jax.Array, step: int) -> tuple[Batch, TopK]:
            return parallel.shard((batch, readings.of(batch).top), context.devices)

        loss = word_loss(context.student, None, *about, **terms)
        return train_fresh(context, params, loss, weights, recall, of_prompts)
    teacher = context.needed_teacher()
    listener = TeacherForward(teacher, context.devices)
    demonstrate = Demonstrator(how, teacher[0], listener.teacher, context.banned, temperature=config.alpha)
    data = how == "reference"

    def prepare(params: Params, batch: Batch, key_data: jax.Array, step: int) -> tuple[Batch, TeacherStates]:
        answered = batch if data else demonstrate(batch, step_key(key_data, step, 2))
        rows = parallel.shard(answered, context.devices)
        return rows, listener(rows.source_BxS, rows.target_BxT)

    loss = word_loss(context.student, teacher[0], *about, **terms)
    return train_fresh(context, params, loss, weights, prepare, of_pairs if data else of_prompts)


def prompts(config: WordKDConfig, given: bool) -> PromptTargets:
    """Says what prompts have for targets."""
    how = demonstrations(config, given)
    return "none" if how == "reference" else prompt_targets(how)


def kept_ahead(config: WordKDConfig) -> Kept | None:
    """Says what is kept of the teacher's distributions, where it writes ahead."""
    return Kept(config.top_k, config.alpha) if config.top_k else None


def without_teacher(config: WordKDConfig, given: bool) -> dict[str, Any]:
    """Says what would have to be set for the teacher's outputs, read ahead, to be all that is needed of it."""
    ahead = prompts(config, given) in ("greedy", "beam")
    return {**({} if ahead else {"demonstrations": "greedy"}), **({} if config.top_k else {"top_k": 64})}


WORD_KD = Method(
    name="word_kd",
    describe="student that goes on by word-level distillation",
    config=WordKDConfig,
    train=word_kd,
    cost=lambda config: Cost(teacher=1 + (config.demonstrations == "sampled")),
    prompts=prompts,
    readings=kept_ahead,
    without_teacher=without_teacher,
    color="#56B4E9",
)
