"""What users add to the package, for command lines."""

from __future__ import annotations

from collections.abc import Sequence


def load_extensions(constraints: Sequence[str] = ()) -> None:
    """Registers methods and constraints of installed packages, and the constraints that the user typed as
    MODULE:FUNCTION. Raises UserError where one cannot be had."""
    from kdtw_jax import methods  # which takes seconds: not for whoever asks for help
    from kdtw_jax.constraints import known

    methods.load_installed()
    known.load_installed()
    for place in constraints:
        known.load_named(place)
