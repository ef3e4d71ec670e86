"""A task by its name: text pairs by split, how answers are judged, and the words that ask for them.

A source of your own is an entry more: `register_source("mine:", load)`, before a task or a configuration names it; or
installed with a package of yours that names a `TaskSource` under the entry points of `kdtw_jax.sources`, by its prefix,
which the command line reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from kdtw_jax.data.features import Features
from kdtw_jax.data.pair import Pair, Source
from kdtw_jax.data.prompts import NONE, OWN, RECIPE, clean_prompts, read_prompts
from kdtw_jax.data.record import SCRIPT_FROM, OwnPrompts, Task, TaskRequest, TaskSource
from kdtw_jax.data.remarks import remark
from kdtw_jax.data.sources import BUILTIN
from kdtw_jax.data.splits import PairSplits
from kdtw_jax.data.store import fingerprint, stored
from kdtw_jax.data.textfiles import FileSpec
from kdtw_jax.errors import NotRegistered, UserError
from kdtw_jax.registry import Registry
from kdtw_jax.text.language import guess_language, main_language

__all__ = [
    "SOURCES",
    "OwnPrompts",
    "Pair",
    "Source",
    "Task",
    "TaskRequest",
    "TaskSource",
    "load_task",
    "register_source",
]

# By what a name begins with, up to ":" or "/", or by the whole of it.
SOURCES = Registry(
    BUILTIN,
    kind="source of tasks",
    group="kdtw_jax.sources",
    how="kdtw_jax.data.task.register_source(PREFIX, LOAD)",
    expected=TaskSource,
    register=lambda prefix, source: register_source(prefix, source),
)


def register_source(
    prefix: str,
    load: Callable[[TaskRequest], Task] | TaskSource,
) -> TaskSource:
    """Adds a source of tasks: `load` alone, or with more that is known of them.

    Names begin with a prefix that ends in ":" or "/", as in mine:NAME, or are the prefix.

    Raises:
      UserError: another source has such names, or the prefix is no name.
    """
    source = load if isinstance(load, TaskSource) else TaskSource(load, prefix + "NAME" * prefix.endswith(_ENDS))
    if not prefix.strip(":/"):
        raise UserError(f"a source's prefix must be a name, or one that : or / ends, got {prefix!r}")
    clash = (other for other in SOURCES if other != prefix and (_has(other, prefix) or _has(prefix, other)))
    if other := next(clash, None):
        raise UserError(f"there is a source {other} already, whose names are not apart from those of {prefix}")
    return SOURCES.add(prefix, source)


def find_source(name: str) -> TaskSource:
    """Returns the source whose a name is.

    Raises:
      UserError: it is no source's.
    """
    for prefix, source in SOURCES.items():
        if _has(prefix, name):
            return source
    *first, last = (source.form for source in SOURCES.values())
    raise NotRegistered(f"unknown task {name!r}; use {', '.join(first)} or {last}; {SOURCES.how} adds another source")


_ENDS = (":", "/")
TEACHERS = "teacher"  # the split that a teacher is trained on, where students have fewer pairs


def _has(prefix: str, name: str) -> bool:
    return name.startswith(prefix) if prefix.endswith(_ENDS) else name == prefix


@dataclass(frozen=True)
class _Part:
    """The pairs from a place on, to another."""

    pairs: Source
    begin: int
    end: int
    bare: bool = False  # without their targets

    def __len__(self) -> int:
        return self.end - self.begin

    def __getitem__(self, index: int, /) -> Pair:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        pair = self.pairs[self.begin + index % len(self)]
        return {**pair, "target": ""} if self.bare else pair

    def __iter__(self) -> Iterator[Pair]:
        return (self[i] for i in range(len(self)))


def with_few_pairs(task: Task, count: int, *, prompts: bool) -> Task:
    """The task of students that have fewer pairs than their teacher, who has those of the split `TEACHERS`.

    Args:
      task: with all pairs in its split "train".
      count: pairs that students have, the first ones.
      prompts: whether the sources of the others are prompts.

    Raises:
      UserError: there are not more than so many pairs.
    """
    pairs = task.splits["train"]
    if count >= len(pairs):
        raise UserError(
            f"student_pairs is {count}, but {task.name} has {len(pairs)} training pairs; give fewer in a "
            "file of settings (--config), or 0 and prompts: none"
        )
    few = replace(task, splits={**task.splits, "train": _Part(pairs, 0, count), TEACHERS: pairs})
    return replace(few, prompts=_Part(pairs, count, len(pairs), bare=True)) if prompts else few


@dataclass(frozen=True)
class _Limited:
    source: Source
    limit: int

    def __len__(self) -> int:
        return min(self.limit, len(self.source))

    def __getitem__(self, index: int, /) -> Pair:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        # Evenly spaced: a source may be sorted, and its first pairs all alike.
        return self.source[index % len(self) * len(self.source) // len(self)]

    def __iter__(self) -> Iterator[Pair]:
        return (self[i] for i in range(len(self)))


def load_task(
    name: str,
    *,
    data_dir: Path,
    files: FileSpec | None = None,
    features: Features | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    language: str = "",
    prompts: str = NONE,
) -> Task:
    """The task of that name; what has to be prepared is kept in `data_dir` and found there by a later call.

    Args:
      name: `cldr`; `debian/en-de` (or another pair of languages that the archive has); `debian/summarize`;
        `tfds:NAME` as in `tfds:wmt14_translate/de-en`; `files`; or as your own source has it (`register_source`).
      data_dir: a folder for prepared data.
      files: for `files`: where they are.
      features: for `tfds:NAME`: feature and split names that do not follow from the data set.
      limit: training pairs at the most, evenly spaced over the split.
      test_limit: likewise validation and test pairs.
      language: a code for the language of the targets; by default the source or their script says it.
      prompts: further sources without targets: "own" are the task's own; else a file, one a line, or JSON with the
        source's key of `files`.

    Raises:
      UserError: an unknown name, or whatever is wrong with the data; nothing half-written is left.
    """
    limits = {"train": limit, "validation": test_limit, "test": test_limit}
    for split, most in limits.items():
        if most is not None and most < 1:
            raise UserError(f"the limit on {split} pairs must be at least 1, got {most}")
    source = find_source(name)
    request = TaskRequest(name, Path(data_dir), files or FileSpec(), features or Features(), limit, test_limit)
    texts = _texts(prompts, request, source.prompts)  # before anything takes time
    task = source.load(request)
    if prompts != NONE:
        task = _with_prompts(task, prompts, texts, request, source.prompts)
    task = replace(task, language=language or task.language)
    script = guess_language(pair["target"] for pair in _Limited(task.splits["train"], SCRIPT_FROM))
    if not task.language:
        task = replace(task, language=script)
    elif script not in ("", main_language(task.language)):
        remark(f"{name}: the targets are said to be in {task.language!r}, but are in the script of {script!r}")
    splits, notes = dict(task.splits), dict(task.notes)
    for split, most in limits.items():
        if most is not None and split in splits:
            splits[split] = _Limited(splits[split], most)
            notes[f"{split}_pairs"] = len(splits[split])
    task = replace(task, splits=splits)
    return replace(task, notes=notes | dict(source.notes(request, task)))


def _texts(prompts: str, request: TaskRequest, own: OwnPrompts | None) -> list[str]:
    if prompts == OWN and own is None:
        raise UserError(f"{request.name} has no prompts of its own; name a file of them: --prompts FILE")
    return [] if prompts in (NONE, OWN) else read_prompts(Path(prompts), request.files.source_key)


def _with_prompts(task: Task, named: str, texts: list[str], request: TaskRequest, own: OwnPrompts | None) -> Task:
    """The task with the prompts of a file, or its own; they are cleaned once and kept in the folder for data."""
    recipe = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()
    if named == OWN and own is not None:
        recipe = own.recipe
    pairs = task.fingerprint or fingerprint({split: x for split, x in task.splits.items() if split != "train"})

    def make() -> PairSplits:
        found = own.texts(request, task) if own is not None and named == OWN else texts
        with Console(stderr=True).status(f"{task.name}: taking prompts that are near no held-out text"):
            fold = own is not None and own.fold_digits
            return clean_prompts(found, task.splits, what=f"--prompts {named}", fold_digits=fold)

    made = stored(request.data_dir, f"{task.name} prompts", f"{RECIPE} {recipe} {pairs}", make)
    return replace(task, prompts=made.splits["prompts"], notes=dict(task.notes) | made.notes)


def stated_language(name: str) -> str:
    """The language of the targets of a task as far as its name says, before anything is read."""
    source = next((source for prefix, source in SOURCES.items() if _has(prefix, name)), None)
    return source.language(name) if source is not None else ""
