"""Distil a translation model: a teacher, then students by likelihood, word-level distillation and path consistency.

    python experiments/translation.py --preset quickstart                  # embedded corpus, 12 minutes on 2 cores
    python experiments/translation.py --preset small --data debian/en-de   # Debian's package descriptions, 3 seeds
    python experiments/translation.py --data files --text.files.train-source a.en --text.files.train-target a.de

The same command continues an interrupted run. Every option below has a default from the preset.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone without installing

from experiments.presets import BASE, DEMONSTRATIONS, PAPER, QUICKSTART, SMALL, TINY, path_consistency, rivals
from kdtw_jax.experiment import main

PRESETS = {
    "quickstart": QUICKSTART,
    "tiny": TINY,
    "small": replace(
        SMALL,
        pcl=path_consistency(1200, 3e-3, save=200, **DEMONSTRATIONS),
        tb=rivals(1200, 3e-3, save=200, **DEMONSTRATIONS)["tb"],
    ),
    "base": replace(BASE, data="tfds:para_crawl/ende"),
    "paper": replace(PAPER, data="tfds:wmt14_translate/de-en"),
}

if __name__ == "__main__":
    sys.exit(main("translation", PRESETS, __doc__))
