"""Compare ways to share the writing between a run's students and their teacher.

The command `kdtw compare` from a clone, without installing: `python experiments/operating_points.py --help`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kdtw_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
