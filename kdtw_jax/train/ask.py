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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.constraints import Constraint, History, Terms, draw_rules, histories, total_cost, words_room
from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit
from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.decoding.help import generate_with_help, own_gate
from kdtw_jax.decoding.policy import without
from kdtw_jax.decoding.view import instructed, looks
from kdtw_jax.duals import DualConfig, Duals, price, start_duals, update_duals
from kdtw_jax.errors import UserError
from kdtw_jax.losses.help import asked_path, constraint_value_loss, saving
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.pcl import policy_and_value
from kdtw_jax.models import Model, shift_right
from kdtw_jax.replay import Sample
from kdtw_jax.train import parallel
from kdtw_jax.train.distil import (
    Collector,
    DistilConfig,
    Taken,
    coefficients,
    empty_row,
    minibatch_shares,
    path_terms,
    with_targets,
)
from kdtw_jax.train.replayed import Method, train_replayed
from kdtw_jax.train.scoring import SOURCES, STUDENT, TEACHER, TRUTH, Trajectories
from kdtw_jax.train.state import Coefficient, LossFn, Metrics, Params, step_key

HELPED = len(SOURCES)  # rows written as at test time; the other sources are those of distillation without help
_KNOTS = (0.0, 0.03, 0.08, 0.17, 0.33, 0.5, 0.67, 0.83, 1.0)  # shares of a budget's range with a price of their own
_BANK = 8192  # rules drawn for a run
_MOST_FLAGS = 0.6  # share of the tokens of a path off-policy that are marked as asked for, at the most


@dataclass(frozen=True)
class AskConfig:
    """How a student learns to ask."""

    distil: DistilConfig = field(default_factory=DistilConfig)
    constraints: tuple[str, ...] = ("share",)
    """rules trained for, by name: share, calls, pause, in_a_row, first, after, compute"""
    gate: Literal["threshold", "sample"] = "threshold"
    """who writes at test time: ask where asking is the more probable, or draw"""
    tokens: Literal["greedy", "sample"] = "greedy"
    """what is written at test time; prices are measured in this mode"""
    saving: Literal["regret", "kl"] = "regret"
    """what an answer is worth: the teacher's log-probability of its best token over that of the student's, which fits
    greedy tokens, or KL(student || teacher), which fits sampled ones"""
    gate_width: int = 128
    """hidden units of the gate"""
    helped_share: float = 0.25
    """of a minibatch: rows written as at test time; the shares in `distil` divide what is left"""
    gate_weight: float = 0.01
    """of the gate's losses. They reach the gate alone, where Adam does not mind their size; small, they leave the
    clipping of gradients to the rest"""
    normalize_help: bool = True
    """reward of the extended teacher, a distribution over tokens and asking; without, the literal Lagrangian, whose
    optimum puts off the end of an output"""
    duals: DualConfig = field(default_factory=lambda: DualConfig(rate=0.3, low=-4.0, high=4.0))
    """how prices move: on a logarithmic scale, in nats; their knots follow from each constraint's range"""
    held_out: tuple[float, ...] = (0.15, 0.25, 0.35, 0.45)
    """budgets never trained, for evaluation"""
    fixed_share: float = 0.15
    """rows under a rule without a number: do not ask, or ask at will"""

    def __post_init__(self) -> None:
        if not self.constraints or len(set(self.constraints)) < len(self.constraints):
            raise UserError(f"ask.constraints must be distinct, at least one, got {self.constraints}")
        if not 0 < self.helped_share < 1 or not 0 <= self.fixed_share < 1:
            raise UserError("ask.helped_share must be between 0 and 1, ask.fixed_share at least 0 and below 1")
        if self.gate_width < 1 or self.gate_weight <= 0:
            raise UserError("ask.gate_width must be at least 1 and ask.gate_weight above 0")
        if self.distil.top_k < 1 or self.distil.target_decay:
            raise UserError(
                "ask needs distil.top_k of at least 1 (savings are read from it) and no distil.target_decay"
            )


class Quoted(NamedTuple):
    """Another rule a row, with its price: the reader of rules sees more words than paths were written under."""

    rule_BxR: jax.Array  # int32
    terms: Terms
    price_BxC: jax.Array  # float32


class HelpedRows(NamedTuple):
    """Scored paths under rules, and who wrote them."""

    path: Trajectories  # the source is the plain one, which the teacher reads
    rule_BxR: jax.Array  # int32, the rule in words, which the student reads before the source
    asked_BxT: jax.Array  # bool
    terms: Terms
    price_BxC: jax.Array  # float32, of a unit of each constraint's cost, in nats; filled in at replay
    other: Quoted  # filled in at replay

    @property
    def example_B(self) -> jax.Array:
        return self.path.example_B


class Rules(NamedTuple):
    """What can be asked of the student, and how it is said."""

    constraints: tuple[Constraint, ...]
    encode: Callable[[str], Sequence[int]]
    room: int  # tokens for the words of a rule


def make_rules(constraints: tuple[Constraint, ...], tokenizer: Tokenizer) -> Rules:
    """Room for two constraints together where there are several."""
    together = min(len(constraints), 2)
    return Rules(constraints, tokenizer.encode, words_room(constraints, tokenizer.encode, together=together))


def dual_configs(config: AskConfig, constraints: Sequence[Constraint]) -> tuple[DualConfig, ...]:
    """One a constraint, with knots over its range and at the budgets of its sentences without a number."""
    found = []
    for c in constraints:
        knots = {c.low + f * (c.high - c.low) for f in _KNOTS} | set(c.wording.fixed.values())
        found.append(replace(config.duals, knots=tuple(sorted(knots))))
    return tuple(found)


def first_prices(dual: DualConfig, constraint: Constraint) -> jax.Array:
    """Logarithms of -log(share), [K]: that share is asked for if savings are exponential with mean one nat."""
    share_K = (jnp.asarray(dual.knots) - constraint.low) / (constraint.high - constraint.low) * _MOST_FLAGS
    return jnp.log(-jnp.log(jnp.clip(share_K, 1e-30, 1 - 1e-4)))


def unit_costs(constraints: Sequence[Constraint], terms: Terms, before: History) -> jax.Array:
    """What asking would cost at each state of paths, [B, T, C], 0 where a constraint is not active."""
    steps = History(*(leaf[:-1] for leaf in before))
    costs = []
    for index, constraint in enumerate(constraints):
        budget_B = terms.budget_BxC[:, index]
        everywhere_B = jnp.ones(budget_B.shape, bool)
        cost_TxB = jax.vmap(lambda h, c=constraint, b=budget_B, yes=everywhere_B: c.cost(h, yes, b))(steps)
        costs.append(jnp.where(terms.active_BxC[:, index], cost_TxB, 0.0).T)
    return jnp.stack(costs, axis=-1)


def ask_loss(model: Model, config: AskConfig, constraints: Sequence[Constraint], banned: tuple[int, ...]) -> LossFn:
    """The terms of `path_terms`, where asking is an action with its price; and of the gate: "saving" and "price",
    squared errors whose difference is the consistency of asking with writing, and "cost", that of V_C."""
    alpha = config.distil.pcl.alpha
    least = config.duals.low

    def loss(params: Params, target_params: Params, sampled: Sample, key: jax.Array) -> Metrics:
        rows: HelpedRows = sampled.rows
        tokens_BxT = rows.path.tokens_BxT
        mask_BxT = tokens_BxT != 0
        encoded = model.encode(params, instructed(rows.rule_BxR, rows.path.source_BxS))
        decoded = model.decode(params, encoded, shift_right(tokens_BxT))
        logits_BxTxV = without(decoded.logits_BxTxV, banned)
        own_log_prob_BxT, value_BxT = policy_and_value(logits_BxTxV, decoded.value_BxT, tokens_BxT, config.distil.pcl)

        own_BxTxV = jax.lax.stop_gradient(jax.nn.log_softmax(logits_BxTxV, axis=-1))
        before = histories(rows.path.source_BxS, tokens_BxT, rows.asked_BxT)
        view, _ = looks(own_BxTxV, decoded.hidden_BxTxD, tokens_BxT, before)
        odds = model.weigh(params, model.read_rule(params, encoded), view)
        unit_BxTxC = unit_costs(constraints, rows.terms, before)
        price_BxT = jnp.einsum("btc,bc->bt", unit_BxTxC, rows.price_BxC)
        other = rows.other
        read_BxP = model.read_rule(params, model.encode(params, instructed(other.rule_BxR, rows.path.source_BxS)))
        other_log_price_BxT = model.weigh(params, read_BxP, view).log_price_BxT
        other_price_BxT = jnp.einsum("btc,bc->bt", unit_costs(constraints, other.terms, before), other.price_BxC)
        saving_BxT = saving(own_BxTxV, rows.path.top, config.saving)

        def price_error(log_price_BxT: jax.Array, price_BxT: jax.Array) -> Weighted:
            wanted_BxT = jnp.maximum(jnp.log(jnp.maximum(price_BxT, 1e-30)), least)
            return weighted(0.5 * jnp.square(log_price_BxT - wanted_BxT), mask_BxT)

        log_pi_BxT, reward_BxT = asked_path(
            own_log_prob_BxT,
            jax.lax.stop_gradient(odds.logit(alpha)),
            rows.path.teacher_log_prob_BxT,
            rows.asked_BxT,
            price_BxT,
            normalize=config.normalize_help,
        )
        taken = Taken(log_pi_BxT, reward_BxT, value_BxT, None)
        cost_BxT = jnp.where(rows.asked_BxT, unit_BxTxC.sum(-1), 0.0)
        own_rows_B = sampled.source_X == HELPED
        return {
            **path_terms(config.distil, rows.path, taken, logits_BxTxV, sampled.source_X == STUDENT),
            "saving": weighted(0.5 * jnp.square(odds.saving_BxT - saving_BxT), mask_BxT),
            "price": price_error(odds.log_price_BxT, price_BxT).merge(
                price_error(other_log_price_BxT, other_price_BxT)
            ),
            "cost": constraint_value_loss(odds.cost_BxT, cost_BxT, mask_BxT, own_rows_B),
            "asked": weighted(rows.asked_BxT, mask_BxT & own_rows_B[:, None]),
        }

    return loss


class AskingCollector:
    """Fresh rows under rules from all sources, and the prices that the helped ones call for."""

    def __init__(
        self,
        student: Model,
        teacher: tuple[Model, Params],
        config: AskConfig,
        rules: Rules,
        banned: tuple[int, ...],
        devices: parallel.Devices,
        seed: int,
    ):
        self.config, self.rules, self.devices, self.seed = config, rules, devices, seed
        self.plain = Collector(student, teacher, config.distil, banned, devices)
        self.duals = dual_configs(config, rules.constraints)
        self.bank = draw_rules(
            rules.constraints,
            _BANK,
            rules.encode,
            np.random.default_rng([seed]),
            room=rules.room,
            held_out=config.held_out,
            fixed_share=config.fixed_share,
        )
        alpha = config.distil.pcl.alpha

        def write(sampled: bool, params: Params, teacher_params: Params, rows: Any) -> Any:
            source_BxS, rule_BxR, gate_noise_BxT, token_noise_BxT = rows
            read = instructed(rule_BxR, source_BxS)
            helped = generate_with_help(
                (student, params),
                (teacher[0], teacher_params),
                read,
                source_BxS,
                gate_noise_BxT if sampled or config.gate == "sample" else None,
                token_noise_BxT if sampled or config.tokens == "sample" else None,
                banned=banned,
                max_len=gate_noise_BxT.shape[1],
                gate=own_gate(student, params, student.encode(params, read), alpha),
                read_along=True,
            )
            return helped.tokens_BxT, helped.asked_BxT

        self._as_at_test_time = parallel.data_parallel(partial(write, False), devices)
        self._sampled = parallel.data_parallel(partial(write, True), devices)
        self._measure = jax.jit(self._move_prices)
        self._flags = jax.jit(self._flag)

    def start(self) -> tuple[Duals, ...]:
        """The first prices, one table a constraint."""
        pairs = zip(self.duals, self.rules.constraints, strict=True)
        return tuple(start_duals(dual, first_prices(dual, c)) for dual, c in pairs)

    def __call__(
        self, params: Params, extra: tuple[Duals, ...], batch: Batch, key_data: jax.Array, step: int
    ) -> tuple[dict[int, HelpedRows], tuple[Duals, ...]]:
        rows, length = batch.target_BxT.shape
        terms, words = self._draw(rows, step)
        noise = jax.random.uniform(step_key(key_data, step, 4), (4, rows, length))
        found: dict[int, HelpedRows] = {}
        some = self.plain.teacher_count(rows) or rows  # prompts that the other samples are drawn for
        plans = [(HELPED, self._as_at_test_time, noise[:2], rows)]
        if self.config.distil.student_share:
            plans.append((STUDENT, self._sampled, noise[2:], some))
        for source, write, (gate_noise, token_noise), count in plans:
            few, of = Batch(*(x[:count] for x in batch)), Terms(*(x[:count] for x in terms))
            given = (few.source_BxS, words[:count], gate_noise[:count], token_noise[:count])
            written = write(params, self.plain.teacher_params, parallel.shard(given, self.devices))
            tokens, asked = parallel.unshard(written, self.devices)
            found[source] = self._rows(with_targets(few, tokens), of, words[:count], asked)
        helped = found[HELPED]
        extra = self._measure(extra, helped.path.source_BxS, helped.path.tokens_BxT, helped.asked_BxT, helped.terms)
        if count := self.plain.teacher_count(rows):
            few = Batch(*(x[:count] for x in batch))
            tokens = self.plain.teacher_writes(few, key_data, step)
            of = Terms(*(x[:count] for x in terms))
            found[TEACHER] = self._marked(with_targets(few, tokens), of, words[:count], step)
        if self.config.distil.truth_share:
            found[TRUTH] = self._marked(batch, terms, words, step)
        return found, extra

    def demonstrate(self, batch: Batch, place: int) -> HelpedRows:
        """Ground truth under fresh rules."""
        terms, words = self._draw(len(batch.example_B), place)
        return self._marked(batch, terms, words, place)

    def refresh(self, sample: Sample, extra: tuple[Duals, ...], key: jax.Array) -> Sample:
        """Today's prices, and another rule for each row."""

        def quote(terms: Terms) -> jax.Array:
            pairs = enumerate(zip(self.duals, extra, strict=True))
            return jnp.stack([jnp.exp(price(d, e, terms.budget_BxC[:, i])) for i, (d, e) in pairs], axis=1)

        rows: HelpedRows = sample.rows
        chosen_B = jax.random.randint(key, (len(rows.asked_BxT),), 0, _BANK)
        terms = Terms(*(jnp.asarray(x)[chosen_B] for x in self.bank.terms))
        other = Quoted(jnp.asarray(self.bank.words_BxR)[chosen_B], terms, quote(terms))
        return sample._replace(rows=rows._replace(price_BxC=quote(rows.terms), other=other))

    def _draw(self, rows: int, place: int) -> tuple[Terms, np.ndarray]:
        chosen_B = np.random.default_rng([self.seed, place]).integers(0, _BANK, rows)
        return Terms(*(x[chosen_B] for x in self.bank.terms)), self.bank.words_BxR[chosen_B]

    def _rows(self, batch: Batch, terms: Terms, words: np.ndarray, asked: Any) -> HelpedRows:
        no_price = jnp.zeros(terms.budget_BxC.shape, jnp.float32)
        arrays, said = Terms(*(jnp.asarray(x) for x in terms)), jnp.asarray(words)
        other = Quoted(said, arrays, no_price)
        return HelpedRows(self.plain.scored(batch), said, jnp.asarray(asked), arrays, no_price, other)

    def _marked(self, batch: Batch, terms: Terms, words: np.ndarray, place: int) -> HelpedRows:
        """Paths off-policy: some tokens count as asked for, about as many as the rule allows."""
        noise_BxT = np.random.default_rng([self.seed, place, 1]).random(batch.target_BxT.shape, np.float32)
        flags = self._flags(batch.source_BxS, batch.target_BxT, Terms(*(jnp.asarray(x) for x in terms)), noise_BxT)
        return self._rows(batch, terms, words, flags)

    def _flag(self, source: jax.Array, tokens: jax.Array, terms: Terms, noise_BxT: jax.Array) -> jax.Array:
        nobody = jnp.zeros(tokens.shape, bool)
        end = History(*(leaf[-1] for leaf in histories(source, tokens, nobody)))
        rate_B = jnp.zeros(len(tokens))
        for i, constraint in enumerate(self.rules.constraints):
            allowed_B = constraint.limit(terms.budget_BxC[:, i], end) / jnp.maximum(end.length_B, 1)
            rate_B = jnp.where(terms.active_BxC[:, i], jnp.maximum(rate_B, allowed_B), rate_B)
        return (noise_BxT < jnp.minimum(rate_B, _MOST_FLAGS)[:, None]) & (tokens != 0)

    def _move_prices(
        self, extra: tuple[Duals, ...], source: jax.Array, tokens: jax.Array, asked: jax.Array, terms: Terms
    ) -> tuple[Duals, ...]:
        end = History(*(leaf[-1] for leaf in histories(source, tokens, asked)))
        moved = []
        for i, constraint in enumerate(self.rules.constraints):
            budget_B = terms.budget_BxC[:, i]
            over_B = total_cost(constraint, budget_B, source, tokens, asked) - constraint.limit(budget_B, end)
            # By the mean length and not by each output's: long outputs count as their tokens do.
            violation_B = over_B / jnp.maximum(jnp.mean(end.length_B), 1.0)
            moved.append(update_duals(self.duals[i], extra[i], budget_B, violation_B, terms.active_BxC[:, i]))
        return tuple(moved)


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
    stop_after: int | None = None,
) -> tuple[Params, tuple[Duals, ...]]:
    """Trains `student`, whose config has a gate, from `params`; returns parameters and prices (numpy).

    Raises UserError as `train_replayed` does.
    """
    collector = AskingCollector(student, teacher, config, rules, banned, devices, seed)
    count = len(rules.constraints)
    gate = dict.fromkeys(("saving", "price", "cost"), config.gate_weight)
    weights: dict[str, Coefficient] = {**coefficients(config.distil), **gate}

    def shares(rows: int) -> tuple[int, ...]:
        helped = min(max(round(rows * config.helped_share), 1), rows - 1) if rows > 1 else 0
        return (*minibatch_shares(config.distil, rows - helped), helped)

    def row(bucket: Bucket) -> HelpedRows:
        said, none = jnp.zeros((rules.room,), jnp.int32), jnp.zeros((count,), jnp.float32)
        terms = Terms(none, jnp.zeros((count,), bool))
        asked = jnp.zeros((bucket.target,), bool)
        return HelpedRows(empty_row(bucket, config.distil.top_k), said, asked, terms, none, Quoted(said, terms, none))

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
    return train_replayed(
        name, folder, method, params, data, buckets, seed=seed, devices=devices, stop_after=stop_after
    )
