"""Prompts: sources without targets, none of them held out, from a file, from a task's own text or from Python."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from kdtw_jax.data.task import Task, load_task
from kdtw_jax.data.textfiles import FileSpec
from kdtw_jax.errors import UserError
from tests.test_debian import apt, write_indices

__all__ = ["apt"]  # a fixture

PAIRS = [(f"the cat number {word} sat on a very old mat", f"Ziel {word}") for word in "abcdefghijklmnopqrst"]
NUMBERS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
TEST = [(NUMBERS, "t"), ("a short one", "s")]
NEW = ["something else entirely", "The Dog of Letter Y sleeps", "again another text"]


def sources(task: Task) -> list[str]:
    return [prompt["source"] for prompt in task.prompts]


def test_prompts_are_new_texts_that_are_near_no_held_out_one_and_the_rest_is_counted() -> None:
    given = [
        *NEW,
        "Something  ELSE entirely",  # again
        PAIRS[3][0],  # a source of training
        "A short ONE",  # held out
        # Has most of a held-out text.
        f"many other words around them, which are these and more, and {' '.join(NUMBERS.split()[:13])}",
        "three four five six seven eight nine ten",  # is a part of one
    ]
    task = Task.from_pairs(PAIRS, TEST, validation=[("v w", "x")], prompts=iter(given))
    assert sources(task) == NEW and {prompt["target"] for prompt in task.prompts} == {""}
    assert {name: count for name, count in task.notes.items() if name.startswith("prompts")} == {
        "prompts": 3,
        "prompts_held_out": 1,
        "prompts_near_held_out": 2,
        "prompts_in_train": 1,
        "prompts_repeated": 1,
    }
    plain = Task.from_pairs(PAIRS, TEST, validation=[("v w", "x")])
    assert len(plain.prompts) == 0 and plain.splits == task.splits
    assert plain.fingerprint != task.fingerprint != Task.from_pairs(PAIRS, TEST, prompts=NEW[1:]).fingerprint


def test_prompts_from_python_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match=r"^pairs: no prompt is left \(held_out 1, near_held_out 0, in_train 1, rep"):
        Task.from_pairs(PAIRS, TEST, prompts=[PAIRS[0][0], TEST[0][0]])
    with pytest.raises(UserError, match=r"^prompts must be texts, got 7$"):
        Task.from_pairs(PAIRS, TEST, prompts=["a b", 7])  # type: ignore[list-item]


def spec(folder: Path) -> FileSpec:
    path = folder / "train.jsonl"
    path.write_text("\n".join(json.dumps({"en": source, "de": target}) for source, target in PAIRS))
    return FileSpec(train_source=path, source_key="en", target_key="de")


def test_a_file_of_prompts_is_lines_or_json_packed_or_not(tmp_path: Path) -> None:
    files = spec(tmp_path)
    objects = [{"en": text, "more": 1} for text in NEW]
    contents = {
        "a.txt": "\n\n".join(NEW).encode(),  # empty lines are none
        "a.txt.gz": gzip.compress("\r\n".join(NEW).encode()),
        "a.jsonl": "\n".join(map(json.dumps, objects)).encode(),
        "a.json": json.dumps(objects).encode(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        task = load_task("files", data_dir=tmp_path / "data", files=files, prompts=str(tmp_path / name), limit=2)
        assert sources(task) == NEW and task.notes["prompts"] == 3
    assert len(list((tmp_path / "data").glob("files-prompts-*"))) == 1  # the same texts are cleaned once
    assert not len(load_task("files", data_dir=tmp_path / "data", files=files).prompts)


def test_numbers_tell_texts_of_files_apart(tmp_path: Path) -> None:
    sums = [(f"{a} + {b} =", str(a + b)) for a in range(20) for b in range(5)]
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(json.dumps({"source": source, "target": target}) for source, target in sums))
    (tmp_path / "more.txt").write_text("\n".join([f"{a} + 7 =" for a in range(50, 60)] + [s for s, _ in sums]))
    files = FileSpec(train_source=path)
    task = load_task("files", data_dir=tmp_path, files=files, prompts=str(tmp_path / "more.txt"))
    held_out = len(task.splits["validation"]) + len(task.splits["test"])
    assert len(task.prompts) == 10
    assert (task.notes["prompts_held_out"], task.notes["prompts_in_train"]) == (held_out, 100 - held_out)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.txt", None, "gone.txt: there is no such file"),
        ("empty.txt", "\n \n", "empty.txt: the file is empty"),
        ("zip.txt", "PK\x03\x04", "is a zip archive"),
        ("x.jsonl", '{"source": "a"}', "line 1: 'en' must be a text that is not empty; the object has source"),
        ("x.json", "[]", "the array is empty; it needs objects with the key en"),
        ("old.txt", PAIRS[1][0], r"--prompts .*old.txt: no prompt is left \(.*give texts that the task does not have"),
    ],
)
def test_a_file_that_gives_no_prompts_is_explained_in_one_line(
    name: str, content: str | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_task("files", data_dir=tmp_path / "data", files=spec(tmp_path), prompts=str(tmp_path / name))
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "data").glob("files-prompts*"))


def test_a_task_without_prompts_of_its_own_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^files has no prompts of its own; name a file of them: --prompts FILE$"):
        load_task("files", data_dir=tmp_path, files=spec(tmp_path), prompts="own")


def test_debian_has_prompts_of_its_own_and_none_of_a_held_out_family(apt: Path, tmp_path: Path) -> None:
    write_indices(apt)
    plain = load_task("debian/en-de", data_dir=tmp_path / "data")
    families = {split: sorted({pair["group"] for pair in pairs}) for split, pairs in plain.splits.items()}
    packages, english = (apt / "Packages").read_text(), (apt / "Translation-en").read_text()
    # No translations of these: of a new family, of one that is trained on, and of two that are held out.
    for i, source in enumerate(("brandnew", families["train"][0], families["test"][0], families["validation"][0])):
        packages += f"\nPackage: more{i}\nSource: {source}\nDescription-md5: {1000 + i:032x}\n"
        english += (
            f"\nPackage: more{i}\nDescription-md5: {1000 + i:032x}\nDescription-en: untranslated tool {'abcd'[i]}\n"
        )
        english += f" It is for the package called {source} alone. Do other things with it, too.\n"
    (apt / "Packages").write_text(packages)
    (apt / "Translation-en").write_text(english)
    task = load_task("debian/en-de", data_dir=tmp_path / "data", prompts="own", test_limit=1)
    assert task.fingerprint == plain.fingerprint  # the pairs are as they were
    trained = families["train"][0]
    expected = ["untranslated tool a", "It is for the package called brandnew alone.", "Do other things with it, too."]
    expected += ["untranslated tool b", f"It is for the package called {trained} alone."]
    assert sources(task) == expected
    assert task.notes["prompts_in_train"] > 100 and task.notes["prompts_repeated"] == 1
