"""A replay buffer on the device: one ring per source of rows, minibatches with fixed shares per source.

Pure functions of a frozen state, in the manner of flashbax (`init`, `add`, `sample`, bundled by
`make_replay`). A ring of its own for each source (student rollouts, teacher samples, ground truth) makes the
shares exact whatever the rates at which sources add. Nothing here reads a value back to the host; jit `add`
with its state donated, so that rows are written in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.errors import UserError

Rows = Any  # any pytree of arrays; a batch of rows has one leading axis in common


class ReplayState(NamedTuple):
    """Arrays only, so that it goes into a checkpoint as it is. R: number of sources."""

    rings: tuple[Rows, ...]  # R pytrees, leaves [capacity of the source, ...]
    position_R: jax.Array  # int32, where the next row goes
    size_R: jax.Array  # int32, rows that are filled in


class Sample(NamedTuple):
    """A minibatch of X = sum(shares) rows, grouped by source in the order of the sources."""

    rows: Rows  # leaves [X, ...]
    source_X: jax.Array  # int32, the source each row came from


class Replay(NamedTuple):
    """What `make_replay` returns; each function is pure and can be traced.

    init(example_row): an empty state for rows like `example_row` (arrays or ShapeDtypeStructs without the
      leading axis).
    add(state, rows, source): append a batch to one source (a static index), over its oldest rows when it is
      full; of a batch larger than the ring the last rows stay. Raises ValueError if the rows are not like
      the example.
    sample(state, key): shares[i] rows of source i, uniform among those filled in: with replacement, but of a ring no
      larger than a minibatch none again before all have been drawn. Every source with a share must hold a row (see
      `can_sample`): under jit nothing can raise, and an empty ring yields zeros.
    size(state): rows filled in for each source, [R] int32.
    can_sample(state): bool [], every source with a share holds a row.
    """

    names: tuple[str, ...]
    shares: tuple[int, ...]
    init: Callable[[Rows], ReplayState]
    add: Callable[[ReplayState, Rows, int], ReplayState]
    sample: Callable[[ReplayState, jax.Array], Sample]
    size: Callable[[ReplayState], jax.Array]
    can_sample: Callable[[ReplayState], jax.Array]


def make_replay(capacity: int | tuple[int, ...], shares: tuple[int, ...], names: tuple[str, ...]) -> Replay:
    """Bundle the functions of a buffer.

    Args:
      capacity: rows a source can hold; one number for all or one each.
      shares: rows of a minibatch from each source; zero is allowed as long as one is positive.
      names: of the sources, distinct.

    Raises:
      UserError: on lengths that differ, a capacity below 1 or a share below 0.
    """
    capacities = (capacity,) * len(names) if isinstance(capacity, int) else tuple(capacity)
    if not names or len(set(names)) != len(names):
        raise UserError(f"replay sources need distinct names, got {names}")
    if not len(capacities) == len(shares) == len(names):
        raise UserError(
            f"replay: {len(names)} sources need as many capacities and shares, got {capacities} and {shares}"
        )
    if min(capacities) < 1:
        raise UserError(f"replay capacity must be at least 1 row per source, got {capacities}")
    if min(shares) < 0 or sum(shares) == 0:
        raise UserError(f"replay shares must be >= 0 and not all zero, got {shares}")

    def init(example_row: Rows) -> ReplayState:
        def empty(rows: int) -> Rows:
            return jax.tree.map(lambda x: jnp.zeros((rows, *jnp.shape(x)), jnp.result_type(x)), example_row)

        # Two arrays, not one twice: a buffer cannot be donated twice.
        position_R, size_R = (jnp.zeros(len(names), jnp.int32) for _ in range(2))
        return ReplayState(tuple(empty(rows) for rows in capacities), position_R, size_R)

    def add(state: ReplayState, rows: Rows, source: int) -> ReplayState:
        ring = state.rings[source]
        added = _check_rows(ring, rows)
        rows_in_ring = capacities[source]
        kept = min(added, rows_in_ring)
        # Only the last `kept` are written, so no index occurs twice and the result does not hang on the
        # scatter's order.
        start = state.position_R[source] + (added - kept)
        index = (start + jnp.arange(kept, dtype=jnp.int32)) % rows_in_ring
        ring = jax.tree.map(lambda old, new: old.at[index].set(new[added - kept :], unique_indices=True), ring, rows)
        return ReplayState(
            rings=(*state.rings[:source], ring, *state.rings[source + 1 :]),
            position_R=state.position_R.at[source].set((state.position_R[source] + added) % rows_in_ring),
            size_R=state.size_R.at[source].set(jnp.minimum(state.size_R[source] + kept, rows_in_ring)),
        )

    def sample(state: ReplayState, key: jax.Array) -> Sample:
        parts, tags = [], []
        for source, share in enumerate(shares):
            if share == 0:
                continue
            draw = jax.random.fold_in(key, source)
            filled = jnp.maximum(state.size_R[source], 1)
            if capacities[source] > sum(shares):
                index = jax.random.randint(draw, (share,), 0, filled)
            else:  # in an order by chance, those not filled in last, and from its beginning again where it is too short
                place = jnp.arange(capacities[source])
                chance = jnp.where(place < filled, jax.random.uniform(draw, place.shape), 2.0)
                index = jnp.argsort(chance)[jnp.arange(share) % filled]
            parts.append(jax.tree.map(lambda x, index=index: x[index], state.rings[source]))
            tags.append(jnp.full(share, source, jnp.int32))
        return Sample(jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts), jnp.concatenate(tags))

    def size(state: ReplayState) -> jax.Array:
        return state.size_R

    def can_sample(state: ReplayState) -> jax.Array:
        return jnp.all((state.size_R > 0) | (jnp.asarray(shares) == 0))

    return Replay(tuple(names), tuple(shares), init, add, sample, size, can_sample)


def _check_rows(ring: Rows, rows: Rows) -> int:
    """How many rows; ValueError if they are not what the ring holds."""
    want_tree: Any = jax.tree.structure(ring)
    got_tree: Any = jax.tree.structure(rows)
    if want_tree != got_tree:
        raise ValueError(f"rows have another structure: {got_tree}, not {want_tree}")
    counts = {jnp.shape(x)[0] for x in jax.tree.leaves(rows)}
    if len(counts) != 1:
        raise ValueError(f"rows must share their leading axis, got lengths {sorted(counts)}")
    for old, new in zip(jax.tree.leaves(ring), jax.tree.leaves(rows), strict=True):
        if old.shape[1:] != jnp.shape(new)[1:] or old.dtype != jnp.result_type(new):
            want, got = (
                f"{old.dtype}{list(old.shape[1:])}",
                f"{jnp.result_type(new)}{list(jnp.shape(new)[1:])}",
            )
            raise ValueError(f"a row's array must be {want}, got {got}")
    return counts.pop()
