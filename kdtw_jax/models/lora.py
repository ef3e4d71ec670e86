"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685): a model learns a small change of each of its matrices.

They stand in the tree of parameters beside the matrix that they change, which is how `layers.Linear` finds them, so
that no model is made another one by them. What they change rests; what remains of them is the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.errors import UserError
from kdtw_jax.flags import flags
from kdtw_jax.models.families import make_model, parameter_shapes
from kdtw_jax.models.interface import Model, ModelConfig, Params
from kdtw_jax.models.roles import HEADS, Path, Role
from kdtw_jax.ranges import check_ranges

DOWN, UP, SCALE = "lora_a", "lora_b", "lora_scale"  # [F, R], [R, W] and []
LEARNING: tuple[Role, ...] = ("adapter", *HEADS.values())  # what learns of a student that has adapters
_MATRICES: tuple[Role, ...] = ("embedding", "table", "query", "matrix", "output")  # which layers read in their dtype


@dataclass(frozen=True)
class LoRAConfig:
    """Adapters of students (arXiv 2106.09685): what is learned of a matrix W is alpha / rank times A B.

    Raises:
      UserError: numbers out of their range.
    """

    rank: int = 0
    """of the change that students learn of each matrix of their layers, all else but their heads at rest; 0: all of a
    student learns. For students that start from a published model or from their teacher"""
    alpha: float = field(default=16.0, metadata=flags())
    """the change is multiplied by alpha / rank"""
    targets: tuple[str, ...] = field(default=(), metadata=flags())
    """names of the layers with such a change, such as q_proj; none: all linear layers but that of the vocabulary"""

    def __post_init__(self) -> None:
        check_ranges(self, "lora.", rank="[0, inf)", alpha="(0, inf)")


def with_adapters(model: Model, params: Params, config: LoRAConfig, key: jax.Array) -> Params:
    """Adds adapters that change nothing yet: A is drawn, B is zero.

    Matrices at rest are kept in the dtype of the model's arithmetic, in which they are read all the same.

    Args:
      model: whose parameters these are.
      params: without adapters.
      config: of a rank above 0.
      key: what A is drawn with.

    Raises:
      UserError: no layer has a name of `targets`.
    """
    wanted = _wanted(model, params, config)
    keys = dict(zip(wanted, jax.random.split(key, len(wanted)), strict=True))

    def add(tree: Params, path: Path) -> Params:
        if not isinstance(tree, Mapping):
            return jnp.asarray(tree, model.config.dtype if model.role(path) in _MATRICES else jnp.float32)
        found = {name: add(part, (*path, name)) for name, part in tree.items()}
        if path in keys:
            depth, width = tree["kernel"].shape
            found[DOWN] = jax.random.normal(keys[path], (depth, config.rank), jnp.float32) * depth**-0.5
            found[UP] = jnp.zeros((config.rank, width), jnp.float32)
            found[SCALE] = jnp.float32(config.alpha / config.rank)
        return found

    return add(params, ())


def merged(params: Params) -> Params:
    """Adds each change to its matrix; the parameters of a model as they are saved, float32 on the host."""
    if not isinstance(params, Mapping):
        return np.asarray(params, np.float32)
    found = {name: merged(part) for name, part in params.items() if name not in (DOWN, UP, SCALE)}
    if UP in params:
        change = np.asarray(params[DOWN]) @ np.asarray(params[UP])
        found["kernel"] = found["kernel"] + np.float32(params[SCALE]) * change
    return found


def check_targets(student: ModelConfig, config: LoRAConfig) -> None:
    """Checks, by the sizes of a model alone, that it has the layers that are to be changed.

    Raises:
      UserError: no layer has a name of `targets`.
    """
    if config.rank:
        _wanted(make_model(student), parameter_shapes(student), config)


def _wanted(model: Model, params: Params, config: LoRAConfig) -> list[Path]:
    layers = _linear_layers(model, params)
    known = sorted({path[-1] for path in layers})
    if unknown := [name for name in config.targets if name not in known]:
        raise UserError(f"lora.targets: no layer is called {unknown[0]!r}; the student's are {', '.join(known)}")
    return [path for path in layers if not config.targets or path[-1] in config.targets]


def _linear_layers(model: Model, params: Params, path: Path = ()) -> list[Path]:
    """Where the layers are whose matrix is not one of the vocabulary or of a head."""
    if not isinstance(params, Mapping) or (path and (path[0] in HEADS or model.vocabulary_axis(path[0]) is not None)):
        return []
    if "kernel" in params:
        return [path]
    return [found for name, part in params.items() for found in _linear_layers(model, part, (*path, name))]
