"""The part of a student that decides whether to ask: what an answer would save, and what the rule makes it cost.

The help token is one more action of the policy. Its probability is sigma((saving - price) / alpha), the optimum for
what an answer saves and what it costs (`kdtw_jax.losses.help`); in other words its logit is (saving - price) / alpha
above the logsumexp of the student's own tokens. What an answer saves is a matter of the state, what it costs one of the
rule, so budgets never trained need no new knowledge of states.

All of it reads the student without shaping it: no gradient leaves this module. Whoever trains the gate, the student
writes as before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

_POINTERS = 8  # places of the source that the reader of the rule looks at


class Memory(NamedTuple):
    """What the gate reads of encoded sources."""

    states_BxSxD: jax.Array  # compute dtype
    mask_BxS: jax.Array  # bool, True on tokens


class Facts(NamedTuple):
    """Numbers about a state, each BxT and of about unit size: `kdtw_jax.decoding.view.gate_features` makes them."""

    entropy: jax.Array  # of the student's policy
    surprise: jax.Array  # of its most probable token
    lead: jax.Array  # of that token over the next
    repeats: jax.Array  # of that token so far
    written: jax.Array  # tokens so far
    source: jax.Array  # tokens of the source
    left: jax.Array  # by how many of them the source is longer
    alone: jax.Array  # tokens since the last call
    in_a_row: jax.Array  # calls just now
    calls: jax.Array  # so far
    share: jax.Array  # of the tokens that were asked for


class GateInputs(NamedTuple):
    """What the gate sees of a state, before the next token is written."""

    hidden_BxTxD: jax.Array  # the decoder state
    choices_BxTx2: jax.Array  # int32, the student's two most probable tokens
    facts_BxTxF: jax.Array  # float32, `Facts` in their order


class GateOutput(NamedTuple):
    """The decision and its parts, each BxT float32."""

    saving_BxT: jax.Array  # nats that an answer is expected to save
    log_price_BxT: jax.Array  # log of what it costs under the rule, in nats
    cost_BxT: jax.Array  # V_C: what asking is expected to cost from here to the end, in units of the constraint

    def logit(self, alpha: float = 1.0) -> jax.Array:
        """Log-odds of asking, BxT."""
        return (self.saving_BxT - jnp.exp(self.log_price_BxT)) / alpha


class GateNetwork(nn.Module):
    """The network of the gate: a reader of the rule, and a small network each for saving, price and cost to go.

    Each of the three has one hidden layer of `width` units; `d_model` is the depth of the student's states.
    """

    d_model: int
    width: int

    def setup(self) -> None:
        self.near = nn.Dense(self.d_model)
        self.pointer = self.param("pointer", nn.initializers.normal(0.1), (_POINTERS, self.d_model), jnp.float32)
        # What is the same at all states of a row is multiplied once.
        self.saving_state, self.price_state, self.cost_state = (nn.Dense(self.width) for _ in range(3))
        self.price_rule, self.cost_rule = (nn.Dense(self.width, use_bias=False) for _ in range(2))
        small = nn.initializers.normal(0.05)
        self.saving_out, self.price_out, self.cost_out = (nn.Dense(1, kernel_init=small) for _ in range(3))

    def read(self, memory: Memory) -> jax.Array:
        """The encoded source as one vector per row, [B, P].

        Neighbouring states are put together (the digits of a number) and looked at by pointers.
        """
        x = jax.lax.stop_gradient(memory.states_BxSxD).astype(jnp.float32)
        before, after = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1], jnp.pad(x, ((0, 0), (0, 1), (0, 0)))[:, 1:]
        x = nn.gelu(self.near(jnp.concatenate([before, x, after], axis=-1)))
        score_BxPxS = jnp.einsum("bsd,pd->bps", x, self.pointer)
        weight_BxPxS = nn.softmax(jnp.where(memory.mask_BxS[:, None, :], score_BxPxS, -1e9), axis=-1)
        return jnp.einsum("bps,bsd->bpd", weight_BxPxS, x).reshape(x.shape[0], -1)

    def apply_gate(self, rule_BxP: jax.Array, view: GateInputs, table_VxD: jax.Array) -> GateOutput:
        """`rule_BxP` from `read`; `table_VxD`: the embedding of tokens."""
        hidden, table = jax.lax.stop_gradient((view.hidden_BxTxD, table_VxD))
        facts = jax.lax.stop_gradient(view.facts_BxTxF)
        choices = table[view.choices_BxTx2].astype(jnp.float32)
        choices = choices * jax.lax.rsqrt(jnp.mean(jnp.square(choices), axis=-1, keepdims=True) + 1e-6)
        rows, length = facts.shape[:2]
        state = jnp.concatenate([hidden.astype(jnp.float32), choices.reshape(rows, length, -1), facts], axis=-1)
        saving = self.saving_out(nn.gelu(self.saving_state(state)))
        log_price = self.price_out(nn.gelu(self.price_state(facts) + self.price_rule(rule_BxP)[:, None, :]))
        cost = self.cost_out(nn.gelu(self.cost_state(state) + self.cost_rule(rule_BxP)[:, None, :]))
        return GateOutput(saving[..., 0], log_price[..., 0], cost[..., 0])


class _Beside(nn.Module):
    """A gate below its name, by which Flax draws: the values are those that it has as a part of a network."""

    d_model: int
    width: int

    def setup(self) -> None:
        self.gate = GateNetwork(self.d_model, self.width)

    def __call__(self) -> GateOutput:
        """Everything once, which is what initialisation needs."""
        state_1x1xD = jnp.zeros((1, 1, self.d_model))
        view = GateInputs(state_1x1xD, jnp.zeros((1, 1, 2), jnp.int32), jnp.zeros((1, 1, len(Facts._fields))))
        rule_1xP = self.gate.read(Memory(state_1x1xD, jnp.ones((1, 1), bool)))
        return self.gate.apply_gate(rule_1xP, view, state_1x1xD[0])


def init_gate(d_model: int, width: int, key: jax.Array) -> dict[str, Any]:
    """Fresh parameters of a gate."""
    params: dict[str, Any] = _Beside(d_model, width).init(key)["params"]["gate"]
    return params
