"""The command line as tests call it."""

from __future__ import annotations

from collections.abc import Sequence

from kdtw_jax.cli import main


def train(arguments: Sequence[str], task: str = "translation") -> int:
    """The status of `kdtw train` with these arguments."""
    return main(["train", "--task", task, *arguments])
