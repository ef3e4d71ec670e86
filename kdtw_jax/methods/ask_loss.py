"""What replayed rows teach a student that may ask: path consistency where asking is an action, and its gate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kdtw_jax.constraints import TOKENS, Constraint, History, Unit, called, histories
from kdtw_jax.decoding.policy import without_banned
from kdtw_jax.decoding.view import encoder_inputs, gate_features, prefixes_and_history
from kdtw_jax.losses.help import asked_divergence, asked_path, constraint_value_loss, saving
from kdtw_jax.losses.kl import TopK
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.positions import over_positions
from kdtw_jax.losses.vocabulary import DenseLogits
from kdtw_jax.methods.ask_config import AskConfig
from kdtw_jax.methods.ask_prices import unit_costs
from kdtw_jax.methods.ask_rows import HELPED
from kdtw_jax.methods.path_terms import PathTerms, StudentStats, path_terms, student_stats
from kdtw_jax.models import GateInputs, Model, shift_right
from kdtw_jax.replay import Sample
from kdtw_jax.training.context import WHOLE, Chunks
from kdtw_jax.training.scoring import STUDENT
from kdtw_jax.training.state import LossFn, Metrics, Params


def ask_loss(
    model: Model,
    config: AskConfig,
    constraints: Sequence[Constraint],
    banned: tuple[int, ...],
    chunks: Chunks = WHOLE,
    unit: Unit = TOKENS,
) -> LossFn:
    """Makes the loss of replayed rows (`ask_rows.Priced`) under rules.

    Its terms are those of `path_terms`, where asking is an action with its price; and of the gate: "saving" and
    "price", squared errors whose difference is the consistency of asking with writing, "quote", the price of further
    rules, and "cost", that of V_C. Where a call buys more than a token, it saves what its tokens do together, and
    within an answer there is no decision: no action, no reward, and nothing for the gate to learn but V_C.

    Args:
      model: the student, with a gate.
      config: how it learns.
      constraints: those that rules are made of, C of them.
      banned: ids that are never written.
      chunks: positions at a time; the vocabulary is not cut up.
      unit: what a call buys and rules count.
    """
    alpha = config.distil.pcl.alpha
    least = config.duals.low

    def loss(params: Params, target_params: Params, sampled: Sample, key: jax.Array) -> Metrics:
        rows, price_BxC, quotes = sampled.rows
        tokens_BxT = rows.path.tokens_BxT
        mask_BxT = tokens_BxT != 0
        source_BxX, rule_BxX = encoder_inputs(model.config, rows.rule_BxR, rows.path.source_BxS)
        encoded = model.encode(params, source_BxX)
        decoded = model.decode(params, encoded, shift_right(tokens_BxT))
        before = histories(rows.path.source_BxS, tokens_BxT, rows.asked_BxT, unit)

        def part(
            hidden_BxXxD: jax.Array,
            head_BxX: jax.Array,
            tokens_BxX: jax.Array,
            top: TopK,
            past_BxXxT: jax.Array,
            history: History,
        ) -> tuple[StudentStats, GateInputs, jax.Array]:
            logits_BxXxV = without_banned(model.unembed(params, hidden_BxXxD), banned)
            own_BxXxV = jax.lax.stop_gradient(jax.nn.log_softmax(logits_BxXxV, axis=-1))
            view = gate_features(own_BxXxV, hidden_BxXxD, past_BxXxT, history)
            found = student_stats(config.distil, DenseLogits(logits_BxXxV), head_BxX, tokens_BxX, top)
            return found, view, saving(own_BxXxV, top, config.saving)

        what = (
            decoded.hidden_BxTxD,
            decoded.value_BxT,
            tokens_BxT,
            rows.path.top,
            *prefixes_and_history(tokens_BxT, before),
        )
        own, view, saving_BxT = over_positions(part, what, chunks.chunk)
        odds = model.apply_gate(params, model.read_rule(params, model.encode(params, rule_BxX)), view)
        steps = History(*(leaf[:-1] for leaf in before))
        called_BxT = called(steps, tokens_BxT.T, rows.asked_BxT.T, unit).T
        within_BxT = rows.asked_BxT & ~called_BxT  # an answer
        unit_TxBxC = jax.vmap(partial(unit_costs, constraints, rows.terms, unit=unit))(steps)
        unit_BxTxC = jnp.swapaxes(unit_TxBxC, 0, 1)
        price_BxT = jnp.einsum("btc,bc->bt", unit_BxTxC, price_BxC)
        # A quote stands before the source of a row, at a random place of its path.
        row_Q = jnp.arange(len(quotes.place_Q)) % len(tokens_BxT)
        place_Q = (quotes.place_Q * jnp.sum(mask_BxT, axis=1)[row_Q]).astype(jnp.int32)
        _, rule_QxX = encoder_inputs(model.config, quotes.rule_QxR, rows.path.source_BxS[row_Q])
        read_QxP = model.read_rule(params, model.encode(params, rule_QxX))
        there = GateInputs(*(leaf[row_Q, place_Q][:, None] for leaf in view))
        quoted_Qx1 = model.apply_gate(params, read_QxP, there).log_price_BxT
        now = History(*(leaf[place_Q, row_Q] for leaf in before))
        unit_QxC = unit_costs(constraints, quotes.terms, now, unit)
        quote_Qx1 = jnp.sum(unit_QxC * quotes.price_QxC, axis=1, keepdims=True)

        def price_error(log_price: jax.Array, price: jax.Array, mask: jax.Array) -> Weighted:
            wanted = jnp.maximum(jnp.log(jnp.maximum(price, 1e-30)), least)
            return weighted(0.5 * jnp.square(log_price - wanted), mask)

        asks: dict[str, Any] = {
            "help_logit_BxT": jax.lax.stop_gradient(odds.logit(alpha)),
            "price_BxT": price_BxT,
            "normalize": config.normalize_help,
        }
        taken = {"teacher_log_prob_BxT": rows.path.teacher_log_prob_BxT, "asked_BxT": rows.asked_BxT}
        log_pi_BxT, reward_BxT = asked_path(own.log_pi_BxT, **taken, **asks)
        expected_BxT = asked_divergence(own.reverse_kl_BxT, **asks)
        cost_BxT = jnp.where(called_BxT, unit_BxTxC.sum(-1), 0.0)
        own_rows_B = sampled.source_X == HELPED
        decided_BxT, quotes_Qx1 = mask_BxT, jnp.ones(quote_Qx1.shape, bool)
        asked = weighted(rows.asked_BxT, mask_BxT & own_rows_B[:, None])
        if not unit.one_token:
            no_action = (log_pi_BxT, reward_BxT, expected_BxT)
            log_pi_BxT, reward_BxT, expected_BxT = (jnp.where(within_BxT, 0.0, x_BxT) for x_BxT in no_action)
            saving_BxT = unit.bought(jnp.where(mask_BxT, saving_BxT, 0.0), tokens_BxT)
            decided_BxT, quotes_Qx1 = mask_BxT & ~within_BxT, ~within_BxT[row_Q, place_Q][:, None]
            counts = (jnp.where(own_rows_B, leaf[-1], 0.0) for leaf in (before.helped_B, before.length_B))
            asked = Weighted(*(jnp.sum(count_B) for count_B in counts))
        actions = PathTerms(log_pi_BxT, reward_BxT, own.value_BxT, None, expected_BxT)
        return {
            **path_terms(config.distil, rows.path, actions, own.divergence_BxT, sampled.source_X == STUDENT),
            "saving": weighted(0.5 * jnp.square(odds.saving_BxT - saving_BxT), decided_BxT),
            "price": price_error(odds.log_price_BxT, price_BxT, decided_BxT),
            "quote": price_error(quoted_Qx1, quote_Qx1, quotes_Qx1),
            "cost": constraint_value_loss(odds.cost_BxT, cost_BxT, mask_BxT, own_rows_B),
            "asked": asked,
        }

    return loss
