"""T5 models as pure functions."""

from kdtw_jax.models.config import T5Config
from kdtw_jax.models.gate import Odds, View
from kdtw_jax.models.model import (
    Cache,
    Decoded,
    Encoded,
    Model,
    Params,
    count_params,
    make_model,
    output_layer,
    output_slices,
    select_rows,
    shift_right,
)

__all__ = [
    "Cache",
    "Decoded",
    "Encoded",
    "Model",
    "Odds",
    "Params",
    "T5Config",
    "View",
    "count_params",
    "make_model",
    "output_layer",
    "output_slices",
    "select_rows",
    "shift_right",
]
