"""What a decoder-only model's arithmetic takes: parameters, products of positions, bytes."""

from __future__ import annotations

from kdtw_jax.models.causal.config import CausalConfig
from kdtw_jax.models.interface import NUMBER_BYTES, Costs


def causal_costs(config: CausalConfig) -> Costs:
    """Windows are left out of account: every position is counted as seeing all before it."""
    word, inner = NUMBER_BYTES[config.dtype], config.num_heads * config.head_dim
    narrow = config.num_kv_heads * config.head_dim
    attention = 2 * config.d_model * (inner + narrow)
    layers = config.num_layers * (attention + 3 * config.d_model * config.d_ff)

    def pair_flops(s: int, t: int) -> float:
        """Of a prompt, its half that is seen."""
        return 4.0 * inner * config.num_layers * (s * s / 2 + t * t + t * s)

    def activation_bytes(s: int, t: int) -> float:
        """Of each layer its inputs and the results of its products, and the attention weights of what is written."""
        kept = 4 * config.d_model + 2 * inner + 2 * narrow + 3 * config.d_ff
        return float(word * config.num_layers * ((s + t) * kept + 2 * config.num_heads * t * (s + t)))

    def cache_bytes(s: int, t: int) -> float:
        """Keys and values."""
        return 2.0 * word * config.num_layers * narrow * (s + t)

    head = config.d_model * config.vocab_size
    return Costs(float(layers), float(layers + head), pair_flops, activation_bytes, cache_bytes)
