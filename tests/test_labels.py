"""A teacher's labels in a folder: what a teacher that is there says, in any number of shards, or refused in a line."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from kdtw_jax.cli import main
from kdtw_jax.cli.label import share_of
from kdtw_jax.data.textfiles import FileSpec
from kdtw_jax.data.tokenizer import EOS_ID, train_tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.methods.gkd import GKDConfig
from kdtw_jax.methods.word_kd import WordKDConfig
from kdtw_jax.models import Model, Params, make_model
from kdtw_jax.parallel.shards import mesh_of
from kdtw_jax.pipeline.begin import begin
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.label import Wanted, label
from kdtw_jax.pipeline.plan import show_plan
from kdtw_jax.pipeline.prepare import look_up, prepare
from kdtw_jax.pipeline.presets import TRANSLATION
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.pipeline.stages import train_students, train_teacher
from kdtw_jax.pipeline.teacher_cache import How, TeacherCache, open_cache
from kdtw_jax.pipeline.teacher_outputs import claim_prompts, prompts_for, readings_for
from kdtw_jax.pretrained.load import PlacementOf
from kdtw_jax.pretrained.named import Named, read_teacher
from kdtw_jax.runs.lock import take_lock
from kdtw_jax.training import labels
from kdtw_jax.training.beforehand import Share
from kdtw_jax.training.identity import model_hash
from kdtw_jax.training.labels import (
    MANIFEST,
    LabelSet,
    Record,
    bytes_per_token,
    claim_labels,
    ids_type,
    open_labels,
    pack,
    unpack,
)
from kdtw_jax.training.readings import Kept
from kdtw_jax.training.saved import SavedModel, load_model, save_model

METHODS = ("pcl", "word_kd", "gkd", "seqkd")
GREEDY: tuple[How, Kept] = ("greedy", Kept(8))
BEAM: tuple[How, Kept] = ("beam", Kept(8, 0.5))
SHARDS = 2


def ending_often(model: Model, seed: int) -> Params:
    """Random weights, so large that what is written is not one token again and again, and the end now and then."""

    def scaled(x: np.ndarray, axis: int | None) -> np.ndarray:
        large = np.array(4.0 * x if np.ndim(x) > 1 else x, np.float32)
        if axis is not None:
            np.moveaxis(large, axis, 0)[EOS_ID] *= 3.0
        return large

    parts = jax.device_get(model.init(jax.random.key(seed))).items()
    return {name: jax.tree.map(partial(scaled, axis=model.vocabulary_axis(name)), part) for name, part in parts}


class Stopped(Exception):
    """As a kill would."""


class World:
    """Texts, a teacher of small random weights in a folder, and the configuration of a run that learns from it."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        words = ["".join(rng.choice(list("abcdef"), 3)) for _ in range(30)]
        texts = [" ".join(rng.choice(words, size=rng.integers(1, 7))) for _ in range(330)]
        texts = list(dict.fromkeys(texts))
        (folder / "train.jsonl").write_text(
            "\n".join(json.dumps({"source": text, "target": text[::-1]}) for text in texts[:-90])
        )
        (folder / "more.txt").write_text("\n".join(texts[-90:]))
        self.folder, self.teacher = folder, folder / "teacher"
        tokenizer = train_tokenizer(texts + [text[::-1] for text in texts], vocab_size=120, exact=False)
        tiny = TRANSLATION["tiny"]
        size = dataclasses.replace(tiny.teacher, vocab_size=tokenizer.vocab_size)
        for name, seed in (("teacher", 1), ("another", 2)):
            save_model(folder / name, size, ending_often(make_model(size), seed), tokenizer)
        text = dataclasses.replace(
            tiny.text, folder=folder / "data", files=FileSpec(train_source=folder / "train.jsonl"), buckets=2,
            max_source=24, max_target=24, batch_tokens=96,
        )  # fmt: skip
        pcl = dataclasses.replace(
            tiny.of("pcl"), demonstrations="greedy", read_ahead=True, student_share=0.0, teacher_share=1.0,
            reference_share=0.0, demonstration_fraction=1.0, updates_per_rollout=1, top_k=8,
        )  # fmt: skip
        settings = {
            "pcl": pcl,
            "word_kd": WordKDConfig(demonstrations="greedy", top_k=4),
            "gkd": GKDConfig(student_share=0.0, demonstrations="beam", top_k=8, alpha=0.5),
        }
        self.live: Experiment = dataclasses.replace(
            tiny, data="files", text=text, prompts=str(folder / "more.txt"), devices=1, methods=METHODS,
            settings={**tiny.settings, **settings}, teacher_model=str(self.teacher),
            eval=dataclasses.replace(tiny.eval, limit=8),
        )  # fmt: skip
        self.cached = dataclasses.replace(self.live, teacher_model=None, teacher_cache=folder / "labels")

    def label(self) -> None:
        label(self.live, self.folder / "labels", Wanted(*BEAM))
        for number in range(1, SHARDS + 1):
            label(self.live, self.folder / "labels", Wanted(*GREEDY, Share(number, SHARDS)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("labels"))
    world.label()
    return world


def learned_from(
    config: Experiment, folder: Path, methods: Sequence[str] = ("pcl", "word_kd", "gkd")
) -> dict[str, Any]:
    """What every method of a run is given of the teacher."""
    found = {}
    with begin(folder, "translation", config) as (run, given):
        setup = prepare(config, run, Console(quiet=True), given)
        teacher = train_teacher(config, setup, run) if config.has_teacher else None
        for method in methods:
            outputs = prompts_for(config, setup, teacher, run, method)
            found[method] = (outputs, readings_for(config, setup, teacher, run, method))
    return found


def test_labels_in_shards_are_what_a_teacher_that_is_there_says_bit_for_bit(world: World, tmp_path: Path) -> None:
    live, cached = learned_from(world.live, tmp_path / "live"), learned_from(world.cached, tmp_path / "cached")
    for method, (outputs, readings) in live.items():
        others, other = cached[method]
        for side in ("sources", "targets"):
            for part in ("values", "offsets"):
                np.testing.assert_array_equal(
                    getattr(getattr(outputs, side), part), getattr(getattr(others, side), part)
                )
        np.testing.assert_array_equal(outputs.targets_room, others.targets_room)
        for name in ("kept", "example_N", "offsets", "log_prob_X", "top_log_prob_XxK", "top_ids_XxK"):
            mine, its = getattr(readings, name), getattr(other, name)
            assert np.array_equal(mine, its) and (name == "kept" or mine.dtype == its.dtype), name
    rows = live["pcl"][0]
    assert len(set(rows.targets.lengths.tolist())) > 1 and len(rows) > 200  # several lengths, and several parts
    kept = np.exp(cached["pcl"][1].top_log_prob_XxK.astype(np.float64)).sum(axis=1)
    assert (kept < 1 + 1e-6).all() and kept.min() < 0.9  # there is a tail, which is what they lack to 1
    assert not (tmp_path / "cached" / "teacher").exists()


def test_the_manifest_says_what_is_there(world: World) -> None:
    found = json.loads((world.folder / "labels" / "beam_top8_temperature0.5" / MANIFEST).read_text())
    saved = load_model(world.teacher)
    assert found["teacher"]["hash"] == model_hash(saved.model, saved.params)
    assert (found["top_k"], found["temperature"], found["shards"], len(found["files"])) == (8, 0.5, 1, 1)
    assert found["decoding"] == {"demonstrations": "beam", "beam_size": 2, "length_penalty": 0.6}
    folder = world.folder / "labels" / "beam_top8_temperature0.5"
    records = list(open_labels(folder).records())
    assert found["rows"] == len(records) == len({record.example for record in records})
    assert found["tokens"] == sum(len(record.target_T) for record in records)
    both = json.loads((world.folder / "labels" / "greedy_top8" / MANIFEST).read_text())
    parts = [note["rows"] for note in both["files"]]
    assert len(parts) == SHARDS and min(parts) > 0 and sum(parts) == both["rows"] == found["rows"]  # none is made twice
    size = sum(path.stat().st_size for path in folder.glob("*.array_record"))
    assert found["bytes"] == size and found["bytes_per_token"] == round(size / found["tokens"], 2)
    assert found["raw_bytes_per_token"] == bytes_per_token(8, 120) == 2 + 4 + 8 * 6


def test_a_record_is_itself_after_the_files_and_its_size_is_what_is_said() -> None:
    rng = np.random.default_rng(0)
    for size, top_k, t in ((100, 3, 5), (1 << 17, 2, 4), (100, 0, 3)):
        ids = ids_type(size)
        source, target = rng.integers(0, size, 4), rng.integers(0, size, t)
        scores = rng.normal(size=t if top_k else 0).astype(np.float32)
        tops = rng.normal(size=(t, top_k)).astype(np.float32), rng.integers(0, size, (t, top_k))
        record = Record(7, source, target, scores, *tops)
        content = pack(record, ids)
        for mine, its in zip(record, unpack(content, ids, top_k), strict=True):
            np.testing.assert_array_equal(mine, its)
        assert len(content) == 12 + 4 * np.dtype(ids).itemsize + t * bytes_per_token(top_k, size)
        for wrong in (content[:-1], content + b"0", b""):
            with pytest.raises((ValueError, Exception), match=r"record|buffer"):
                unpack(wrong, ids, top_k)


def test_what_an_interrupted_process_had_done_is_not_made_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want, folder = Wanted("greedy", Kept(8), Share(2, SHARDS)), tmp_path / "labels" / "greedy_top8"

    def stop(*_: Any, **__: Any) -> Any:
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr("kdtw_jax.pipeline.writer.read_ahead", stop)
        with pytest.raises(Stopped):
            label(world.live, tmp_path / "labels", want)
    assert list((folder / ".work-2-of-2").glob("outputs*/*.npz"))
    (folder / "shard-00001-of-00002.array_record").write_bytes(b"half")  # without a note
    (folder / ".shard-00002-of-00002.array_record.1.tmp").write_bytes(b"half")
    monkeypatch.setattr("kdtw_jax.methods.seqkd.beam_search", stop)  # nothing is written anew
    label(world.live, tmp_path / "labels", want)
    monkeypatch.setattr("kdtw_jax.pipeline.writer.read_ahead", stop)
    label(world.live, tmp_path / "labels", want)  # nor is a shard that is there
    found = open_labels(folder)
    assert found.missing() == [1] and not (folder / MANIFEST).exists() and not (folder / ".work-2-of-2").exists()
    mine, other = (one / found.note(2).with_suffix(".array_record").name for one in (folder, world.folder / "labels" / "greedy_top8"))  # fmt: skip  # noqa: E501
    assert mine.read_bytes() == other.read_bytes()
    with pytest.raises(UserError, match=r"not complete: shard 1 of 2 is missing; run kdtw label with --shard 1/2"):
        look_up(dataclasses.replace(world.cached, teacher_cache=tmp_path / "labels", methods=("pcl",)))


NOTHING = Wanted("greedy", Kept(0), Share(64, 64))  # a shard for which no batch is left


def test_of_two_processes_of_a_shard_one_makes_it_and_nothing_is_left(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = tmp_path / "labels" / "greedy", []
    work, note = folder / ".work-64-of-64", folder / "shard-00064-of-00064.json"
    write, lock, remove = LabelSet.write, take_lock, shutil.rmtree

    def counted(self: LabelSet, *rest: Any) -> Any:
        made.append(1)
        return write(self, *rest)

    def removed(place: Path, **how: Any) -> None:
        with pytest.raises(UserError, match="in use by process"):  # nobody takes the lock while it goes
            lock(place)
        remove(place, **how)

    def late(place: Path, again: bool) -> Any:
        with monkeypatch.context() as patched:  # the other one has seen no note either, and goes first
            patched.setattr("kdtw_jax.pipeline.label.take_lock", lock)
            patched.setattr("kdtw_jax.pipeline.label.shutil.rmtree", removed)
            label(world.live, tmp_path / "labels", NOTHING)
        if again:
            place.mkdir()
        return lock(place)

    monkeypatch.setattr(LabelSet, "write", counted)
    for again in (True, False):  # it finds the lock free, or its folder gone
        note.unlink(missing_ok=True)
        made.clear()
        monkeypatch.setattr("kdtw_jax.pipeline.label.take_lock", partial(late, again=again))
        label(world.live, tmp_path / "labels", NOTHING)
        assert made == [1] and note.exists() and not work.exists()
    work.mkdir()  # as of a process that was killed after the note
    label(world.live, tmp_path / "labels", NOTHING)
    assert made == [1] and not work.exists()


def test_of_two_who_claim_a_folder_at_once_the_second_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = open_labels(world.folder / "labels" / "greedy_top8").about
    write = labels.write_json

    def first(path: Path, value: Any) -> None:
        monkeypatch.setattr(labels, "write_json", write)
        claim_labels(tmp_path / "set", {**about, "shards": 3})
        write(path, value)

    monkeypatch.setattr(labels, "write_json", first)
    with pytest.raises(UserError, match="is for other labels: shards 3 there, 2 here"):
        claim_labels(tmp_path / "set", about)
    assert open_labels(tmp_path / "set").shards == 3 and len(list((tmp_path / "set").iterdir())) == 1

    def no_links(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("kdtw_jax.training.labels.os.link", no_links)
    assert claim_labels(tmp_path / "other", about).shards == 2 and len(list((tmp_path / "other").iterdir())) == 1


def test_a_teacher_beside_labels_is_compared_before_it_is_spread(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def placed(found: Named, *, dtype: str, placement: PlacementOf | None = None) -> SavedModel:
        saved = read_teacher(found, dtype=dtype)  # one of ours stays on the host, a published one goes to its place
        if placement is None:
            return saved
        return saved._replace(params=jax.tree.map_with_path(lambda path, x: jax.device_put(x, placement(tuple(key.key for key in path), x.shape)), saved.params))  # fmt: skip  # noqa: E501

    def on_host(model: Model, params: Params) -> str:
        assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
        return model_hash(model, params)

    monkeypatch.setattr("kdtw_jax.pipeline.stages.read_teacher", placed)
    monkeypatch.setattr("kdtw_jax.pipeline.stages.model_hash", on_host)
    spread = dataclasses.replace(world.live, devices=2, teacher_shards=2)
    for config in (spread, dataclasses.replace(spread, teacher_cache=world.folder / "labels", methods=("pcl",))):
        with begin(tmp_path / str(config.teacher_cache is None), "translation", config) as (run, given):
            teacher = train_teacher(config, prepare(config, run, Console(quiet=True), given), run)
        assert mesh_of(teacher.params) is not None


def test_labels_may_move_and_those_of_another_teacher_may_not_take_their_place(world: World, tmp_path: Path) -> None:
    folder = shutil.copytree(world.folder / "labels", tmp_path / "moved")
    moved = dataclasses.replace(world.cached, teacher_cache=folder)
    for config in (world.cached, moved):
        with begin(tmp_path / "run", "translation", config) as (run, given):
            setup = prepare(config, run, Console(quiet=True), given)
            claim_prompts(setup, run)
            assert run.begun()
        assert restore(tmp_path / "run")[1].teacher_cache == config.teacher_cache
    with pytest.raises(UserError, match=r"teacher_cache was true, now \(unset\)"):
        begin(tmp_path / "run", "translation", dataclasses.replace(moved, teacher_cache=None)).__enter__()
    for path in folder.glob("*/label.json"):
        about = json.loads(path.read_text())
        path.write_text(json.dumps({**about, "teacher": {**about["teacher"], "hash": "0" * 16}}))
    with (
        begin(tmp_path / "run", "translation", moved) as (run, given),
        pytest.raises(UserError, match=r'stage teacher_cache .* holds .* hash was "[0-9a-f]+", now "0{16}"'),
    ):
        claim_prompts(setup._replace(cache=given.cache), run)


def changed(config: Experiment, **sections: dict[str, Any]) -> Experiment:
    """A run with other values in some of its sections."""
    return dataclasses.replace(
        config, **{name: dataclasses.replace(getattr(config, name), **values) for name, values in sections.items()}
    )


def with_method(config: Experiment, method: str, **values: Any) -> Experiment:
    return config.with_settings(**{method: dataclasses.replace(config.of(method), **values)})


REFUSED: dict[str, tuple[Callable[[Experiment], Experiment], str]] = {
    "k": (
        lambda c: with_method(c, "word_kd", top_k=9),
        "no greedy outputs .* with their top 9; it has .*, greedy_top8; add .* greedy --top-k 9 --temperature 1",
    ),
    "temperature": (lambda c: with_method(c, "gkd", alpha=0.7), r"no beam outputs read at temperature 0\.7"),
    "lengths": (lambda c: changed(c, text={"max_target": 16}), "other settings: max_target 24 there, 16 here"),
    "beam": (lambda c: dataclasses.replace(c, beam_size=3), "other settings: beam_size 2 there, 3 here"),
    "folder": (lambda c: dataclasses.replace(c, teacher_cache=Path("gone")), "gone has no labels of a teacher"),
    "live": (
        lambda c: with_method(c, "pcl", student_share=0.5, teacher_share=0.5),
        r"pcl asks the teacher while .* --teacher-model, or do without it by .*pcl: {.*student_share: 0\.0",
    ),
    "ask": (lambda c: dataclasses.replace(c, methods=("ask",)), "ask asks the teacher .*, or leave the method out"),
    "layers": (lambda c: dataclasses.replace(c, student_from_teacher=1), "students of the teacher's layers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_labels_do_not_have_is_named_in_a_line(world: World, name: str) -> None:
    change, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as raised:
        look_up(change(world.cached))
    assert "\n" not in str(raised.value)


def test_labels_of_other_prompts_vocabularies_and_teachers_are_refused(world: World, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text((world.folder / "more.txt").read_text() + "\nfed fed fed fed abc fed\n")
    other = dataclasses.replace(world.cached, prompts=str(more))
    with pytest.raises(UserError, match=r"greedy_top8 lacks 1 of the \d+ prompts of this run: text\.prompts .* there"):
        learned_from(other, tmp_path / "prompts")
    train_tokenizer(["abcdef", "fedcba"], vocab_size=30, exact=False).save(tmp_path / "other.model")
    other = changed(world.cached, text={"tokenizer": tmp_path / "other.model"})
    with pytest.raises(
        UserError, match=r"labels of the vocabulary [0-9a-f]{16}, and this run has [0-9a-f]{16}: .*there"
    ):
        look_up(other)
    strange = str(world.folder / "another")
    both = dataclasses.replace(world.live, teacher_cache=world.folder / "labels", teacher_model=strange)
    with pytest.raises(
        UserError, match=rf"labels of the teacher {world.teacher} \([0-9a-f]+\), and {strange} is another"
    ):
        learned_from(both, tmp_path / "teacher")
    with pytest.raises(
        UserError, match=rf"beam_.* has labels of others: teacher {world.teacher} \(.*\) there, {strange}"
    ):
        label(
            dataclasses.replace(world.live, teacher_model=strange), world.folder / "labels", Wanted("greedy", Kept(3))
        )
    assert not (world.folder / "labels" / "greedy_top3").exists()
    with pytest.raises(UserError, match="is for other labels: shards 2 there, 1 here"):
        label(world.live, world.folder / "labels", Wanted(*GREEDY))


def test_outputs_come_from_the_set_that_has_what_was_made_of_them(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.folder / "labels" / "greedy_top8", tmp_path / "labels" / "greedy_top8")
    read = open_labels(tmp_path / "labels" / "greedy_top8")
    alone = claim_labels(tmp_path / "labels" / "greedy", {**read.about, "top_k": 0, "shards": 1})
    shutil.copy(read.folder / "tokenizer.model", alone.folder)
    records = [one._replace(log_prob_T=one.log_prob_T[:0], top_log_prob_TxK=one.top_log_prob_TxK[:0, :0]) for one in read.records()]  # fmt: skip  # noqa: E501
    # As on another number of devices: an argmax differs, in as many tokens.
    others = [one._replace(target_T=np.append(one.target_T[1:], EOS_ID), top_ids_TxK=one.top_ids_TxK[:0, :0]) for one in records]  # fmt: skip  # noqa: E501
    alone.write(Share(1, 1), others)
    alone.join()
    config = dataclasses.replace(world.cached, teacher_cache=tmp_path / "labels", methods=("pcl",))
    mine, usual = (learned_from(c, tmp_path / name, ["pcl"])["pcl"] for name, c in (("a", config), ("b", world.cached)))
    for outputs, readings in (mine, usual):
        np.testing.assert_array_equal(outputs.targets.values, usual[0].targets.values)
        np.testing.assert_array_equal(readings.log_prob_X, usual[1].log_prob_X)
    cache = open_cache(tmp_path / "labels")
    outputs = cache.outputs(config, mine[0], "greedy")
    assert not np.array_equal(outputs.targets.values, usual[0].targets.values)
    np.testing.assert_array_equal(outputs.targets.lengths, usual[0].targets.lengths)
    with pytest.raises(UserError, match=r"\d+ of these \d+ outputs are not those of .*greedy_top8, .* from that set"):
        cache.readings(config, outputs, *GREEDY)


def test_outputs_of_one_beam_do_not_go_with_what_was_made_of_those_of_another(world: World) -> None:
    read = open_labels(world.folder / "labels" / "beam_top8_temperature0.5")
    wider = {**read.about["decoding"], "beam_size": 9}
    alone = dataclasses.replace(read, about={**read.about, "top_k": 0, "decoding": wider})
    TeacherCache(world.folder, (read,)).check(world.cached.only("gkd"))
    TeacherCache(world.folder, (read, alone)).check(world.cached.only("gkd"))  # which takes both from that of top 8
    with pytest.raises(UserError, match="other settings: beam_size 9 there, 2 here"):
        TeacherCache(world.folder, (read, alone)).check(world.cached.only("seqkd"))


def test_a_damaged_shard_is_named(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.folder / "labels", tmp_path / "labels")
    cache = open_cache(tmp_path / "labels")
    shard = next((tmp_path / "labels" / "greedy_top8").glob("*.array_record"))
    content = shard.read_bytes()
    for wrong in (content[:-9], content[:400] + bytes(1) + content[401:]):
        shard.write_bytes(wrong)
        with pytest.raises(UserError, match=rf"{shard.name} is damaged \(.*\); copy it again"):
            list(cache.find("greedy", None).records())
    # Of a file that is cut short or missing a run is told at its beginning.
    for lost in (lambda: shard.write_bytes(content[:-9]), shard.unlink):
        lost()
        with pytest.raises(UserError, match=rf"{shard.name} is damaged \(it (has|is missing).*\); copy it again"):
            cache.check(world.cached.only("word_kd"))
    shard.write_bytes(content)
    note = shard.with_suffix(".json")
    note.write_text('{"rows": "many"}')
    with pytest.raises(UserError, match=rf"{note.name} is damaged; copy it again"):
        cache.find("greedy", None).manifest()
    about = tmp_path / "labels" / "greedy_top8" / "label.json"
    for content, message in (
        ('{"format": "other"}', "has the format 'other', this version reads"),
        (about.read_text().replace('"<u2"', '"object"'), r"label\.json is damaged: it does not say ids"),
        (about.read_text().replace('"top_k": 8', '"top_k": "x"'), r"label\.json is damaged: it does not say top_k"),
    ):
        about.write_text(content)
        with pytest.raises(UserError, match=message):
            open_cache(tmp_path / "labels")


def test_a_writer_may_have_nothing_to_write(world: World, tmp_path: Path) -> None:
    stated = open_labels(world.folder / "labels" / "beam_top8_temperature0.5")
    empty = claim_labels(tmp_path / "empty", stated.about)
    empty.write(Share(1, 1), [])
    found = empty.join()
    assert found is not None and (found["rows"], found["bytes_per_token"] >= 0) == (0, True)
    assert list(empty.records()) == []


def test_a_plan_says_what_the_labels_take(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    stages = {stage.name: stage for stage in show_plan(world.cached)}
    assert set(stages) == {"warmup", *METHODS} and not any(stage.teacher for stage in stages.values())
    said = capsys.readouterr().out
    assert "greedy outputs, top 8 at temperature 1: 54 bytes per token" in said.replace("\n", " ")
    assert f"in {world.folder / 'labels' / 'greedy_top8'}" in said


def test_padding_and_heads_of_ours_make_no_other_teacher(world: World) -> None:
    saved = load_model(world.teacher)
    padded = load_model(world.teacher, tokenizer=saved.tokenizer.padded_to(saved.tokenizer.vocab_size + 5))
    own, other = model_hash(saved.model, saved.params), model_hash(padded.model, padded.params)
    assert own == other != model_hash(*load_model(world.folder / "another")[:2])
    headless = {name: part for name, part in saved.params.items() if name not in ("value", "gate")}
    assert model_hash(saved.model, headless) == own


@pytest.mark.parametrize("said", ["0/4", "5/4", "3", "a/b", "1/0", "-1/3", ""])
def test_shards_are_counted_from_one(said: str) -> None:
    assert share_of("3/16") == Share(3, 16)
    with pytest.raises(UserError, match="--shard must be I/N with I from 1 to N"):
        share_of(said)


def test_slips_of_the_command_are_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        ([], "say where the labels go: --out FOLDER"),
        (["--out", "x"], "no teacher is named: give --teacher RUN"),
        (["--out", "x", "--teacher", "y", "--top-k", "-1"], "--top-k must be a whole number"),
        (["--out", "x", "--teacher", "y", "--temperature", "0"], "--temperature must be a number above 0"),
        (["--out", "x", "--teacher", "y", "--demonstrations", "sampled"], "--demonstrations must be greedy or beam"),
        (["--out", "x", "--teacher", "gone"], "gone is not a saved model"),
    ):
        assert main(["label", "--preset", "tiny", *words]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and message in said[0]
    assert not Path("x").exists()


@pytest.mark.long
def test_every_method_learns_the_same_from_labels_bit_for_bit(world: World, tmp_path: Path) -> None:
    students = {}
    for name, config in (("live", world.live), ("cached", world.cached)):
        with begin(tmp_path / name, "translation", config) as (run, given):
            setup = prepare(config, run, Console(quiet=True), given)
            teacher = train_teacher(config, setup, run) if config.has_teacher else None
            students[name] = train_students(config, setup, teacher, 0, run)
        assert restore(tmp_path / name)[1].teacher_cache == config.teacher_cache
    for method in METHODS:
        mine, its = (jax.tree.leaves(students[name][method].params) for name in ("live", "cached"))
        assert len(mine) == len(its) and all(map(np.array_equal, mine, its)), method
    start = jax.tree.leaves(load_model(tmp_path / "live" / "seed0" / "warmup" / "model").params)
    assert not all(map(np.array_equal, start, jax.tree.leaves(students["cached"]["gkd"].params)))


@pytest.mark.long
def test_texts_of_ones_own_are_labelled_from_the_command_line_and_found_by_a_run(world: World, tmp_path: Path) -> None:
    words = ["--preset", "tiny", "--devices", "1", "--text.buckets", "2", "--text.batch-tokens", "96"]
    words += ["--text.max-source", "24", "--text.max-target", "24", "--teacher", str(world.teacher), "--top-k", "8"]
    for shard in ("2/2", "1/2"):
        texts = ["--texts", str(world.folder / "more.txt"), "--texts", str(world.folder / "train.jsonl")]
        assert main(["label", *words, *texts, "--shard", shard, "--out", str(tmp_path / "labels")]) == 0
    own = dataclasses.replace(world.cached, teacher_cache=tmp_path / "labels", methods=("pcl",))
    found, usual = (learned_from(c, tmp_path / name, ["pcl"])["pcl"] for name, c in (("a", own), ("b", world.cached)))
    np.testing.assert_array_equal(found[0].targets.values, usual[0].targets.values)
    np.testing.assert_allclose(found[1].log_prob_X, usual[1].log_prob_X, atol=1e-5)  # of other batches
