"""Learning curves: what a student writes of validation texts while it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from kdtw_jax.data.batches import evaluation_batches
from kdtw_jax.decoding.sample import generate
from kdtw_jax.evaluation.rows import rows_of_batch, spaced_pairs, widen_buckets
from kdtw_jax.metrics.scores import score_all
from kdtw_jax.models import Model, Params
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.prepare import Setup

PREFIX = "validation_"  # of what is logged


def make_watch(config: Experiment, setup: Setup, model: Model) -> Callable[[Params], Mapping[str, float]] | None:
    """Makes what judges a student at its checkpoints, by greedy outputs; None where none is to be judged."""
    if not config.eval.watch or setup.validation is None:
        return None
    data = spaced_pairs(setup.validation, config.eval.watch)
    buckets, banned = widen_buckets(setup.buckets, data), setup.tokenizer.banned_ids
    pairs = setup.task.splits["validation"]
    references = [pairs[int(i)]["target"] for i in data.examples]

    @jax.jit
    def write(params: Params, source_BxS: jax.Array, like_BxT: jax.Array) -> jax.Array:
        return generate(model, params, source_BxS, None, max_len=like_BxT.shape[1], banned=banned).tokens_BxT

    def watch(params: Params) -> Mapping[str, float]:
        texts = [""] * len(data)
        for batch in evaluation_batches(data, buckets):
            place_B, real_B = rows_of_batch(data, batch.example_B)
            tokens_BxT = np.asarray(write(params, batch.source_BxS, batch.target_BxT))
            for place, row in zip(place_B[real_B], tokens_BxT[real_B], strict=True):
                texts[place] = setup.tokenizer.decode(row.tolist())
        scores = score_all(setup.task.metrics, texts, references, scoring=setup.scoring, resamples=1)
        return {f"{PREFIX}{score.name}": score.value for score in scores}

    return watch


def curve_rows(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Rows of curves.csv of the lines that watching left in metrics.jsonl; `logs`: these by "method seed"."""
    rows = []
    for name, lines in logs.items():
        method, seed = name.rsplit(" ", 1)
        for line in lines:
            at = {"seed": int(seed), "method": method, "step": line["step"], "seconds": line.get("seconds")}
            said = {key.removeprefix(PREFIX): value for key, value in line.items() if key.startswith(PREFIX)}
            rows += [{**at, "metric": metric, "value": value} for metric, value in said.items()]
    return rows
