"""Which rows of a split stand in which batch of its evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdtw_jax.data.batches import Bucket, EncodedSplit, Ragged, assign_buckets

_FEW = 256  # pairs that thresholds are set on


def widen_buckets(buckets: Sequence[Bucket], data: EncodedSplit, factor: int = 4) -> tuple[Bucket, ...]:
    """Buckets for evaluation: evenly filled by `data`, up to `factor` times the rows, as there are no gradients."""
    found = []
    for bucket, members in zip(buckets, assign_buckets(data, buckets), strict=True):
        examples = len(members) or bucket.rows
        batches = -(-examples // (factor * bucket.rows))
        found.append(bucket._replace(rows=-(-examples // batches)))
    return tuple(found)


def rows_of_batch(data: EncodedSplit, example_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the split that a batch holds (0 for filler), and which of them are real."""
    real_B = example_B >= 0
    return np.where(real_B, np.searchsorted(data.examples, example_B), 0), real_B


def spaced_pairs(data: EncodedSplit, limit: int = _FEW) -> EncodedSplit:
    """At most `limit` pairs of a split, evenly spaced over it, in its order."""
    count = min(limit, len(data))
    rows = [i * len(data) // count for i in range(count)]
    return EncodedSplit(
        sources=Ragged.pack([data.sources[i].tolist() for i in rows]),
        targets=Ragged.pack([data.targets[i].tolist() for i in rows]),
        examples=data.examples[rows],
        dropped=data.dropped,
        truncated_pairs=data.truncated_pairs,
        truncated_tokens=data.truncated_tokens,
    )
