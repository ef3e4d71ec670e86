"""A teacher spread over devices says and teaches what it does on one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdtw_jax import parallel
from kdtw_jax.constraints import make_share
from kdtw_jax.data.batches import training_batches
from kdtw_jax.errors import UserError
from kdtw_jax.methods import METHODS
from kdtw_jax.methods.ask import ask
from kdtw_jax.methods.ask_config import AskConfig, Rules
from kdtw_jax.methods.word_kd import WordKDConfig
from kdtw_jax.models import make_model, split_axis
from kdtw_jax.models.t5.model import role
from kdtw_jax.training.collect import Collector
from kdtw_jax.training.loop import LoopConfig
from kdtw_jax.training.state import init_state, make_optimizer
from tests.world import DISTIL, TRAINING, WIDE, World

AXIS = partial(split_axis, role)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_a_teacher_spread_over_four_of_eight_devices_scores_and_answers_as_on_one(world: World) -> None:
    devices = parallel.select_devices(8)
    model, params = world.teacher
    spread = parallel.shard_params(params, devices, 4, AXIS)
    parts = [part for leaf in jax.tree.leaves(spread) for part in leaf.addressable_shards]
    held = [sum(part.data.size for part in parts if part.device == device) for device in devices]
    whole = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert max(held) < 0.35 * whole  # vectors and position tables are everywhere

    batch = next(training_batches(world.data, WIDE, seed=0))
    key = init_state(world.params, make_optimizer(TRAINING.optimizer, 8, world.model.role), 0).key_data
    found = []
    for chosen, teacher in ((parallel.select_devices(1), params), (devices, spread)):
        collect = Collector(world.model, (model, teacher), DISTIL, world.banned, chosen)
        few = type(batch)(*(x[:8] for x in batch))
        found.append((collect.demonstrated(few, key, 0).tokens_BxT, collect.scored(batch)))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1].top.ids_BxTxK[..., 0], found[1][1].top.ids_BxTxK[..., 0])
    np.testing.assert_allclose(found[0][1].teacher_log_prob_BxT, found[1][1].teacher_log_prob_BxT, atol=1e-5)
    np.testing.assert_allclose(found[0][1].top.log_prob_BxTxK, found[1][1].top.log_prob_BxTxK, atol=1e-5)


@pytest.mark.parametrize(
    "method", ["word_kd", *(pytest.param(name, marks=pytest.mark.long) for name in ("pcl", "gkd", "minillm", "ask"))]
)
def test_a_student_beside_a_spread_teacher_learns_what_it_does_beside_a_whole_one(
    world: World, tmp_path: Path, method: str
) -> None:
    """Two groups of two devices, so that neither groups nor parts of a group can be taken for each other."""
    devices = parallel.select_devices(4)
    gated = make_model(replace(world.config, gate_width=8))

    def train(name: str, shards: int) -> Any:
        teacher = (world.model, parallel.shard_params(world.teacher[1], devices, shards, AXIS))
        training = replace(TRAINING, loop=LoopConfig(steps=2, log_every=2, checkpoint_every=2))
        context = world.context(tmp_path / name, 4, teacher=teacher, buckets=WIDE, training=training)
        if method == "ask":
            asking = AskConfig(distil=replace(DISTIL, target_decay=0.0), constraints=("share",), gate_width=8)
            told = Rules((make_share(),), lambda text: [5] * len(text.split()), 24)
            start = jax.device_get(gated.init(jax.random.key(0)))
            return ask(replace(context, student=gated), start, asking, told)
        config = {"pcl": DISTIL, "word_kd": WordKDConfig(kl_weight=1.0)}.get(method, METHODS[method].config())
        return METHODS[method].train(context, world.params, config)

    whole, spread = train("whole", 1), train("spread", 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), whole, spread)


def test_what_cannot_be_spread_is_refused_in_words(world: World) -> None:
    devices = parallel.select_devices(8)
    with pytest.raises(UserError, match="teacher_shards=3 must divide the number of devices, 8"):
        parallel.shard_params(world.teacher[1], devices, 3, AXIS)
    with pytest.raises(ValueError, match="spread over devices"):
        parallel.replicate(parallel.shard_params(world.teacher[1], devices, 8, AXIS), devices)
