"""Distil a translation model: a teacher, then students by likelihood, word-level distillation and path consistency.

    python experiments/translation.py --preset quickstart                  # embedded corpus, 12 minutes on 2 cores
    python experiments/translation.py --preset small --data debian/en-de   # Debian's package descriptions, 3 seeds
    python experiments/translation.py --data files --text.files.train-source a.en --text.files.train-target a.de

The same command continues an interrupted run. Every option below has a default from the preset.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone without installing

import experiments  # noqa: F401, before NumPy and JAX are loaded
from kdtw_jax.experiment import main
from kdtw_jax.presets import TRANSLATION

PRESETS = TRANSLATION

if __name__ == "__main__":
    sys.exit(main("translation", PRESETS, __doc__))
