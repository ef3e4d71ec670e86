"""T5 in Flax Linen: v1.0 and v1.1, the arithmetic of the published checkpoints.

Raffel et al., arXiv 1910.10683 (v1.0); Shazeer, arXiv 2002.05202 (the gated feed-forward of v1.1). What
sets T5 apart: pre-normalised residual blocks, RMS norms without mean or bias, no bias in any projection, no
division of the attention scores by sqrt(d_kv) (the initialiser of q carries it), one relative-position
table a stack, none in cross-attention, and, where the head is tied to the embedding, decoder states scaled
by d_model**-0.5.

Parameters are named so that loading a published checkpoint is a renaming:
`encoder.block.0.layer.0.SelfAttention.q.weight` is `encoder/block_0/self_attention/q/kernel` transposed,
and the table of a stack, which the checkpoints keep in its first layer, is
`encoder/relative_attention_bias/embedding`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdtw_jax.models.layers import KeysValues, Linear, dropout, mask_bias, seed_of, traced_once, write_at
from kdtw_jax.models.t5.config import T5Config
from kdtw_jax.models.t5.layers import Attention, FeedForward, RelativeBias, RMSNorm, Sight


class Block(nn.Module):
    """One layer of a stack: self-attention, in the decoder cross-attention, feed-forward."""

    config: T5Config
    decoder: bool

    def setup(self) -> None:
        config = self.config
        self.self_attention_norm, self.self_attention = RMSNorm(config), Attention(config, self.decoder)
        if self.decoder:
            self.cross_attention_norm, self.cross_attention = RMSNorm(config), Attention(config)
        self.feed_forward_norm, self.feed_forward = RMSNorm(config), FeedForward(config)

    def _drop(self, x: jax.Array, seed_2: jax.Array | None, place: str) -> jax.Array:
        return dropout(x, self.config.dropout_rate, seed_2, place)

    def __call__(
        self,
        x_BxTxD: jax.Array,
        own: Sight,
        past: KeysValues | None,
        position: jax.Array,
        cross: KeysValues | None,
        of_source: Sight | None,
        seed_2: jax.Array | None,
    ) -> tuple[jax.Array, KeysValues]:
        """The block's output and the keys and values its self-attention saw, `past` included."""
        normed = self.self_attention_norm(x_BxTxD)
        keys_values = self.self_attention.keys_values(normed)
        if past is not None:
            keys_values = (
                write_at(past[0], keys_values[0], position),
                write_at(past[1], keys_values[1], position),
            )
        attended = self.self_attention(normed, keys_values, own, seed_of(seed_2, "to itself"), past is not None)
        x_BxTxD = x_BxTxD + self._drop(attended, seed_2, "self")
        if cross is not None and of_source is not None:
            normed = self.cross_attention_norm(x_BxTxD)
            attended = self.cross_attention(normed, cross, of_source, seed_of(seed_2, "to source"), past is not None)
            x_BxTxD = x_BxTxD + self._drop(attended, seed_2, "cross")
        fed = self.feed_forward(self.feed_forward_norm(x_BxTxD), seed_2)
        return x_BxTxD + self._drop(fed, seed_2, "feed_forward"), keys_values


_BLOCKS = traced_once(Block)


class Stack(nn.Module):
    """The blocks of an encoder or a decoder, with their shared relative-position table and final norm."""

    config: T5Config
    decoder: bool

    def setup(self) -> None:
        config = self.config
        layers = config.num_decoder_layers if self.decoder else config.num_layers
        block = Block if self.is_initializing() else _BLOCKS[config.remat]
        self.block = [block(config, self.decoder) for _ in range(layers)]
        self.relative_attention_bias = RelativeBias(config, bidirectional=not self.decoder)
        self.final_norm = RMSNorm(config)

    def cross_keys_values(self, states_BxSxD: jax.Array) -> tuple[KeysValues, ...]:
        return tuple(block.cross_attention.keys_values(states_BxSxD) for block in self.block)

    def __call__(
        self,
        x_BxTxD: jax.Array,
        mask_BxS: jax.Array | None,
        cross: tuple[KeysValues, ...] | None,
        past: tuple[KeysValues, ...] | None,
        position: jax.Array,
        seed_2: jax.Array | None,
    ) -> tuple[jax.Array, tuple[KeysValues, ...]]:
        """Final-normed states, and each layer's self-attention keys and values.

        The encoder attends where `mask_BxS`; the decoder attends to itself causally, and across where
        `mask_BxS`. `position` ([] or [B]) is where the first of the T inputs stands; only with `past` may
        it differ from 0.
        """
        keys = past[0][0].shape[2] if past is not None else x_BxTxD.shape[1]
        seed_2 = seed_of(seed_2, "decoder" if self.decoder else "encoder")
        key_S = jnp.arange(keys, dtype=jnp.int32)
        query_BxT = jnp.atleast_1d(position)[:, None] + jnp.arange(x_BxTxD.shape[1], dtype=jnp.int32)[None, :]
        relative_BxHxTxS = bias_BxHxTxS = self.relative_attention_bias(query_BxT, key_S)
        of_source = lengths_B = None
        if mask_BxS is not None:
            lengths_B = jnp.sum(mask_BxS, axis=1, dtype=jnp.int32)  # sources are padded at their ends
            of_source = Sight(mask_bias(mask_BxS)[:, None, None, :], lengths_B=lengths_B)
        if self.decoder:
            causal_BxTxS = key_S[None, None, :] <= query_BxT[:, :, None]
            bias_BxHxTxS = bias_BxHxTxS + mask_bias(causal_BxTxS)[:, None]
        elif of_source is not None:
            bias_BxHxTxS = bias_BxHxTxS + of_source.bias_BxHxTxS
        own = Sight(bias_BxHxTxS, relative_BxHxTxS, None if self.decoder else lengths_B)

        x_BxTxD = dropout(x_BxTxD, self.config.dropout_rate, seed_2, "embedded")
        seen: tuple[KeysValues, ...] = ()
        for layer, block in enumerate(self.block):
            x_BxTxD, keys_values = block(
                x_BxTxD,
                own,
                None if past is None else past[layer],
                position,
                None if cross is None else cross[layer],
                of_source,
                seed_of(seed_2, f"layer {layer}"),
            )
            seen += (keys_values,)
        return dropout(self.final_norm(x_BxTxD), self.config.dropout_rate, seed_2, "final"), seen


class EncoderDecoder(nn.Module):
    """Encoder, decoder and, where the embedding is not that too, the language-model head."""

    config: T5Config

    def setup(self) -> None:
        config = self.config
        self.shared = nn.Embed(
            config.vocab_size,
            config.d_model,
            param_dtype=jnp.float32,
            dtype=config.dtype,
            embedding_init=nn.initializers.normal(1.0),
        )
        self.encoder = Stack(config, decoder=False)
        self.decoder = Stack(config, decoder=True)
        if not config.tie_embeddings:
            self.lm_head = head(config, config.vocab_size)

    def encode(self, source_BxS: jax.Array, mask_BxS: jax.Array, seed_2: jax.Array | None) -> jax.Array:
        start = jnp.zeros((), jnp.int32)
        states_BxSxD, _ = self.encoder(self.shared(source_BxS), mask_BxS, None, None, start, seed_2)
        return states_BxSxD

    def cross_keys_values(self, states_BxSxD: jax.Array) -> tuple[KeysValues, ...]:
        return self.decoder.cross_keys_values(states_BxSxD)

    def decode(
        self,
        inputs_BxT: jax.Array,
        mask_BxS: jax.Array,
        cross: tuple[KeysValues, ...],
        past: tuple[KeysValues, ...] | None,
        position: jax.Array,
        seed_2: jax.Array | None,
    ) -> tuple[jax.Array, tuple[KeysValues, ...]]:
        return self.decoder(self.shared(inputs_BxT), mask_BxS, cross, past, position, seed_2)

    def __call__(self, source_BxS: jax.Array, inputs_BxT: jax.Array) -> None:
        """Everything once, which is what initialisation needs."""
        mask_BxS = source_BxS != 0
        cross = self.cross_keys_values(self.encode(source_BxS, mask_BxS, None))
        hidden_BxTxD, _ = self.decode(inputs_BxT, mask_BxS, cross, None, jnp.zeros((), jnp.int32), None)
        if not self.config.tie_embeddings:
            self.lm_head(hidden_BxTxD)


def head(config: T5Config, width: int) -> Linear:
    """A language-model head of its own, for so many tokens."""
    return Linear(config.dtype, width, config.d_model**-0.5, wide=True)
