"""How a student learns to ask, which rules it can be told, and what their prices start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints import TOKENS, Constraint, Unit, make_unit, without_budgets, words_room
from kdtw_jax.constraints.unit import check_unit
from kdtw_jax.data.rule_place import rule_encoder
from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.duals import DualConfig
from kdtw_jax.errors import UserError
from kdtw_jax.flags import flags
from kdtw_jax.methods.pcl_config import DistilConfig
from kdtw_jax.ranges import check_ranges

_KNOTS = (0.0, 0.03, 0.08, 0.17, 0.33, 0.5, 0.67, 0.83, 1.0)  # shares of a budget's range with a price of their own
SEEN = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # budgets of the kind that training draws, on which asking is judged
MOST_FLAGS = 0.6  # share of the tokens of a path off-policy that are marked as asked for, at the most


@dataclass(frozen=True)
class AskConfig:
    """How a student learns to ask.

    Raises:
      UserError: numbers out of their range, constraints named twice or not at all, or stored distributions too small
        to read savings from.
    """

    distil: DistilConfig = field(default_factory=DistilConfig, metadata=flags("value_warmup"))
    constraints: tuple[str, ...] = ("share",)
    """rules trained for, by name: share, calls, pause, in_a_row, first, after, compute, price (price=2.5: that price
    alone), or your own (--constraint)"""
    unit: str = "word"
    """what a call buys and rules count: word, token, or a number of tokens (of which "4" buys the next four)"""
    gate: Literal["threshold", "sample"] = "threshold"
    """who writes at test time: ask where asking is the more probable, or draw"""
    tokens: Literal["greedy", "sample"] = "greedy"
    """what is written at test time; prices are measured in this mode"""
    saving: Literal["regret", "kl"] = "regret"
    """what an answer is worth: the teacher's log-probability of its best token over that of the student's, which fits
    greedy tokens, or KL(student || teacher), which fits sampled ones"""
    gate_width: int = field(default=128, metadata=flags())
    """hidden units of the gate"""
    start: str = field(default="", metadata=flags())
    """the method of the same run whose finished student learns to ask; by default the start that all students share"""
    gate_alone: bool = field(default=False, metadata=flags())
    """the student writes as it does at the start, and only its gate learns"""
    gate_rate: float = field(default=1.0, metadata=flags())
    """learning rate of the gate, as a multiple of that of the student's matrices"""
    rule_in_source: bool = field(default=False, metadata=flags())
    """the student reads the rule and its source as one text, so that the words it writes may depend on the rule, too;
    otherwise only its gate reads the rule"""
    helped_share: float = field(default=0.25, metadata=flags())
    """of a minibatch: rows written as at test time; the shares in `distil` divide what is left"""
    helped_fraction: float = field(default=1.0, metadata=flags())
    """of each batch of prompts: those answered as at test time, in which the teacher has to write along"""
    gate_weight: float = field(default=0.01, metadata=flags())
    """of the gate's losses. They reach the gate alone, where Adam does not mind their size; small, they leave the
    clipping of gradients to the rest"""
    normalize_help: bool = field(default=True, metadata=flags())
    """reward of the extended teacher, a distribution over tokens and asking; without, the literal Lagrangian, whose
    optimum puts off the end of an output"""
    duals: DualConfig = field(default_factory=lambda: DualConfig(rate=1.0, low=-6.0, high=4.0), metadata=flags())
    """how prices move: on a logarithmic scale, in nats; their knots follow from each constraint's range"""
    gate_calibration_steps: int = 0
    """further steps, in which the student is left as it is: prices and gate come to rest, on sources of validation"""
    held_out: tuple[float, ...] = field(default=(0.15, 0.25, 0.35, 0.45), metadata=flags())
    """budgets never trained, for evaluation"""
    fixed_share: float = field(default=0.15, metadata=flags())
    """rows under a rule without a number: do not ask, or ask at will"""

    def __post_init__(self) -> None:
        if not self.constraints or len(set(without_budgets(self.constraints))) < len(self.constraints):
            raise UserError(f"ask.constraints must be distinct, at least one, got {self.constraints}")
        check_ranges(self, "ask.", gate_width="[1, inf)", helped_share="(0, 1)", gate_weight="(0, inf)")
        check_ranges(self, "ask.", gate_rate="(0, inf)", helped_fraction="(0, 1]")
        check_ranges(self, "ask.", gate_calibration_steps="[0, inf)", fixed_share="[0, 1)")
        check_held_out(self.held_out)
        check_unit(self.unit)
        if self.start == "ask":
            raise UserError("ask.start names the method whose student learns to ask, which cannot be ask itself")
        if self.gate_alone and self.rule_in_source:
            raise UserError("ask.gate_alone is for a student that reads no rule, so ask.rule_in_source must be off")
        if self.distil.top_k < 1 or self.distil.target_decay:
            raise UserError(
                "ask needs distil.top_k of at least 1 (savings are read from it) and no distil.target_decay"
            )
        if self.distil.likelihood_share:
            raise UserError("ask learns from distributions, not from tokens: distil.likelihood_share must be 0")


def check_held_out(budgets: Sequence[float]) -> None:
    """Refuses `budgets` to hold out.

    Raises:
      UserError: they are no shares of 0 to 1, or leave nothing to train or to judge on.
    """
    if len(set(budgets)) < len(budgets) or not all(0 <= b <= 1 for b in budgets):
        raise UserError(f"ask.held_out must be distinct shares of 0 to 1, got {budgets}")
    if all(any(abs(percent / 100 - b) <= 0.005 for b in budgets) for percent in range(round(100 * MOST_FLAGS) + 1)):
        raise UserError("ask.held_out leaves no percentage of the words to train on; hold out fewer budgets")
    if not {budget for budget in SEEN if budget} - set(budgets):
        raise UserError(f"ask.held_out must leave one of {SEEN[1:]}, on which asking is judged, got {budgets}")


class Rules(NamedTuple):
    """What can be asked of the student, and how it is said."""

    constraints: tuple[Constraint, ...]
    encode: Callable[[str], Sequence[int]]
    room: int  # tokens for the words of a rule
    unit: Unit = TOKENS  # what a call buys and rules count


def make_rules(
    constraints: tuple[Constraint, ...], tokenizer: Tokenizer, unit: str = "token", *, in_source: bool = False
) -> Rules:
    """Makes the rules of constraints, with room for the words of two together where there are several.

    Args:
      unit: as in `AskConfig`.
      in_source: whether the rule and the source are one text, as `rule_in_source` in `AskConfig` has it.
    """
    encode = rule_encoder(tokenizer, in_source=in_source)
    room = words_room(constraints, encode, together=min(len(constraints), 2))
    return Rules(constraints, encode, room, unit_of(unit, tokenizer))


def unit_of(unit: str, tokenizer: Tokenizer) -> Unit:
    """Makes what `AskConfig.unit` names, in a vocabulary."""
    return make_unit(unit, tokenizer.words if unit == "word" else None)


def dual_configs(config: AskConfig, constraints: Sequence[Constraint]) -> tuple[DualConfig, ...]:
    """Makes one per constraint, with knots over its range and at the budgets of its sentences without a number."""
    found = []
    for c in constraints:
        knots = {c.low + f * (c.high - c.low) for f in _KNOTS} | set(c.wording.fixed.values())
        found.append(replace(config.duals, knots=tuple(sorted(knots))))
    return tuple(found)


def first_prices(dual: DualConfig, constraint: Constraint) -> jax.Array:
    """Computes log(-log(share)), [K]: that share is asked for if savings are exponential with mean one nat.

    A price that is trained for alone is said by its rule, and this is of no consequence.
    """
    if constraint.low == constraint.high:
        return jnp.zeros(len(dual.knots))
    share_K = (jnp.asarray(dual.knots) - constraint.low) / (constraint.high - constraint.low) * MOST_FLAGS
    return jnp.log(-jnp.log(jnp.clip(share_K, 1e-30, 1 - 1e-4)))
