"""Models as pure functions: an interface, the families behind it, and the gate beside them."""

from kdtw_jax.models.causal.config import CausalConfig
from kdtw_jax.models.families import (
    FAMILIES,
    costs,
    count_params,
    cut_teacher,
    family_of,
    find_family,
    init_heads,
    make_model,
    parameter_shapes,
    register_family,
    shift_right,
)
from kdtw_jax.models.gate import Facts, GateInputs, GateOutput, Memory
from kdtw_jax.models.interface import (
    NUMBER_BYTES,
    Cache,
    Costs,
    Decoded,
    Encoded,
    Family,
    Fields,
    Model,
    ModelConfig,
    Network,
    Params,
    Size,
)
from kdtw_jax.models.roles import Path, Role, RoleOf, names_of, split_axis
from kdtw_jax.models.t5.config import T5Config
from kdtw_jax.models.vocabulary import output_slices, pad_params

__all__ = [
    "FAMILIES",
    "NUMBER_BYTES",
    "Cache",
    "CausalConfig",
    "Costs",
    "Decoded",
    "Encoded",
    "Facts",
    "Family",
    "Fields",
    "GateInputs",
    "GateOutput",
    "Memory",
    "Model",
    "ModelConfig",
    "Network",
    "Params",
    "Path",
    "Role",
    "RoleOf",
    "Size",
    "T5Config",
    "costs",
    "count_params",
    "cut_teacher",
    "family_of",
    "find_family",
    "init_heads",
    "make_model",
    "names_of",
    "output_slices",
    "pad_params",
    "parameter_shapes",
    "register_family",
    "shift_right",
    "split_axis",
]
