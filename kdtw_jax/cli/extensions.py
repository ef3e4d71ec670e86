"""What users add to the package, for command lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdtw_jax.registry import Registry


def load_extensions(constraints: Sequence[str] = ()) -> None:
    """Registers what installed packages add, and the constraints that the user typed.

    Args:
      constraints: each as MODULE:FUNCTION.

    Raises:
      UserError: one cannot be had.
    """
    # Which takes seconds: not for whoever asks for help.
    from kdtw_jax.constraints.known import CONSTRAINTS, load_named
    from kdtw_jax.data.task import SOURCES
    from kdtw_jax.decoding.gates import GATES
    from kdtw_jax.evaluation.strategies import STRATEGIES
    from kdtw_jax.methods import METHODS
    from kdtw_jax.metrics.scores import METRICS
    from kdtw_jax.models import FAMILIES

    every: tuple[Registry[Any], ...] = (FAMILIES, METRICS, SOURCES, CONSTRAINTS, GATES, STRATEGIES, METHODS)
    for registry in every:
        registry.load_installed()
    for place in constraints:
        load_named(place)
