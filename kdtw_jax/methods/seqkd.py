"""Sequence-level distillation (Kim and Rush 2016, arXiv 1606.07947): the teacher's beam outputs as targets.

They are written once, in files of a few batches each, by which an interrupted job goes on; the student is then trained
on them by `mle`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit, Ragged, evaluation_batches
from kdtw_jax.data.tokenizer import EOS_ID
from kdtw_jax.decoding.beam import beam_search
from kdtw_jax.finite import check_written
from kdtw_jax.methods.mle import MLEConfig, mle
from kdtw_jax.methods.protocol import Method
from kdtw_jax.models import Model
from kdtw_jax.runs.atomic import read_arrays, write_arrays
from kdtw_jax.runs.progress import Progress
from kdtw_jax.training.state import Params

BATCHES_A_FILE = 16


class BeamConfig(NamedTuple):
    """Beam search as `kdtw_jax.decoding.beam_search` does it."""

    beam_size: int
    length_penalty: float


class BeamTargets(NamedTuple):
    """A split whose targets are the teacher's, and how many of them did not end within the longest target."""

    data: EncodedSplit
    unfinished: int


def beam_buckets(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """The buckets to search in: by the source alone, room for the longest target in all of them.

    Those of training know the length of the ground truth, which is not for the teacher to know.
    """
    longest = max(b.target for b in buckets)
    rows = {b.source: min(x.rows for x in buckets if x.source == b.source) for b in buckets}
    return tuple(Bucket(source, longest, rows[source]) for source in sorted(rows))


def write_outputs(
    name: str,
    folder: Path,
    teacher: tuple[Model, Params],
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    beam: BeamConfig,
    *,
    banned: tuple[int, ...],
    devices: parallel.Devices,
    batches_a_file: int = BATCHES_A_FILE,
    stop_after: int | None = None,
) -> BeamTargets:
    """Writes the teacher's best hypotheses as targets of the split; what `folder` holds is not made anew.

    A hypothesis that does not end is kept as the prefix it is: each of its tokens is the teacher's choice, and nothing
    is learned about its end.

    Args:
      name: beside the progress bar.
      folder: keeps what is written.
      teacher: the model and its parameters.
      data: the split.
      buckets: lengths and rows of batches of training (`beam_buckets`).
      beam: how the teacher searches.
      banned: ids that are never written.
      devices: where it searches.
      batches_a_file: after so many batches a file is written.
      stop_after: ends after as many new files (tests of resuming), the rest being empty.

    Raises:
      UserError: the teacher's scores are not finite, as `beam_search` and `parallel.shard` do, and where `folder`
        cannot be written or read.
    """
    model, params = teacher

    def search(params: Params, source_BxS: jax.Array, like_BxT: jax.Array) -> jax.Array:
        return beam_search(
            model,
            params,
            source_BxS,
            beam_size=beam.beam_size,
            max_len=like_BxT.shape[1],
            length_penalty=beam.length_penalty,
            banned=banned,
        ).tokens_BxT

    searching = parallel.map_batch(search, parallel.place_params(params, devices))

    def answer(batch: Batch) -> np.ndarray:
        return np.asarray(searching(batch.source_BxS, batch.target_BxT))

    targets: dict[int, np.ndarray] = {}
    made = 0
    with Progress(name, total=len(data)) as progress:
        for index, part in enumerate(_parts(data, beam_buckets(buckets), batches_a_file)):
            path = folder / f"{index:05d}.npz"
            wanted = np.concatenate([batch.example_B[batch.example_B >= 0] for batch in part])
            stored = read_arrays(path) if path.exists() else {}
            # Other batches (another number of devices, say) cut the split at other places.
            if not stored or not np.array_equal(stored["example"], wanted):
                if made == stop_after:
                    break
                outputs = [answer(batch)[batch.example_B >= 0] for batch in part]
                for output in outputs:
                    check_written(name, output)
                made += 1
                rows = Ragged.pack(row[row != 0].tolist() for output in outputs for row in output)
                stored = {"example": wanted, "values": rows.values, "offsets": rows.offsets}
                write_arrays(path, stored)
            rows = Ragged(stored["values"], stored["offsets"])
            targets |= {int(example): rows[i] for i, example in enumerate(wanted)}
            progress.update(len(targets))
    packed = Ragged.pack(targets[int(example)].tolist() if int(example) in targets else [] for example in data.examples)
    ended = sum(int(row[-1]) == EOS_ID for row in targets.values())
    return BeamTargets(dataclasses.replace(data, targets=packed, room=None), len(targets) - ended)


def _parts(data: EncodedSplit, buckets: Sequence[Bucket], size: int) -> Iterator[list[Batch]]:
    batches = evaluation_batches(data, buckets)
    while part := list(islice(batches, size)):
        yield part


SEQKD = Method(
    name="seqkd",
    describe="student that goes on by maximum likelihood of the teacher's beam outputs (sequence-level distillation)",
    config=MLEConfig,
    train=mle,
    uses_teacher=False,
    targets="beam",
    color="#F0E442",
    curve="nll",
)
