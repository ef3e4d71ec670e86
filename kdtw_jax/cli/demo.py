"""Serve a student of a run with its page, and say where the page is: `kdtw serve` under another name.

kdtw demo runs/quickstart --open
"""

from __future__ import annotations

from kdtw_jax.cli import serve

Demo = serve.Serve  # the same options


def run(arguments: list[str]) -> None:
    """Runs `kdtw demo`: options and errors as for `kdtw serve`.

    Args:
      arguments: its own.
    """
    serve.run(arguments, prog="kdtw demo", description=__doc__)
