"""From text pairs to batches of static shapes: encode a split once, sort it into buckets, deliver rows.

A bucket is one static shape, so a run compiles as many times as it has buckets. An example goes to the
smallest bucket in which both its source and its target fit. Training batches come from `grain`: one
shuffled, endless stream a bucket, mixed in proportion to the batches each bucket holds, so every example is
seen equally often whatever its bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from kdtw_jax.data.tokenizer import EOS_ID, PAD_ID, Tokenizer
from kdtw_jax.errors import UserError

if TYPE_CHECKING:
    from kdtw_jax.data.task import Task

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
OnLong = Literal["truncate", "drop", "error"]
OnProgress = Callable[[int, int], None]  # (examples done, examples in all)
_PROGRESS_EVERY = 1000
_EPOCHS = 2**32  # more than anybody trains for
_LENGTH_STEP = 8  # bucket lengths are multiples of this (save the longest): friendly to vector units


class Batch(NamedTuple):
    """Rows of one bucket, numpy int32. Targets end with EOS, then pad."""

    example_B: Int32  # index of the example in its split; -1 marks a filler row
    source_BxS: Int32
    target_BxT: Int32


class Bucket(NamedTuple):
    """One static shape: `rows` rows of `source` and `target` tokens, EOS included."""

    source: int
    target: int
    rows: int


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length in one flat array; `ragged[i]` is a view of row i."""

    values: Int32  # [total tokens]
    offsets: Int64  # [rows + 1]

    @classmethod
    def pack(cls, rows: Iterable[Sequence[int]]) -> Self:
        kept = [np.asarray(row, np.int32) for row in rows]
        offsets = np.zeros(len(kept) + 1, np.int64)
        np.cumsum([len(row) for row in kept], out=offsets[1:])
        return cls(np.concatenate([np.zeros(0, np.int32), *kept]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Int32:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> Int64:
        """int64 [rows]."""
        return np.diff(self.offsets)

    def chosen(self, rows: Int64) -> Ragged:
        """The named rows, in that order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Ragged(self.values[np.repeat(self.offsets[rows], lengths) + within], offsets)

    def padded(self, rows: Int64, width: int) -> Int32:
        """int32 [len(rows), width]: the named rows, each at most `width` long, padded with 0."""
        starts = self.offsets[rows][:, None]
        lengths = self.offsets[rows + 1][:, None] - starts
        steps = np.arange(width)[None, :]
        inside = steps < lengths
        found = np.full(inside.shape, PAD_ID, np.int32)
        found[inside] = self.values[(starts + steps)[inside]]  # of rows that are all empty there is none
        return found


@dataclass(frozen=True)
class EncodedSplit:
    """The ids of one split, each sequence ending with EOS, and what length limits did to it."""

    sources: Ragged
    targets: Ragged
    examples: Int32  # [N] index of each in the split (a dropped example leaves a gap)
    dropped: int  # examples left out
    truncated_pairs: int  # examples with a side cut short
    truncated_tokens: int  # tokens cut off, both sides
    room: Int64 | None = None  # [N] tokens that targets get, where some are yet to be written; None: as they have

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def targets_room(self) -> Int64:
        """int64 [N]."""
        return self.targets.lengths if self.room is None else self.room

    def chosen(self, places: Int64) -> EncodedSplit:
        """The examples at these places, in that order; counts of what was left out stay those of the whole."""
        return replace(
            self,
            sources=self.sources.chosen(places),
            targets=self.targets.chosen(places),
            examples=self.examples[places],
            room=None if self.room is None else self.room[places],
        )


class BatchIterator(Protocol):
    """An endless stream of batches whose place can be saved: `get_state` is plain JSON."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __next__(self) -> Batch: ...
    def get_state(self) -> dict[str, Any]: ...
    def set_state(self, state: dict[str, Any]) -> None: ...


def encode_split(
    task: Task,
    split: str,
    tokenizer: Tokenizer,
    *,
    max_source: int,
    max_target: int,
    on_long: OnLong,
    instruct: bool,
    progress: OnProgress | None = None,
) -> EncodedSplit:
    """Tokenises a whole split into memory.

    Args:
      max_source: longest source in tokens, EOS included; likewise `max_target`.
      on_long: cut a longer example (its EOS stays), drop it, or refuse it.
      instruct: put each source into the task's instruction first.
      progress: called every thousand examples and at the end.

    Raises:
      UserError: no such split, limits below 2, or (on_long="error") an example over a limit.
    """
    if split not in task.splits:
        raise UserError(f"task {task.name} has no split {split!r}; it has {', '.join(sorted(task.splits))}")
    if max_source < 2 or max_target < 2:
        raise UserError(f"max_source and max_target must be at least 2, got {max_source} and {max_target}")
    if on_long not in ("truncate", "drop", "error"):
        raise UserError(f"on_long must be truncate, drop or error, got {on_long!r}")
    sources: list[list[int]] = []
    targets: list[list[int]] = []
    examples: list[int] = []
    dropped = truncated_pairs = truncated_tokens = 0
    pairs = task.splits[split]
    total = len(pairs)
    for i, pair in enumerate(pairs):
        text = task.instruction.replace("{source}", pair["source"]) if instruct else pair["source"]
        (source, cut), target = tokenizer.prompt(text, max_source), [*tokenizer.encode_target(pair["target"]), EOS_ID]
        excess = cut + max(len(target) - max_target, 0)
        if excess and on_long == "error":
            raise UserError(
                f"example {i} of split {split!r} is too long: "
                f"source {len(source) + cut} tokens (limit {max_source}), "
                f"target {len(target)} tokens (limit {max_target}), EOS included"
            )
        if excess and on_long == "drop":
            dropped += 1
        else:
            truncated_pairs += excess > 0
            truncated_tokens += excess
            sources.append(source)
            targets.append(_cut(target, max_target))
            examples.append(i)
        if progress and ((i + 1) % _PROGRESS_EVERY == 0 or i + 1 == total):
            progress(i + 1, total)
    return EncodedSplit(
        sources=Ragged.pack(sources),
        targets=Ragged.pack(targets),
        examples=np.asarray(examples, np.int32),
        dropped=dropped,
        truncated_pairs=truncated_pairs,
        truncated_tokens=truncated_tokens,
    )


def _cut(ids: list[int], limit: int) -> list[int]:
    return ids if len(ids) <= limit else [*ids[: limit - 1], EOS_ID]


def make_buckets(
    max_source: int, max_target: int, tokens_per_batch: int, count: int, multiple_of: int = 1
) -> tuple[Bucket, ...]:
    """`count` buckets (fewer where they would coincide) of evenly spaced lengths up to `max_source` and `max_target`.

    Each has as many rows as keep its longer side within `tokens_per_batch` tokens, rounded down to
    `multiple_of` (the number of devices), but at least `multiple_of`. For 32, 32, 2048, 2: (16, 16, 128)
    and (32, 32, 64).

    Raises:
      UserError: a length below 2, or anything else below 1.
    """
    if max_source < 2 or max_target < 2:
        raise UserError(f"max_source and max_target must be at least 2, got {max_source} and {max_target}")
    if min(tokens_per_batch, count, multiple_of) < 1:
        raise UserError(
            "tokens_per_batch, count and multiple_of must be positive, "
            f"got {tokens_per_batch}, {count} and {multiple_of}"
        )

    def length(limit: int, i: int) -> int:
        return min(limit, -(-limit * i // (count * _LENGTH_STEP)) * _LENGTH_STEP)

    shapes = sorted({(length(max_source, i), length(max_target, i)) for i in range(1, count + 1)})
    return tuple(Bucket(s, t, max(tokens_per_batch // max(s, t) // multiple_of, 1) * multiple_of) for s, t in shapes)


def assign_buckets(encoded: EncodedSplit, buckets: Sequence[Bucket]) -> list[Int64]:
    """For each bucket, the positions in `encoded` of its examples, in order; every example is in exactly one.

    Raises:
      UserError: no bucket, a bucket without rows, or an example that fits none.
    """
    if not buckets or min(min(bucket) for bucket in buckets) < 1:
        raise UserError(f"need at least one bucket, all its sizes positive; got {list(buckets)}")
    order = sorted(range(len(buckets)), key=lambda b: (buckets[b].source + buckets[b].target, buckets[b].source))
    sources, targets = encoded.sources.lengths, encoded.targets_room
    place = np.full(len(encoded), -1)
    for b in reversed(order):  # the smallest comes last and so wins
        place[(sources <= buckets[b].source) & (targets <= buckets[b].target)] = b
    if len(misfits := np.flatnonzero(place < 0)):
        i = misfits[0]
        raise UserError(
            f"example {encoded.examples[i]} ({sources[i]} source and {targets[i]} target tokens) "
            f"fits no bucket of {list(buckets)}"
        )
    return [np.flatnonzero(place == b) for b in range(len(buckets))]


def training_batches(encoded: EncodedSplit, buckets: Sequence[Bucket], *, seed: int) -> BatchIterator:
    """Endless shuffled batches, reshuffled every epoch: the same arguments give the same batches.

    `get_state()` and `set_state()` save and restore the place in the stream: what follows is equal bit for
    bit. All rows are real: a bucket with fewer examples than rows fills its batch from its next epochs.
    Buckets without examples never appear. All reading is in the caller's thread: no other is left behind.

    Raises:
      UserError: an empty split, a seed outside [0, 2**32), or an example that fits no bucket.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed must be at least 0 and below 2**32, got {seed}")
    if not len(encoded):
        raise UserError("cannot train on a split without examples (were all of them dropped as too long?)")
    import grain  # which takes a third of a second: not for whoever trains nothing

    streams, weights = [], []
    bucket_seeds = np.random.SeedSequence(seed).generate_state(len(buckets))
    for bucket, rows, bucket_seed in zip(buckets, assign_buckets(encoded, buckets), bucket_seeds, strict=True):
        if len(rows):
            # A range and not a source: grain meters each read of a source, which would be most of the work.
            # Endless batches of one row would be one more than grain can count.
            epochs = _EPOCHS if bucket.rows == 1 else None
            stream = grain.MapDataset.range(len(rows)).seed(int(bucket_seed)).shuffle().repeat(epochs)
            streams.append(stream.batch(bucket.rows, batch_fn=_Assemble(encoded, bucket, rows)))
            weights.append(len(rows) / bucket.rows)
    mixed = grain.MapDataset.mix(streams, weights=weights)
    in_this_thread = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    iterator: BatchIterator = iter(mixed.to_iter_dataset(in_this_thread))
    return iterator


def evaluation_batches(encoded: EncodedSplit, buckets: Sequence[Bucket]) -> Iterator[Batch]:
    """Yields each example once, bucket by bucket, in order.

    The last batch of a bucket is filled up with rows of example -1 whose source and target are one EOS, so that every
    row is a valid sequence.

    Raises:
      UserError: an example fits no bucket.
    """
    for bucket, rows in zip(buckets, assign_buckets(encoded, buckets), strict=True):
        assemble = _Assemble(encoded, bucket, rows)
        for start in range(0, len(rows), bucket.rows):
            yield assemble(range(start, min(start + bucket.rows, len(rows))))


@dataclass(frozen=True)
class _Assemble:
    """Places in a bucket's list of examples to a batch of its shape, filled up where places are too few."""

    encoded: EncodedSplit
    bucket: Bucket
    members: Int64  # positions in `encoded`

    def __call__(self, places: Sequence[int]) -> Batch:
        chosen = self.members[np.asarray(places, np.int64)]
        n, bucket, encoded = len(chosen), self.bucket, self.encoded
        batch = Batch(
            example_B=np.full(bucket.rows, -1, np.int32),
            source_BxS=np.full((bucket.rows, bucket.source), PAD_ID, np.int32),
            target_BxT=np.full((bucket.rows, bucket.target), PAD_ID, np.int32),
        )
        batch.example_B[:n] = encoded.examples[chosen]
        for filled, ragged in ((batch.source_BxS, encoded.sources), (batch.target_BxT, encoded.targets)):
            filled[:n] = ragged.padded(chosen, filled.shape[1])
            filled[n:, 0] = EOS_ID
        return batch
