"""The teacher of `kdtw_jax.data.ways` as a program: a model without weights whose distributions are exact.

At its first token it goes either way, by default half and half, and from there writes what is right at each place of
the way that the first token names, whatever has been written since. Every token has a little probability everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.models.gate import Memory
from kdtw_jax.models.interface import Costs, Family, Fields, Network, Params

_EOS, _BYTE = 1, 3  # ids of the vocabulary of bytes: a character's is its code and _BYTE
_ZERO, _LONG, _SHORT, _EQUALS = (ord(character) + _BYTE for character in "0AB=")


@dataclass(frozen=True)
class TwoWaysConfig(Fields):
    """A program over the vocabulary of bytes.

    It goes the `short` way with that probability, and has `slip` of its probability spread over all tokens. Its states
    are its log-probabilities, so that `d_model` is `vocab_size`. The other fields are those that every config has.
    """

    vocab_size: int = 384
    short: float = 0.5
    slip: float = 1e-3
    dtype: str = "float32"
    dropout_rate: float = 0.0
    value_heads: bool = False
    gate_width: int = 0
    rule_in_source: bool = False

    @property
    def d_model(self) -> int:
        return self.vocab_size


class Solved(NamedTuple):
    """Sources with what is to be written: the targets of both ways, each as long as the longer way of any row."""

    long_BxU: jax.Array  # int32, 0 after the end
    short_BxU: jax.Array
    source_BxS: jax.Array


class _Progress(NamedTuple):
    solved: Solved
    way_B: jax.Array  # int32, the first token that was written; 0 before


def two_ways(config: TwoWaysConfig) -> Network:
    """The program as the functions of a `Network`; its only parameters are the identity that makes states logits."""

    def encode(params: Params, source_BxS: jax.Array, dropout_key: jax.Array | None = None) -> Solved:
        return _solve(source_BxS)

    def start(params: Params, encoded: Solved, max_len: int) -> _Progress:
        return _Progress(encoded, jnp.zeros(len(encoded.source_BxS), jnp.int32))

    def extend(
        params: Params, progress: _Progress, tokens_BxN: jax.Array, position: jax.Array
    ) -> tuple[jax.Array, _Progress]:
        rows, count = tokens_BxN.shape
        at_BxN = jnp.broadcast_to(position, (rows,))[:, None] + jnp.arange(count)[None, :]
        named_B = jnp.sum(jnp.where(at_BxN == 1, tokens_BxN, 0), axis=1)
        way_B = jnp.where(jnp.any(at_BxN == 1, axis=1), named_B, progress.way_B)
        return _log_mu(config, progress.solved, way_B, at_BxN), progress._replace(way_B=way_B)

    def decode(
        params: Params, encoded: Solved, inputs_BxT: jax.Array, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        return extend(params, start(params, encoded, inputs_BxT.shape[1]), inputs_BxT, jnp.zeros((), jnp.int32))[0]

    def memory(encoded: Solved) -> Memory:
        return Memory(jax.nn.one_hot(encoded.source_BxS, config.vocab_size), encoded.source_BxS != 0)

    return Network(
        init=lambda key: {"identity": jnp.eye(config.vocab_size)},
        encode=encode,
        decode=decode,
        start=start,
        extend=extend,
        reorder=lambda progress, index_B: progress._replace(way_B=progress.way_B[index_B]),  # of the same source
        unembed=lambda params, hidden_BxTxD: hidden_BxTxD @ params["identity"],
        output_layer=lambda params: {"identity": params["identity"]},
        memory=memory,
        embedding=lambda params: params["identity"],
        vocabulary_axis={"identity": -1}.get,
        role=lambda path: "matrix",
    )


def _solve(source_BxS: jax.Array) -> Solved:
    """Reads places and digits by turns, up to the end of sequence."""
    rows, length = source_BxS.shape
    there_BxS = source_BxS > _EOS
    count_B = jnp.sum(there_BxS, axis=1)  # twice the digits
    digit_is_here_1xS = jnp.arange(length)[None, :] % 2 == 1
    digit_BxS = jnp.where(there_BxS & (digit_is_here_1xS), source_BxS - _ZERO, 0)
    sums_BxS = jnp.cumsum(digit_BxS, axis=1) % 10
    written_BxS = jnp.where(there_BxS, jnp.where(digit_is_here_1xS, _ZERO + sums_BxS, source_BxS), 0)
    last_B = _ZERO + sums_BxS[:, -1]
    row_B = jnp.arange(rows)

    def put(target_BxU: jax.Array, first_B: jax.Array) -> jax.Array:
        for offset, token_B in enumerate((jnp.full(rows, _EQUALS), last_B, jnp.full(rows, _EOS))):
            target_BxU = target_BxU.at[row_B, first_B + offset].set(token_B)
        return target_BxU.astype(jnp.int32)

    long_BxU = jnp.pad(written_BxS, ((0, 0), (1, 3))).at[:, 0].set(_LONG)
    short_BxU = jnp.zeros_like(long_BxU).at[:, 0].set(_SHORT)
    return Solved(put(long_BxU, 1 + count_B), put(short_BxU, jnp.ones(rows, jnp.int32)), source_BxS)


def _log_mu(config: TwoWaysConfig, solved: Solved, way_B: jax.Array, at_BxN: jax.Array) -> jax.Array:
    """log mu of the token at each place; after the end of a way, of the padding there."""
    target_BxU = jnp.where((way_B == _LONG)[:, None], solved.long_BxU, solved.short_BxU)
    inside_BxN = jnp.minimum(at_BxN, target_BxU.shape[1] - 1)
    token_BxN = jnp.where(at_BxN < target_BxU.shape[1], jnp.take_along_axis(target_BxU, inside_BxN, axis=1), 0)
    either_V = jnp.zeros(config.vocab_size).at[_LONG].set(1 - config.short).at[_SHORT].set(config.short)
    right_BxNxV = jnp.where(
        (at_BxN == 0)[..., None], either_V[None, None], jax.nn.one_hot(token_BxN, config.vocab_size)
    )
    return jnp.log((1 - config.slip) * right_BxNxV + config.slip / config.vocab_size)


def _costs(config: TwoWaysConfig) -> Costs:
    width = float(config.vocab_size)
    return Costs(0.0, width**2, lambda s, t: 0.0, lambda s, t: 4 * width * t, lambda s, t: 8.0 * (s + t))


TWO_WAYS = Family("two_ways", TwoWaysConfig, two_ways, _costs, lambda size: TwoWaysConfig(), ("slip",))
