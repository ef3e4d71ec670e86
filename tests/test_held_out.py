"""Data sets of tensorflow-datasets without a validation or test split, and parts of splits that overlap."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from kdtw_jax.data import held_out
from kdtw_jax.data.features import Features
from kdtw_jax.data.held_out import Chosen, Rest
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.splits import PairSplits, held_out_parts, held_out_share, source_code
from kdtw_jax.data.store import StoredPairs, as_text, stored
from kdtw_jax.data.task import Task, load_task
from kdtw_jax.data.text_pairs import builder
from kdtw_jax.errors import UserError

PAIRS = [Pair(source=f"sum {i // 2} {'Aa'[i % 2]}", target=f"t{i}", group="") for i in range(400)]  # 200 sources, twice


def prepare(folder: Path, **splits: list[Pair]) -> Path:
    """A folder with a real data set called text_pairs, as array_record files."""
    stored(folder, "a", "r", lambda: PairSplits(splits, {}))
    return next(folder.iterdir())


def load(folder: Path, **options: object) -> Task:
    return load_task("tfds:text_pairs", data_dir=folder, features=Features("source", "target", **options))  # type: ignore[arg-type]


def texts(task: Task, split: str) -> list[tuple[str, str]]:
    return [(p["source"], p["target"]) for p in task.splits[split]]


def sources(task: Task, split: str) -> set[str]:
    return {source.lower() for source, _ in texts(task, split)}


@pytest.fixture
def one_split(tmp_path: Path) -> Path:
    return prepare(tmp_path, train=PAIRS)


def test_a_set_of_one_split_gives_validation_and_test_by_the_rule_of_files(
    one_split: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = load(one_split, held_out=0.1, seed=3)
    of_files = held_out_share({"train": PAIRS}, share=0.1, seed=3).splits
    for split, chosen in of_files.items():
        assert texts(task, split) == [(p["source"], p["target"]) for p in chosen]
    counts = {"train_pairs": 320, "validation_pairs": 40, "test_pairs": 40}
    assert counts.items() <= task.notes.items()
    assert task.notes["test_source_in_train"] == task.notes["validation_source_in_train"] == 0.0
    assert not sources(task, "train") & (sources(task, "validation") | sources(task, "test"))
    assert not sources(task, "validation") & sources(task, "test")
    assert [task.splits["train"][i] for i in range(320)] == list(task.splits["train"])
    said = [line for line in capsys.readouterr().err.splitlines() if "held out" in line]
    assert len(said) == 1 and "40 for validation and 40 for test" in said[0] and "features.validation" in said[0]


class MiniCrawl(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Translations in one split, as para_crawl has them."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="ende"),)
    pkg_dir_path = tfds.core.Path(builder.__file__).parent  # its own would have to be a package

    def _info(self) -> tfds.core.DatasetInfo:
        translation = tfds.features.Translation(languages=("de", "en"))
        return self.dataset_info_from_configs(features=translation, disable_shuffling=True)

    def _split_generators(self, _: object) -> dict[str, Iterator[tuple[int, dict[str, str]]]]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, str]]]:
        yield from ((i, {"en": f"house {i}", "de": f"Haus {i}"}) for i in range(300))


def test_translations_of_one_split_are_a_task_without_further_names(tmp_path: Path) -> None:
    made = MiniCrawl(data_dir=tmp_path, config="ende", file_format="array_record")
    skip = tfds.download.ComputeStatsMode.SKIP
    made.download_and_prepare(
        download_dir=tmp_path, download_config=tfds.download.DownloadConfig(compute_stats=skip, try_download_gcs=False)
    )
    task = load_task("tfds:mini_crawl/ende", data_dir=tmp_path)
    assert task.instruction == "translate English to German: {source}"
    assert {"train_pairs": 270, "validation_pairs": 15, "test_pairs": 15}.items() <= task.notes.items()
    assert len(set.union(*(sources(task, split) for split in task.splits))) == 300
    assert all(source.replace("house", "Haus") == target for source, target in texts(task, "test"))


def test_one_that_lacks_only_a_test_split_keeps_its_own_validation(tmp_path: Path) -> None:
    task = load(prepare(tmp_path, train=PAIRS, validation=[Pair(source="v", target="v", group="")] * 3), held_out=0.1)
    assert {split: len(s) for split, s in task.splits.items()} == {"train": 360, "validation": 3, "test": 40}
    assert not sources(task, "train") & sources(task, "test")


def test_the_pass_is_made_once_for_each_choice(one_split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(one_split, held_out=0.1)

    def refuse(*_: object) -> int:
        raise AssertionError("the choice is kept")

    with monkeypatch.context() as patch:
        patch.setattr(held_out, "source_code", refuse)
        again = load(one_split, held_out=0.1)
        for options in (
            {"held_out": 0.2},
            {"seed": 1},
            {"train": "train[:50%]"},
            {"source": "target", "target": "source"},
        ):
            with pytest.raises(AssertionError):
                load_task(
                    "tfds:text_pairs",
                    data_dir=one_split,
                    features=Features(**{"source": "source", "target": "target", "held_out": 0.1, **options}),  # type: ignore[arg-type]
                )
    assert all(texts(again, split) == texts(first, split) for split in first.splits)
    assert load(one_split, held_out=0.1, seed=1).splits["test"][0] != first.splits["test"][0]
    for kept in one_split.glob("held-out-*"):
        kept.write_bytes(b"damaged")
    assert texts(load(one_split, held_out=0.1), "test") == texts(first, "test")


def test_a_choice_that_was_made_of_other_texts_is_not_taken(one_split: Path, tmp_path: Path) -> None:
    load(one_split)
    others = [Pair(source=p["source"] + "!", target=p["target"], group="") for p in PAIRS]
    folder = prepare(tmp_path / "other", train=others)
    for kept in one_split.glob("held-out-*"):
        shutil.copy(kept, folder)
    of_files = held_out_share({"train": others}, share=0.05, seed=0).splits
    assert texts(load(folder), "test") == [(p["source"], p["target"]) for p in of_files["test"]]


def test_little_of_a_large_set_is_held_out(one_split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(sources(load(one_split, held_out=0.1), "test")) == 20
    monkeypatch.setattr(held_out, "MOST", 7)
    task = load(one_split, held_out=0.1)  # what was kept of another choice is none of this one
    assert (len(sources(task, "validation")), len(sources(task, "test"))) == (7, 7)


def test_of_a_hundred_thousand_sources_and_more_five_thousand_are_held_out(tmp_path: Path) -> None:
    many = [Pair(source=str(i), target="", group="") for i in range(110_000)]
    found = held_out.hold_out(
        many, ["validation", "test"], share=0.05, seed=0, label="", folder=tmp_path, recipe=""
    )  # fmt: skip
    assert {split: len(pairs) for split, pairs in found.items()} == {
        "train": 100_000,
        "validation": 5000,
        "test": 5000,
    }
    assert len({pair["source"] for pairs in found.values() for pair in pairs}) == 110_000


def test_parts_as_long_as_each_other_are_chosen_from_apart(one_split: Path) -> None:
    halves = [load(one_split, train=part, held_out=0.1) for part in ("train[:50%]", "train[50%:]")]
    first, second = ({source for split in half.splits for source in sources(half, split)} for half in halves)
    assert len(first) == len(second) == 100 and not first & second
    assert halves[0].splits["test"].place_N.tolist() != halves[1].splits["test"].place_N.tolist()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": "train[99%:]", "test": "train[99%:]"}, r"'train' for train and 'train\[99%:\]' for validation"),
        ({"test": "train[99%:]"}, r"'train' for train and 'train\[99%:\]' for test have 4 pairs in common"),
        ({"test": "train"}, r"have 400 pairs in common"),
        ({"train": "train[:50%]+train[70%:]", "test": "train[60%:71%]"}, r"for test have 4 pairs"),
        (
            {"train": "train[:90%]", "validation": "train[90%:]", "test": "train[360:361]"},
            r"for validation and .*1 pairs",
        ),
        ({"train": "train[:-4]", "test": "train[-5:]"}, r"have 1 pairs"),
        ({"train": "all", "test": "train[:1]"}, r"have 1 pairs"),
        ({"test": "train[-0.1%:]"}, r"have 400 pairs in common"),
        ({"test": "train[400:]"}, r"there is nothing in 'train\[400:\]' for test \(train has 400 pairs\)"),
        ({"train": "train[:50%]", "test": "train[90%:60%]"}, r"there is nothing in 'train\[90%:60%\]'"),
        ({"test": "dev"}, r"has no split 'dev' for test; it has train, and parts serve"),
        ({"train": "training"}, r"has no split 'training' for train; it has train"),
        ({"test": "train[x:]"}, r"has no split 'train\[x:\]' for test \(Error parsing split"),
        ({"test": "train[500:]"}, r"\(Requested slice \[500:400\] incompatible with 400 examples"),
        ({"test": "all[:10%]"}, r"has no split 'all\[:10%\]' for test \("),
        ({"test": ""}, r"has no split '' for test"),
    ],
)
def test_parts_that_overlap_or_are_none_are_refused_with_three_that_do_not(
    one_split: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as e:
        load(one_split, **options)
    assert "\n" not in str(e.value)
    assert not list(one_split.glob("held-out-*"))
    if "there is nothing" not in message:
        advice = str(e.value).partition("as in ")[2]
        ranges = dict(word.removeprefix("features.").split("=") for word in advice.split(", "))
        task = load(one_split, **{split: part.strip("'") for split, part in ranges.items()})
        assert sorted(pair for split in task.splits for pair in texts(task, split)) == sorted(
            (p["source"], p["target"]) for p in PAIRS
        )


def test_of_few_pairs_larger_parts_are_advised(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"validation='train\[80%:90%\]', features.test='train\[90%:\]'$"):
        load(prepare(tmp_path, train=PAIRS[:40]), test="train[90%:]")


def test_parts_of_other_splits_and_beside_each_other_are_taken(tmp_path: Path) -> None:
    others = [Pair(source=f"other {i}", target=f"andere {i}", group="") for i in range(10)]
    folder = prepare(tmp_path, train=PAIRS, test=others)
    task = load(folder, train="train[:90%]", validation="train[90%:]")
    assert {split: len(s) for split, s in task.splits.items()} == {"train": 360, "validation": 40, "test": 10}
    halves = load(folder, validation="test[:50%]", test="test[50%:]")
    assert texts(halves, "validation") + texts(halves, "test") == texts(task, "test")


def test_texts_of_a_split_that_are_in_training_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Pair(source="other", target="andere", group="")
    folder = prepare(tmp_path, train=PAIRS, validation=[other], test=[*PAIRS[:3], other])
    assert load(folder).notes["test_source_in_train"] == 0.75
    assert "75.0% of the sources of test are training sources, too" in capsys.readouterr().err
    assert load(folder, test="test[:3]").notes["test_source_in_train"] == 1.0
    assert "100.0% of the sources of test" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"'train\[:9\]\+train\[5:\]' for train has some pairs twice"):
        load(folder, train="train[:9]+train[5:]")


def test_a_set_without_a_training_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'train' for train; it has test, and parts serve, too, as in feat"):
        load(prepare(tmp_path, test=PAIRS))


def test_what_is_known_before_the_download_is_said_before_it(one_split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be downloaded")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)
    for options in ({"test": "train[99%:]"}, {"test": "dev"}, {"train": "training"}):
        with pytest.raises(UserError, match=r"pairs in common|has no split"):
            load(one_split, **options)


def test_one_source_alone_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^1 distinct training sources are too few"):
        load(prepare(tmp_path, train=[Pair(source="x", target="y", group="")] * 9))


def test_a_folder_that_can_only_be_read_will_do(one_split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise UserError("cannot write")

    monkeypatch.setattr(held_out, "write_arrays", full)
    assert len(load(one_split).splits["test"]) == 20


@pytest.mark.parametrize("share", [0, 0.5, -1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=r"features.held_out must be above 0 and below 0.5, got"):
        Features(held_out=share)


# ---- the parts by themselves


@pytest.mark.parametrize("without", [[], [0], [9], [0, 1, 2], [3, 4, 8, 9], list(range(10))])
def test_the_rest_is_what_is_left(without: list[int]) -> None:
    rest = Rest(PAIRS[:10], np.array(without, np.int64))
    expected = [pair for i, pair in enumerate(PAIRS[:10]) if i not in without]
    assert list(rest) == expected == [rest[i] for i in range(len(rest))]
    assert len(rest) == len(expected)
    assert [rest[i] for i in range(-len(rest), 0)] == expected
    chosen = Chosen(PAIRS[:10], np.array(without, np.int64))
    assert list(chosen) == [PAIRS[i] for i in without] == [chosen[i] for i in range(len(chosen))]
    for source in (rest, chosen):
        for outside in (len(source), -len(source) - 1):
            with pytest.raises(IndexError):
                source[outside]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("most", [None, 5])
def test_parts_have_their_share_of_the_codes(parts: int, most: int | None) -> None:
    rng = np.random.default_rng(0)
    code_N = rng.integers(0, 2**64, 300, np.uint64).repeat(rng.integers(1, 5, 300))
    part_N = held_out_parts(code_N, parts, share=0.1, most=most)
    for part in range(parts):
        assert len(np.unique(code_N[part_N == part])) == (30 if most is None else 5)
    assert len(np.unique(code_N[part_N == parts])) == 300 - parts * (30 if most is None else 5)
    turned = held_out_parts(code_N[::-1], parts, share=0.1, most=most)
    assert (turned[::-1] == part_N).all()


def test_codes_are_those_of_the_source_and_the_seed() -> None:
    assert source_code("Ä  1", 0) == source_code("a\u0308 1 ", 0) != source_code("Ä 2", 0)
    assert source_code("Ä 1", 0) != source_code("Ä 1", 1)


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert as_text(b"na\xefve \xed\xa0\xbd") == "na\ufffdve \ufffd\ufffd\ufffd"
    rows = [{"source": b"\xff", "target": "ü".encode()}]
    assert StoredPairs(rows, group=None)[0] == Pair(source="\ufffd", target="ü", group="")
