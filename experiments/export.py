"""Write a trained model of a run in the Hugging Face layout.

The command `kdtw export` from a clone, without installing: `python experiments/export.py --help`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kdtw_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
