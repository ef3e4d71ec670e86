"""Shape and numerics of a decoder-only model, checked once, when the config is made."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from kdtw_jax.models.fields import Allowed, check_fields, check_fused, refusal
from kdtw_jax.models.interface import Fields, Size

Activation = Literal["silu", "gelu"]
RopeKind = Literal["default", "linear", "llama3", "yarn"]

# What a run may say of it by options.
FLAGS = (
    *("d_model", "d_ff", "num_layers", "num_heads", "num_kv_heads"),
    *("dtype", "remat", "fused_attention", "dropout_rate"),
)

_ALLOWED: Allowed = {
    "vocab_size": range(1, 2**27 + 1),
    "d_model": range(1, 2**20 + 1),
    "d_ff": range(1, 2**24 + 1),
    "num_layers": range(1, 1001),
    **dict.fromkeys(("num_heads", "num_kv_heads"), range(1, 2**12 + 1)),
    "head_dim": range(2, 2**16 + 1, 2),
    "sliding_window": range(2**31),
    "full_every": range(2**10),
    "gate_width": range(2**24 + 1),
    "activation": ("silu", "gelu"),
    "rope_kind": ("default", "linear", "llama3", "yarn"),
    "dtype": ("float32", "bfloat16"),
    **dict.fromkeys(("tie_embeddings", "qkv_bias", "qk_norm", "norm_offset", "outer_norms"), (True, False)),
    **dict.fromkeys(("embedding_scale", "value_heads", "rule_in_source", "remat", "fused_attention"), (True, False)),
}
_ABOVE_ZERO = ("norm_epsilon", "rope_theta", "rope_factor", "rope_low", "rope_high", "rope_length")
_FROM_ZERO = ("query_scale", "score_cap", "logit_cap", "rope_scale", "rope_local_theta", "dropout_rate")
_LEAST = {**dict.fromkeys(_ABOVE_ZERO, math.ulp(0.0)), **dict.fromkeys(_FROM_ZERO, 0.0)}
_MOST = {name: 1e12 for name in _LEAST if name not in ("norm_epsilon", "dropout_rate")}


@dataclasses.dataclass(frozen=True)
class CausalConfig(Fields):
    """One decoder-only model: Llama and what has grown from it, by switches.

    Llama 2 and 3 and SmolLM2 are the defaults; Qwen2.5 has `qkv_bias`, Qwen3 `qk_norm`; Gemma has `norm_offset`,
    `embedding_scale`, "gelu" and `query_scale`, its versions 2 and 3 `outer_norms` and a `sliding_window`, version 2
    `score_cap` and `logit_cap`, version 3 `qk_norm` and `rope_local_theta`.

    `num_kv_heads` pairs of keys and values serve `num_heads` queries (arXiv 2305.13245). Rotary positions
    (arXiv 2104.09864) turn at `rope_theta`; `rope_kind` says how a model for `rope_length` positions was stretched by
    `rope_factor`: "linear" (arXiv 2306.15595), "llama3" (arXiv 2407.21783; `rope_low` and `rope_high` bound the turns
    that are blended) or "yarn" (arXiv 2309.00071; `rope_high` and `rope_low` are its beta_fast and beta_slow, and
    queries and keys are multiplied by `rope_scale`, where that is above 0). A layer sees the last `sliding_window`
    positions (0: all); every `full_every`-th sees all of them all the same (0: none does), and where
    `rope_local_theta` is above 0 the others turn at that rate, unstretched. `norm_offset`: norms multiply by one more
    than their parameter. `outer_norms`: what attention and feed-forward give is normed as well. `query_scale`: scores
    are divided by its root (0: by that of `head_dim`). `score_cap`, `logit_cap`: c tanh(x / c) of attention scores and
    of logits (0: as they are). `embedding_scale`: embeddings are multiplied by the root of `d_model`.

    A rule that a student reads in its source (`rule_in_source`) stands behind the tokens `rule_after` with which
    sources begin: what a chat template puts before a user's words.

    The other fields are those of `T5Config`.

    Raises:
      UserError: sizes no model can have.
    """

    vocab_size: int
    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 10_000.0
    rope_kind: RopeKind = "default"
    rope_factor: float = 1.0
    rope_low: float = 1.0
    rope_high: float = 4.0
    rope_length: float = 8192.0
    rope_scale: float = 0.0
    rope_local_theta: float = 0.0
    sliding_window: int = 0
    full_every: int = 1
    norm_epsilon: float = 1e-5
    norm_offset: bool = False
    outer_norms: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    query_scale: float = 0.0
    score_cap: float = 0.0
    logit_cap: float = 0.0
    embedding_scale: bool = False
    activation: Activation = "silu"
    tie_embeddings: bool = True
    dropout_rate: float = 0.0
    dtype: str = "float32"
    value_heads: bool = True
    gate_width: int = 0
    rule_in_source: bool = False
    rule_after: tuple[int, ...] = ()
    remat: bool = dataclasses.field(default=False, compare=False)
    fused_attention: bool = dataclasses.field(default=False, compare=False)

    def __post_init__(self) -> None:
        check_fields(self, _ALLOWED, _LEAST, _MOST)
        if not (isinstance(self.rule_after, tuple | list) and all(type(i) is int and i > 0 for i in self.rule_after)):
            raise refusal("rule_after", self.rule_after, "a list of tokens")
        object.__setattr__(self, "rule_after", tuple(self.rule_after))  # which files have as a list
        if self.num_heads % self.num_kv_heads:
            raise refusal("num_kv_heads", self.num_kv_heads, f"a divisor of num_heads, {self.num_heads}")
        if self.rope_kind in ("llama3", "yarn") and self.rope_low == self.rope_high:
            raise refusal("rope_high", self.rope_high, "another number than rope_low")
        if self.rope_kind == "yarn" and self.rope_theta <= 1:
            raise refusal("rope_theta", self.rope_theta, "a number above 1 where positions are stretched by yarn")
        if self.fused_attention:
            check_fused(self, "head_dim")

    def window(self, layer: int) -> int:
        """How many positions a layer sees, its own among them; 0: all."""
        full = self.full_every and (layer + 1) % self.full_every == 0
        return 0 if full else self.sliding_window

    @classmethod
    def sized(cls, size: Size) -> CausalConfig:
        """A Llama of that width and heads with as many layers as encoder and decoder have together."""
        return cls(
            vocab_size=32,
            d_model=size.d_model,
            d_ff=-(-8 * size.d_model // 24) * 8,  # with its gate as many parameters as two matrices of 4 d_model
            num_layers=2 * size.layers,
            num_heads=size.heads,
            num_kv_heads=size.heads,
            head_dim=-(-size.d_model // size.heads // 2) * 2,
            dropout_rate=size.dropout_rate,
            dtype=size.dtype,
        )

    @classmethod
    def toy(cls, vocab_size: int = 32, **changes: Any) -> CausalConfig:
        """A few thousand parameters, for tests and notebooks; `changes` are fields to set otherwise."""
        toy = cls(vocab_size, d_model=16, d_ff=24, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=6)
        return dataclasses.replace(toy, **changes)
