"""Shape and numerics of a T5 encoder-decoder, checked once, when the config is made."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from kdtw_jax.errors import UserError
from kdtw_jax.models.fields import Allowed, check_fields, check_fused, refusal
from kdtw_jax.models.interface import Fields, Size

FeedForwardKind = Literal["relu", "gated-gelu"]
Version = Literal["v1.0", "v1.1"]

# What a run may say of it by options.
FLAGS = (
    *("d_model", "d_ff", "num_layers", "num_decoder_layers", "num_heads"),
    *("dtype", "remat", "fused_attention", "dropout_rate"),
)

# What each field may be; the most is far above any model's, and low enough for the sizes of what is made of them to be
# numbers.
_ALLOWED: Allowed = {
    "vocab_size": range(1, 2**27 + 1),
    **dict.fromkeys(("d_model", "d_kv"), range(1, 2**20 + 1)),
    "d_ff": range(1, 2**24 + 1),
    **dict.fromkeys(("num_layers", "num_decoder_layers"), range(1, 1001)),
    "num_heads": range(1, 2**12 + 1),
    "relative_attention_num_buckets": range(4, 2**20 + 1, 2),  # half of them serve each direction in the encoder
    "relative_attention_max_distance": range(1, 2**31),
    "gate_width": range(2**24 + 1),
    "feed_forward": ("relu", "gated-gelu"),
    "dtype": ("float32", "bfloat16"),
    **dict.fromkeys(("tie_embeddings", "value_heads", "rule_in_source", "remat", "fused_attention"), (True, False)),
}
_LEAST = {"dropout_rate": 0.0, "layer_norm_epsilon": math.ulp(0.0)}  # fractions


@dataclasses.dataclass(frozen=True)
class T5Config(Fields):
    """One T5 model. Sizes are those of the published `config.json` files, under the same names.

    `dtype` is the dtype of the arithmetic ("float32" or "bfloat16"); parameters, attention scores, softmax, RMS norms
    and logits are float32 always. `value_heads` adds the zero-initialised value head that T5 itself has not, and a
    `gate_width` above 0 the gate that decides whether to ask, with hidden layers of that width. `rule_in_source`: the
    rule that the gate reads stands before the source, for the rest of the student to read as well. `remat`: training
    keeps only what goes from block to block and makes the rest again in the backward pass, a third more work for a
    fraction of the memory; it changes no number and is no part of what a model is. `fused_attention`: cuDNN's, on an
    NVIDIA GPU in bfloat16, wherever whole texts are read (not in cached decoding, nor where attention weights are
    dropped); elsewhere it changes nothing. The same but for rounding, and no part of what a model is either.

    Raises:
      UserError: sizes no model can have.
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    feed_forward: FeedForwardKind = "relu"
    tie_embeddings: bool = True
    dtype: str = "float32"
    value_heads: bool = True
    gate_width: int = 0
    rule_in_source: bool = False
    remat: bool = dataclasses.field(default=False, compare=False)
    fused_attention: bool = dataclasses.field(default=False, compare=False)

    def __post_init__(self) -> None:
        check_fields(self, _ALLOWED, _LEAST)
        buckets, distance = self.relative_attention_num_buckets, self.relative_attention_max_distance
        # The logarithmic buckets need room above the exact ones: half of all buckets in the decoder.
        if distance <= buckets // 2:
            raise refusal("relative_attention_max_distance", distance, "above half the number of buckets")
        if self.fused_attention:
            check_fused(self, "d_kv")

    @classmethod
    def named(cls, name: str, *, version: Version = "v1.0", vocab_size: int = 32128) -> T5Config:
        """A published size: "tiny", "mini", "small", "base", "large", "xl" or "xxl".

        v1.0 is ReLU with a tied head, v1.1 (which FLAN and mT5 share) gated GELU with a head of its own
        and, for small and base, other widths. "tiny" and "mini" are those of T5-efficient (arXiv
        2109.10686); its v1.1 form, never published, has two thirds of the inner width, as v1.1 has against
        v1.0.

        Raises:
          UserError: no such size or version.
        """
        if version not in _SIZES:
            raise UserError(f"unknown T5 version {version!r}; known are {', '.join(_SIZES)}")
        sizes = _SIZES[version]
        if name not in sizes:
            raise UserError(f"unknown T5 size {name!r}; known are {', '.join(sizes)}")
        d_model, d_kv, d_ff, layers, heads = sizes[name]
        return cls(
            vocab_size=vocab_size,
            d_model=d_model,
            d_kv=d_kv,
            d_ff=d_ff,
            num_layers=layers,
            num_decoder_layers=layers,
            num_heads=heads,
            feed_forward="relu" if version == "v1.0" else "gated-gelu",
            tie_embeddings=version == "v1.0",
        )

    @classmethod
    def sized(cls, size: Size) -> T5Config:
        """The published v1.1 of that width, heads and depth where there is one; otherwise v1.0."""
        rest: dict[str, Any] = {"dropout_rate": size.dropout_rate, "dtype": size.dtype}
        for name, (d_model, _, _, layers, heads) in _SIZES["v1.1"].items():
            if name in _PUBLISHED and (d_model, heads, layers) == size[:3]:
                return dataclasses.replace(cls.named(name, version="v1.1"), **rest)
        return cls(
            vocab_size=32,
            d_model=size.d_model,
            d_kv=size.d_model // size.heads,
            d_ff=4 * size.d_model,
            num_layers=size.layers,
            num_decoder_layers=size.layers,
            num_heads=size.heads,
            **rest,
        )

    @classmethod
    def toy(cls, vocab_size: int = 32, **changes: Any) -> T5Config:
        """A few thousand parameters, for tests and notebooks; `changes` are fields to set otherwise."""
        toy = cls(
            vocab_size=vocab_size,
            d_model=16,
            d_kv=4,
            d_ff=24,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=3,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=12,
        )
        return dataclasses.replace(toy, **changes)


_PUBLISHED = ("small", "base", "large", "xl", "xxl")  # as v1.1
# d_model, d_kv, d_ff, layers of each stack, heads
_SIZES: dict[str, dict[str, tuple[int, int, int, int, int]]] = {
    "v1.0": {
        "tiny": (256, 64, 1024, 4, 4),
        "mini": (384, 64, 1536, 4, 8),
        "small": (512, 64, 2048, 6, 8),
        "base": (768, 64, 3072, 12, 12),
        "large": (1024, 64, 4096, 24, 16),
        "xl": (1024, 128, 16384, 24, 32),
        "xxl": (1024, 128, 65536, 24, 128),
    },
    "v1.1": {
        "tiny": (256, 64, 682, 4, 4),
        "mini": (384, 64, 1024, 4, 8),
        "small": (512, 64, 1024, 8, 6),
        "base": (768, 64, 2048, 12, 12),
        "large": (1024, 64, 2816, 24, 16),
        "xl": (2048, 64, 5120, 24, 32),
        "xxl": (4096, 64, 10240, 24, 64),
    },
}
