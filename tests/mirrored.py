"""A small parallel corpus to run the main job on."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def mirrored(folder: Path) -> Path:
    """The folder, with a parallel corpus of our own making in it: words and their mirror images."""
    rng = np.random.default_rng(0)
    lines = [" ".join("".join(rng.choice(list("abcdefgh"), 3)) for _ in range(rng.integers(2, 7))) for _ in range(500)]
    (folder / "a.en").write_text("\n".join(lines) + "\n", encoding="utf8")
    (folder / "a.de").write_text("\n".join(line[::-1] for line in lines) + "\n", encoding="utf8")
    return folder
