"""What a student does at each price of a call: decodings over the range of prices that it can be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdtw_jax.data.batches import Bucket
from kdtw_jax.evaluation.cells import EvalCell, Texts, measure, table_row
from kdtw_jax.evaluation.decoder import Decoder
from kdtw_jax.evaluation.phrasings import Phrasings
from kdtw_jax.evaluation.rows import widen_buckets
from kdtw_jax.evaluation.written import DecodeSpec, write_split
from kdtw_jax.runs.progress import Progress

_STEPS = 10  # prices are judged at so many steps of their range, and at its start


def evaluate_prices(
    name: str,
    decoder: Decoder,
    phrasings: Phrasings,
    test: Texts,
    buckets: Sequence[Bucket],
    *,
    resamples: int = 1000,
) -> list[dict[str, Any]]:
    """Rows of asking.csv of the learned gate, in words of training and in others, `asked` being the price in nats.

    Args:
      name: beside the progress bar.
      decoder: of a student that knows the constraint of `phrasings`.
      phrasings: of a constraint that says its price.
      test: what is written, and judged by all its metrics.
      buckets: lengths of batches.
      resamples: of the sentences, for intervals.
    """
    constraint = phrasings.constraint
    index = [c.name for c in decoder.constraints].index(constraint.name)
    said = (constraint.low + i * (constraint.high - constraint.low) / _STEPS for i in range(_STEPS + 1))
    prices = list(dict.fromkeys(constraint.wording.read(constraint.wording.write(price)) for price in said))
    kinds = ["seen", *(["unseen"] if constraint.wording.held_out else [])]
    rows, cells = widen_buckets(buckets, test.data), []
    with Progress(f"{name}, decoding", total=len(kinds) * len(prices)) as bar:
        for phrasing in kinds:
            for price in prices:
                wanted = DecodeSpec("learned", phrasings.of(price, phrasing), None, others=((index, price),))
                written = write_split(decoder, test.data, rows, wanted)
                cells.append(EvalCell("learned", False, phrasing, True, price, wanted, written))
                bar.update(len(cells))
    scores = measure(cells, cells[-1], test, resamples).scores
    counted = {"unit": decoder.unit.name, "account": "output", "rule": constraint.name}
    return [
        {**table_row(cell, *score), **counted} for cell, found in zip(cells, scores, strict=True) for score in found
    ]
