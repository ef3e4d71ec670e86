"""What a parameter of ours is called in a published T5 checkpoint, and how the two hold it."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from kdtw_jax.models import T5Config, parameter_shapes

Path = tuple[str, ...]

SHARED = "shared.weight"
HEAD = "lm_head.weight"
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


def slots(config: T5Config) -> dict[str, TensorSlot]:
    """The tensors of a checkpoint of these sizes by their published names, in the order of our tree.

    The names are those of the T5 models of the `transformers` library; which of them a model has follows from our own
    parameters, so none can be forgotten.
    """
    bare = dataclasses.replace(config, value_heads=False, gate_width=0)
    found = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(parameter_shapes(bare)):
        path = tuple(str(key.key) for key in keys)
        transposed = path[-1] == "kernel"
        shape = leaf.shape[::-1] if transposed else leaf.shape
        found[_published(path)] = TensorSlot(path, shape, transposed, transposed or path[0] == "shared")
    return found


def _published(path: Path) -> str:
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
