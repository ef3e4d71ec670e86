"""The families of models that are known, and the model of a config of any of them: its network, value head and gate.

A family of your own is an entry more: `register_family(Family(...))`, before a model of it is made or read; or
installed with a package of yours that names it under the entry points of `kdtw_jax.families`, which the command line
reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kdtw_jax.errors import UserError
from kdtw_jax.models.causal import CAUSAL
from kdtw_jax.models.gate import GateInputs, GateNetwork, GateOutput, init_gate
from kdtw_jax.models.heads import ValueHead
from kdtw_jax.models.interface import Cache, Costs, Decoded, Encoded, Family, Model, ModelConfig, Params
from kdtw_jax.models.roles import ADAPTERS, HEADS
from kdtw_jax.models.t5 import T5
from kdtw_jax.models.two_ways import TWO_WAYS
from kdtw_jax.registry import Registry

FAMILIES = Registry(
    {T5.name: T5, CAUSAL.name: CAUSAL},
    kind="family of models",
    group="kdtw_jax.families",
    how="kdtw_jax.models.register_family(Family(...))",
    expected=Family,
    register=lambda name, family: register_family(family),
)


_PROGRAMS = (TWO_WAYS,)  # nobody trains them, so that a run cannot name them: `pretrained.named` does


def register_family(family: Family) -> Family:
    """Adds a family.

    Raises:
      UserError: another one has its name or its configs.
    """
    FAMILIES.add(family.name, family)
    others = [other.name for other in FAMILIES.values() if other.config is family.config and other is not family]
    if others:
        del FAMILIES[family.name]
        raise UserError(f"{family.config.__name__} is the config of the family {others[0]}; give yours one of its own")
    return family


def find_family(name: object) -> Family:
    """The family of a name.

    Raises:
      UserError: no family has it.
    """
    return FAMILIES.find(name)


def family_of(config: ModelConfig) -> Family:
    """The family of a config.

    Raises:
      UserError: it is the config of none.
    """
    for family in (*FAMILIES.values(), *_PROGRAMS):
        if type(config) is family.config:
            return family
    raise UserError(f"{type(config).__name__} is the config of no family of models; {FAMILIES.how} adds one")


def cut_teacher(config: ModelConfig, layers: int) -> tuple[ModelConfig, Callable[[Params], Params]]:
    """A config with so many of its layers, and what makes its parameters of those of `config`.

    Raises:
      UserError: there are not as many, or the family's models have no layers.
    """
    family = family_of(config)
    if family.shallower is None:
        raise UserError(f"models of the family {family.name} have no layers that a student could be made of")
    found: tuple[ModelConfig, Callable[[Params], Params]] = family.shallower(config, layers)
    return found


def costs(config: ModelConfig) -> Costs:
    """What its network's arithmetic takes."""
    return family_of(config).costs(config)


def make_model(config: ModelConfig) -> Model:
    """The functions of one model, of whichever family.

    Raises:
      UserError: as `family_of` does.
    """
    network = family_of(config).network(config)
    gate = GateNetwork(config.d_model, config.gate_width)

    def init(key: jax.Array) -> Params:
        return {**network.init(key), **init_heads(config, key)}

    def answer(params: Params, hidden_BxTxD: jax.Array) -> Decoded:
        value_BxT = jnp.zeros(hidden_BxTxD.shape[:2], jnp.float32)
        if config.value_heads:
            value_BxT = jnp.asarray(ValueHead().apply({"params": params["value"]}, hidden_BxTxD))
        return Decoded(network.unembed(params, hidden_BxTxD), value_BxT, hidden_BxTxD)

    def decode(
        params: Params, encoded: Encoded, inputs_BxT: jax.Array, dropout_key: jax.Array | None = None
    ) -> Decoded:
        return answer(params, network.decode(params, encoded, inputs_BxT, dropout_key))

    def extend(params: Params, cache: Cache, tokens_BxN: jax.Array, position: jax.Array) -> tuple[Decoded, Cache]:
        hidden_BxNxD, cache = network.extend(params, cache, tokens_BxN, position)
        return answer(params, hidden_BxNxD), cache

    def read_rule(params: Params, encoded: Encoded) -> jax.Array:
        return jnp.asarray(gate.apply({"params": params["gate"]}, network.memory(encoded), method=GateNetwork.read))

    def apply_gate(params: Params, rule_BxP: jax.Array, view: GateInputs) -> GateOutput:
        table_VxD = network.embedding(params)
        odds: Any = gate.apply({"params": params["gate"]}, rule_BxP, view, table_VxD, method=GateNetwork.apply_gate)
        return GateOutput(*odds)

    return Model(
        config=config,
        init=init,
        encode=network.encode,
        decode=decode,
        start=network.start,
        extend=extend,
        reorder=network.reorder,
        read_rule=read_rule,
        apply_gate=apply_gate,
        unembed=network.unembed,
        output_layer=network.output_layer,
        vocabulary_axis=network.vocabulary_axis,
        role=lambda path: ADAPTERS.get(path[-1]) or HEADS.get(path[0]) or network.role(path),
    )


def init_heads(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """Fresh parameters of value head and gate, drawn with `key`, where the config has them; not of the network."""
    found: dict[str, Any] = {}
    if config.value_heads:
        found["value"] = ValueHead().init(key, jnp.zeros((1, 1, config.d_model)))["params"]
    if config.gate_width:
        found["gate"] = init_gate(config.d_model, config.gate_width, key)
    return found


def parameter_shapes(config: ModelConfig) -> Params:
    """Parameters as shapes; nothing is allocated."""
    return jax.eval_shape(make_model(config).init, jax.random.key(0))


def count_params(params: Params) -> int:
    """How many numbers parameters, or their shapes, are."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def shift_right(tokens_BxT: jax.Array) -> jax.Array:
    """Decoder inputs for the targets `tokens_BxT`: the start token (pad, 0) in front, the last target dropped."""
    return jnp.pad(tokens_BxT[:, :-1], ((0, 0), (1, 0)))
