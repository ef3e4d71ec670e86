"""What a teacher wrote and made of it, in files that go to other machines: shards of records beside a manifest.

A set of labels is a folder: `label.json` says of what and by whom they are, and binds all who write there; each of the
shards is a file of array_record with a record per prompt and a note of what is in it, written last; `manifest.json`
joins them once all are there. Everything is bytes of numbers and JSON: nothing in it is ever executed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import struct
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import explained, read_json, write_json
from kdtw_jax.runs.folder import flatten
from kdtw_jax.training.beforehand import Share
from kdtw_jax.training.readings import Kept

FORMAT = "kdtw labels 1"
LABEL, MANIFEST = "label.json", "manifest.json"
TAIL = "log of what is left is log1p(-sum(exp(top_log_prob))) of the float32 numbers kept, as losses compute it"
_HEAD = struct.Struct("<iII")  # example, source tokens, target tokens
_GROUP = "group_size:16"  # records that are compressed together
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)  # what file systems without them say
_FREE = ("teacher.name", "teacher.parameters", "written_by")  # may be another one from writer to writer

_STATED: Mapping[str, Any] = {  # what is read of label.json
    "teacher.name": str,
    "teacher.hash": str,
    "vocabulary.hash": str,
    "vocabulary.rows": int,
    "decoding.demonstrations": str,
    "top_k": int,
    "temperature": (int, float),
    "text.max_target": int,
    "ids": str,
    "shards": int,
}


class Record(NamedTuple):
    """A prompt, what the teacher wrote, and at each of the T tokens its likeliest ones, which are K."""

    example: int
    source_S: np.ndarray  # token ids, of what the encoder reads
    target_T: np.ndarray  # likewise
    log_prob_T: np.ndarray  # float32, log mu of the token itself; [0] where K is 0
    top_log_prob_TxK: np.ndarray  # float32
    top_ids_TxK: np.ndarray


def ids_type(vocab_size: int) -> str:
    """Names the type of ids of a vocabulary of `vocab_size` tokens, little-endian."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


def bytes_per_token(top_k: int, vocab_size: int) -> int:
    """Counts what is kept per target token, before compression: its id and score, and those of the `top_k` likeliest.

    Args:
      top_k: 0: the id alone.
      vocab_size: two bytes for an id suffice up to 65536 tokens.
    """
    ids = np.dtype(ids_type(vocab_size)).itemsize
    return ids + (4 + (4 + ids) * top_k if top_k else 0)


def set_name(how: str, kept: Kept) -> str:
    """Names the folder of what is written `how` ("greedy", "beam") and of what is `kept` of it."""
    top = f"_top{kept.top_k}" if kept.top_k else ""
    return f"{how}{top}" + (f"_temperature{kept.alpha:g}" if kept.top_k and kept.alpha != 1 else "")


def pack(record: Record, ids: str) -> bytes:
    """Makes bytes of a record, with `ids` of a type of `ids_type`."""
    head = _HEAD.pack(record.example, len(record.source_S), len(record.target_T))
    parts = ((record.source_S, ids), (record.target_T, ids), (record.log_prob_T, "<f4"))
    tops = ((record.top_log_prob_TxK, "<f4"), (record.top_ids_TxK, ids))
    return head + b"".join(np.ascontiguousarray(x, kind).tobytes() for x, kind in (*parts, *tops))


def unpack(content: bytes, ids: str, top_k: int) -> Record:
    """Makes a record of bytes.

    Args:
      content: what `pack` made.
      ids: the type of ids.
      top_k: K.

    Raises:
      ValueError: it is of another length.
    """
    example, s, t = _HEAD.unpack_from(content)
    scored, place, parts = bool(top_k), _HEAD.size, []
    for count, kind in ((s, ids), (t, ids), (t * scored, "<f4"), (t * top_k, "<f4"), (t * top_k, ids)):
        parts.append(np.frombuffer(content, kind, count, place))
        place += count * np.dtype(kind).itemsize
    if place != len(content):
        raise ValueError(f"a record of {len(content)} bytes where {place} were expected")
    source, target, log_prob, top, at = parts
    return Record(example, source, target, log_prob, top.reshape(t, top_k), at.reshape(t, top_k))


@dataclass(frozen=True)
class LabelSet:
    """The folder of a set, and what `label.json` there says."""

    folder: Path
    about: Mapping[str, Any]

    @property
    def how(self) -> str:
        """How the teacher wrote: greedy or beam."""
        return str(self.about["decoding"]["demonstrations"])

    @property
    def kept(self) -> Kept:
        """What there is of its distributions; of top_k 0, nothing."""
        return Kept(self.about["top_k"], float(self.about["temperature"]))

    @property
    def shards(self) -> int:
        """How many there have to be."""
        return int(self.about["shards"])

    def note(self, number: int) -> Path:
        """Where the note of a shard is, by its `number` from 1."""
        return self.folder / f"shard-{number:05d}-of-{self.shards:05d}.json"

    def missing(self) -> list[int]:
        """The shards that are not there, from 1."""
        return [i for i in range(1, self.shards + 1) if not self.note(i).exists()]

    def said_missing(self) -> str:
        """Names them in words, the first ones where they are many."""
        missing = self.missing()
        named = f"{', '.join(map(str, missing[:8]))}{' ...' if len(missing) > 8 else ''} of {self.shards}"
        return f"shard {named} is" if len(missing) == 1 else f"shards {named} are"

    def manifest(self) -> dict[str, Any]:
        """Joins what the shards say.

        Raises:
          UserError: some are missing; in one line that names them.
        """
        if missing := self.missing():
            raise UserError(
                f"{self.folder} is not complete: {self.said_missing()} missing; run kdtw label with "
                f"--shard {missing[0]}/{self.shards} there"
            )
        notes = [read_json(self.note(i), "") for i in range(1, self.shards + 1)]
        counts = ("rows", "tokens", "unfinished", "bytes")
        for i, note in enumerate(notes, 1):
            if not all(isinstance(note.get(name), int) for name in counts) or not {"file", "hash"} <= note.keys():
                raise UserError(f"{self.note(i)} is damaged; copy it again, or delete it and label again")
        total = {name: sum(note[name] for note in notes) for name in counts}
        per_token = round(total["bytes"] / max(total["tokens"], 1), 2)
        return {**self.about, **total, "bytes_per_token": per_token, "files": notes}

    def join(self) -> dict[str, Any] | None:
        """Writes the manifest, where all shards are there, and returns it; None where some are not."""
        if self.missing():
            return None
        found = self.manifest()
        write_json(self.folder / MANIFEST, found)
        return found

    def write(self, share: Share, records: Iterable[Record], unfinished: int = 0) -> dict[str, Any]:
        """Writes the shard of a writer, whole or not at all, and what it says of it.

        Args:
          share: whose.
          records: in any order.
          unfinished: outputs that did not end.

        Raises:
          UserError: the file system refuses.
        """
        from array_record.python.array_record_module import ArrayRecordWriter

        ids, note = self.about["ids"], self.note(share.number)
        path = note.with_suffix(".array_record")
        temporary, rows, tokens = self.folder / f".{path.name}.{uuid.uuid4().hex}.tmp", 0, 0
        try:
            with explained(path), _refused_by_writer(path):
                writer = ArrayRecordWriter(str(temporary), _GROUP)
                for record in records:
                    writer.write(pack(record, ids))
                    rows, tokens = rows + 1, tokens + len(record.target_T)
                writer.close()
                os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        said = {"file": path.name, "rows": rows, "tokens": tokens, "unfinished": unfinished}
        write_json(note, {**said, "bytes": path.stat().st_size, "hash": _file_hash(path)})
        return said

    def records(self) -> Iterator[Record]:
        """Reads all shards, one after the other.

        Raises:
          UserError: a shard is missing or damaged.
        """
        from array_record.python.array_record_module import ArrayRecordReader

        ids, top_k = self.about["ids"], self.kept.top_k
        for note in self.manifest()["files"]:
            path = self._file(note)
            try:
                if _file_hash(path) != note["hash"]:
                    raise ValueError("its hash is not that of its note")
                reader = ArrayRecordReader(str(path))
                found = reader.read_all() if note["rows"] else []
                reader.close()
                if len(found) != note["rows"]:
                    raise ValueError(f"it has {len(found)} records, not {note['rows']}")
                unpacked = [unpack(content, ids, top_k) for content in found]
            except (OSError, ValueError, RuntimeError, IndexError, struct.error) as error:
                raise _damaged(path, str(error).partition(";")[0]) from error
            yield from unpacked

    def check_files(self) -> None:
        """Checks that all shards are there, and of the size that their notes say; none is read.

        Raises:
          UserError: one is not.
        """
        for note in self.manifest()["files"]:
            self._file(note)

    def _file(self, note: Mapping[str, Any]) -> Path:
        path = self.folder / Path(str(note["file"])).name
        size = path.stat().st_size if path.is_file() else None
        if size != note["bytes"]:
            raise _damaged(path, "it is missing" if size is None else f"it has {size} bytes, not {note['bytes']}")
        return path


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged ({why}); copy it again, or delete it and its note and label again")


def open_labels(folder: Path) -> LabelSet:
    """Opens a set; its shards may be missing.

    Raises:
      UserError: `folder` holds none, or one of another version.
    """
    about = read_json(folder / LABEL, f"{folder} holds no labels")
    if about.get("format") != FORMAT:
        raise UserError(f"{folder} has the format {about.get('format')!r}, this version reads {FORMAT!r}; label again")
    missing = [name for name, kind in _STATED.items() if not isinstance(flatten(about).get(name), kind)]
    if missing or about["ids"] not in ("<u2", "<u4"):
        raise UserError(f"{folder / LABEL} is damaged: it does not say {', '.join(missing) or 'ids'}; copy it again")
    return LabelSet(folder, about)


def claim_labels(folder: Path, about: Mapping[str, Any]) -> LabelSet:
    """Binds a folder to what is labelled there, `about`; the first writer does, the others have to agree.

    Raises:
      UserError: they do not, in one line that names what differs; or the folder cannot be written.
    """
    wanted = json.loads(json.dumps({"format": FORMAT, **about}))
    if not (folder / LABEL).exists():
        _create_json(folder / LABEL, wanted)
    found = open_labels(folder)
    if differs := difference(found.about, wanted):
        raise UserError(f"{folder} is for other labels: {differs}; choose another --out or delete that folder")
    return found


def _create_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a file whole unless there is one: of several that begin at once, the first one's stays."""
    own = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    write_json(own, value)
    try:
        with explained(path), contextlib.suppress(FileExistsError):
            try:
                os.link(own, path)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                os.replace(own, path)  # the last one's stays there
    finally:
        own.unlink(missing_ok=True)


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Says in which of their values the labels `there` and those wanted `here` differ; empty where in none."""
    old, new = flatten(there), flatten(here)
    names = [name for name in {**old, **new} if name not in _FREE and old.get(name) != new.get(name)]
    if "teacher.hash" in names:
        names = ["teacher.hash", *(name for name in names if not name.startswith("teacher."))]
        old["teacher.hash"] = f"{there['teacher']['name']} ({old['teacher.hash']})"
        new["teacher.hash"] = f"{here['teacher']['name']} ({new['teacher.hash']})"
    shown = "; ".join(f"{name.removesuffix('.hash')} {old.get(name)} there, {new.get(name)} here" for name in names[:3])
    return shown + (f" (and {len(names) - 3} more)" if len(names) > 3 else "")


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


@contextlib.contextmanager
def _refused_by_writer(path: Path) -> Iterator[None]:
    """As the writer of array_record has it for a full disk."""
    try:
        yield
    except RuntimeError as error:
        why = str(error).partition(";")[0]
        raise UserError(f"cannot write {path}: {why}; free the space or choose another --out") from error
