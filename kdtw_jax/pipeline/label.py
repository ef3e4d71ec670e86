"""A teacher writes and reads ahead, by itself: what students learn from, in a folder that goes to other machines."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from kdtw_jax import __version__
from kdtw_jax.data.batches import Bucket, EncodedSplit, make_buckets
from kdtw_jax.data.task import Task
from kdtw_jax.data.unanswered import join
from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.errors import UserError
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.elsewhere import Elsewhere, check_ahead, elsewhere
from kdtw_jax.pipeline.prepare import encode_pairs, encode_prompts, look_up
from kdtw_jax.pipeline.teacher_cache import How, check_beside, decoding, text_of
from kdtw_jax.pipeline.writer import Here, Sources, Writer
from kdtw_jax.pretrained.named import is_address, read_teacher
from kdtw_jax.runs import keep_compiled
from kdtw_jax.runs.atomic import explained
from kdtw_jax.runs.folder import VOCABULARY
from kdtw_jax.runs.lock import take_lock
from kdtw_jax.training.beforehand import ALONE, Share, parts_of
from kdtw_jax.training.labels import (
    TAIL,
    LabelSet,
    Record,
    bytes_per_token,
    claim_labels,
    ids_type,
    set_name,
)
from kdtw_jax.training.readings import Kept, Readings

MIB = 2**20


class Wanted(NamedTuple):
    """What is to be labelled, and which part of it here."""

    how: How = "greedy"
    kept: Kept = Kept(64)  # of top_k 0, outputs alone
    share: Share = ALONE


def label(config: Experiment, folder: Path, want: Wanted, own: Task | None = None) -> LabelSet:
    """Writes one shard of labels into a folder; what is there is not made anew, and the last one joins them.

    Args:
      config: of the runs that are to learn from them: data, lengths, vocabulary, `teacher_model`, devices.
      folder: for sets of labels of one teacher; each is a folder below it.
      want: which set, and which shard of it.
      own: texts instead of `config.data`.

    Returns:
      The set, of which other shards may be missing yet.

    Raises:
      UserError: no teacher is named, the folder holds labels of another one or of other texts, another process makes
        this very shard, or it cannot be written; and as `look_up` does.
    """
    if config.teacher_model is None:
        raise UserError("no teacher is named: give --teacher RUN, a model's folder, hf:NAME, or an address")
    if config.hosts.count > 1:
        raise UserError("kdtw label runs on one host; share the work between several by --shard 1/4, 2/4 and so on")
    keep_compiled()
    console = Console(stderr=True)
    given = look_up(config, own)
    if given.tokenizer is None:
        raise ValueError("the vocabulary of a teacher that is named is found")
    text = config.text
    buckets = make_buckets(
        text.max_source, text.max_target, text.batch_tokens, text.buckets, multiple_of=len(given.devices)
    )
    train = encode_pairs(config, given.task, given.tokenizer, "train", console)
    splits = [train]
    if len(given.task.prompts):
        splits.append(encode_prompts(config, given.task, given.tokenizer, train, console))
    sources = Sources(splits, buckets, given.tokenizer, given.devices)
    if want.kept.top_k > given.tokenizer.vocab_size:
        raise UserError(f"top_k is {want.kept.top_k}, but the vocabulary has {given.tokenizer.vocab_size} pieces")
    if is_address(config.teacher_model):
        with elsewhere(config, given.tokenizer) as remote:
            check_ahead(config, remote, [(want.how, want.kept)])
            return make_labels(config, folder, want, sources, Elsewhere(remote, sources.buckets), own)
    if given.teacher is None:
        raise ValueError("a teacher that is named is found")
    writer_here = Here(config, sources, read_teacher(given.teacher, dtype=config.teacher.dtype))
    return make_labels(config, folder, want, sources, writer_here, own)


def claim(
    config: Experiment, folder: Path, want: Wanted, sources: Sources, writer: Writer, own: Task | None = None
) -> LabelSet:
    """Binds a folder below `folder` to what is to be labelled there; arguments as for `make_labels`.

    Args:
      config: of the runs.
      folder: for sets of labels.
      want: which set.
      sources: what is answered.
      writer: who does.
      own: texts instead of `config.data`.

    Raises:
      UserError: it is bound to something else.
    """
    about = {
        "written_by": f"kdtw_jax {__version__}",
        "teacher": writer.facts,
        "vocabulary": {"hash": vocabulary_hash(sources.tokenizer), "rows": sources.tokenizer.vocab_size},
        "decoding": decoding(config, want.how),
        "top_k": want.kept.top_k,
        "temperature": want.kept.alpha,
        "tail": TAIL,
        "text": {**text_of(config), **({"data": own.name, "prompts": "none"} if own else {})},
        "prompts": {"rows": sum(map(len, sources.splits)), "hash": _prompts_hash(sources.splits)},
        "buckets": [list(bucket) for bucket in sources.buckets],
        "ids": ids_type(sources.tokenizer.vocab_size),
        "raw_bytes_per_token": bytes_per_token(want.kept.top_k, sources.tokenizer.vocab_size),
        "shards": want.share.of,
    }
    check_beside(folder, about)
    labels = claim_labels(folder / set_name(want.how, want.kept), about)
    if not (labels.folder / VOCABULARY).exists():
        sources.tokenizer.save(labels.folder / VOCABULARY)
    return labels


def make_labels(
    config: Experiment, folder: Path, want: Wanted, sources: Sources, writer: Writer, own: Task | None = None
) -> LabelSet:
    """Has a teacher make a shard, whoever it is; what is there is not made anew.

    Args:
      config: of the runs that are to learn from it.
      folder: for sets of labels of one teacher.
      want: which set, and which shard of it.
      sources: what is answered.
      writer: who does.
      own: texts instead of `config.data`.

    Raises:
      UserError: as `label` does, and as the writer does.
    """
    labels, console = claim(config, folder, want, sources, writer, own), Console(stderr=True)
    if not _make(labels, want, sources, writer):
        console.print(f"{labels.note(want.share.number)}: this shard is there already", soft_wrap=True, markup=False)
    _tell(labels, console)
    return labels


def _make(labels: LabelSet, want: Wanted, sources: Sources, writer: Writer) -> bool:
    """Makes a shard unless it is there; returns whether it did.

    Its folder of work goes within the lock that lies there, so that nobody else's goes with it, and last: whoever finds
    one beside a note is after a process that was killed between them.
    """
    note, work = labels.note(want.share.number), labels.folder / f".work-{want.share.number}-of-{want.share.of}"
    if note.exists():
        shutil.rmtree(work, ignore_errors=True)
        return False
    with explained(work):
        work.mkdir(parents=True, exist_ok=True)
    try:
        lock = take_lock(work)
    except UserError:
        if note.exists():  # whoever had the lock was about to end
            return False
        raise
    try:
        there = note.exists()
        if not there:
            _write(labels, want, sources, writer, work)
        shutil.rmtree(work, ignore_errors=True)
    finally:
        lock.release()
    return not there


def _write(labels: LabelSet, want: Wanted, sources: Sources, writer: Writer, work: Path) -> None:
    """Writes, reads, and packs both; what a killed process left in the folder `work` is gone on with."""
    share = want.share
    of = f" (shard {share.number} of {share.of})" if share.of > 1 else ""
    written = [
        writer.write(f"teacher's {want.how} outputs{of}", work / f"outputs{i}", split, want.how, share)
        for i, split in enumerate(sources.splits)
    ]
    outputs, readings = [one.data for one in written], None
    if want.kept.top_k:
        readings = writer.read(f"teacher's opinion of them{of}", work / "readings", outputs, want.kept, share)
    records = _records(outputs, readings, sources.buckets, share)
    labels.write(share, records, sum(one.unfinished for one in written))


def _records(
    outputs: list[EncodedSplit], readings: Readings | None, buckets: tuple[Bucket, ...], share: Share
) -> Iterator[Record]:
    """Those of a share, in the order of the splits."""
    whole, before = reduce(join, outputs), 0
    for split in outputs:
        for place in sorted(before + int(i) for part in parts_of(split, buckets, share=share) for i in part):
            example, source, target = int(whole.examples[place]), whole.sources[place], whole.targets[place]
            if readings is None:
                none = whole.targets.values[:0]
                yield Record(example, source, target, none, none.reshape(0, 0), none.reshape(0, 0))
                continue
            at = slice(readings.offsets[place], readings.offsets[place + 1])
            top = readings.top_log_prob_XxK[at], readings.top_ids_XxK[at]
            yield Record(example, source, target, readings.log_prob_X[at], *top)
        before += len(split)


def _prompts_hash(splits: list[EncodedSplit]) -> str:
    """Of all sources as they are cut, in their order."""
    digest = hashlib.blake2b(digest_size=8)
    for split in splits:
        digest.update(split.sources.offsets.astype("<i8").tobytes() + split.sources.values.astype("<i4").tobytes())
    return digest.hexdigest()


def _tell(labels: LabelSet, console: Console) -> None:
    found = labels.join()
    if found is None:
        console.print(f"{labels.folder}: {labels.said_missing()} yet to be made", soft_wrap=True, markup=False)
        return
    console.print(
        f"{labels.folder}: {found['rows']} outputs of {found['tokens']} tokens, {found['bytes'] / MIB:.1f} MiB, "
        f"{found['bytes_per_token']:.1f} bytes per token; {found['unfinished']} did not end",
        soft_wrap=True,
        markup=False,
    )
