"""Prepared pairs on disk: the same back, made once, and never taken for complete when they are not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdtw_jax.data import store
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.splits import PairSplits
from kdtw_jax.data.store import stored
from kdtw_jax.data.text_pairs.builder import TextPairs
from kdtw_jax.errors import UserError


def pairs(n: int, prefix: str = "s") -> list[Pair]:
    return [Pair(source=f"{prefix} {'abcdefghij'[i % 10]} {'x' * i}", target=f"ü {i}", group=f"g{i}") for i in range(n)]


def made(n: int = 30) -> PairSplits:
    return PairSplits({"train": pairs(n), "validation": pairs(3, "v"), "test": pairs(2, "t")}, {"families": 7})


def refuse() -> PairSplits:
    raise AssertionError("these pairs are there already")


def test_pairs_come_back_as_they_were_and_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_READ_AT_ONCE", 4)  # neither 30 nor 3 are multiples
    first = stored(tmp_path, "a/b", "recipe 1", made)
    again = stored(tmp_path, "a/b", "recipe 1", refuse)
    assert {split: list(source) for split, source in again.splits.items()} == made().splits
    assert again.notes == first.notes == {"families": 7}
    assert again.fingerprint == first.fingerprint
    train = again.splits["train"]
    assert len(train) == 30
    assert train[-1] == train[29] == made().splits["train"][29]
    for index in (30, -31):
        with pytest.raises(IndexError):
            train[index]


def test_another_recipe_or_name_is_another_store(tmp_path: Path) -> None:
    first = stored(tmp_path, "a", "recipe 1", made)
    other = stored(tmp_path, "a", "recipe 2", lambda: made(31))
    assert other.fingerprint != first.fingerprint
    assert len(stored(tmp_path, "a", "recipe 1", refuse).splits["train"]) == 30
    assert len(stored(tmp_path, "b", "recipe 1", lambda: made(5)).splits["train"]) == 5


@pytest.mark.parametrize("error", [UserError("no network"), KeyboardInterrupt()])
def test_nothing_is_left_where_the_pairs_cannot_be_made(tmp_path: Path, error: BaseException) -> None:
    def fail() -> PairSplits:
        raise error

    with pytest.raises(type(error)):
        stored(tmp_path, "a", "r", fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(28, "No space left on device"), UserError),
        (RuntimeError("write() failed"), UserError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_an_interrupted_write_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, seen: type[BaseException]
) -> None:
    def broken(self: TextPairs, chosen: list[Pair]) -> Iterator[tuple[int, Pair]]:
        yield 0, chosen[0]
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(TextPairs, "_generate_examples", broken)
        with pytest.raises(seen):
            stored(tmp_path, "a", "r", made)
    assert list(tmp_path.iterdir()) == []
    assert len(stored(tmp_path, "a", "r", made).splits["train"]) == 30


def test_what_a_killed_process_leaves_is_not_taken_for_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill just before the final rename: all files are there, under the temporary name."""
    rename = os.rename

    def kill(source: Path, destination: Path) -> None:
        if Path(destination).parent == tmp_path:
            raise KeyboardInterrupt
        rename(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", kill)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            stored(tmp_path, "a", "r", made)
    assert len(list(tmp_path.glob(".*.tmp/about.json"))) == len(list(tmp_path.iterdir())) == 1
    assert len(stored(tmp_path, "a", "r", lambda: made(4)).splits["train"]) == 4


def test_two_processes_at_once_agree(tmp_path: Path) -> None:
    def slow() -> PairSplits:
        stored(tmp_path, "a", "r", made)  # the other one, finished in the meantime
        return made()

    assert list(stored(tmp_path, "a", "r", slow).splits["test"]) == pairs(2, "t")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    stored(tmp_path, "a", "r", made)
    (folder,) = tmp_path.iterdir()
    (folder / "about.json").write_text("{")
    with pytest.raises(UserError, match=f"{folder.name}.*delete that folder"):
        stored(tmp_path, "a", "r", made)


def test_a_folder_that_cannot_be_made_is_named_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file"):
        stored(tmp_path / "file", "a", "r", refuse)
