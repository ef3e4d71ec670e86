"""Prompts in training: who answers them, which batches they come in, and what is left to pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit, Ragged, assign_buckets
from kdtw_jax.data.unanswered import beside, join, unanswered
from kdtw_jax.decoding.sample import generate
from kdtw_jax.errors import UserError
from kdtw_jax.methods import METHODS
from kdtw_jax.methods import pcl as pcl_module
from kdtw_jax.methods.gkd import GKDConfig, student_writes
from kdtw_jax.methods.minillm import MiniLLMConfig
from kdtw_jax.methods.seqkd import BeamConfig, write_outputs
from kdtw_jax.methods.word_kd import WordKDConfig
from kdtw_jax.training import fresh, replayed
from kdtw_jax.training.collect import Collector
from kdtw_jax.training.scoring import REFERENCE, STUDENT, TEACHER
from kdtw_jax.training.streams import Streams
from tests.world import BUCKETS, DISTIL, TRAINING, WIDE, World, same

FIRST = 1000  # ids of prompts are not below


def encoded(lengths: list[tuple[int, int]]) -> EncodedSplit:
    sides = zip(*lengths, strict=True)
    sources, targets = (Ragged.pack([[5] * (n - 1) + [1] for n in side]) for side in sides)
    return EncodedSplit(sources, targets, np.arange(len(lengths), dtype=np.int32), 0, 0, 0)


def few(data: EncodedSplit, places: range) -> EncodedSplit:
    sides = (Ragged.pack(side[i].tolist() for i in places) for side in (data.sources, data.targets))
    return EncodedSplit(*sides, data.examples[list(places)], 0, 0, 0)


class Prompted(World):
    """A fifth of the pairs keep their targets; the others are prompts, by themselves, with and without the pairs."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        whole = self.data
        self.data = few(whole, range(0, len(whole), 5))
        rest = few(whole, range(1, len(whole), 5))
        self.prompts = unanswered(rest, self.data, first=FIRST, most=12)
        self.open = join(self.data, self.prompts)
        how: dict[str, Any] = {"banned": self.banned, "devices": parallel.select_devices(1)}
        # With what the teacher writes greedily.
        parts = (("pairs", self.data), ("prompts", self.prompts))
        self.written = join(
            *(write_outputs(n, folder / n, self.teacher, x, WIDE, BeamConfig(1, 0.0), **how).data for n, x in parts)
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Prompted:
    return Prompted(tmp_path_factory.mktemp("written"))


def test_room_for_an_answer_is_what_nearly_all_pairs_of_such_a_length_need() -> None:
    pairs = encoded([(n, 2 * n + k % 3) for n in range(3, 15) for k in range(300)])
    prompts = encoded([(n, 9) for n in (2, 4, 10, 14, 40)])
    found = unanswered(prompts, pairs, first=FIRST, most=30)
    assert found.targets_room.tolist() == [8, 10, 22, 30, 30] and not len(found.targets.values)
    assert found.examples.tolist() == [FIRST + i for i in range(5)]
    buckets = [Bucket(20, 8, 4), Bucket(40, 30, 4)]
    assert [places.tolist() for places in assign_buckets(found, buckets)] == [[0], [1, 2, 3, 4]]
    both = join(pairs, found)
    assert len(both) == len(pairs) + 5 and both.targets_room.tolist()[-5:] == [8, 10, 22, 30, 30]
    assert [both.sources[i].tolist() for i in (3, len(pairs) + 2)] == [pairs.sources[3].tolist(), [5] * 9 + [1]]
    short = encoded([(3, 4), (4, 8)])
    assert beside(found, pairs, buckets) is found and beside(found, short, buckets).examples.tolist() == [FIRST]


def seen(world: Prompted, folder: Path, **context: Any) -> tuple[Streams, list[Batch], list[Batch]]:
    streams = Streams(world.context(folder, **context))
    return streams, [streams.pairs() for _ in range(30)], [streams.prompts() for _ in range(60)]


def test_streams_of_pairs_and_prompts_have_one_place_that_can_be_gone_back_to(world: Prompted, tmp_path: Path) -> None:
    streams, pairs, prompts = seen(world, tmp_path, prompts=world.open)
    ids = [{int(i) for batch in batches for i in batch.example_B} for batches in (pairs, prompts)]
    assert max(ids[0]) < FIRST and ids[1] == {int(i) for i in world.open.examples}
    place = streams.get_state()
    following = [streams.pairs(), streams.prompts(), streams.prompts()]
    other, _, _ = seen(world, tmp_path, prompts=world.open)
    other.prompts()
    other.set_state(place)
    assert same(following, [other.pairs(), other.prompts(), other.prompts()])
    alone, first, second = seen(world, tmp_path)
    assert not alone.apart and {int(i) for b in second for i in b.example_B} == {int(i) for i in world.data.examples}
    assert not same(first[:3], second[:3])  # one stream for both


class Spy:
    """Takes down what losses are given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.rows: list[Any] = []
        usual = parallel.data_parallel

        def watched(fn: Callable[..., Any], devices: Any, donate: tuple[int, ...] = ()) -> Callable[..., Any]:
            mapped = usual(fn, devices, donate)
            if "make_update" not in getattr(fn, "__qualname__", ""):
                return mapped

            def update(state: Any, rows: Any) -> Any:
                self.rows.append(jax.tree.map(lambda x: np.asarray(x)[0], rows))
                return mapped(state, rows)

            return update

        for module in (fresh, replayed):
            monkeypatch.setattr(module.parallel, "data_parallel", watched)


def train(world: Prompted, folder: Path, method: str, config: Any, **context: Any) -> Any:
    return METHODS[method].train(world.context(folder, **{"seed": 3, "buckets": WIDE, **context}), world.params, config)


def targets_of(data: EncodedSplit) -> dict[int, list[int]]:
    return {int(example): data.targets[i].tolist() for i, example in enumerate(data.examples)}


def rows_of(ids_B: Any, tokens_BxT: Any) -> list[tuple[int, list[int]]]:
    return [(int(i), [int(t) for t in row if t]) for i, row in zip(ids_B, tokens_BxT, strict=True)]


def is_greedy(world: Prompted, data: EncodedSplit) -> bool:
    """Whether targets are what the teacher finds likeliest, word by word."""
    model, params = world.teacher
    places = list(range(0, len(data), 9))
    source = data.sources.padded(np.asarray(places), 12)
    found = jax.jit(
        lambda s: (
            generate(model, jax.tree.map(jnp.asarray, params), s, None, max_len=12, banned=world.banned).tokens_BxT
        )
    )(source)
    return np.array_equal(found, data.targets.padded(np.asarray(places), 12))


def test_word_kd_learns_the_teachers_outputs_where_there_are_prompts_and_the_datas_where_not(
    world: Prompted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy, config = Spy(monkeypatch), WordKDConfig()
    method = METHODS["word_kd"]
    assert (method.prompts(config, False), method.prompts(config, True)) == ("none", "greedy")
    written = world.written
    assert is_greedy(world, written)
    for data, prompts in ((world.data, None), (written, written)):
        spy.rows.clear()
        train(world, tmp_path / str(prompts is None), "word_kd", config, prompts=prompts)
        known = targets_of(data)
        found = [row for batch, _ in spy.rows for row in rows_of(batch.example_B, batch.target_BxT)]
        assert len(found) > 20 and all(known[example] == target for example, target in found)
        assert (max(example for example, _ in found) >= FIRST) == (prompts is not None)
    with pytest.raises(UserError, match=r"t learns from what the teacher wrote ahead \(greedy\); give TrainContext"):
        train(world, tmp_path / "open", "word_kd", config, prompts=world.open)


def test_samples_of_the_teacher_are_fresh_and_its_own(
    world: Prompted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy, config = Spy(monkeypatch), WordKDConfig(demonstrations="sampled")
    train(world, tmp_path, "word_kd", config, prompts=world.open)
    found = [row for batch, _ in spy.rows for row in rows_of(batch.example_B, batch.target_BxT)]
    known = targets_of(world.open)
    assert any(example >= FIRST for example, _ in found)
    assert all(target for _, target in found) and not any(known[example] == target for example, target in found)


@pytest.mark.parametrize("how", ["reference", "greedy"])
def test_gkd_rolls_out_on_prompts_and_takes_the_rest_from_where_it_is_told(
    how: Any, world: Prompted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy, config = Spy(monkeypatch), GKDConfig(demonstrations=how)
    prompts = world.open if how == "reference" else world.written
    train(world, tmp_path / how, "gkd", config, prompts=prompts)
    known, key = targets_of(world.data if how == "reference" else prompts), keys(world)
    own = [student_writes(config, key, step) for step in range(8)]
    assert 0 < sum(own) < 8
    for is_own, (batch, _) in zip(own, spy.rows, strict=True):
        rows = rows_of(batch.example_B, batch.target_BxT)
        assert is_own or all(known[example] == target for example, target in rows)
        assert sum(known.get(example) == target for example, target in rows) < 2 or not is_own
    ids = {is_own: [int(i) for o, (b, _) in zip(own, spy.rows, strict=True) if o == is_own for i in b.example_B]
           for is_own in (False, True)}  # fmt: skip
    assert max(ids[True]) >= FIRST and (max(ids[False]) >= FIRST) == (how == "greedy")


def keys(world: Prompted) -> Any:
    from kdtw_jax.training.state import init_state, make_optimizer

    return init_state(world.params, make_optimizer(TRAINING.optimizer, 8, world.model.role), 3).key_data


def test_minillm_rolls_out_on_prompts_and_reads_the_references_of_pairs_among_them(
    world: Prompted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    found = train(world, tmp_path, "minillm", MiniLLMConfig(), prompts=world.open)
    known = targets_of(world.open)
    for batch, written, _ in spy.rows:
        assert rows_of(batch.example_B, batch.target_BxT) == [(int(i), known[int(i)]) for i in batch.example_B]
        assert (written != 0).any(axis=1).all()
    assert any((batch.target_BxT != 0).any(axis=1).tolist() != [True] * len(batch.example_B) for batch, *_ in spy.rows)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("how", ["sampled", "greedy"])
def test_replayed_rows_of_models_are_of_prompts_and_those_of_ground_truth_of_pairs_alone(
    how: Any, world: Prompted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    config = replace(DISTIL, demonstrations=how, reference_batches=1)
    prompts = world.open if how == "sampled" else world.written
    train(world, tmp_path / how, "pcl", config, prompts=prompts, buckets=BUCKETS if how == "sampled" else WIDE)
    of: dict[int, list[tuple[int, list[int]]]] = {STUDENT: [], TEACHER: [], REFERENCE: []}
    for sample in spy.rows:
        for source, row in zip(sample.source_X, rows_of(*sample.rows[:3:2]), strict=True):
            of[int(source)].append(row)
    assert all(max(example for example, _ in of[source]) >= FIRST for source in (STUDENT, TEACHER))
    pairs, written = targets_of(world.data), targets_of(prompts)
    assert all(pairs[example] == target for example, target in of[REFERENCE])  # none is empty: rings were filled
    assert all(written[example] == target for example, target in of[TEACHER]) == (how == "greedy")


def test_a_training_on_prompts_that_stops_goes_on_bit_for_bit(world: Prompted, tmp_path: Path) -> None:
    config, how = WordKDConfig(), {"prompts": world.written}
    whole = train(world, tmp_path / "whole", "word_kd", config, **how)
    train(world, tmp_path / "parts", "word_kd", config, **how, stop_after=6)
    assert same(whole, train(world, tmp_path / "parts", "word_kd", config, **how))


def test_a_collector_of_pairs_has_ground_truth_and_one_of_prompts_has_not(world: Prompted, tmp_path: Path) -> None:
    made: dict[bool, Collector] = {
        apart: Collector(
            world.model, world.teacher, DISTIL, world.banned, parallel.select_devices(1), apart=apart
        )
        for apart in (False, True)
    }  # fmt: skip
    batch = Streams(world.context(tmp_path)).pairs()
    params = parallel.replicate(world.params, parallel.select_devices(1))
    rows = {apart: collect(params, batch, keys(world), 0) for apart, collect in made.items()}
    assert set(rows[False]) == {STUDENT, TEACHER, REFERENCE} and set(rows[True]) == {STUDENT, TEACHER}
    assert pcl_module.prompts(DISTIL, True) == "open"
