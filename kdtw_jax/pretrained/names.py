"""What a parameter of ours is called in a published checkpoint, and how the two hold it."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from kdtw_jax.models import CausalConfig, ModelConfig, T5Config, parameter_shapes

Path = tuple[str, ...]

SHARED = "shared.weight"
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"  # of a decoder-only model
# Further names of the one embedding, which some files repeat.
ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Written by early versions of the exporter for v1.0, and never read: cross-attention has no positions.
UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)


class TensorSlot(NamedTuple):
    """One tensor of a checkpoint and the parameter it becomes."""

    path: Path  # in our tree
    shape: tuple[int, ...]  # in the checkpoint
    transposed: bool  # a projection: [out, in] there, [in, out] here
    matrix: bool  # used in the dtype of the arithmetic; norms and position tables are used in float32


def slots(config: T5Config | CausalConfig) -> dict[str, TensorSlot]:
    """The tensors of a checkpoint of these sizes by their published names, in the order of our tree.

    The names are those of the models of the `transformers` library; which of them a model has follows from our own
    parameters, so none can be forgotten.
    """
    bare: ModelConfig = dataclasses.replace(config, value_heads=False, gate_width=0)
    published = _of_t5 if isinstance(config, T5Config) else _of_causal
    found = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(parameter_shapes(bare)):
        path = tuple(str(key.key) for key in keys)
        transposed = path[-1] == "kernel"
        shape = leaf.shape[::-1] if transposed else leaf.shape
        matrix = transposed or path[0] in ("shared", "embed_tokens")
        found[published(path)] = TensorSlot(path, shape, transposed, matrix)
    return found


def _of_causal(path: Path) -> str:
    name = {"kernel": "weight", "embedding": "weight", "scale": "weight"}.get(path[-1], path[-1])
    inner = [part.replace("layers_", "layers.") for part in path[:-1]]
    return ".".join([*([] if path[0] == "lm_head" else ["model"]), *inner, name])


def _of_t5(path: Path) -> str:
    if path[0] == "shared":
        return SHARED
    if path[0] == "lm_head":
        return HEAD
    stack, part, *inner = path
    if part == "final_norm":
        return f"{stack}.final_layer_norm.weight"
    if part == "relative_attention_bias":
        return f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    last = 1 if stack == "encoder" else 2
    place = {"self_attention": (0, "SelfAttention"), "cross_attention": (1, "EncDecAttention")}
    place["feed_forward"] = (last, "DenseReluDense")
    layer, module = place[inner[0].removesuffix("_norm")]
    name = "layer_norm" if inner[0].endswith("_norm") else f"{module}.{inner[1]}"
    return f"{stack}.block.{part.removeprefix('block_')}.layer.{layer}.{name}.weight"
