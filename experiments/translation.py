"""Distil a translation model: a teacher, then students by several methods.

    python experiments/translation.py --preset quickstart                  # embedded corpus, 12 minutes on 2 cores
    python experiments/translation.py --preset small --data debian/en-de   # Debian's package descriptions, 3 seeds
    python experiments/translation.py --data files --text.files.train-source a.en --text.files.train-target a.de

The command `kdtw train --task translation` from a clone, without installing. Presets: `kdtw_jax/pipeline/presets.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kdtw_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "--task", "translation", *sys.argv[1:]]))
