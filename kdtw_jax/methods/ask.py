"""Training wheels: path consistency of a student that may ask its teacher, under rules it reads in words.

One iteration (arXiv 2502.17717; `kdtw_jax.losses.help` has the equations): every prompt gets a rule. The student
writes under it as it will at test time, asking where it wants to; these rows measure how each rule is kept, move the
prices (`kdtw_jax.duals`), and show the gate the states it will meet. Samples of its policy, of the teacher, and the
ground truth, with some tokens marked as asked for, join them in the buffer: every path is a valid one.

The gate learns in expectation, not from sampled decisions: at each state of each row what an answer would save is known
from the stored distribution of the teacher, and what it costs from the prices. A sampled residual drowns in the noise
of tokens.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.constraints import Terms, known_constraints, need_costs
from kdtw_jax.data.batches import Bucket
from kdtw_jax.duals import Duals, prices
from kdtw_jax.errors import UserError
from kdtw_jax.methods.ask_config import AskConfig, Rules, dual_configs, make_rules
from kdtw_jax.methods.ask_loss import ask_loss
from kdtw_jax.methods.ask_rows import QUOTES, AskingCollector, HelpedRows
from kdtw_jax.methods.path_terms import coefficients
from kdtw_jax.methods.pcl import cost, kept_ahead, prompts, rows_kept
from kdtw_jax.methods.pcl import elsewhere as of_distil
from kdtw_jax.methods.protocol import Cost, Method
from kdtw_jax.models import ModelConfig
from kdtw_jax.runs.atomic import write_json
from kdtw_jax.training.collect import empty_row, minibatch_shares
from kdtw_jax.training.context import StudentTraining, TrainContext
from kdtw_jax.training.demonstrations import check_answered
from kdtw_jax.training.ramp import Ramp
from kdtw_jax.training.replayed import Replayed, train_replayed
from kdtw_jax.training.scoring import REFERENCE, SOURCES
from kdtw_jax.training.state import Coefficient, Params

_REMEMBERED = 256  # rows of a student at rest: V_C is the cost of its newest gate


def ask(context: TrainContext, params: Params, config: AskConfig, rules: Rules) -> tuple[Params, tuple[Duals, ...]]:
    """Trains a student whose config has a gate, going on from what its folder holds.

    Then, for `config.gate_calibration_steps` steps, its gate alone, on what it writes as at test time for the sources
    of `context.unseen` (their targets are not read; by default those of training): where a student was trained it asks
    a little less than elsewhere.

    Args:
      context: the student's place in the run.
      params: those to begin with, the gate's among them.
      config: how it learns.
      rules: what it can be asked to keep (`make_rules`).

    Returns:
      The parameters, and the prices at the end, a table per constraint.

    Raises:
      UserError: as `train_replayed`, `check_answered` and `check_training` do.
    """
    check_answered(context, config.distil.demonstrations, kept_ahead(config.distil))
    check_training(context.training)
    training, student = context.training, context.student
    optimizer = replace(training.optimizer, rates=replace(training.optimizer.rates, gate=config.gate_rate))
    collector = AskingCollector(context, config, rules)
    count = len(rules.constraints)
    gate = dict.fromkeys(("saving", "price", "quote", "cost"), config.gate_weight)
    weights: dict[str, Coefficient] = {**({} if config.gate_alone else coefficients(config.distil)), **gate}

    def shares(rows: int, scale: float = 1.0) -> tuple[int, ...]:
        helped = min(max(round(rows * config.helped_share), 1), rows - 1) if rows > 1 else 0
        return (*minibatch_shares(config.distil, rows - helped, scale), helped)

    def row(bucket: Bucket) -> HelpedRows:
        terms = Terms(jnp.zeros((count,), jnp.float32), jnp.zeros((count,), bool))
        said, asked = jnp.zeros((rules.room,), jnp.int32), jnp.zeros((bucket.target,), bool)
        return HelpedRows(empty_row(bucket, config.distil.top_k), said, asked, terms)

    method = Replayed(
        loss=ask_loss(student, config, rules.constraints, context.banned, training.chunks(), rules.unit),
        coefficients=weights,
        sources=(*SOURCES, "helped"),
        shares=shares,
        empty_row=row,
        collect=collector,
        demonstrate=collector.demonstrate,
        reference=REFERENCE if config.distil.reference_share else None,
        refresh=collector.refresh,
        extra=collector.prices.start(),
        target_decay=0.0,
        updates_per_rollout=config.distil.updates_per_rollout,
        capacity=config.distil.capacity,
        reference_batches=config.distil.reference_batches,
        own_rows=config.distil.own_rows,
        learning=("gate",) if config.gate_alone else (),
    )
    learning = replace(context, training=replace(training, optimizer=optimizer))
    params, duals = train_replayed(learning, params, method)
    steps, stop_after = training.loop.steps, context.stop_after
    if not config.gate_calibration_steps or (stop_after is not None and stop_after <= steps):
        return params, duals
    slow = replace(optimizer, learning_rate=0.1 * optimizer.learning_rate, final_fraction=0.0, warmup_steps=1)
    resting = method._replace(
        coefficients=gate,
        shares=lambda rows, scale: (*(0 for _ in SOURCES), rows),
        collect=collector.calibrate_gate,
        reference=None,
        refresh=partial(collector.refresh, resting=True),
        extra=collector.prices.frozen(duals),
        capacity=min(config.distil.capacity, _REMEMBERED),
        own_rows=Ramp(),
        learning=("gate",),
    )
    at_rest = replace(
        context,
        name=f"{context.name}, at rest",
        folder=context.folder / "gate_calibration",
        data=context.data if context.unseen is None else context.unseen,
        prompts=None,
        watch=None,
        training=replace(training, loop=replace(training.loop, steps=config.gate_calibration_steps), optimizer=slow),
        seed=context.seed + 1,
        stop_after=None if stop_after is None else stop_after - steps,
    )
    params, duals = train_replayed(at_rest, params, resting)
    return params, tuple(dual._replace(violation_K=0.0 * dual.violation_K) for dual in duals)


def train(context: TrainContext, params: Params, config: AskConfig) -> Params:
    """Trains a student that has no gate yet, under all rules of the configuration (`ask`).

    `prices.json` in its folder has the last prices.

    Raises:
      UserError: without a tokenizer, for constraints that are not known, and as `ask` does.
    """
    if context.tokenizer is None:
        raise UserError(f"{context.name} reads rules; give TrainContext a tokenizer")
    teacher = None if context.reader is not None else context.needed_teacher()[0].config
    constraints = known_constraints(config.constraints, teacher)
    fresh = context.student.init(jax.random.key(context.seed + 1000))
    in_source = context.student.config.rule_in_source
    rules = make_rules(constraints, context.tokenizer, config.unit, in_source=in_source)
    params, duals = ask(context, {**fresh, **params}, config, rules)
    table = zip(dual_configs(config, constraints), constraints, duals, strict=True)
    write_json(
        context.folder / "prices.json",
        {c.name: {"budget": list(d.knots), "price": np.exp(prices(d, x)).tolist()} for d, c, x in table if not c.price},
    )
    return params


def check_training(training: StudentTraining) -> None:
    """Refuses a training that asking does not go with.

    Raises:
      UserError: the vocabulary is to be cut up.
    """
    if training.vocab_chunk:
        raise UserError("vocab_chunk must be 0 where a student asks: its gate looks at whole distributions; see chunk")


def check(config: AskConfig, training: StudentTraining, teacher: ModelConfig) -> None:
    """Refuses settings that fit no training or no teacher.

    Raises:
      UserError: as `known_constraints` and `check_training` do.
    """
    known_constraints(config.constraints, teacher)
    check_training(training)


def cost_of(config: AskConfig) -> Cost:
    """Counts passes as those of pcl, and what is written with help: as at test time, and samples of the policy."""
    often, sampled = config.distil.updates_per_rollout, config.distil.student_share > 0
    return cost(config.distil)._replace(
        further_steps=config.gate_calibration_steps,
        helped=config.helped_fraction / often,
        writings=(1 + sampled) / often,
        at_rest=1 / often,
    )


def elsewhere(config: AskConfig, given: bool) -> dict[str, Any] | None:
    """Says what would have to be set for a teacher elsewhere: it writes greedily and does not say what it takes."""
    distil, counting = of_distil(config.distil, given), need_costs(config.constraints)
    rest = [name for name in config.constraints if name not in counting]
    if not rest:
        return None
    return {**({"distil": distil} if distil else {}), **({"constraints": rest} if counting else {})}


ASK = Method(
    name="ask",
    describe="student that goes on as that of pcl and learns to ask its teacher under rules",
    config=AskConfig,
    train=train,
    cost=cost_of,
    student=lambda size, config: replace(size, gate_width=config.gate_width, rule_in_source=config.rule_in_source),
    start=lambda config: config.start,
    check=check,
    prompts=lambda config, given: prompts(config.distil, given),
    readings=lambda config: kept_ahead(config.distil),
    elsewhere=elsewhere,
    rows_kept=lambda config: rows_kept(config.distil),
    unseen=lambda config: config.gate_calibration_steps > 0,
    top_k="distil.top_k",
    further_rows=QUOTES,
    color="#CC79A7",
)
