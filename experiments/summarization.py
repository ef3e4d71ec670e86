"""Distil a summarisation model: a teacher, then students by likelihood, word-level distillation and path consistency.

    python experiments/summarization.py --preset small --data debian/summarize   # long package description to synopsis
    python experiments/summarization.py --preset base --data tfds:xsum           # one GPU, a network

The same command continues an interrupted run. Every option below has a default from the preset.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone without installing

import experiments  # noqa: F401, before NumPy and JAX are loaded
from kdtw_jax.experiment import main
from kdtw_jax.presets import SUMMARIZATION

PRESETS = SUMMARIZATION

if __name__ == "__main__":
    sys.exit(main("summarization", PRESETS, __doc__))
