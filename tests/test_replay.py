"""The ring buffer: exact shares, no stranger's rows, oldest out first, the same draw for the same key."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.replay import ReplayState, make_replay

NAMES = ("student", "teacher", "truth")


def rows(start: int, count: int) -> dict[str, Any]:
    """Rows that carry their serial number in every leaf."""
    serial = jnp.arange(start, start + count)
    return {
        "id": serial,
        "nested": (jnp.tile(serial[:, None], (1, 4)).astype(jnp.float32), serial[:, None] % 2 == 0),
    }


EXAMPLE = jax.tree.map(lambda x: x[0], rows(0, 1))


def contents(state: ReplayState, source: int) -> list[int]:
    filled = int(state.size_R[source])
    return sorted(np.asarray(state.rings[source]["id"])[:filled].tolist())


def test_shares_are_exact_and_rows_come_from_their_source() -> None:
    replay = make_replay((8, 5, 3), (4, 0, 7), NAMES)
    state = replay.init(EXAMPLE)
    for source in range(3):
        state = replay.add(state, rows(100 * source, 6), source)
    draw = jax.jit(replay.sample)
    for seed in range(20):
        sample = draw(state, jax.random.key(seed))
        np.testing.assert_array_equal(sample.source_X, [0] * 4 + [2] * 7)
        np.testing.assert_array_equal(sample.rows["id"] // 100, sample.source_X)
        np.testing.assert_array_equal(sample.rows["nested"][0][:, 3], sample.rows["id"])
        np.testing.assert_array_equal(sample.rows["nested"][1][:, 0], sample.rows["id"] % 2 == 0)


def test_rows_not_filled_in_are_never_drawn() -> None:
    replay = make_replay(50, (64,), ("student",))
    state = replay.add(replay.init(EXAMPLE), rows(7, 3), 0)
    draw = jax.jit(replay.sample)
    for seed in range(20):
        assert set(np.asarray(draw(state, jax.random.key(seed)).rows["id"]).tolist()) <= {7, 8, 9}


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 9])
def test_ring_keeps_the_newest_rows(step: int) -> None:
    """Whatever the size of the batches, also larger than the ring and not dividing it."""
    replay = make_replay(4, (1,), ("student",))
    add = jax.jit(replay.add, static_argnums=2, donate_argnums=0)
    state = replay.init(EXAMPLE)
    for start in range(0, 40, step):
        state = add(state, rows(start, step), 0)
        added = start + step
        assert contents(state, 0) == list(range(max(0, added - 4), added))
        assert int(replay.size(state)[0]) == min(added, 4)


def test_next_row_replaces_the_oldest_after_an_oversized_batch() -> None:
    replay = make_replay(4, (1,), ("student",))
    state = replay.add(replay.init(EXAMPLE), rows(0, 3), 0)
    state = replay.add(state, rows(3, 7), 0)
    for serial in range(10, 13):
        state = replay.add(state, rows(serial, 1), 0)
        assert contents(state, 0) == list(range(serial - 3, serial + 1))


def test_adding_to_one_source_leaves_the_others() -> None:
    replay = make_replay(4, (1, 1, 1), NAMES)
    state = replay.init(EXAMPLE)
    for source in range(3):
        state = replay.add(state, rows(10 * source, 2), source)
    after = replay.add(state, rows(90, 3), 1)
    for source in (0, 2):
        jax.tree.map(np.testing.assert_array_equal, after.rings[source], state.rings[source])
    np.testing.assert_array_equal(replay.size(after), [2, 4, 2])


def test_draws_are_uniform_over_what_is_filled_in() -> None:
    replay = make_replay(16, (3, 5), NAMES[:2])
    state = replay.add(replay.init(EXAMPLE), rows(0, 1), 0)
    state = replay.add(state, rows(0, 7), 1)
    draws = 4000
    sample = jax.jit(jax.vmap(replay.sample, (None, 0)))(state, jax.random.split(jax.random.key(0), draws))
    counts = np.bincount(np.asarray(sample.rows["id"])[:, 3:].reshape(-1), minlength=7)
    want = draws * 5 / 7
    assert np.abs(counts - want).max() < 4 * np.sqrt(want)
    # Not only over many minibatches: two places of one minibatch do not copy each other.
    assert 0.02 < np.mean(sample.rows["id"][:, 3] == sample.rows["id"][:, 4]) < 0.19


def test_of_what_is_fresh_no_row_comes_again_before_all_have_come() -> None:
    replay = make_replay(8, (3, 5), NAMES[:2])
    state = replay.add(replay.add(replay.init(EXAMPLE), rows(0, 2), 0), rows(0, 7), 1)
    drawn = np.asarray(jax.vmap(replay.sample, (None, 0))(state, jax.random.split(jax.random.key(0), 400)).rows["id"])
    of_seven = np.sort(drawn[:, 3:])
    assert (np.diff(of_seven) > 0).all() and len({tuple(row) for row in of_seven}) == 21
    assert {tuple(np.sort(np.bincount(row))) for row in drawn[:, :3]} == {(1, 2)}


def test_same_key_same_rows_also_under_jit() -> None:
    replay = make_replay(32, (8, 8), NAMES[:2])
    state = replay.add(replay.add(replay.init(EXAMPLE), rows(0, 20), 0), rows(0, 20), 1)
    first = replay.sample(state, jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, first, jax.jit(replay.sample)(state, jax.random.key(3)))
    other = replay.sample(state, jax.random.key(4))
    assert (first.rows["id"] != other.rows["id"]).any()
    assert (first.rows["id"][:8] != first.rows["id"][8:]).any()  # sources draw independently


def test_can_sample_needs_every_source_that_has_a_share() -> None:
    replay = make_replay(4, (2, 0, 1), NAMES)
    state = replay.init(EXAMPLE)
    assert not replay.can_sample(state)
    state = replay.add(state, rows(0, 1), 0)
    assert not replay.can_sample(state)
    assert replay.can_sample(replay.add(state, rows(0, 1), 2))


def test_state_is_arrays_that_survive_a_round_trip() -> None:
    replay = make_replay((2, 4), (1, 1), NAMES[:2])
    state = replay.add(replay.init(EXAMPLE), rows(0, 2), 0)
    leaves, structure = jax.tree.flatten(state)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    restored = jax.tree.unflatten(structure, [jnp.asarray(np.asarray(leaf)) for leaf in leaves])
    state, restored = (replay.add(s, rows(5, 3), 1) for s in (state, restored))
    jax.tree.map(np.testing.assert_array_equal, *(replay.sample(s, jax.random.key(0)) for s in (state, restored)))


def test_add_and_sample_trace_once() -> None:
    replay = make_replay(8, (4,), ("student",))
    traces = []

    def turn(state: ReplayState, batch: dict[str, Any], key: jax.Array) -> tuple[ReplayState, Any]:
        traces.append(1)
        state = replay.add(state, batch, 0)
        return state, replay.sample(state, key)

    jitted, state = jax.jit(turn), replay.init(EXAMPLE)
    for i in range(6):
        state, _ = jitted(state, rows(3 * i, 3), jax.random.key(i))
    assert len(traces) == 1


def test_rows_unlike_the_example() -> None:
    replay = make_replay(4, (1,), ("student",))
    state = replay.init({"a": jnp.zeros(3), "b": jnp.zeros((), jnp.int32)})
    good = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(2, jnp.int32)}
    replay.add(state, good, 0)
    for bad, message in (
        ({"a": good["a"]}, "structure"),
        ({**good, "a": jnp.zeros((2, 4))}, r"float32\[3\], got float32\[4\]"),
        ({**good, "b": jnp.zeros(2)}, "int32"),
        ({**good, "b": jnp.zeros(3, jnp.int32)}, "leading axis"),
    ):
        with pytest.raises(ValueError, match=message):
            replay.add(state, bad, 0)


@pytest.mark.parametrize(
    ("capacity", "shares", "names", "message"),
    [
        (0, (1, 1), NAMES[:2], "capacity"),
        ((4, -1), (1, 1), NAMES[:2], "capacity"),
        (4, (1, -1), NAMES[:2], "shares"),
        (4, (0, 0), NAMES[:2], "shares"),
        (4, (1,), NAMES[:2], "2 sources"),
        ((4, 4, 4), (1, 1), NAMES[:2], "2 sources"),
        (4, (1, 1), ("a", "a"), "distinct"),
        (4, (), (), "distinct"),
    ],
)
def test_impossible_buffers(capacity: Any, shares: Any, names: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_replay(capacity, shares, names)
