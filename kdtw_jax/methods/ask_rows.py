"""Fresh rows under rules, from the student as it writes at test time and from all other sources, and their prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.constraints import Constraint, History, Terms, draw_rules, histories, total_cost
from kdtw_jax.data.batches import Batch
from kdtw_jax.decoding.gate import own_gate, priced_gate
from kdtw_jax.decoding.help import generate_with_help
from kdtw_jax.decoding.view import encoder_inputs
from kdtw_jax.duals import DualConfig, Duals, price, prices, start_duals, update_duals
from kdtw_jax.methods.ask_config import MOST_FLAGS, AskConfig, Rules, dual_configs, first_prices
from kdtw_jax.replay import Sample
from kdtw_jax.training.collect import Collector, with_targets
from kdtw_jax.training.context import TrainContext
from kdtw_jax.training.scoring import REFERENCE, SOURCES, STUDENT, TEACHER, Trajectories
from kdtw_jax.training.state import Params, step_key

HELPED = len(SOURCES)  # rows written as at test time; the other sources are those of distillation without help
_BANK = 8192  # rules drawn for a run
QUOTES = 128  # rules a minibatch beside those of its rows
_LAST_PACE = 0.4  # of the prices when the student has learned: slow, but students still change
_REST = 15.0  # how far the pace falls from there at rest: steps of 1, 1/2, 1/3 .. average what they see


class HelpedRows(NamedTuple):
    """Scored paths under rules, and who wrote them."""

    path: Trajectories  # the source is the plain one, which the teacher reads
    rule_BxR: jax.Array  # int32, the rule in words, which the student reads before the source
    asked_BxT: jax.Array  # bool
    terms: Terms


class Told(NamedTuple):
    """Prompts, each with a rule."""

    batch: Batch
    terms: Terms  # leaves [B, C]
    rule_BxR: np.ndarray  # int32, in words


class Quotes(NamedTuple):
    """Q further rules with their prices: the reader of rules needs to see more words than paths are written under."""

    rule_QxR: jax.Array  # int32
    terms: Terms  # leaves [Q, C]
    price_QxC: jax.Array  # float32, nats a unit of each constraint's cost
    place_Q: jax.Array  # float32 in [0, 1), where in a path each is quoted


class Priced(NamedTuple):
    """A minibatch of rows at today's prices."""

    rows: HelpedRows
    price_BxC: jax.Array  # float32, nats a unit of each constraint's cost
    quotes: Quotes

    @property
    def example_B(self) -> jax.Array:
        return self.rows.path.example_B


def unit_costs(constraints: Sequence[Constraint], terms: Terms, history: History) -> jax.Array:
    """What asking would cost now, [B, C], 0 where a constraint is not active; leaves of `history` [B]."""
    costs = []
    for index, constraint in enumerate(constraints):
        budget_B = terms.budget_BxC[:, index]
        cost_B = constraint.cost(history, jnp.ones(budget_B.shape, bool), budget_B)
        costs.append(jnp.where(terms.active_BxC[:, index], cost_B, 0.0))
    return jnp.stack(costs, axis=-1)


class AskingCollector:
    """Fresh rows under rules from all sources, and the prices that the helped ones call for."""

    def __init__(self, context: TrainContext, config: AskConfig, rules: Rules):
        student, teacher, banned = context.student, context.needed_teacher(), context.banned
        alpha, chunks = config.distil.pcl.alpha, context.training.chunks()
        self.config, self.rules, self.devices, self.seed = config, rules, context.devices, context.seed
        self.steps = context.training.loop.steps
        self.plain = Collector(student, teacher, config.distil, banned, self.devices, alpha=alpha, chunks=chunks)
        self.duals = dual_configs(config, rules.constraints)
        self.bank = draw_rules(
            rules.constraints,
            _BANK,
            rules.encode,
            np.random.default_rng([self.seed]),
            room=rules.room,
            held_out=config.held_out,
            fixed_share=config.fixed_share,
        )

        def write(
            sampled: bool,
            params: Params,
            teacher_params: Params,
            source_BxS: jax.Array,
            rule_BxR: jax.Array,
            gate_noise_BxT: jax.Array,
            token_noise_BxT: jax.Array,
            *given: Any,  # terms and the price of each constraint's cost, [B, C]; by default the gate reads its own
        ) -> tuple[jax.Array, jax.Array]:
            read_BxX, rule_BxX = encoder_inputs(student.config, rule_BxR, source_BxS)
            rule = student.encode(params, rule_BxX)
            gate = own_gate(student, params, rule, alpha)
            if given:
                terms, price_BxC = given

                def due(history: History) -> jax.Array:
                    return jnp.sum(unit_costs(rules.constraints, terms, history) * price_BxC, axis=1)

                gate = priced_gate(student, params, rule, due, alpha)
            helped = generate_with_help(
                (student, params),
                (teacher[0], teacher_params),
                read_BxX,
                source_BxS,
                gate_noise_BxT if sampled or config.gate == "sample" else None,
                token_noise_BxT if sampled or config.tokens == "sample" else None,
                banned=banned,
                max_len=gate_noise_BxT.shape[1],
                gate=gate,
                read_along=True,
            )
            return helped.tokens_BxT, helped.asked_BxT

        self.at_rest_duals = tuple(replace(dual, controller="ascent") for dual in self.duals)
        self._as_at_test_time = parallel.map_batch_with_frozen(partial(write, False), self.plain.teacher)
        self._sampled = parallel.map_batch_with_frozen(partial(write, True), self.plain.teacher)
        self._measure = jax.jit(partial(self._move_prices, self.duals))
        self._measure_at_rest = jax.jit(partial(self._move_prices, self.at_rest_duals))
        self._flags = jax.jit(self._flag)

    def start(self) -> tuple[Duals, ...]:
        """The first prices, one table a constraint."""
        pairs = zip(self.duals, self.rules.constraints, strict=True)
        return tuple(start_duals(dual, first_prices(dual, c)) for dual, c in pairs)

    def __call__(
        self, params: Params, extra: tuple[Duals, ...], batch: Batch, key_data: jax.Array, step: int
    ) -> tuple[dict[int, HelpedRows], tuple[Duals, ...]]:
        told = Told(batch, *self._draw(len(batch.example_B), step))
        # Two kinds of noise as at test time, two for samples of the student's policy.
        noise_4xBxT = jax.random.uniform(step_key(key_data, step, 4), (4, *batch.target_BxT.shape))
        helped = self._written(self._as_at_test_time, params, told, *noise_4xBxT[:2])
        found = {HELPED: helped}
        own, *noises = self.plain.some((told, *noise_4xBxT[2:]), STUDENT)
        if len(own.rule_BxR):
            found[STUDENT] = self._written(self._sampled, params, own, *noises)
        done = min(step / self.steps, 1)
        extra = self._measure(extra, helped, np.float32(1 - (1 - _LAST_PACE) * done))
        shown: Told = self.plain.some(told, TEACHER)
        if len(shown.rule_BxR):
            tokens = self.plain.teacher_writes(shown.batch, key_data, step)
            found[TEACHER] = self._marked(shown._replace(batch=with_targets(shown.batch, tokens)), step)
        if self.config.distil.reference_share:
            found[REFERENCE] = self._marked(told, step)
        return found, extra

    def calibrate_gate(
        self, params: Params, extra: tuple[Duals, ...], batch: Batch, key_data: jax.Array, step: int
    ) -> tuple[dict[int, HelpedRows], tuple[Duals, ...]]:
        """Rows as at test time alone, at the prices of the table.

        The student is at rest, so prices need not follow it: they move ever more slowly, and lose the noise of the few
        rows a budget that each step sees. Nor do they make up for misread rules, which they would chase for ever.
        """
        told = Told(batch, *self._draw(len(batch.example_B), self.steps + step))
        noise_2xBxT = jax.random.uniform(step_key(key_data, step, 4), (2, *batch.target_BxT.shape))
        price_BxC = self._quote(self.at_rest_duals, extra, told.terms)
        helped = self._written(self._as_at_test_time, params, told, *noise_2xBxT, told.terms, price_BxC)
        pace = _LAST_PACE / (1 + _REST * step / self.config.gate_calibration_steps)
        return {HELPED: helped}, self._measure_at_rest(extra, helped, np.float32(pace))

    def at_rest(self, extra: tuple[Duals, ...]) -> tuple[Duals, ...]:
        """The same prices without a proportional part, which would go on wavering with the newest rows."""
        pairs = zip(self.duals, extra, strict=True)
        return tuple(start_duals(dual, prices(dual, jax.tree.map(jnp.asarray, one))) for dual, one in pairs)

    def demonstrate(self, batch: Batch, place: int) -> HelpedRows:
        """Ground truth under fresh rules."""
        return self._marked(Told(batch, *self._draw(len(batch.example_B), place)), place)

    def refresh(self, sample: Sample, extra: tuple[Duals, ...], key: jax.Array, *, resting: bool = False) -> Sample:
        """Rows at today's prices, which `extra` has; and quotes."""

        quote = partial(self._quote, self.at_rest_duals if resting else self.duals, extra)
        count = -(-QUOTES // len(self.devices)) * len(self.devices)
        which, where = jax.random.split(key)
        chosen_Q = jax.random.randint(which, (count,), 0, _BANK)
        terms = Terms(*(jnp.asarray(x)[chosen_Q] for x in self.bank.terms))
        words_QxR = jnp.asarray(self.bank.words_BxR)[chosen_Q]
        quotes = Quotes(words_QxR, terms, quote(terms), jax.random.uniform(where, (count,)))
        return sample._replace(rows=Priced(sample.rows, quote(sample.rows.terms), quotes))

    def _quote(self, duals: tuple[DualConfig, ...], extra: tuple[Duals, ...], terms: Terms) -> jax.Array:
        """The price of a unit of each constraint's cost in nats, [B, C]."""
        pairs = enumerate(zip(duals, extra, strict=True))
        return jnp.stack([jnp.exp(price(d, e, terms.budget_BxC[:, i])) for i, (d, e) in pairs], axis=1)

    def _draw(self, rows: int, place: int) -> tuple[Terms, np.ndarray]:
        chosen_B = np.random.default_rng([self.seed, place]).integers(0, _BANK, rows)
        return Terms(*(x[chosen_B] for x in self.bank.terms)), self.bank.words_BxR[chosen_B]

    def _written(self, write: Any, params: Params, told: Told, *how: Any) -> HelpedRows:
        """What the student writes for them, with help; `how`: noise for the gate and for tokens, and prices, if any."""
        given = (told.batch.source_BxS, told.rule_BxR, *how)
        tokens_BxT, asked_BxT = parallel.map_rows(write, (params,), given, self.devices)
        return self._rows(told._replace(batch=with_targets(told.batch, tokens_BxT)), asked_BxT)

    def _rows(self, told: Told, asked_BxT: Any) -> HelpedRows:
        terms = Terms(*map(jnp.asarray, told.terms))
        return HelpedRows(self.plain.scored(told.batch), jnp.asarray(told.rule_BxR), jnp.asarray(asked_BxT), terms)

    def _marked(self, told: Told, place: int) -> HelpedRows:
        """Paths off-policy: some tokens count as asked for, about as many as the rule allows."""
        batch = told.batch
        noise_BxT = np.random.default_rng([self.seed, place, 1]).random(batch.target_BxT.shape, np.float32)
        terms = Terms(*map(jnp.asarray, told.terms))
        return self._rows(told, self._flags(batch.source_BxS, batch.target_BxT, terms, noise_BxT))

    def _flag(self, source: jax.Array, tokens: jax.Array, terms: Terms, noise_BxT: jax.Array) -> jax.Array:
        nobody = jnp.zeros(tokens.shape, bool)
        end = History(*(leaf[-1] for leaf in histories(source, tokens, nobody)))
        rate_B = jnp.zeros(len(tokens))
        for i, constraint in enumerate(self.rules.constraints):
            allowed_B = constraint.limit(terms.budget_BxC[:, i], end) / jnp.maximum(end.length_B, 1)
            rate_B = jnp.where(terms.active_BxC[:, i], jnp.maximum(rate_B, allowed_B), rate_B)
        return (noise_BxT < jnp.minimum(rate_B, MOST_FLAGS)[:, None]) & (tokens != 0)

    def _move_prices(
        self, duals: tuple[DualConfig, ...], extra: tuple[Duals, ...], rows: HelpedRows, pace: jax.Array
    ) -> tuple[Duals, ...]:
        source, tokens = rows.path.source_BxS, rows.path.tokens_BxT
        end = History(*(leaf[-1] for leaf in histories(source, tokens, rows.asked_BxT)))
        moved = []
        for i, constraint in enumerate(self.rules.constraints):
            budget_B = rows.terms.budget_BxC[:, i]
            spent_B = total_cost(constraint, budget_B, source, tokens, rows.asked_BxT)
            # By the mean length and not by each output's: long outputs count as their tokens do.
            violation_B = (spent_B - constraint.limit(budget_B, end)) / jnp.maximum(jnp.mean(end.length_B), 1.0)
            active_B = rows.terms.active_BxC[:, i]
            moved.append(update_duals(duals[i], extra[i], budget_B, violation_B, active_B, pace=pace))
        return tuple(moved)
