"""Encoded sources that have no target yet, beside pairs that have one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from kdtw_jax.data.batches import Bucket, EncodedSplit, Int64, Ragged, assign_buckets

_LIKE = 200  # pairs with sources about as long
_ROOM = 0.9  # share of the targets of these that the room is enough for


def unanswered(prompts: EncodedSplit, pairs: EncodedSplit, *, first: int, most: int) -> EncodedSplit:
    """Takes the targets off prompts and gives them room for an answer, as pairs of about as long sources need.

    Args:
      prompts: encoded, their targets of no meaning.
      pairs: those of training.
      first: the id of the first prompt; ids of pairs are below it.
      most: tokens of the longest target.
    """
    by_length = np.argsort(pairs.sources.lengths, kind="stable")
    sources, targets = pairs.sources.lengths[by_length], pairs.targets.lengths[by_length]
    room_of = np.full(max(prompts.sources.lengths.tolist(), default=0) + 1, most)
    for length in np.unique(prompts.sources.lengths):
        middle = (np.searchsorted(sources, length, "left") + np.searchsorted(sources, length, "right")) // 2
        near = targets[max(0, middle - _LIKE // 2) : middle + _LIKE // 2]
        room_of[length] = np.quantile(near, _ROOM, method="higher") if len(near) else most
    return dataclasses.replace(
        prompts,
        targets=Ragged.pack([] for _ in range(len(prompts))),
        examples=(first + prompts.examples).astype(np.int32),
        room=np.minimum(room_of[prompts.sources.lengths], most),
    )


def join(one: EncodedSplit, other: EncodedSplit) -> EncodedSplit:
    """Puts the rows of another split after those of one; counts of what was left out add up."""
    counts = ("dropped", "truncated_pairs", "truncated_tokens")
    return EncodedSplit(
        sources=_joined(one.sources, other.sources),
        targets=_joined(one.targets, other.targets),
        examples=np.concatenate([one.examples, other.examples]),
        room=np.concatenate([one.targets_room, other.targets_room]),
        **{name: getattr(one, name) + getattr(other, name) for name in counts},
    )


def beside(prompts: EncodedSplit, pairs: EncodedSplit, buckets: Sequence[Bucket]) -> EncodedSplit:
    """Takes the prompts of the buckets that pairs are in, too."""
    taken: list[Int64] = [
        places
        for places, others in zip(assign_buckets(prompts, buckets), assign_buckets(pairs, buckets), strict=True)
        if len(others)
    ]
    places = np.sort(np.concatenate(taken))
    if len(places) == len(prompts):
        return prompts
    return dataclasses.replace(prompts.chosen(places), room=prompts.targets_room[places])


def _joined(one: Ragged, other: Ragged) -> Ragged:
    offsets = np.concatenate([one.offsets, one.offsets[-1] + other.offsets[1:]])
    return Ragged(np.concatenate([one.values, other.values]), offsets)
