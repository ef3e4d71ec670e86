"""The student's own rows come in when they are told to, and others stand for them until then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.methods import METHODS
from kdtw_jax.methods.gkd import GKDConfig, student_writes
from kdtw_jax.training.collect import Collector, minibatch_shares
from kdtw_jax.training.ramp import Ramp
from kdtw_jax.training.rows import RowsConfig
from kdtw_jax.training.scoring import STUDENT
from kdtw_jax.training.state import PRNG
from tests.test_prompts_training import Spy
from tests.world import DISTIL, WIDE, World, same

ALONE: dict[str, Any] = {"student_share": 1.0, "teacher_share": 0.0, "reference_share": 0.0}


def test_the_share_is_nothing_then_rises_evenly_then_is_whole() -> None:
    ramp = Ramp(0.25, 0.75)
    assert [ramp.scale(step, 8) for step in range(8)] == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert [ramp.level(step, 800) for step in (0, 200, 201, 599, 600)] == [0, 0, 1 / 16, 1, 1]
    assert {Ramp().level(step, 8) for step in range(8)} == {1.0}
    assert [Ramp(0.5, 0.5).scale(step, 4) for step in range(4)] == [0, 0, 1, 1]


def test_others_make_up_for_rows_that_are_not_there_yet() -> None:
    config = RowsConfig(student_share=0.5, teacher_share=0.25, reference_share=0.25)
    assert [minibatch_shares(config, 16, scale) for scale in (0, 0.5, 1)] == [(0, 12, 4), (4, 8, 4), (8, 4, 4)]
    without = RowsConfig(student_share=0.5, teacher_share=0.0, reference_share=0.5)
    assert [minibatch_shares(without, 16, scale) for scale in (0, 1)] == [(0, 0, 16), (8, 0, 8)]
    alone = RowsConfig(student_share=0.5, teacher_share=0.5, reference_share=0.0)
    assert [minibatch_shares(alone, 16, scale) for scale in (0, 1)] == [(0, 16, 0), (8, 8, 0)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ramp(0.5, 0.4), r"own_rows\.start must be at most own_rows\.full, .* got 0\.5 and 0\.4"),
        (lambda: Ramp(-0.1, 0.4), r"own_rows\.start must be in \[0, 1\]"),
        (
            lambda: RowsConfig(own_rows=Ramp(0, 1), student_share=1.0, teacher_share=0, reference_share=0),
            "share is 1, so",
        ),
    ],
)
def test_ramps_that_cannot_be_are_refused(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_gkd_writes_no_outputs_of_the_students_before_they_are_worth_it() -> None:
    key = jax.random.key_data(jax.random.key(0, impl=PRNG))
    late = GKDConfig(student_share=0.8, own_rows=Ramp(0.5, 0.5))
    drawn = [student_writes(late, key, step, 100) for step in range(100)]
    assert not any(drawn[:50]) and drawn[50:] == [student_writes(GKDConfig(0.8), key, step) for step in range(50, 100)]
    assert np.mean(drawn[50:]) > 0.6


def test_the_student_rolls_out_and_its_rows_are_drawn_from_the_start_on_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, spy = World(), Spy(monkeypatch)
    config = replace(DISTIL, own_rows=Ramp(0.5, 0.5), target_decay=0.0)
    asked: list[tuple[int, int]] = []
    usual = Collector.some

    def some(self: Collector, batch: Any, source: int, step: int) -> Any:
        found = usual(self, batch, source, step)
        asked.extend([(step, len(found.example_B))] if source == STUDENT else [])
        return found

    monkeypatch.setattr(Collector, "some", some)

    METHODS["pcl"].train(world.context(tmp_path, buckets=WIDE), world.params, config)
    assert asked == [(0, 0), (2, 0), (4, 8), (6, 8)]
    assert [int((sample.source_X == STUDENT).sum()) for sample in spy.rows] == [0] * 4 + [4] * 4
    assert all(len(sample.source_X) == 8 and (sample.rows.tokens_BxT != 0).any(axis=1).all() for sample in spy.rows)


@pytest.mark.long
def test_a_training_that_stops_on_the_way_up_goes_on_bit_for_bit(tmp_path: Path) -> None:
    world, config = World(), replace(DISTIL, own_rows=Ramp(0.3, 0.9))

    def train(folder: str, stop_after: int | None = None) -> Any:
        context = world.context(tmp_path / folder, buckets=WIDE, stop_after=stop_after)
        return METHODS["pcl"].train(context, world.params, config)

    whole = train("whole")
    train("parts", stop_after=5)  # a step past the checkpoint of step 4
    assert same(whole, train("parts"))
