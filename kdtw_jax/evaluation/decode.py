"""Decoding a split with one model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Bucket, EncodedSplit, evaluation_batches
from kdtw_jax.data.tokenizer import EOS_ID, Tokenizer
from kdtw_jax.decoding.beam import beam_search
from kdtw_jax.decoding.sample import generate
from kdtw_jax.finite import check_written
from kdtw_jax.models import Model
from kdtw_jax.runs.progress import Progress

Params = Any


class Decoding(NamedTuple):
    """How outputs are written: greedy, sampled at temperature 1, or beam search with GNMT length penalty."""

    mode: Literal["greedy", "sample", "beam"] = "greedy"
    beam_size: int = 4
    length_penalty: float = 0.6
    seed: int = 0


GREEDY = Decoding()


class Outputs(NamedTuple):
    """Decoded texts by example id, and the rate: output tokens per second of wall-clock, compilation left out."""

    texts: dict[int, str]
    tokens: int
    tokens_per_s: float
    unfinished: float  # share of the texts that did not end within the limit, 0 to 1


def decode_split(
    name: str,
    model: Model,
    params: Params,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    tokenizer: Tokenizer,
    decoding: Decoding = GREEDY,
    *,
    devices: parallel.Devices | None = None,
) -> Outputs:
    """Writes an output for every example of a split, on the first device or on all of `devices`.

    Args:
      name: of the model, for the progress bar and for errors.

    Raises:
      UserError: scores are not finite; and as `parallel.map_batch` does.
    """
    banned = tokenizer.banned_ids

    def write(params: Params, source_BxS: jax.Array, noise_BxT: jax.Array) -> jax.Array:
        length = noise_BxT.shape[1]
        if decoding.mode == "beam":
            return beam_search(
                model,
                params,
                source_BxS,
                beam_size=decoding.beam_size,
                max_len=length,
                length_penalty=decoding.length_penalty,
                banned=banned,
            ).tokens_BxT
        noise = noise_BxT if decoding.mode == "sample" else None
        return generate(model, params, source_BxS, noise, max_len=length, banned=banned).tokens_BxT

    writing = parallel.map_batch(write, parallel.place_params(params, devices or parallel.one_device()))
    batches = list(evaluation_batches(data, buckets))
    compiled: set[tuple[int, ...]] = set()
    texts: dict[int, str] = {}
    tokens, ended, seconds = 0, 0, 0.0
    with Progress(name, total=len(batches)) as progress:
        for index, batch in enumerate(batches):
            key = jax.random.fold_in(jax.random.key(decoding.seed), index)
            noise = jax.random.uniform(key, batch.target_BxT.shape)
            if batch.target_BxT.shape not in compiled:  # the first call of a shape compiles: leave it out of the rate
                jax.block_until_ready(writing(batch.source_BxS, noise))
                compiled.add(batch.target_BxT.shape)
            started = time.perf_counter()
            output = np.asarray(writing(batch.source_BxS, noise))
            seconds += time.perf_counter() - started
            real = batch.example_B >= 0
            check_written(name, output[real])
            tokens += int((output[real] != 0).sum())
            ended += int((output[real] == EOS_ID).any(axis=1).sum())
            for example, row in zip(batch.example_B[real], output[real], strict=True):
                texts[int(example)] = tokenizer.decode(row.tolist())
            progress.update(index + 1, tokens_per_s=tokens / seconds)
    return Outputs(texts, tokens, tokens / seconds, 1 - ended / len(texts))
