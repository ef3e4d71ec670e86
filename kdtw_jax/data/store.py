"""Prepared pairs on disk: written once as array_record files, read at random, never found half-written."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from kdtw_jax.data.pair import Pair, Source
from kdtw_jax.data.splits import PairSplits
from kdtw_jax.data.text_pairs.builder import TextPairs
from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import explained, write_json

_FORMAT = "store 1"
_READ_AT_ONCE = 512


@dataclass(frozen=True)
class StoredPairs:
    """A split on disk as a `Source`; wraps a data source of tensorflow-datasets with byte features."""

    data: Any
    source: str = "source"
    target: str = "target"
    group: str | None = "group"

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int, /) -> Pair:
        if not -len(self.data) <= index < len(self.data):
            raise IndexError(index)
        return self._pair(self.data[int(index) % len(self.data)])

    def __iter__(self) -> Iterator[Pair]:
        """Reads many rows at once, which takes a third of the time of one by one; the rest, less than that, so."""
        whole = len(self) - len(self) % _READ_AT_ONCE
        for start in range(0, whole, _READ_AT_ONCE):
            yield from map(self._pair, self.data.__getitems__(range(start, start + _READ_AT_ONCE)))
        # The stand-in for data sets that tensorflow-datasets offers to tests can read them only like this.
        yield from (self[i] for i in range(whole, len(self)))

    def _pair(self, row: Any) -> Pair:
        group = "" if self.group is None else as_text(row[self.group])
        return Pair(source=as_text(row[self.source]), target=as_text(row[self.target]), group=group)


@dataclass(frozen=True)
class Stored:
    """What `stored` gives: random access by split, the notes made with the pairs, and a hash of all text."""

    splits: dict[str, Source]
    notes: dict[str, float]
    fingerprint: str


def stored(data_dir: Path, name: str, recipe: str, make: Callable[[], PairSplits]) -> Stored:
    """The pairs of `name` in `data_dir`; made and written first if they are not there yet.

    Args:
      data_dir: a folder for prepared data of any number of names.
      name: of the task.
      recipe: everything the pairs depend on, in words. Pairs of another recipe are neither read nor touched.
      make: gives the pairs. Splits without pairs are not written.

    Raises:
      UserError: the folder cannot be written, or `make` raised it; nothing is left behind then.
    """
    key = hashlib.blake2b(f"{_FORMAT}|{name}|{recipe}".encode(), digest_size=5).hexdigest()
    folder = Path(data_dir).absolute() / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)}-{key}"
    if not folder.exists():
        _write(folder, make)
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        builder = tfds.builder_from_directory(folder / about["builder"])
        splits: dict[str, Source] = {s: StoredPairs(builder.as_data_source(s)) for s in sorted(builder.info.splits)}
        return Stored(splits, about["notes"], about["fingerprint"])
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"cannot read the prepared data in {folder} ({e}); delete that folder and run again") from e


def as_text(value: object) -> str:
    """Text of a feature, which tensorflow-datasets gives as bytes; U+FFFD stands for those that are not UTF-8."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def kept_notes(data_dir: Path, key: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What `measure` gives, which is done once for each `key` and folder; again where the folder cannot be written."""
    path = Path(data_dir) / f"notes-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):  # not there yet, or damaged
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: float(value) for name, value in found.items()}
    notes = measure()
    with contextlib.suppress(UserError):
        write_json(path, notes)
    return notes


def _write(folder: Path, make: Callable[[], PairSplits]) -> None:
    """Writes into a folder beside `folder` that gets its name only when everything is there."""
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.tmp"
    with explained(folder):  # a place that cannot be written is found before the work is done
        temporary.mkdir(parents=True)
    try:
        made = make()
        splits = {split: pairs for split, pairs in made.splits.items() if len(pairs)}
        with explained(folder):
            builder = TextPairs(splits, temporary)
            _run_builder(builder, temporary / "downloads")
            about = {
                "builder": str(Path(builder.data_path).relative_to(temporary)),
                "notes": made.notes,
                "fingerprint": fingerprint(splits),
            }
            (temporary / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            try:
                os.rename(temporary, folder)
            except OSError:
                if not folder.exists():  # else another process was faster with the same pairs
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _run_builder(builder: TextPairs, downloads: Path) -> None:
    config = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP, try_download_gcs=False)
    tfds.disable_progress_bar()
    try:
        # What it prints, of downloads and an unknown size, would only mislead here.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_dir=downloads, download_config=config)
    except RuntimeError as e:  # as the writer of array_record files has it for a full disk
        reason = str(e).partition(";")[0]
        raise UserError(f"cannot write prepared data: {reason}; free the space or name another folder") from e
    shutil.rmtree(downloads, ignore_errors=True)


def fingerprint(splits: Mapping[str, Source]) -> str:
    """A hash of every text of every split, in order."""
    digest = hashlib.blake2b(digest_size=8)
    for split in sorted(splits):
        for pair in splits[split]:
            digest.update("\x00".join((split, pair["source"], pair["target"], "")).encode())
    return digest.hexdigest()
