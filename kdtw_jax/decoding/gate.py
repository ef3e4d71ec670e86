"""What a gate is, and the student's own: how much an answer of the teacher would save, against its price."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.history import History
from kdtw_jax.decoding.view import gate_features
from kdtw_jax.models import Encoded, GateOutput, Model, Params


class DecodeState(NamedTuple):
    """What a gate may look at before a token is written."""

    log_policy_BxV: jax.Array  # of the student's own token, help left out
    hidden_BxD: jax.Array  # the decoder state
    tokens_BxT: jax.Array  # int32, written so far, 0 beyond
    history: History
    # The teacher's next token, if it reads along: for oracles only
    teacher_log_policy_BxV: jax.Array | None = None


class Gate(NamedTuple):
    """Who decides: scores each state, in [0, 1] if the decision is to be sampled. May keep a memory of its own."""

    score: Callable[[Any, DecodeState], tuple[jax.Array, Any]]  # (memory, state) -> float32 [B], memory
    start: Any = ()


def stateless(score: Callable[[DecodeState], jax.Array]) -> Gate:
    """A gate that is a function of the state alone."""
    return Gate(lambda memory, state: (score(state), memory))


def own_gate(model: Model, params: Params, encoded: Encoded, alpha: float = 1.0) -> Gate:
    """The student's own: how probable asking is under its policy.

    Args:
      encoded: the source that holds the rule.
      alpha: the temperature, nats.
    """
    return gate_that_read(model, params, model.read_rule(params, encoded), alpha)


def gate_that_read(model: Model, params: Params, rule_BxP: jax.Array, alpha: float = 1.0) -> Gate:
    """The student's own, which has read its rule before.

    Args:
      model: the student.
      params: the student's.
      rule_BxP: what `Model.read_rule` made of it.
      alpha: the temperature, nats.
    """
    return stateless(lambda state: jax.nn.sigmoid(_odds(model, params, rule_BxP, state).logit(alpha)[:, 0]))


def priced_gate(
    model: Model, params: Params, rule_BxP: jax.Array, price: Callable[[History], jax.Array], alpha: float = 1.0
) -> Gate:
    """The student's own at a price that is given and not read from a rule.

    Args:
      model: the student.
      params: the student's.
      rule_BxP: what `Model.read_rule` made of any source; the rule in it is of no consequence.
      price: nats [B], for what has happened so far.
      alpha: the temperature, nats.
    """

    def score(state: DecodeState) -> jax.Array:
        saving_B = _odds(model, params, rule_BxP, state).saving_BxT[:, 0]
        return jax.nn.sigmoid((saving_B - price(state.history)) / alpha)

    return stateless(score)


def forecast(model: Model, params: Params, encoded: Encoded) -> Gate:
    """What the student expects an answer to save, nats; below 0 it counts as nothing.

    Args:
      encoded: any source; the rule in it is of no consequence.
    """
    rule_BxP = model.read_rule(params, encoded)
    return stateless(lambda state: jnp.maximum(_odds(model, params, rule_BxP, state).saving_BxT[:, 0], 0.0))


def _odds(model: Model, params: Params, rule_BxP: jax.Array, state: DecodeState) -> GateOutput:
    history = History(*(leaf[:, None] for leaf in state.history))
    view = gate_features(state.log_policy_BxV[:, None], state.hidden_BxD[:, None], state.tokens_BxT[:, None], history)
    return model.apply_gate(params, rule_BxP, view)
