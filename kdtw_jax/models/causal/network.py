"""A decoder-only model in Flax Linen: Llama (arXiv 2302.13971), and Qwen and Gemma as their switches make of it.

A text is a prompt and what follows. The prompt is read once, up to its last token, which is the first input of what
follows: the state there says the first token to be written.

Parameters are named as in the published checkpoints: `model.layers.0.self_attn.q_proj.weight` is
`layers_0/self_attn/q_proj/kernel` transposed.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdtw_jax.models.causal.config import CausalConfig
from kdtw_jax.models.causal.layers import Attention, FeedForward, Part, RMSNorm
from kdtw_jax.models.layers import KeysValues, Linear, dropout, seed_of, traced_once, write_at


class Block(nn.Module):
    """Attention and feed-forward, each of what is normed, and added to what came."""

    config: CausalConfig
    window: int

    def setup(self) -> None:
        config = self.config
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(config), RMSNorm(config)
        self.self_attn, self.mlp = Attention(config, self.window), FeedForward(config)
        if config.outer_norms:
            self.pre_feedforward_layernorm, self.post_feedforward_layernorm = RMSNorm(config), RMSNorm(config)

    def __call__(
        self,
        x_BxTxD: jax.Array,
        position_BxT: jax.Array,
        prompt: Part | None,
        own: Part | None,
        slot: jax.Array,
        seed_2: jax.Array | None,
    ) -> tuple[jax.Array, KeysValues]:
        """The block's output, and keys and values with `own`, what of the text was fed before, from `slot` on."""
        config, rate = self.config, self.config.dropout_rate
        normed = self.input_layernorm(x_BxTxD)
        keys_values = self.self_attn.keys_values(normed, position_BxT)
        where = position_BxT
        if own is not None:
            keys, values = (write_at(old, new, slot) for old, new in zip(own.keys_values, keys_values, strict=True))
            keys_values, where = (keys, values), own.position_BxS
        parts = ([] if prompt is None else [prompt]) + [Part(keys_values, where)]
        attended = self.self_attn(normed, position_BxT, parts, seed_2, own is not None)
        if config.outer_norms:
            attended = self.post_attention_layernorm(attended)
        x_BxTxD = x_BxTxD + dropout(attended, rate, seed_2, "attended")
        before = self.pre_feedforward_layernorm if config.outer_norms else self.post_attention_layernorm
        fed = self.mlp(before(x_BxTxD))
        if config.outer_norms:
            fed = self.post_feedforward_layernorm(fed)
        return x_BxTxD + dropout(fed, rate, seed_2, "fed"), keys_values


_BLOCKS = traced_once(Block)


class Decoder(nn.Module):
    """Embedding, blocks, final norm and, where the embedding is not that too, the language-model head."""

    config: CausalConfig

    def setup(self) -> None:
        config = self.config
        init = nn.initializers.normal(config.d_model**-0.5)
        sizes = (config.vocab_size, config.d_model)
        self.embed_tokens = nn.Embed(*sizes, param_dtype=jnp.float32, dtype=config.dtype, embedding_init=init)
        block = Block if self.is_initializing() else _BLOCKS[config.remat]
        self.layers = [block(config, config.window(layer)) for layer in range(config.num_layers)]
        self.norm = RMSNorm(config)
        if not config.tie_embeddings:
            self.lm_head = head(config, config.vocab_size)

    def __call__(
        self,
        tokens_BxT: jax.Array,
        position_BxT: jax.Array,
        prompt: tuple[Part, ...] | None = None,
        own: tuple[Part, ...] | None = None,
        slot: jax.Array | int = 0,
        seed_2: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[KeysValues, ...]]:
        """Reads tokens at their positions after a `prompt`.

        Args:
          tokens_BxT: to be read.
          position_BxT: where they stand; B is 1 if all rows agree.
          prompt: of each layer, what came before; None: nothing.
          own: of each layer, what was fed since and room for more, which the tokens take from `slot` ([] or [B]) on.
          slot: of the first token.
          seed_2: of dropout; None: there is none.

        Returns:
          Final-normed states, and keys and values of each layer, `own` included.
        """
        config = self.config
        x_BxTxD = self.embed_tokens(tokens_BxT)
        if config.embedding_scale:
            x_BxTxD = x_BxTxD * jnp.asarray(config.d_model**0.5, x_BxTxD.dtype)
        x_BxTxD = dropout(x_BxTxD, config.dropout_rate, seed_2, "embedded")
        seen: tuple[KeysValues, ...] = ()
        for i, layer in enumerate(self.layers):
            before, room = (None if parts is None else parts[i] for parts in (prompt, own))
            x_BxTxD, keys_values = layer(
                x_BxTxD, position_BxT, before, room, jnp.asarray(slot), seed_of(seed_2, f"layer {i}")
            )
            seen += (keys_values,)
        return self.norm(x_BxTxD), seen

    def everything(self, tokens_BxT: jax.Array) -> None:
        """Everything once, which is what initialisation needs."""
        hidden_BxTxD, _ = self(tokens_BxT, jnp.zeros((1, tokens_BxT.shape[1]), jnp.int32))
        if not self.config.tie_embeddings:
            self.lm_head(hidden_BxTxD)


def head(config: CausalConfig, width: int) -> Linear:
    """A language-model head of its own, for so many tokens."""
    return Linear(config.dtype, width, config.d_model**-0.5, wide=True)
