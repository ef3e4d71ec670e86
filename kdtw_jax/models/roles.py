"""What a parameter is for, as its family says: its rate of learning and its way over devices follow from that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax

Role: TypeAlias = Literal[
    "embedding",  # [V, D], a row per token, of numbers of about 1
    "table",  # [V, D], of numbers as small as those of other matrices
    "relative_bias",  # a table of attention scores
    "norm",  # a vector of scales
    "vector",  # of scales or offsets, which learns as matrices do
    "query",  # the matrix into the queries of attention
    "matrix",  # any other, into heads, inner units or the vocabulary
    "output",  # a matrix out of heads or inner units
    "adapter",  # a change of a matrix (`models.lora`)
    "value_head",
    "gate",
]
Path: TypeAlias = tuple[str, ...]  # the names that lead to a parameter in the tree
RoleOf: TypeAlias = Callable[[Path], Role]

ADAPTERS: dict[str, Role] = {"lora_a": "adapter", "lora_b": "adapter"}  # by their name, beside the matrix
HEADS: dict[str, Role] = {"value": "value_head", "gate": "gate"}  # what stands beside a network, by its name at the top
# The axis along which a matrix is split between devices where that divides: as in Megatron-LM (Shoeybi et al., arXiv
# 1909.08053, section 3), so that a block needs two sums over a group. What has none is held by every device.
_SPLIT: dict[Role, int] = {"embedding": 0, "table": 0, "query": 1, "matrix": 1, "output": 0, "value_head": 1}


def names_of(path: tuple[jax.tree_util.DictKey, ...]) -> Path:
    """Turns the keys that `jax.tree.map_with_path` gives for a tree of dicts into names."""
    return tuple(key.key for key in path)


def split_axis(role: RoleOf, path: Path) -> int | None:
    """Finds the axis, 0 or 1, along which a matrix is best split between devices; None: it stays whole."""
    return _SPLIT.get(role(path))
