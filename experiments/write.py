"""Write texts of your own with a student that may ask its teacher, under a rule of your own.

The command `kdtw write` from a clone, without installing: `python experiments/write.py --help`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kdtw_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["write", *sys.argv[1:]]))
