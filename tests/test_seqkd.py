"""The teacher's beam outputs as targets: written once, continued after an interruption, the beam search's own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdtw_jax import parallel
from kdtw_jax.data.batches import Bucket
from kdtw_jax.decoding.beam import beam_search
from kdtw_jax.errors import UserError
from kdtw_jax.methods.seqkd import BeamConfig, write_outputs
from kdtw_jax.training.beforehand import beam_buckets
from tests.world import BUCKETS, World


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_beam_outputs_are_written_once_and_continued(world: World, tmp_path: Path) -> None:
    beam = BeamConfig(2, 0.6)

    def write(folder: str, devices: int = 1, **how: Any) -> Any:
        return write_outputs(
            "t", tmp_path / folder, world.teacher, world.data, BUCKETS, beam,
            banned=world.banned, devices=parallel.select_devices(devices), batches_a_file=7, **how,
        )  # fmt: skip

    whole = write("whole")
    write("parts", stop_after=1)
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    assert len(first) == 1
    (tmp_path / "parts" / ".00001.npz.left-by-a-kill.tmp").write_bytes(b"half")
    parts = write("parts")
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())
    for found in (parts, write("whole", devices=4)):
        assert np.array_equal(found.data.targets.values, whole.data.targets.values)
        assert np.array_equal(found.data.targets.offsets, whole.data.targets.offsets)
    assert np.array_equal(whole.data.sources.values, world.data.sources.values)
    assert beam_buckets(BUCKETS) == (Bucket(8, 12, 8), Bucket(12, 12, 4))

    model, params = world.teacher
    alone = jax.jit(partial(beam_search, model, beam_size=2, max_len=12, length_penalty=0.6, banned=world.banned))
    for i in (0, 17, 101):
        source = np.zeros((1, 12), np.int32)
        source[0, : len(world.data.sources[i])] = world.data.sources[i]
        want = np.asarray(alone(params, source).tokens_BxT[0])
        assert whole.data.targets[i].tolist() == want[want != 0].tolist()
    assert whole.unfinished == sum(int(whole.data.targets[i][-1]) != 1 for i in range(len(world.data)))

    (tmp_path / "parts" / "00000.npz").write_bytes(b"not an archive")
    with pytest.raises(UserError, match=r"00000\.npz is damaged"):
        write("parts")
    np.savez(tmp_path / "parts" / "00000.npz", example=np.array([object()]))
    with pytest.raises(UserError, match=r"00000\.npz is damaged"):  # nothing is ever unpickled
        write("parts")
