"""Distil a summarisation model: a teacher, then students by several methods.

    python experiments/summarization.py --preset small --data debian/summarize   # package description to synopsis
    python experiments/summarization.py --preset base --data tfds:xsum           # one GPU, a network

The command `kdtw train --task summarization` from a clone, without installing. Presets: `kdtw_jax/pipeline/presets.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kdtw_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "--task", "summarization", *sys.argv[1:]]))
