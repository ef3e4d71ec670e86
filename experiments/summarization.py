"""Distil a summarisation model: a teacher, then students by likelihood, word-level distillation and path consistency.

    python experiments/summarization.py --preset small --data debian/summarize   # long package description to synopsis
    python experiments/summarization.py --preset base --data tfds:xsum           # one GPU, a network

The same command continues an interrupted run. Every option below has a default from the preset.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone without installing

from experiments.presets import BASE, PAPER, SMALL, TINY, asking, likelihood, path_consistency, rivals
from kdtw_jax.experiment import main

# Descriptions are long and synopses short; what lies beyond a description's first 64 pieces is cut off (and counted).
LENGTHS = replace(SMALL.text, max_source=64, max_target=24, on_long="truncate", batch_tokens=2048)

PRESETS = {
    "small": replace(
        SMALL,
        data="debian/summarize",
        text=LENGTHS,
        teacher_fit=likelihood(3000, 2e-3),
        warmup=likelihood(600, 6e-3, save=200),
        mle=likelihood(1200, 3e-3, save=200),
        word_kd=likelihood(1200, 3e-3, save=200),
        pcl=path_consistency(1200, 3e-3, save=200),
        ask=asking(path_consistency(1200, 3e-3, save=200), gate_rate=3.0, judged_on=1000, settle=400),
        **rivals(1200, 3e-3, save=200),
    ),
    "tiny": replace(TINY, data="debian/summarize", text=replace(TINY.text, max_source=64, max_target=16)),
    "base": replace(BASE, data="tfds:xsum", text=replace(BASE.text, max_source=512, max_target=64)),
    "paper": replace(PAPER, data="tfds:xsum", text=replace(PAPER.text, max_source=512, max_target=64)),
}

if __name__ == "__main__":
    sys.exit(main("summarization", PRESETS, __doc__))
