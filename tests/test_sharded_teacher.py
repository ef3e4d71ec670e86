"""A teacher spread over devices says and teaches what it does on one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdtw_jax.data.batches import training_batches
from kdtw_jax.errors import UserError
from kdtw_jax.train import parallel
from kdtw_jax.train.distil import Collector, distil
from kdtw_jax.train.fit import fit
from kdtw_jax.train.loop import LoopConfig
from kdtw_jax.train.state import init_state, make_optimizer
from tests.world import BUCKETS, DISTIL, FIT, WIDE, World


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_a_teacher_spread_over_four_of_eight_devices_scores_and_answers_as_on_one(world: World) -> None:
    devices = parallel.select_devices(8)
    model, params = world.teacher
    spread = parallel.spread(params, devices, 4)
    parts = [part for leaf in jax.tree.leaves(spread) for part in leaf.addressable_shards]
    held = [sum(part.data.size for part in parts if part.device == device) for device in devices]
    whole = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert max(held) < 0.35 * whole  # vectors and position tables are everywhere

    batch = next(training_batches(world.data, WIDE, seed=0))
    key = init_state(world.params, make_optimizer(FIT.optimizer, 8), 0).key_data
    found = []
    for chosen, teacher in ((parallel.select_devices(1), params), (devices, spread)):
        collect = Collector(world.model, (model, teacher), DISTIL, world.banned, chosen)
        few = type(batch)(*(x[:8] for x in batch))
        found.append((collect.teacher_writes(few, key, 0), collect.scored(batch)))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1].top.ids_BxTxK[..., 0], found[1][1].top.ids_BxTxK[..., 0])
    np.testing.assert_allclose(found[0][1].teacher_log_prob_BxT, found[1][1].teacher_log_prob_BxT, atol=1e-5)
    np.testing.assert_allclose(found[0][1].top.log_prob_BxTxK, found[1][1].top.log_prob_BxTxK, atol=1e-5)


def test_a_training_step_beside_a_spread_teacher_is_that_beside_a_whole_one(world: World, tmp_path: Path) -> None:
    config = replace(DISTIL, loop=LoopConfig(steps=2, log_every=2, checkpoint_every=2))
    devices = parallel.select_devices(2)

    def train(name: str, shards: int) -> Any:
        teacher = (world.model, parallel.spread(world.teacher[1], devices, shards))
        return distil(name, tmp_path / name, world.model, world.params, teacher, world.data, BUCKETS, config,
                      seed=0, devices=devices, banned=world.banned)  # fmt: skip

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), train("whole", 1), train("spread", 2))


def test_what_a_spread_teacher_cannot_do_is_refused_in_words(world: World, tmp_path: Path) -> None:
    devices = parallel.select_devices(8)
    with pytest.raises(UserError, match="teacher_shards=3 must divide the number of devices, 8"):
        parallel.spread(world.teacher[1], devices, 3)
    teacher = (world.model, parallel.spread(world.teacher[1], devices, 8))
    with pytest.raises(UserError, match="spread over devices"):
        fit(
            "t", tmp_path, world.model, world.params, world.data, BUCKETS, FIT, seed=0, devices=devices, teacher=teacher
        )
