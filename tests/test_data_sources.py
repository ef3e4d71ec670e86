"""Text files and tensorflow-datasets, and `load_task` over them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from kdtw_jax.data import cldr
from kdtw_jax.data.features import Features
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.splits import PairSplits, held_out_share
from kdtw_jax.data.store import stored
from kdtw_jax.data.task import load_task
from kdtw_jax.data.textfiles import FileSpec, file_pairs
from kdtw_jax.data.tfds_source import tfds_pairs
from kdtw_jax.errors import UserError


def pairs(n: int, prefix: str = "s") -> list[Pair]:
    return [Pair(source=f"{prefix} {'abcdefghij'[i % 10]} {'x' * i}", target=f"ü {i}", group=f"g{i}") for i in range(n)]


def made(n: int = 30) -> PairSplits:
    return PairSplits({"train": pairs(n), "validation": pairs(3, "v"), "test": pairs(2, "t")}, {"families": 7})


def refuse() -> PairSplits:
    raise AssertionError("these pairs are there already")


# ---- text files


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_parallel_files_and_json_lines_say_the_same(tmp_path: Path) -> None:
    some = [(p["source"].strip(), p["target"]) for p in pairs(12)]
    source = write(tmp_path / "a.en", *(s for s, _ in some))
    target = write(tmp_path / "a.de", *(t for _, t in some))
    lines = write(tmp_path / "a.jsonl", *(json.dumps({"en": s, "de": t, "more": 1}) for s, t in some))
    test = write(tmp_path / "test.jsonl", *(json.dumps({"en": s, "de": t}) for s, t in [*some[:6], ("other", "x")]))
    names = {"test_source": test, "source_key": "en", "target_key": "de"}
    splits = [
        file_pairs(FileSpec(train_source=source, train_target=target, **names)),  # type: ignore[arg-type]
        file_pairs(FileSpec(train_source=lines, **names)),  # type: ignore[arg-type]
    ]
    assert splits[0] == splits[1]
    assert [(p["source"], p["target"]) for p in splits[0].splits["test"]] == [*some[:6], ("other", "x")]
    assert splits[0].notes["test_source_in_train"] > 0.7


def test_windows_files_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\nthree\r\nfour")
    spec = FileSpec(train_source=tmp_path / "a", train_target=write(tmp_path / "b", "1", "2", "3", "4"))
    chosen = [p for split in file_pairs(spec).splits.values() for p in split]
    assert sorted((p["source"], p["target"]) for p in chosen) == [
        ("four", "4"),
        ("one", "1"),
        ("three", "3"),
        ("two", "2"),
    ]


def test_held_out_pairs_do_not_depend_on_the_order_and_share_no_source() -> None:
    some = [*pairs(200), *pairs(200)]
    first = held_out_share({"train": some}, share=0.1, seed=0)
    turned = held_out_share({"train": some[::-1]}, share=0.1, seed=0)
    for split, chosen in first.splits.items():
        assert sorted(p["source"] for p in chosen) == sorted(p["source"] for p in turned.splits[split])
    assert _sizes(first) == {
        "train": 320,
        "validation": 40,
        "test": 40,
    }
    assert first.notes["test_source_in_train"] == 0
    assert held_out_share({"train": some}, share=0.1, seed=1).splits["test"] != first.splits["test"]
    kept = held_out_share({"train": some, "test": pairs(2, "t")}, share=0.1, seed=0)
    assert kept.splits["test"] == pairs(2, "t")


def _sizes(made: PairSplits) -> dict[str, int]:
    return {split: len(chosen) for split, chosen in made.splits.items()}


def _missing(folder: Path) -> FileSpec:
    return FileSpec(train_source=folder / "no", train_target=write(folder / "b", "x"))


def _folder(folder: Path) -> FileSpec:
    return FileSpec(train_source=folder, train_target=write(folder / "b", "x"))


def _empty(folder: Path) -> FileSpec:
    return FileSpec(train_source=write(folder / "a", "", " "), train_target=write(folder / "b", "x"))


def _shorter(folder: Path) -> FileSpec:
    return FileSpec(train_source=write(folder / "a", "x", "y", "z"), train_target=write(folder / "b", "x", "y"))


def _bytes(folder: Path) -> FileSpec:
    (folder / "a").write_bytes(b"fine\nna\xefve\n")
    return FileSpec(train_source=folder / "a", train_target=write(folder / "b", "x", "y"))


def _empty_line(folder: Path) -> FileSpec:
    return FileSpec(train_source=write(folder / "a", "x", "y", "z"), train_target=write(folder / "b", "x", " ", "y"))


def _one_sided(folder: Path) -> FileSpec:
    return FileSpec(train_source=write(folder / "a", "x"))


def _other_side(folder: Path) -> FileSpec:
    good = write(folder / "a", "x")
    return FileSpec(train_source=good, train_target=write(folder / "b", "x"), test_target=good)


def _bad_json(folder: Path) -> FileSpec:
    return FileSpec(train_source=write(folder / "a.jsonl", '{"source": "x", "target": "y"}', '{"source": '))


def _no_object(folder: Path) -> FileSpec:
    return FileSpec(train_source=write(folder / "a.jsonl", '["x", "y"]'))


def _no_key(folder: Path) -> FileSpec:
    return FileSpec(train_source=write(folder / "a.jsonl", '{"source": "x", "goal": "y"}'))


def _empty_text(folder: Path) -> FileSpec:
    return FileSpec(train_source=write(folder / "a.jsonl", '{"source": "x", "target": " "}'))


def _number(folder: Path) -> FileSpec:
    return FileSpec(train_source=write(folder / "a.jsonl", '{"source": "x", "target": 3}'))


def _both(folder: Path) -> FileSpec:
    lines = write(folder / "a.jsonl", '{"source": "x", "target": "y"}')
    return FileSpec(train_source=lines, train_target=lines)


def _few(folder: Path) -> FileSpec:
    return FileSpec(train_source=write(folder / "a.jsonl", '{"source": "x", "target": "y"}'))


def _share(folder: Path) -> FileSpec:
    return FileSpec(train_source=folder / "a.jsonl", held_out=0.5)


def _no_blank(folder: Path) -> FileSpec:
    return FileSpec(train_source=folder / "a.jsonl", instruction="translate:")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (_missing, r"/no: there is no such file"),
        (_folder, r"cannot be read \(Is a directory\)"),
        (_empty, r"/a: the file is empty"),
        (_shorter, r"/a has 3 lines but .*/b has 2"),
        (_bytes, r"/a line 2: byte 3 is not valid UTF-8"),
        (_empty_line, r"/b line 2: the line is empty"),
        (_one_sided, r"/a: the file with its targets is not given"),
        (_other_side, r"test_target is given but test_source is not"),
        (_bad_json, r"a.jsonl line 2: not valid JSON"),
        (_no_object, r"a.jsonl line 1: not a JSON object"),
        (_no_key, r"a.jsonl line 1: 'target' must be a text .*source, goal"),
        (_empty_text, r"a.jsonl line 1: 'target' must be"),
        (_number, r"a.jsonl line 1: 'target' is 3, and must be a text"),
        (_both, r"leave out"),
        (_few, r"too few"),
        (_share, r"held_out must be above 0 and below 0.5, got 0.5"),
        (_no_blank, r"instruction must have \{source\}"),
        (lambda folder: FileSpec(), r"train_source is not given"),
    ],
)
def test_bad_files_are_named_in_one_line_and_nothing_is_written(
    tmp_path: Path, spec: Callable[[Path], FileSpec], message: str
) -> None:
    with pytest.raises(UserError, match=message) as e:
        load_task("files", data_dir=tmp_path / "data", files=spec(tmp_path))
    assert "\n" not in str(e.value)
    assert not (tmp_path / "data").exists()


def test_files_as_a_task(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", *(json.dumps(p) for p in pairs(60)))
    spec = FileSpec(train_source=lines, held_out=0.1, instruction="fix: {source}")
    task = load_task("files", data_dir=tmp_path, files=spec, limit=5, test_limit=2)
    assert (len(task.splits["train"]), len(task.splits["validation"]), len(task.splits["test"])) == (5, 2, 2)
    assert (task.notes["train_pairs"], task.notes["test_pairs"]) == (5, 2)
    assert (task.instruction, task.metrics) == ("fix: {source}", ("bleu", "chrf"))
    assert len({p["source"] for p in task.splits["train"]}) == 5
    assert task.fingerprint == load_task("files", data_dir=tmp_path, files=spec).fingerprint


# ---- tensorflow-datasets


@pytest.mark.parametrize(
    ("name", "instruction", "metrics", "language"),
    [
        ("wmt14_translate/de-en", "translate German to English: {source}", ("bleu", "chrf"), "en"),
        ("para_crawl/ende", "translate English to German: {source}", ("bleu", "chrf"), "de"),
        ("xsum", "summarize: {source}", ("rouge1", "rouge2", "rougeL"), "en"),
        ("cnn_dailymail", "summarize: {source}", ("rouge1", "rouge2", "rougeL"), "en"),
    ],
)
def test_known_data_sets_need_no_feature_names(
    tmp_path: Path, name: str, instruction: str, metrics: tuple[str, ...], language: str
) -> None:
    # This makes up whatever split is asked for; tests/test_held_out.py has sets that lack some.
    with tfds.testing.mock_data(num_examples=6, policy=tfds.testing.MockPolicy.USE_CODE):
        task = load_task(f"tfds:{name}", data_dir=tmp_path)
        assert (task.instruction, task.metrics, task.language) == (instruction, metrics, language)
        assert {"train_pairs": 6, "validation_pairs": 6, "test_pairs": 6}.items() <= task.notes.items()
        for source in task.splits.values():
            for item in source:
                assert set(item) == {"source", "target", "group"}
                assert all(isinstance(text, str) for text in item.values())


def test_feature_names_turn_a_translation_round(tmp_path: Path) -> None:
    with tfds.testing.mock_data(num_examples=2, policy=tfds.testing.MockPolicy.USE_CODE):
        turned = Features(source="en", target="de")
        task = load_task("tfds:wmt14_translate/de-en", data_dir=tmp_path, features=turned)
    assert task.instruction == "translate English to German: {source}"
    assert task.language == "de"


@pytest.mark.parametrize(
    ("name", "features", "message"),
    [
        ("no_such_data_set", Features(), "no_such_data_set.*not found"),
        ("wmt14_translate/xx-yy", Features(), "xx-yy"),
        ("imdb_reviews", Features(), "no obvious source feature; set features.source to one of text, label"),
        ("xsum", Features(target="headline"), "no feature 'headline'; set features.target to one of document"),
        ("imdb_reviews", Features(source="text", target="label"), "'label' is not text"),
        ("xsum", Features(target="document"), "features.source and features.target are both 'document'; name two"),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(
    tmp_path: Path, name: str, features: Features, message: str
) -> None:
    mock = tfds.testing.mock_data(policy=tfds.testing.MockPolicy.USE_CODE)
    with mock, pytest.raises(UserError, match=message) as e:
        load_task(f"tfds:{name}", data_dir=tmp_path, features=features)
    assert "\n" not in str(e.value)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A folder with a real data set called text_pairs, of one split."""
    stored(tmp_path, "a", "r", lambda: PairSplits({"train": pairs(40)}, {}))
    return next(tmp_path.iterdir())


def test_a_prepared_data_set_is_read_by_parts_of_a_split(prepared: Path) -> None:
    names = Features("source", "target", train="train[:80%]", validation="train[80%:90%]", test="train[90%:]")
    task = load_task("tfds:text_pairs", data_dir=prepared, features=names)
    together = [p for split in ("train", "validation", "test") for p in task.splits[split]]
    assert [(p["source"], p["target"]) for p in together] == [(p["source"], p["target"]) for p in pairs(40)]
    assert len(task.splits["validation"]) == 4


def test_a_missing_split_is_answered_with_those_there_are(prepared: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'dev' for validation; it has train, and parts serve, too, as in"):
        load_task("tfds:text_pairs", data_dir=prepared, features=Features("source", "target", validation="dev"))


def test_a_data_set_that_cannot_be_prepared_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(self: object, **_: object) -> None:
        raise ConnectionError("name resolution failed\nand more")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", offline)
    with pytest.raises(UserError, match=r"xsum: cannot be prepared .*\(name resolution failed\); check the network"):
        load_task("tfds:xsum", data_dir=tmp_path)


# ---- load_task


def test_cldr_is_made_once_for_each_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cldr, "cldr_pairs", lambda: made().splits)
    task = load_task("cldr", data_dir=tmp_path)
    assert (task.metrics, task.instruction) == (cldr.METRICS, cldr.INSTRUCTION)
    assert (task.notes["train_pairs"], task.notes["test_source_in_train"]) == (30, 0)
    monkeypatch.setattr(cldr, "cldr_pairs", refuse)
    assert load_task("cldr", data_dir=tmp_path).fingerprint == task.fingerprint


@pytest.mark.parametrize(
    ("name", "limits", "message"),
    [
        ("wmt", {}, "unknown task 'wmt'; use cldr, debian/en-de"),
        ("", {}, "unknown task"),
        ("cldr", {"limit": 0}, "at least 1, got 0"),
        ("cldr", {"test_limit": -1}, "at least 1, got -1"),
    ],
)
def test_wrong_tasks_and_limits(tmp_path: Path, name: str, limits: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(name, data_dir=tmp_path, **limits)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_tensorflow_is_not_imported(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *(json.dumps(p) for p in pairs(60)))
    code = (
        "import sys; from pathlib import Path; from kdtw_jax.data.store import stored\n"
        "from kdtw_jax.data.task import load_task; from kdtw_jax.data.textfiles import FileSpec, file_pairs\n"
        f"spec = FileSpec(train_source=Path({str(tmp_path / 'a.jsonl')!r}))\n"
        f"stored(Path({str(tmp_path)!r}), 'a', 'r', lambda: file_pairs(spec)).splits['test'][0]\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("name", ["wmt14_translate", "para_crawl", "opus:0.1.0"])
def test_a_set_of_several_pairs_of_languages_is_not_taken_for_its_first(name: str, tmp_path: Path) -> None:
    """tensorflow-datasets takes the first without a word: Czech, where German was meant."""
    with pytest.raises(UserError, match=rf"^tfds:{name} has several pairs of languages; name one, as in {name}/\w\w"):
        tfds_pairs(name, Features(), tmp_path)
    assert not list(tmp_path.iterdir())
