"""What users add to the package, for command lines."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points

# Where the registry of each group of entry points is. Families come first, since others may need them.
REGISTRIES = {
    "kdtw_jax.families": ("kdtw_jax.models", "FAMILIES"),
    "kdtw_jax.metrics": ("kdtw_jax.metrics.scores", "METRICS"),
    "kdtw_jax.sources": ("kdtw_jax.data.task", "SOURCES"),
    "kdtw_jax.constraints": ("kdtw_jax.constraints.known", "CONSTRAINTS"),
    "kdtw_jax.utilities": ("kdtw_jax.decoding.utility", "UTILITIES"),
    "kdtw_jax.gates": ("kdtw_jax.decoding.gates", "GATES"),
    "kdtw_jax.strategies": ("kdtw_jax.evaluation.strategies", "STRATEGIES"),
    "kdtw_jax.methods": ("kdtw_jax.methods", "METHODS"),
    "kdtw_jax.helpers": ("kdtw_jax.helpers", "HELPERS"),
}


def load_extensions(constraints: Sequence[str] = ()) -> None:
    """Registers what installed packages add, and the constraints that the user typed.

    Args:
      constraints: each as MODULE:FUNCTION.

    Raises:
      UserError: one cannot be had.
    """
    for group, (module, registry) in REGISTRIES.items():
        if entry_points(group=group):  # otherwise what takes seconds to import waits until it is used
            getattr(import_module(module), registry).load_installed()
    if constraints:
        from kdtw_jax.constraints.known import load_named

        for place in constraints:
            load_named(place)
