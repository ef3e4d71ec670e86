"""Students of sums with two ways, for several prices of a call: what they plan as help gets dear.

    python experiments/prices.py                                    # seven prices, three seeds
    python experiments/prices.py --preset tiny --prices 1 3         # some minutes, to see that it runs

The command `kdtw prices --task ways --teacher-model ways:hasty` from a clone, without installing. Its teacher seldom
goes the long way, which a student of one layer can go; the short way it can go where it asks for the one hard token.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kdtw_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["prices", "--task", "ways", "--teacher-model", "ways:hasty", *sys.argv[1:]]))
