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

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from kdtw_jax.constraints import Constraint, History, Terms, histories
from kdtw_jax.data.batches import Bucket, EncodedSplit
from kdtw_jax.decoding.policy import without
from kdtw_jax.decoding.view import look, passed, readings
from kdtw_jax.duals import Duals
from kdtw_jax.losses.help import asked_path, constraint_value_loss, saving
from kdtw_jax.losses.kl import TopK
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.losses.vocabulary import Held
from kdtw_jax.models import Model, View, shift_right
from kdtw_jax.replay import Sample
from kdtw_jax.train import parallel
from kdtw_jax.train.ask_config import AskConfig, Rules
from kdtw_jax.train.ask_rows import HELPED, AskingCollector, HelpedRows, unit_costs
from kdtw_jax.train.collect import empty_row, minibatch_shares
from kdtw_jax.train.distil import Judged, Taken, coefficients, judged, path_terms
from kdtw_jax.train.replayed import Method, train_replayed
from kdtw_jax.train.scoring import SOURCES, STUDENT, TRUTH
from kdtw_jax.train.state import Coefficient, LossFn, Metrics, Params

_REMEMBERED = 256  # rows of a student at rest: V_C is the cost of its newest gate


def ask_loss(model: Model, config: AskConfig, constraints: Sequence[Constraint], banned: tuple[int, ...]) -> LossFn:
    """The terms of `path_terms`, where asking is an action with its price; and of the gate: "saving" and "price",
    squared errors whose difference is the consistency of asking with writing, "quote", the price of further rules, and
    "cost", that of V_C."""
    alpha = config.distil.pcl.alpha
    least = config.duals.low

    def loss(params: Params, target_params: Params, sampled: Sample, key: jax.Array) -> Metrics:
        rows, price_BxC, quotes = sampled.rows
        tokens_BxT = rows.path.tokens_BxT
        mask_BxT = tokens_BxT != 0
        source_BxX, rule_BxX = readings(model.config, rows.rule_BxR, rows.path.source_BxS)
        encoded = model.encode(params, source_BxX)
        decoded = model.decode(params, encoded, shift_right(tokens_BxT))
        before = histories(rows.path.source_BxS, tokens_BxT, rows.asked_BxT)

        def part(
            hidden_BxXxD: jax.Array,
            head_BxX: jax.Array,
            tokens_BxX: jax.Array,
            top: TopK,
            past_BxXxT: jax.Array,
            history: History,
        ) -> tuple[Judged, View, jax.Array]:
            logits_BxXxV = without(model.logits(params, hidden_BxXxD), banned)
            own_BxXxV = jax.lax.stop_gradient(jax.nn.log_softmax(logits_BxXxV, axis=-1))
            view = look(own_BxXxV, hidden_BxXxD, past_BxXxT, history)
            own = Held(logits_BxXxV if alpha == 1 else logits_BxXxV / alpha)
            found = judged(config.distil, own, head_BxX, tokens_BxX, top)
            return found, view, saving(own_BxXxV, top, config.saving)

        what = (decoded.hidden_BxTxD, decoded.value_BxT, tokens_BxT, rows.path.top, *passed(tokens_BxT, before))
        own, view, saving_BxT = over_positions(part, what, config.distil.chunk)
        odds = model.weigh(params, model.read_rule(params, model.encode(params, rule_BxX)), view)
        steps = History(*(leaf[:-1] for leaf in before))
        unit_TxBxC = jax.vmap(partial(unit_costs, constraints, rows.terms))(steps)
        unit_BxTxC = jnp.swapaxes(unit_TxBxC, 0, 1)
        price_BxT = jnp.einsum("btc,bc->bt", unit_BxTxC, price_BxC)
        # A quote stands before the source of a row, at a random place of its path.
        row_Q = jnp.arange(len(quotes.place_Q)) % len(tokens_BxT)
        place_Q = (quotes.place_Q * jnp.sum(mask_BxT, axis=1)[row_Q]).astype(jnp.int32)
        _, rule_QxX = readings(model.config, quotes.rule_QxR, rows.path.source_BxS[row_Q])
        read_QxP = model.read_rule(params, model.encode(params, rule_QxX))
        there = View(*(leaf[row_Q, place_Q][:, None] for leaf in view))
        quoted_Qx1 = model.weigh(params, read_QxP, there).log_price_BxT
        unit_QxC = unit_costs(constraints, quotes.terms, History(*(leaf[place_Q, row_Q] for leaf in before)))
        quote_Qx1 = jnp.sum(unit_QxC * quotes.price_QxC, axis=1, keepdims=True)

        def price_error(log_price: jax.Array, price: jax.Array, mask: jax.Array) -> Weighted:
            wanted = jnp.maximum(jnp.log(jnp.maximum(price, 1e-30)), least)
            return weighted(0.5 * jnp.square(log_price - wanted), mask)

        log_pi_BxT, reward_BxT = asked_path(
            own.log_pi_BxT,
            jax.lax.stop_gradient(odds.logit(alpha)),
            rows.path.teacher_log_prob_BxT,
            rows.asked_BxT,
            price_BxT,
            normalize=config.normalize_help,
        )
        taken = Taken(log_pi_BxT, reward_BxT, own.value_BxT, None)
        cost_BxT = jnp.where(rows.asked_BxT, unit_BxTxC.sum(-1), 0.0)
        own_rows_B = sampled.source_X == HELPED
        return {
            **path_terms(config.distil, rows.path, taken, own.divergence_BxT, sampled.source_X == STUDENT),
            "saving": weighted(0.5 * jnp.square(odds.saving_BxT - saving_BxT), mask_BxT),
            "price": price_error(odds.log_price_BxT, price_BxT, mask_BxT),
            "quote": price_error(quoted_Qx1, quote_Qx1, jnp.ones(quote_Qx1.shape, bool)),
            "cost": constraint_value_loss(odds.cost_BxT, cost_BxT, mask_BxT, own_rows_B),
            "asked": weighted(rows.asked_BxT, mask_BxT & own_rows_B[:, None]),
        }

    return loss


def ask(
    name: str,
    folder: Path,
    student: Model,
    params: Params,
    teacher: tuple[Model, Params],
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    config: AskConfig,
    rules: Rules,
    *,
    seed: int,
    devices: parallel.Devices,
    banned: tuple[int, ...],
    unseen: EncodedSplit | None = None,
    stop_after: int | None = None,
) -> tuple[Params, tuple[Duals, ...]]:
    """Trains `student`, whose config has a gate, from `params`; returns parameters and prices (numpy).

    Then, for `config.settle` steps, its gate alone, on what it writes as at test time for the sources of `unseen`
    (their targets are not read; by default `data`): where a student was trained it asks a little less than elsewhere.

    Raises UserError as `train_replayed` does.
    """
    collector = AskingCollector(student, teacher, config, rules, banned, devices, seed)
    count = len(rules.constraints)
    gate = dict.fromkeys(("saving", "price", "quote", "cost"), config.gate_weight)
    weights: dict[str, Coefficient] = {**coefficients(config.distil), **gate}

    def shares(rows: int) -> tuple[int, ...]:
        helped = min(max(round(rows * config.helped_share), 1), rows - 1) if rows > 1 else 0
        return (*minibatch_shares(config.distil, rows - helped), helped)

    def row(bucket: Bucket) -> HelpedRows:
        terms = Terms(jnp.zeros((count,), jnp.float32), jnp.zeros((count,), bool))
        said, asked = jnp.zeros((rules.room,), jnp.int32), jnp.zeros((bucket.target,), bool)
        return HelpedRows(empty_row(bucket, config.distil.top_k), said, asked, terms)

    method = Method(
        loop=config.distil.loop,
        optimizer=config.distil.optimizer,
        loss=ask_loss(student, config, rules.constraints, banned),
        coefficients=weights,
        sources=(*SOURCES, "helped"),
        shares=shares,
        empty_row=row,
        collect=collector,
        demonstrate=collector.demonstrate,
        truth=TRUTH if config.distil.truth_share else None,
        refresh=collector.refresh,
        extra=collector.start(),
        target_decay=0.0,
        updates_per_rollout=config.distil.updates_per_rollout,
        capacity=config.distil.capacity,
        truth_batches=config.distil.truth_batches,
    )
    params, duals = train_replayed(
        name, folder, method, params, data, buckets, seed=seed, devices=devices, stop_after=stop_after
    )
    steps = config.distil.loop.steps
    if not config.settle or (stop_after is not None and stop_after <= steps):
        return params, duals
    resting = method._replace(
        loop=replace(config.distil.loop, steps=config.settle),
        optimizer=replace(
            config.distil.optimizer,
            learning_rate=0.1 * config.distil.optimizer.learning_rate,
            final_fraction=0.0,
            warmup_steps=1,
            weight_decay=0.0,  # which would move a student without gradients, too
        ),
        coefficients=gate,
        shares=lambda rows: (*(0 for _ in SOURCES), rows),
        collect=collector.settle,
        truth=None,
        refresh=partial(collector.refresh, resting=True),
        extra=collector.at_rest(duals),
        capacity=min(config.distil.capacity, _REMEMBERED),
    )
    params, duals = train_replayed(
        f"{name}, at rest",
        folder / "settle",
        resting,
        params,
        data if unseen is None else unseen,
        buckets,
        seed=seed + 1,
        devices=devices,
        stop_after=None if stop_after is None else stop_after - steps,
    )
    return params, tuple(dual._replace(violation_K=0.0 * dual.violation_K) for dual in duals)
