"""What a T5's arithmetic takes: parameters, products of positions, bytes."""

from __future__ import annotations

from kdtw_jax.models.interface import NUMBER_BYTES, Costs
from kdtw_jax.models.t5.config import T5Config


def t5_costs(config: T5Config) -> Costs:
    """The keys and values of cross-attention, computed once a source position, are counted with the source."""
    word, inner, heads = NUMBER_BYTES[config.dtype], config.num_heads * config.d_kv, config.num_heads
    gated = config.feed_forward == "gated-gelu"
    attention, projections = 4 * config.d_model * inner, 2 * config.d_model * inner
    feed_forward = (3 if gated else 2) * config.d_model * config.d_ff
    source = config.num_layers * (attention + feed_forward) + config.num_decoder_layers * projections
    target = config.num_decoder_layers * (attention + projections + feed_forward)
    wide = config.d_ff * (3 if gated else 1)

    def pair_flops(s: int, t: int) -> float:
        return 4.0 * inner * (config.num_layers * s * s + config.num_decoder_layers * (t * t + t * s))

    def activation_bytes(s: int, t: int) -> float:
        """Of each layer its inputs and the results of its products, and the attention weights."""
        encoder = config.num_layers * (s * (4 * config.d_model + 4 * inner + wide) + 2 * heads * s * s)
        decoder = t * (6 * config.d_model + 6 * inner + wide) + 2 * s * inner + 2 * heads * (t * t + t * s)
        return float(word * (encoder + config.num_decoder_layers * decoder))

    def cache_bytes(s: int, t: int) -> float:
        """Keys and values."""
        return 2.0 * word * config.num_decoder_layers * inner * (s + t)

    return Costs(source, target + config.d_model * config.vocab_size, pair_flops, activation_bytes, cache_bytes)
