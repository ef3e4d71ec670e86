"""Distil a solver of sums that has two ways to their answer into a student that can go only one of them.

    python experiments/ways.py                                # three seeds
    python experiments/ways.py --preset tiny                  # a minute, to see that it runs
    python experiments/ways.py --teacher-model None           # a teacher that is trained, in place of the program

The command `kdtw train --task ways` from a clone, without installing. The task: `kdtw_jax/data/ways.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kdtw_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "--task", "ways", *sys.argv[1:]]))
