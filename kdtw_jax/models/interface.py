"""Models as pure functions of parameters and arrays: what the package sees of them, and what a family supplies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeAlias

import jax

from kdtw_jax.errors import UserError
from kdtw_jax.models.gate import GateInputs, GateOutput, Memory
from kdtw_jax.models.roles import RoleOf

Params: TypeAlias = Any  # a dict of trees of float32 arrays
# Their family's own. The leaves of an encoded batch of sources begin with its rows; padding (token 0) changes nothing.
Encoded: TypeAlias = Any
Cache: TypeAlias = Any  # rows are the first axis of all its arrays

NUMBER_BYTES = {"float32": 4, "bfloat16": 2}  # bytes of a number, by the dtype of the arithmetic


class ModelConfig(Protocol):
    """What is read of a config of any family: a frozen dataclass with these fields among its own.

    What it means that they are set: `T5Config`. `d_model` is the depth of the states of encoder and decoder.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def vocab_size(self) -> int: ...
    @property
    def d_model(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def dropout_rate(self) -> float: ...
    @property
    def value_heads(self) -> bool: ...
    @property
    def gate_width(self) -> int: ...
    @property
    def rule_in_source(self) -> bool: ...
    @property
    def rule_after(self) -> tuple[int, ...]: ...
    def to_dict(self) -> dict[str, Any]: ...
    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self: ...


class Fields:
    """For dataclasses: fields as a dict, and back."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def rule_after(self) -> tuple[int, ...]:
        """Tokens that sources begin with and that a rule in a source stands behind; of most families there are none."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
          UserError: unknown or missing keys.
        """
        known = dataclasses.fields(cls)
        unknown = sorted(set(fields) - {field.name for field in known})
        if unknown:
            raise UserError(f"model config: unknown key {unknown[0]!r}; known are {', '.join(f.name for f in known)}")
        missing = [f.name for f in known if f.default is dataclasses.MISSING and f.name not in fields]
        if missing:
            raise UserError(f"model config: key {missing[0]!r} is missing")
        return cls(**fields)


class Decoded(NamedTuple):
    """What the decoder says after each input token."""

    logits_BxTxV: jax.Array  # float32, of the next token
    value_BxT: jax.Array  # float32, soft value V of the prefix
    hidden_BxTxD: jax.Array  # compute dtype, the final-normed state the two are linear in


class Network(NamedTuple):
    """A model without value head and gate, as its family supplies it.

    Functions of the same name are those of `Model`, but that `decode` and `extend` give states in place of what is
    decoded from them.
    """

    init: Callable[[jax.Array], dict[str, Any]]  # "value" and "gate" are the names of others' parameters
    encode: Callable[..., Encoded]
    decode: Callable[..., jax.Array]  # states of depth d_model, in the compute dtype
    start: Callable[[Params, Encoded, int], Cache]
    extend: Callable[..., tuple[jax.Array, Cache]]
    reorder: Callable[[Cache, jax.Array], Cache]
    unembed: Callable[[Params, jax.Array], jax.Array]
    output_layer: Callable[[Params], Params]
    memory: Callable[[Encoded], Memory]  # what a gate reads of sources
    embedding: Callable[[Params], jax.Array]  # [V, D]
    # Of parameters by their name at the top of the tree: the axis of the vocabulary in all their leaves, 0 or -1; None:
    # they have none.
    vocabulary_axis: Callable[[str], int | None]
    # Of a parameter by the names that lead to it: rates of learning (`training.state.Rates`) and the axis along which
    # a teacher is split between devices (`split_axis`) go by it.
    role: RoleOf


class Model(NamedTuple):
    """A model as functions. None of them is jitted; all may be, with the model closed over.

    Dropout is on exactly where a `dropout_key` is given. `extend` feeds N tokens per row, the first standing at
    `position` (int32, [B], or [] where all rows agree, which is faster), overwrites what the cache held from there on
    and answers for each of the N; a token sees what stands up to its own place. N = 1 is a decoding step, N > 1 a
    prefill. A row may go back: what was fed at later positions than the next is never seen again. Feeding beyond the
    cache's `max_len` is the caller's error.
    """

    config: ModelConfig
    init: Callable[[jax.Array], Params]
    encode: Callable[..., Encoded]  # (params, source_BxS, dropout_key=None)
    decode: Callable[..., Decoded]  # (params, encoded, inputs_BxT, dropout_key=None), inputs shifted right
    start: Callable[[Params, Encoded, int], Cache]  # (params, encoded, max_len): room for max_len inputs
    extend: Callable[..., tuple[Decoded, Cache]]  # (params, cache, tokens_BxN, position [] or [B])
    # (cache, index_B): row b continues row index_B[b], which must decode the same source as row b does
    reorder: Callable[[Cache, jax.Array], Cache]
    read_rule: Callable[[Params, Encoded], jax.Array]  # what the gate makes of a source that holds a rule, [B, P]
    # (params, what was read, what is seen): whether to ask
    apply_gate: Callable[[Params, jax.Array, GateInputs], GateOutput]
    # (params, hidden_BxTxD): logits of `decode`'s states, or of a part of them. Reads `output_layer(params)` alone; of
    # that, cut to some of the vocabulary (`vocabulary.output_slices`), it makes the logits of these.
    unembed: Callable[[Params, jax.Array], jax.Array]
    output_layer: Callable[[Params], Params]  # the part of the parameters that `unembed` reads
    vocabulary_axis: Callable[[str], int | None]  # as `Network` says
    role: RoleOf  # as `Network` says; value head and gate have theirs


class Costs(NamedTuple):
    """What the arithmetic of a model takes.

    FLOPs are two per parameter and position (arXiv 2001.08361, section 2.1) and those of products of positions; bytes
    are estimates, logits left out. S, T: lengths of a row's source and target.
    """

    source_parameters: float  # that work at a position of the source
    target_parameters: float  # that work at a position of the target, the head included
    pair_flops: Callable[[int, int], float]  # (S, T): of products of positions in a forward pass
    activation_bytes: Callable[[int, int], float]  # (S, T): kept for the gradient
    cache_bytes: Callable[[int, int], float]  # (S, T): of incremental decoding


class Size(NamedTuple):
    """How large a model is, whatever its family."""

    d_model: int
    heads: int
    layers: int  # of the encoder, and as many of the decoder
    dropout_rate: float = 0.0
    dtype: str = "float32"  # of the arithmetic


class Family(NamedTuple):
    """A kind of model: what its configs are, and what a config's network and costs are."""

    name: str  # in the `config.json` of saved models
    config: type[Any]  # a `ModelConfig`
    network: Callable[[Any], Network]
    costs: Callable[[Any], Costs]
    sized: Callable[[Size], Any]  # a config of about that size, of any vocabulary; what the family has not is left out
    flags: tuple[str, ...] = ("d_model", "dtype", "dropout_rate")  # fields of its configs that are options of a run
    # (config, layers): a config with so many of its layers, and how its network's parameters become those of it; raises
    # UserError. None: the family's models have no layers to leave out.
    shallower: Callable[[Any, int], tuple[Any, Callable[[Params], Params]]] | None = None
