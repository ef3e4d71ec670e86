"""Fresh rows under rules, from the student as it writes at test time and from all other sources."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.constraints import History, Terms, Unit, draw_rules, histories
from kdtw_jax.data.batches import Batch
from kdtw_jax.decoding.gate import own_gate, priced_gate
from kdtw_jax.decoding.help import generate_with_help
from kdtw_jax.decoding.view import encoder_inputs
from kdtw_jax.duals import Duals
from kdtw_jax.methods.ask_config import MOST_FLAGS, AskConfig, Rules, dual_configs
from kdtw_jax.methods.ask_prices import Prices, Quotes, learning_pace, resting_pace, unit_costs
from kdtw_jax.replay import Sample
from kdtw_jax.training.collect import Collector, with_targets
from kdtw_jax.training.context import TrainContext
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


class AskingCollector:
    """Fresh rows under rules from all sources, and the prices that the helped ones call for."""

    def __init__(self, context: TrainContext, config: AskConfig, rules: Rules):
        student, teacher, banned = context.student, context.needed_teacher(), context.banned
        alpha, chunks = config.distil.pcl.alpha, context.training.chunks()
        self.config, self.rules, self.devices, self.seed = config, rules, context.devices, context.seed
        self.steps = context.training.loop.steps
        how: dict[str, Any] = {"alpha": alpha, "chunks": chunks, "apart": context.prompts is not None}
        how |= {"steps": self.steps, "readings": context.readings}
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
                    return jnp.sum(unit_costs(rules.constraints, terms, history, rules.unit) * price_BxC, axis=1)

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
                unit=rules.unit,
            )
            return helped.tokens_BxT, helped.asked_BxT

        self._as_at_test_time = parallel.map_batch_with_frozen(partial(write, False), self.plain.teacher)
        self._sampled = parallel.map_batch_with_frozen(partial(write, True), self.plain.teacher)
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

    def _written(self, write: Any, params: Params, told: Told, *how: Any) -> HelpedRows:
        """What the student writes for them, with help; `how`: noise for the gate and for tokens, and prices, if any."""
        given = (told.batch.source_BxS, told.rule_BxR, *how)
        tokens_BxT, asked_BxT = parallel.map_rows(write, (params,), given, self.devices)
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
