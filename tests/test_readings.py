"""What a teacher reads ahead: the same verdict as while a student learns, and no need of it then."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax import parallel
from kdtw_jax.data.batches import evaluation_batches, training_batches
from kdtw_jax.errors import UserError
from kdtw_jax.methods import METHODS
from kdtw_jax.methods.gkd import GKDConfig
from kdtw_jax.methods.seqkd import BeamConfig, write_outputs
from kdtw_jax.methods.word_kd import WordKDConfig
from kdtw_jax.pipeline.presets import path_consistency
from kdtw_jax.training.loop import Diverged
from kdtw_jax.training.reader import read_ahead
from kdtw_jax.training.readings import Kept, Readings
from kdtw_jax.training.rows import RowsConfig
from kdtw_jax.training.scoring import score_paths
from tests.world import WIDE, World

KEPT = Kept(5)
ROWS: dict[str, Any] = {
    "student_share": 0.0,
    "teacher_share": 1.0,
    "reference_share": 0.0,
    "demonstration_fraction": 1.0,
    "demonstrations": "greedy",
    "top_k": 5,
    "capacity": 32,
    "updates_per_rollout": 1,
    "value_warmup": 0,
    "pcl_weight": 1.0,
}


class Written(World):
    """Pairs whose targets the teacher has written, and what it makes of these."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.how: dict[str, Any] = {"banned": self.banned, "devices": parallel.select_devices(1)}
        written = write_outputs("out", folder, self.teacher, self.data, WIDE, BeamConfig(1, 0.0), **self.how).data
        # Ids need not be places.
        self.written = dataclasses.replace(written, examples=(3 * written.examples + 7).astype(np.int32))

    def read(self, folder: Path, kept: Kept = KEPT, **how: Any) -> Readings:
        return read_ahead("reading", folder, self.teacher, [self.written], WIDE, kept, **self.how, **how)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("written"))


def test_what_was_read_ahead_is_what_the_teacher_says_of_a_batch(world: Written, tmp_path: Path) -> None:
    model, params = world.teacher
    for kept in (KEPT, Kept(3, alpha=0.5)):
        readings = world.read(tmp_path / str(kept.top_k), kept)
        batches = training_batches(world.written, WIDE, seed=1)
        for batch in (next(batches) for _ in range(5)):
            found = readings.of(batch)
            wanted = score_paths(model, params, *map(jnp.asarray, batch), banned=world.banned, **kept._asdict())
            real_BxT = batch.target_BxT != 0
            assert real_BxT.any() and not real_BxT.all()
            for name in ("example_B", "source_BxS", "tokens_BxT"):
                np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
            np.testing.assert_allclose(found.teacher_log_prob_BxT, wanted.teacher_log_prob_BxT, atol=1e-5)
            for mine, theirs in zip(found.top, wanted.top, strict=True):
                np.testing.assert_allclose(mine[real_BxT], theirs[real_BxT], atol=1e-5)
    with pytest.raises(UserError, match="has read other targets of these examples ahead"):
        readings.of(batch._replace(target_BxT=np.roll(batch.target_BxT, 1, axis=0)))
    strange = next(evaluation_batches(world.data, WIDE))
    with pytest.raises(UserError, match="has not read all of these examples ahead"):
        readings.of(strange)


def test_a_reading_that_was_interrupted_goes_on(world: Written, tmp_path: Path) -> None:
    whole = world.read(tmp_path / "whole", batches_a_file=1)
    world.read(tmp_path / "cut", batches_a_file=1, stop_after=2)
    files = sorted((tmp_path / "cut").glob("*.npz"))
    times = [path.stat().st_mtime_ns for path in files]
    again = world.read(tmp_path / "cut", batches_a_file=1)
    assert len(files) == 2 and [path.stat().st_mtime_ns for path in files] == times
    assert len(list((tmp_path / "cut").glob("*.npz"))) > 2
    for name in ("offsets", "log_prob_X", "top_log_prob_XxK", "top_ids_XxK"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(again, name))


def broken(world: Written) -> tuple[Any, Any]:
    """A teacher that nobody can learn anything from."""
    model, params = world.teacher
    return model, jax.tree.map(lambda leaf: leaf * jnp.nan, params)


def trained(world: Written, folder: Path, method: str, config: Any, **context: Any) -> Any:
    about = {"seed": 3, "buckets": WIDE, "prompts": world.written, **context}
    return METHODS[method].train(world.context(folder, **about), world.params, config)


def close(one: Any, other: Any) -> bool:
    return all(np.allclose(a, b, atol=1e-5) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_path_consistency_learns_the_same_and_needs_no_teacher_then(world: Written, tmp_path: Path) -> None:
    config, ahead = path_consistency(4, **ROWS), path_consistency(4, **ROWS, read_ahead=True)
    usual = trained(world, tmp_path / "usual", "pcl", config)
    known: dict[str, Any] = {"readings": world.read(tmp_path / "read"), "teacher": broken(world)}
    assert close(usual, trained(world, tmp_path / "ahead", "pcl", ahead, **known))
    with pytest.raises(Diverged):
        trained(world, tmp_path / "broken", "pcl", config, teacher=known["teacher"])
    with pytest.raises(UserError, match=r"give TrainContext readings of Kept\(top_k=5, alpha=1\.0\)"):
        trained(world, tmp_path / "none", "pcl", ahead)
    with pytest.raises(UserError, match="readings of Kept"):
        trained(world, tmp_path / "other", "pcl", dataclasses.replace(ahead, top_k=4), **known)


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("word_kd", WordKDConfig(demonstrations="greedy", kl_weight=0.7)),
        ("word_kd", WordKDConfig(demonstrations="greedy", kl_weight=1.0)),
        ("gkd", GKDConfig(demonstrations="greedy", beta=0.3, student_share=0.0)),
    ],
)
def test_over_all_tokens_a_rival_learns_what_a_teacher_that_reads_along_says(
    world: Written, tmp_path: Path, method: str, config: Any
) -> None:
    everything = world.teacher[0].config.vocab_size - len(world.banned)
    usual = trained(world, tmp_path / "usual", method, config)
    known: dict[str, Any] = {"readings": world.read(tmp_path / "read", Kept(everything)), "teacher": broken(world)}
    ahead = dataclasses.replace(config, top_k=everything)
    found = trained(world, tmp_path / "ahead", method, ahead, **known)
    assert close(usual, found) and not close(usual, world.params)
    with pytest.raises(UserError, match="readings of Kept"):
        trained(world, tmp_path / "other", method, dataclasses.replace(ahead, top_k=4), **known)
    with pytest.raises(UserError, match="the teacher does not read sampled outputs ahead, so top_k must be 0"):
        dataclasses.replace(config, demonstrations="sampled", top_k=3)


def test_a_students_own_outputs_are_read_when_it_writes_them(world: Written, tmp_path: Path) -> None:
    config = GKDConfig(demonstrations="greedy", top_k=5, student_share=1.0)
    with pytest.raises(Diverged):
        trained(world, tmp_path / "own", "gkd", config, readings=world.read(tmp_path / "read"), teacher=broken(world))


def test_only_outputs_that_are_written_ahead_can_be_read_ahead() -> None:
    with pytest.raises(UserError, match='demonstrations must be "greedy" or "beam", written ahead, and top_k at least'):
        RowsConfig(read_ahead=True)
    assert RowsConfig(read_ahead=True, demonstrations="beam").read_ahead
