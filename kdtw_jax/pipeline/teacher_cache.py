"""A teacher's labels as a run takes them: found by what its methods learn from, and refused where they are others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdtw_jax.data.batches import EncodedSplit, Ragged
from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer
from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.errors import UserError
from kdtw_jax.methods import find
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.runs.folder import VOCABULARY
from kdtw_jax.training.labels import LABEL, LabelSet, Record, difference, open_labels
from kdtw_jax.training.readings import Kept, Readings

How = Literal["greedy", "beam"]
CACHE_STAGE = "teacher_cache"  # of a run: whose labels it has, and where they were the last time
_SHARED = ("teacher", "vocabulary")  # of all sets in a folder


@dataclass(frozen=True)
class TeacherCache:
    """The sets of labels in a folder, all of one teacher and one vocabulary."""

    folder: Path
    sets: tuple[LabelSet, ...]

    @property
    def teacher(self) -> dict[str, Any]:
        """Name and hash of who wrote them."""
        return dict(self.sets[0].about["teacher"])

    def facts(self) -> dict[str, Any]:
        """What a record of a run says of them."""
        return {"folder": str(self.folder), "teacher": self.teacher, "sets": [one.folder.name for one in self.sets]}

    def tokenizer(self) -> Tokenizer:
        """The vocabulary, with the rows that the teacher has.

        Raises:
          UserError: its file is not what it was.
        """
        stated = self.sets[0].about["vocabulary"]
        found = load_tokenizer(self.sets[0].folder / VOCABULARY)
        if vocabulary_hash(found) != stated["hash"]:
            raise UserError(f"{self.sets[0].folder / VOCABULARY} is not the vocabulary of the labels; copy them again")
        return found.padded_to(stated["rows"])

    def check_vocabulary(self, tokenizer: Tokenizer) -> None:
        """Checks that a run has the vocabulary of the labels, but for rows that no token has.

        Raises:
          UserError: it has another one, in words that say how it differs.
        """
        stated, own = self.sets[0].about["vocabulary"]["hash"], vocabulary_hash(tokenizer)
        if own != stated:
            differs = self.tokenizer().difference(tokenizer)
            raise UserError(
                f"{self.folder} has labels of the vocabulary {stated}, and this run has {own}: {differs}; "
                "take models of one vocabulary, or label with this one"
            )

    def check_teacher(self, name: str, own: str) -> None:
        """Checks that a teacher `name` is the one of the labels, by its hash `own`.

        Raises:
          UserError: it is another one.
        """
        if own != self.teacher["hash"]:
            raise UserError(
                f"{self.folder} has labels of the teacher {self.teacher['name']} ({self.teacher['hash']}), and "
                f"{name} is another one ({own}); name that one, or label with this one"
            )

    def find(self, how: How, kept: Kept | None) -> LabelSet:
        """Finds the smallest set that has what is wanted: outputs, and what is kept of the teacher's view of them.

        Raises:
          UserError: there is none; says what there is, and how to add it.
        """
        fit = [one for one in self.sets if one.how == how and (kept is None or _has(one.kept, kept))]
        if not fit:
            read = f" read at temperature {kept.alpha:g} with their top {kept.top_k}" if kept else ""
            said = f" --top-k {kept.top_k} --temperature {kept.alpha:g}" if kept else ""
            there = ", ".join(one.folder.name for one in self.sets)
            raise UserError(
                f"{self.folder} has no {how} outputs{read}; it has {there}; add them by the command that made "
                f"those, with --demonstrations {how}{said} --out {self.folder}"
            )
        return min(fit, key=lambda one: (bool(one.missing()), one.kept.top_k))

    def check(self, config: Experiment) -> None:
        """Checks that all that the methods of a run take is there, written as that run would have it.

        Raises:
          UserError: shards are missing, something is not there, or written with other settings.
        """
        for method in config.methods:
            for how, kept in wanted(config, method):
                found = self.find(how, kept)
                found.check_files()
                there, here = dict(found.about["decoding"]), decoding(config, how)
                pairs = {"max_target": (found.about["text"]["max_target"], config.text.max_target)}
                pairs |= {name: (there[name], here[name]) for name in here}
                if differs := difference(*({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))):
                    raise UserError(f"{found.folder} has outputs of other settings: {differs}; label again or set them")

    def outputs(self, config: Experiment, sources: EncodedSplit, how: How, kept: Kept | None = None) -> EncodedSplit:
        """What the teacher wrote of these sources as their targets.

        Two sets may differ in some outputs: another number of devices changes last bits, and they which token is ahead.
        So what is read beside what was made of it has to be of the same set.

        Args:
          config: of the run, which says what is not as in the labels where some are missing.
          sources: pairs and prompts.
          how: greedily or by beam search.
          kept: what `readings` will be asked for of them, if it will.

        Raises:
          UserError: some of them are not there.
        """
        rows = _rows(self.find(how, kept), config, sources)
        return replace(sources, targets=Ragged.pack(row.target_T.tolist() for row in rows), room=None)

    def readings(self, config: Experiment, outputs: EncodedSplit, how: How, kept: Kept) -> Readings:
        """What the teacher made of these outputs; arguments and errors as for `outputs`.

        Args:
          config: of the run.
          outputs: of the same `how` and `kept`.
          how: greedily or by beam search.
          kept: of the teacher's distributions.

        Raises:
          UserError: some of them are not there, or they are not those of the set that was read.
        """
        found = self.find(how, kept)
        rows = _rows(found, config, outputs)
        others = sum(not np.array_equal(row.target_T, outputs.targets[i]) for i, row in enumerate(rows))
        if others:
            raise UserError(
                f"{others} of these {len(rows)} outputs are not those of {found.folder}, which has what was made of "
                "its own; take both from that set"
            )
        top = np.concatenate([row.top_log_prob_TxK[:, : kept.top_k] for row in rows])
        ids = np.concatenate([row.top_ids_TxK[:, : kept.top_k] for row in rows])
        taken = np.concatenate([row.log_prob_T for row in rows])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(row.target_T) for row in rows])])
        return Readings(kept, outputs.examples, offsets, taken, top, ids)


def open_cache(folder: Path) -> TeacherCache:
    """Opens what `kdtw label` wrote.

    Raises:
      UserError: `folder` has no labels, or some of different teachers or vocabularies.
    """
    found = _sets(folder)
    if not found:
        raise UserError(f"{folder} has no labels of a teacher; name the folder that kdtw label --out had")
    check_beside(folder, found[0].about)
    return TeacherCache(Path(folder), found)


def check_beside(folder: Path, about: Mapping[str, Any]) -> None:
    """Checks that all sets in a folder are of one teacher and one vocabulary, those that `about` says.

    Raises:
      UserError: one is not.
    """
    own = {name: about[name] for name in _SHARED}
    for one in _sets(folder):
        if differs := difference({name: one.about[name] for name in _SHARED}, own):
            raise UserError(f"{one.folder} has labels of others: {differs}; take another folder")


def _sets(folder: Path) -> tuple[LabelSet, ...]:
    return tuple(open_labels(path.parent) for path in sorted(Path(folder).glob(f"*/{LABEL}")))


def decoding(config: Experiment, how: How) -> dict[str, Any]:
    """How a teacher writes, in the words of a manifest."""
    return {"demonstrations": how, **(config.beam() if how == "beam" else {})}


def wanted(config: Experiment, method: str) -> list[tuple[How, Kept | None]]:
    """What a method learns from that a teacher writes ahead, and what is kept of its view of that."""
    found: list[tuple[How, Kept | None]] = [("beam", None)] if config.learns_from_beams(method) else []
    targets = config.prompt_targets(method)
    if targets == "greedy" or targets == "beam":
        found.append((targets, find(method).readings(config.of(method))))
    return found


def needs_teacher(config: Experiment, method: str) -> bool:
    """Whether a method has the teacher read or write while a student is trained."""
    entry = find(method)
    return entry.uses_teacher and entry.without_teacher(config.of(method), config.prompts != "none") != {}


def reads_rows_elsewhere(config: Experiment, method: str) -> bool:
    """Whether a method has a teacher at an address read rows while a student is trained."""
    return config.teacher_elsewhere and needs_teacher(config, method)


def check_without_teacher(config: Experiment) -> None:
    """Checks that nothing of a run asks a teacher that is not here, where it has only what one writes ahead.

    Raises:
      UserError: a method does; says by which settings it would not.
    """
    if config.has_teacher:
        return
    if config.student_from_teacher:
        raise UserError(
            "student_from_teacher makes students of the teacher's layers: name a model here with --teacher-model"
        )
    there = "the teacher is at an address" if config.teacher_elsewhere else "there are only labels"
    for method in filter(lambda name: needs_teacher(config, name), config.methods):
        entry = find(method)
        lacking = entry.elsewhere if config.teacher_elsewhere else entry.without_teacher
        other = lacking(config.of(method), config.prompts != "none")
        if other == {}:
            continue
        said = json.dumps(other).replace('"', "") if other else ""
        how = f", or do without it by a line of the file of --config: {method}: {said}" if other else ""
        how = how or ", or leave the method out"
        raise UserError(
            f"{method} asks the teacher while a student is trained, and {there}: name a model here with "
            f"--teacher-model{how}"
        )


def _has(there: Kept, kept: Kept) -> bool:
    return there.top_k >= kept.top_k and there.alpha == kept.alpha


def _rows(labels: LabelSet, config: Experiment, sources: EncodedSplit) -> list[Record]:
    """The record of each source: that of its own number, where the same text is there more than once."""
    known: dict[bytes, dict[int, Record]] = {}
    for record in labels.records():
        known.setdefault(_key(record.source_S), {})[record.example] = record
    found, lacking = [], 0
    for i, example in enumerate(sources.examples):
        same = known.get(_key(sources.sources[i]))
        if same is None:
            lacking += 1
        else:
            found.append(same.get(int(example)) or next(iter(same.values())))
    if lacking:
        differs = difference(*({"text": text} for text in (labels.about["text"], text_of(config))))
        why = f": {differs}" if differs else ""
        raise UserError(
            f"{labels.folder} lacks {lacking} of the {len(sources)} prompts of this run{why}; label the same texts, "
            "cut to the same lengths"
        )
    return found


def _key(source_S: Sequence[int] | np.ndarray) -> bytes:
    return np.asarray(source_S).astype("<i4").tobytes()


def text_of(config: Experiment) -> dict[str, Any]:
    """What decides which prompts a run has and how they are cut, in the words of a manifest."""
    text = config.text
    names = ("max_source", "max_target", "on_long", "instruct", "limit")
    few = {"student_pairs": config.student_pairs} if config.student_pairs else {}
    return {"data": config.data, "prompts": config.prompts, **few, **{name: getattr(text, name) for name in names}}
