"""Fresh rows under rules, from the student as it writes at test time and from all other sources."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.constraints import History, Terms, Unit, draw_rules, histories
from kdtw_jax.data.batches import Batch
from kdtw_jax.decoding.elsewhere import Begun, HelpedElsewhere
from kdtw_jax.decoding.gate import Gate, gate_that_read, priced_gate
from kdtw_jax.decoding.help import Helping, generate_with_help
from kdtw_jax.decoding.view import encoder_inputs
from kdtw_jax.duals import Duals
from kdtw_jax.errors import UserError
from kdtw_jax.methods.ask_config import MOST_FLAGS, AskConfig, Rules, dual_configs
from kdtw_jax.methods.ask_prices import Prices, Quotes, learning_pace, resting_pace, unit_costs
from kdtw_jax.models import Model
from kdtw_jax.replay import Sample
from kdtw_jax.training.collect import Collector, with_targets
from kdtw_jax.training.context import TrainContext
from kdtw_jax.training.readings import Kept
from kdtw_jax.training.scoring import REFERENCE, SOURCES, STUDENT, TEACHER, Trajectories
from kdtw_jax.training.state import Params, step_key

HELPED = len(SOURCES)  # rows written as at test time; the other sources are those of distillation without help
_BANK = 8192  # rules drawn for a run
QUOTES = 128  # rules a minibatch beside those of its rows


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


class Priced(NamedTuple):
    """A minibatch of rows at today's prices."""

    rows: HelpedRows
    price_BxC: jax.Array  # float32, nats per unit of each constraint's cost
    quotes: Quotes

    @property
    def example_B(self) -> jax.Array:
        """Ids of the prompts, for messages."""
        return self.rows.path.example_B


@dataclass(frozen=True)
class Writing:
    """How a student writes with help, as functions of its parameters and of rows.

    Rows are the source that the teacher reads, the rule in words, uniforms for the gate and for tokens, and, if any,
    terms and the price of each constraint's cost, [B, C]; by default the gate reads its own price from the rule.
    """

    student: Model
    config: AskConfig
    rules: Rules
    banned: tuple[int, ...]
    alpha: float
    """temperature of the gate, nats"""
    sampled: bool = False
    """its policy is drawn from, whatever it does at test time"""

    def begin(self, params: Params, source_BxS: jax.Array, rule_BxR: jax.Array, *how: Any) -> Begun:
        """Reads rows: what the gate makes of the rule is kept."""
        read_BxX, rule_BxX = encoder_inputs(self.student.config, rule_BxR, source_BxS)
        rule_BxP = self.student.read_rule(params, self.student.encode(params, rule_BxX))
        return Begun(rule_BxP, read_BxX, how[0].shape[1])

    def helping(
        self, params: Params, rule_BxP: jax.Array, source_BxS: jax.Array, rule_BxR: jax.Array, *how: Any
    ) -> Helping:
        """Says how rows are written with a teacher elsewhere, after `begin` has made `rule_BxP` of the rules."""
        gate = self._gate(params, rule_BxP, *how[2:])
        return Helping((self.student, params), None, gate, self.banned, *self._noise(*how[:2]), unit=self.rules.unit)

    def write(
        self, teacher: Model, params: Params, teacher_params: Params, source_BxS: jax.Array, *how: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Writes rows with a teacher that is here, which reads along; tokens, and which the teacher wrote, [B, T]."""
        rule_BxP, read_BxX, max_len = self.begin(params, source_BxS, *how)
        helped = generate_with_help(
            (self.student, params),
            (teacher, teacher_params),
            read_BxX,
            source_BxS,
            *self._noise(*how[1:3]),
            banned=self.banned,
            max_len=max_len,
            gate=self._gate(params, rule_BxP, *how[3:]),
            read_along=True,
            unit=self.rules.unit,
        )
        return helped.tokens_BxT, helped.asked_BxT

    def _noise(self, gate_BxT: jax.Array, token_BxT: jax.Array) -> tuple[jax.Array | None, jax.Array | None]:
        drawn = self.sampled or self.config.gate == "sample", self.sampled or self.config.tokens == "sample"
        return gate_BxT if drawn[0] else None, token_BxT if drawn[1] else None

    def _gate(self, params: Params, rule_BxP: jax.Array, *given: Any) -> Gate:
        if not given:
            return gate_that_read(self.student, params, rule_BxP, self.alpha)
        terms, price_BxC = given

        def due(history: History) -> jax.Array:
            return jnp.sum(unit_costs(self.rules.constraints, terms, history, self.rules.unit) * price_BxC, axis=1)

        return priced_gate(self.student, params, rule_BxP, due, self.alpha)


class AskingCollector:
    """Fresh rows under rules from all sources, and the prices that the helped ones call for."""

    def __init__(self, context: TrainContext, config: AskConfig, rules: Rules):
        student, banned = context.student, context.banned
        teacher = None if context.reader is not None else context.needed_teacher()
        alpha, chunks = config.distil.pcl.alpha, context.training.chunks()
        self.config, self.rules, self.devices, self.seed = config, rules, context.devices, context.seed
        self.steps = context.training.loop.steps
        how: dict[str, Any] = {"alpha": alpha, "chunks": chunks, "apart": context.prompts is not None}
        how |= {"steps": self.steps, "readings": context.readings, "reader": context.reader}
        self.plain = Collector(student, teacher, config.distil, banned, self.devices, **how)
        self.prices = Prices(rules.constraints, dual_configs(config, rules.constraints), rules.unit)
        self.prices_at_rest = self.prices.without_push()
        self.bank = draw_rules(
            rules.constraints,
            _BANK,
            rules.encode,
            np.random.default_rng([self.seed]),
            room=rules.room,
            held_out=config.held_out,
            fixed_share=config.fixed_share,
        )
        writing = Writing(student, config, rules, banned, alpha)
        self._as_at_test_time, self._sampled = (
            self._writer(replace(writing, sampled=sampled), context, teacher) for sampled in (False, True)
        )
        self._move, self._move_at_rest = jax.jit(self.prices.move), jax.jit(self.prices_at_rest.move)
        self._flags = jax.jit(self._flag)

    def __call__(
        self, params: Params, extra: tuple[Duals, ...], batch: Batch, key_data: jax.Array, step: int
    ) -> tuple[dict[int, HelpedRows], tuple[Duals, ...]]:
        told = Told(batch, *self._draw(len(batch.example_B), step))
        # Two kinds of noise as at test time, two for samples of the student's policy.
        noise_4xBxT = jax.random.uniform(step_key(key_data, step, 4), (4, *batch.target_BxT.shape))
        count = math.ceil(self.config.helped_fraction * len(batch.example_B))
        with_help: tuple[Told, Any] = jax.tree.map(lambda x: x[:count], (told, tuple(noise_4xBxT[:2])))
        helped = self._written(self._as_at_test_time, params, with_help[0], *with_help[1])
        found = {HELPED: helped}
        own, *noises = self.plain.some((told, *noise_4xBxT[2:]), STUDENT, step)
        if len(own.rule_BxR):
            found[STUDENT] = self._written(self._sampled, params, own, *noises)
        extra = self._move(extra, *_measured(helped), np.float32(learning_pace(step, self.steps)))
        shown: Told = self.plain.some(told, TEACHER, step)
        if len(shown.rule_BxR):
            found[TEACHER] = self._marked(shown, self.plain.demonstrated(shown.batch, key_data, step), step)
        if self.config.distil.reference_share and not self.plain.apart:
            found[REFERENCE] = self._marked(told, self.plain.scored(batch), step)
        return found, extra

    def calibrate_gate(
        self, params: Params, extra: tuple[Duals, ...], batch: Batch, key_data: jax.Array, step: int
    ) -> tuple[dict[int, HelpedRows], tuple[Duals, ...]]:
        """Makes rows as at test time alone, at the prices of the table, with the keys of a `step` from `key_data`.

        The student is at rest, so prices need not follow it: they move ever more slowly, and lose the noise of the few
        rows a budget that each step sees. Nor do they make up for misread rules, which they would chase for ever.
        """
        told = Told(batch, *self._draw(len(batch.example_B), self.steps + step))
        noise_2xBxT = jax.random.uniform(step_key(key_data, step, 4), (2, *batch.target_BxT.shape))
        price_BxC = self.prices_at_rest.quote(extra, told.terms)
        helped = self._written(self._as_at_test_time, params, told, *noise_2xBxT, told.terms, price_BxC)
        pace = np.float32(resting_pace(step, self.config.gate_calibration_steps))
        return {HELPED: helped}, self._move_at_rest(extra, *_measured(helped), pace)

    def demonstrate(self, batch: Batch, place: int) -> HelpedRows:
        """Puts ground truth under fresh rules, drawn for its `place`."""
        return self._marked(Told(batch, *self._draw(len(batch.example_B), place)), self.plain.scored(batch), place)

    def refresh(self, sample: Sample, extra: tuple[Duals, ...], key: jax.Array, *, resting: bool = False) -> Sample:
        """Gives rows today's prices, which `extra` has, and quotes, drawn by `key`."""
        prices = self.prices_at_rest if resting else self.prices
        count = -(-QUOTES // len(self.devices)) * len(self.devices)
        quotes = prices.draw_quotes(extra, self.bank, count, key)
        return sample._replace(rows=Priced(sample.rows, prices.quote(extra, sample.rows.terms), quotes))

    def _draw(self, rows: int, place: int) -> tuple[Terms, np.ndarray]:
        chosen_B = np.random.default_rng([self.seed, place]).integers(0, _BANK, rows)
        return Terms(*(x[chosen_B] for x in self.bank.terms)), self.bank.words_BxR[chosen_B]

    def _writer(
        self, writing: Writing, context: TrainContext, teacher: tuple[Model, Params] | None
    ) -> Callable[[Params, tuple[Any, ...]], tuple[jax.Array, jax.Array]]:
        """Makes what writes rows: of parameters and rows, the tokens, and which of them the teacher wrote."""
        if teacher is None:
            if context.answers is None:
                raise UserError(
                    f"{context.name} asks its teacher while it writes; give TrainContext answers beside its reader"
                )
            helped = HelpedElsewhere(writing.begin, writing.helping, self.devices)
            answers = partial(context.answers, kept=Kept(self.config.distil.top_k))
            return lambda params, rows: helped(params, rows, answers)
        mapped = parallel.map_batch_with_frozen(partial(writing.write, teacher[0]), self.plain.teacher)
        return lambda params, rows: parallel.map_rows(mapped, (params,), rows, self.devices)

    def _written(self, write: Any, params: Params, told: Told, *how: Any) -> HelpedRows:
        """What the student writes for them, with help; `how`: noise for the gate and for tokens, and prices, if any."""
        tokens_BxT, asked_BxT = write(params, (told.batch.source_BxS, told.rule_BxR, *how))
        return _rows(told, self.plain.scored(with_targets(told.batch, tokens_BxT)), asked_BxT)

    def _marked(self, told: Told, path: Trajectories, place: int) -> HelpedRows:
        """Paths off-policy: some tokens or words count as asked for, about as many as the rule allows."""
        noise_BxT = np.random.default_rng([self.seed, place, 1]).random(path.tokens_BxT.shape, np.float32)
        terms = Terms(*map(jnp.asarray, told.terms))
        return _rows(told, path, self._flags(path.source_BxS, path.tokens_BxT, terms, noise_BxT))

    def _flag(self, source: jax.Array, tokens: jax.Array, terms: Terms, noise_BxT: jax.Array) -> jax.Array:
        unit = self.rules.unit
        end = History(*(leaf[-1] for leaf in histories(source, tokens, jnp.zeros(tokens.shape, bool), unit)))
        rate_B = jnp.zeros(len(tokens))
        for i, constraint in enumerate(self.rules.constraints):
            allowed_B = constraint.limit(terms.budget_BxC[:, i], end) / jnp.maximum(end.length_B, 1)
            rate_B = jnp.where(terms.active_BxC[:, i], jnp.maximum(rate_B, allowed_B), rate_B)
        return flagged(unit, tokens, noise_BxT, jnp.minimum(rate_B, MOST_FLAGS))


def flagged(unit: Unit, tokens_BxT: jax.Array, noise_BxT: jax.Array, rate_B: jax.Array) -> jax.Array:
    """Marks tokens as asked for, bool [B, T]: about that share of the units, each from a random token of it on.

    Args:
      unit: what a mark buys.
      tokens_BxT: int32, 0 after the end.
      noise_BxT: uniforms in [0, 1).
      rate_B: float32, the share.
    """
    there_BxT = tokens_BxT != 0
    if unit.one_token:
        return (noise_BxT < rate_B[:, None]) & there_BxT
    size_BxT = jnp.maximum(unit.bought(there_BxT.astype(jnp.float32), tokens_BxT), 1.0)

    def step(state: tuple[jax.Array, ...], now: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, ...], jax.Array]:
        owed_B, last_B, tokens_B = state
        token_B, noise_B, size_B = now
        if unit.marks is None:
            chance_B = rate_B / (size_B - (size_B - 1) * rate_B)
        else:  # at each token of a unit, its space included, so that the unit has one at the rate
            first_B = (last_B == 0) | ~unit.blank(last_B)
            anew_B = (unit.begins(token_B, last_B) | ~unit.counts(token_B)) & first_B
            tokens_B = jnp.where(anew_B, size_B, tokens_B)
            chance_B = 1 - (1 - rate_B) ** (1 / tokens_B)
        on_B = unit.goes_on(owed_B, token_B, last_B)
        call_B = ~on_B & (noise_B < chance_B)
        asked_B = (on_B | call_B) & (token_B != 0)
        return (unit.owed(owed_B, token_B, asked_B, call_B), token_B, tokens_B), asked_B

    start: tuple[jax.Array, ...] = (
        jnp.zeros_like(tokens_BxT[:, 0]),
        jnp.zeros_like(tokens_BxT[:, 0]),
        jnp.ones_like(rate_B),
    )
    asked_TxB: jax.Array = jax.lax.scan(step, start, (tokens_BxT.T, noise_BxT.T, size_BxT.T))[1]
    return asked_TxB.T


def _rows(told: Told, path: Trajectories, asked_BxT: Any) -> HelpedRows:
    terms = Terms(*map(jnp.asarray, told.terms))
    return HelpedRows(path, jnp.asarray(told.rule_BxR), jnp.asarray(asked_BxT), terms)


def _measured(helped: HelpedRows) -> tuple[jax.Array, jax.Array, jax.Array, Terms]:
    """What prices move by."""
    return helped.path.source_BxS, helped.path.tokens_BxT, helped.asked_BxT, helped.terms
