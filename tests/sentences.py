"""Random sentences and worse copies of them; for tests of scores."""

from __future__ import annotations

import numpy as np

WORDS = [
    "the",
    "a",
    "of",
    "red",
    "green",
    "blue",
    "large",
    "house",
    "12",
    "345",
    "runs",
    "sees",
    "Straße",
    ",",
    ".",
]


def corpus(sentences: int, keep: float, seed: int = 0) -> tuple[list[str], list[str]]:
    """Random references, and hypotheses that keep each word with probability `keep`; some are empty."""
    rng = np.random.default_rng(seed)
    references = [" ".join(rng.choice(WORDS, size=rng.integers(1, 12))) for _ in range(sentences)]
    hypotheses = [
        " ".join(w if rng.random() < keep else rng.choice(WORDS) for w in r.split() if rng.random() < 0.95)
        for r in references
    ]
    return hypotheses, references
