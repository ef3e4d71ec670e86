"""Distil a solver of word problems about a pupil's interests, which asks for the numbers that it would get wrong.

    python experiments/classroom.py                           # the quickstart
    python experiments/classroom.py --preset tiny             # a minute, to see that it runs
    python experiments/classroom.py --data classroom/write    # from numbers and an interest to the problem

The command `kdtw train --task classroom` from a clone, without installing. The tasks: `kdtw_jax/data/classroom.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kdtw_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "--task", "classroom", *sys.argv[1:]]))
