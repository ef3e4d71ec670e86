"""Data and vocabulary of a run: what every stage needs before anything is trained."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from kdtw_jax import parallel
from kdtw_jax.constraints import known_constraints, sayings, without_budgets
from kdtw_jax.data.batches import Bucket, EncodedSplit, encode_split, make_buckets
from kdtw_jax.data.prompts import NONE, REST
from kdtw_jax.data.task import TEACHERS, Task, load_task, stated_language, with_few_pairs
from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from kdtw_jax.data.unanswered import unanswered
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.ceiling import Ceiling
from kdtw_jax.metrics.scoring import Scoring, bleu_metric, choose_scoring
from kdtw_jax.models import cut_teacher
from kdtw_jax.models.lora import check_targets
from kdtw_jax.parallel.hosts import first_alone
from kdtw_jax.pipeline.checks import check_fit, needs_validation
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.elsewhere import Remote
from kdtw_jax.pipeline.judging import tell_ceiling, tell_scoring
from kdtw_jax.pipeline.teacher_cache import TeacherCache as TeacherCache
from kdtw_jax.pipeline.teacher_cache import check_without_teacher, open_cache
from kdtw_jax.pretrained.named import Named, find_model
from kdtw_jax.runs import Progress, RunFolder
from kdtw_jax.runs.folder import VOCABULARY
from kdtw_jax.training.saved import check_vocabulary


class Given(NamedTuple):
    """What a configuration names and a machine has."""

    devices: parallel.Devices
    teacher: Named | None  # one that was named instead of trained
    students: Mapping[int, Named]  # likewise by seed the starts of students; empty: they are trained
    tokenizer: Tokenizer | None  # None: one is trained
    task: Task
    cache: TeacherCache | None = None  # labels of a teacher
    remote: Remote | None = None  # a teacher at an address, where students are yet to learn from it


class Setup(NamedTuple):
    """Data and vocabulary of a run."""

    task: Task
    tokenizer: Tokenizer
    buckets: tuple[Bucket, ...]
    train: EncodedSplit
    test: EncodedSplit  # or validation, as configured
    validation: EncodedSplit | None  # pairs that no model was trained on, where thresholds or prices are set on them
    references: list[str]
    devices: parallel.Devices
    teacher: Named | None  # one that was named instead of trained
    students: Mapping[int, Named]  # likewise by seed the starts of students; empty: they are trained
    scoring: Scoring
    ceiling: Ceiling  # of the references
    teachers: EncodedSplit | None = None  # pairs that a teacher is trained on, where students have fewer
    prompts: EncodedSplit | None = None  # without targets, numbered after the pairs; if a student is to learn on them
    cache: TeacherCache | None = None  # labels of a teacher, which then need not write ahead
    remote: Remote | None = None  # a teacher at an address, where students are yet to learn from it


def check_scoring(config: Experiment) -> None:
    """Checks that BLEU's tokenizer can be had, as far as it is known before the text is read.

    It may be the text that tells the language.

    Raises:
      UserError: it cannot be had.
    """
    language = config.eval.language or stated_language(config.data)
    if "bleu" in (config.eval.metrics or ("bleu",)):
        bleu_metric(choose_scoring(language, config.eval.bleu_tokenizer).bleu)


def look_up(config: Experiment, own: Task | None = None) -> Given:
    """Finds what a configuration names, before a run's folder is made.

    Args:
      own: a task of the user's own, whose text is taken instead of that of `config.data`.

    Raises:
      UserError: there are not as many devices, or no such model, vocabulary or text, they do not fit each other, or
        BLEU's tokenizer cannot be had.
    """
    check_scoring(config)
    check_without_teacher(config)
    cache = None if config.teacher_cache is None else open_cache(config.teacher_cache)
    if cache is not None:
        cache.check(config)
    devices = parallel.select_devices(config.devices)
    parallel.check_shards(len(devices), config.teacher_shards)
    if config.results is not None:
        check_place(config.results)
    names = config.named_students()
    here = None if config.teacher_elsewhere else config.teacher_model
    wanted = dict.fromkeys([*([here] if here is not None else []), *names.values()])
    found = {name: find_model(name, offline=config.offline) for name in wanted}
    if some := [name for name in names.values() if found[name].program]:
        raise UserError(f"{some[0]} is a program and cannot learn: give it as --teacher-model")
    starts = [found[name].config for name in names.values()]
    if config.student_from_teacher:
        whole = config.teacher if here is None else found[here].config
        starts.append(cut_teacher(whole, config.student_from_teacher)[0])
    for start in starts:
        check_targets(start, config.lora)
    named = list(found.values())
    known = [model.tokenizer for model in named]
    if config.text.tokenizer is not None:
        known.insert(0, load_tokenizer(config.text.tokenizer))
    if not known and cache is not None:
        known.append(cache.tokenizer())
    if not known and config.teacher_elsewhere:
        raise UserError(
            f"a teacher at an address ({config.teacher_model}) does not hand over its vocabulary: name it by "
            "--text.tokenizer, the tokenizer.model of its run or model, or give --student-model, which has it"
        )
    if not known:
        return Given(devices, None, {}, None, _task(config, own))
    tokenizer = known[0].padded_to(max(one.vocab_size for one in known))
    for model in named:
        check_vocabulary(str(model.folder), model.tokenizer, tokenizer)
    # Models may differ in rows that no token has: the smaller one is padded.
    padded = {name: model.padded_to(tokenizer.vocab_size) for name, model in found.items()}
    teacher = None if here is None else padded[here]
    students = {seed: padded[name] for seed, name in names.items()}
    if cache is not None:
        cache.check_vocabulary(tokenizer)
    return Given(devices, teacher, students, tokenizer, _task(config, own), cache)


def _task(config: Experiment, own: Task | None) -> Task:
    """The text, whose script may tell the language by which BLEU takes it apart."""
    text = config.text

    def load() -> Task:
        return load_task(
            config.data,
            data_dir=text.folder,
            files=text.files,
            features=text.features,
            limit=text.limit or None,
            test_limit=config.eval.limit or None,
            language=config.eval.language,
            prompts=NONE if config.prompts == REST else config.prompts,
        )

    if own is not None and config.prompts == REST and len(own.prompts):
        raise UserError("prompts is rest, but the task has prompts of its own: leave one of them out")
    if own is not None and (config.prompts not in (NONE, REST)) != bool(len(own.prompts)):
        raise UserError("prompts of a task of your own are said with it: Task.from_pairs(..., prompts=texts)")
    task = own or first_alone(load, "data")
    if config.student_pairs:
        task = with_few_pairs(task, config.student_pairs, prompts=config.prompts == REST)
    task = dataclasses.replace(
        task, metrics=config.eval.metrics or task.metrics, language=config.eval.language or task.language
    )
    if "bleu" in task.metrics:
        bleu_metric(choose_scoring(task.language, config.eval.bleu_tokenizer).bleu)
    return task


def prepare(config: Experiment, run: RunFolder, console: Console, given: Given) -> Setup:
    """Makes data and vocabulary of a run, says what was left out, and checks that the configuration fits what is left.

    The vocabulary is trained unless one is given.

    Raises:
      UserError: the configuration does not fit; before anything is trained.
    """
    devices, text, task = given.devices, config.text, given.task
    rules = list(without_budgets(config.of("ask").constraints))  # whose words the vocabulary has, too
    first_alone(lambda: _check_text(run, task, rules), "text")
    found = run.info("data") if run.done("data") else {}
    instruction = task.instruction if text.instruct else "{source}"
    buckets = make_buckets(text.max_source, text.max_target, text.batch_tokens, text.buckets, multiple_of=len(devices))
    if run.begun() and found.get("buckets"):
        buckets = tuple(Bucket(*shape) for shape in found["buckets"])  # of as many rows on any number of devices
        devices = parallel.dividing_devices(config.devices, [bucket.rows for bucket in buckets])
        parallel.check_shards(len(devices), config.teacher_shards)
    scoring = tell_scoring(config, task, console)
    about = {"fingerprint": task.fingerprint, "notes": dict(task.notes), "instruction": instruction, "buckets": buckets}
    run.mark_done("data", {**about, "rules": rules})
    for note, value in task.notes.items():
        console.print(f"{task.name}: {note} {value:g}")
    tokenizer = given.tokenizer or first_alone(lambda: _tokenizer(config, task, run.path / VOCABULARY), "tokenizer")
    encoded = {}
    for split in dict.fromkeys(("train", config.eval.split, *(("validation",) if needs_validation(config) else ()))):
        if not len(task.splits.get(split, ())):
            raise UserError(f"{task.name} has no pairs in its split {split}; give some")
        encoded[split] = encode_pairs(config, task, tokenizer, split, console)
    check_fit(config, tokenizer, buckets, len(devices))
    train, test = encoded["train"], encoded[config.eval.split]
    references = [task.splits[config.eval.split][int(i)]["target"] for i in test.examples]
    ceiling = tell_ceiling(config, task, tokenizer, test, references, scoring, console)
    prompts = _prompts(config, run, task, tokenizer, train, console)
    parts = (task, tokenizer, buckets, train, test, encoded.get("validation"), references, devices)
    teachers = None
    if TEACHERS in task.splits and config.trains_teacher and not run.done("teacher"):
        teachers = encode_pairs(config, task, tokenizer, TEACHERS, console)
    more = (ceiling, teachers, prompts, given.cache, given.remote)
    return Setup(*parts, given.teacher, given.students, scoring, *more)


def _prompts(
    config: Experiment, run: RunFolder, task: Task, tokenizer: Tokenizer, train: EncodedSplit, console: Console
) -> EncodedSplit | None:
    learning = [m for m in config.methods if not all(run.done(f"seed{seed}/{m}") for seed in config.seeds)]
    if not any(map(config.takes_prompts, learning)):
        return None
    return encode_prompts(config, task, tokenizer, train, console)


def encode_pairs(config: Experiment, task: Task, tokenizer: Tokenizer, split: str, console: Console) -> EncodedSplit:
    """Encodes the pairs of a split, and says what was left out.

    Raises:
      UserError: none is left.
    """
    part, text = _encoded(config, task, tokenizer, split), config.text
    console.print(
        f"{task.name} {split}: {len(part)} pairs of at most {text.max_source} and {text.max_target} pieces; "
        f"{part.dropped} longer ones left out, {part.truncated_pairs} cut ({part.truncated_tokens} pieces lost)"
    )
    if not len(part):
        raise UserError(
            f"{task.name} {split}: of {part.dropped} pairs none is left, all are longer than {text.max_source} and "
            f"{text.max_target} pieces; give more by --text.max-source and --text.max-target, or --text.on-long "
            "truncate"
        )
    return part


def encode_prompts(
    config: Experiment, task: Task, tokenizer: Tokenizer, train: EncodedSplit, console: Console
) -> EncodedSplit:
    """Encodes the prompts of a task, with room for answers as the pairs of training need, and says what was left out.

    Raises:
      UserError: none is left.
    """
    text = config.text
    alone = dataclasses.replace(task, splits={"prompts": task.prompts})
    found = _encoded(config, alone, tokenizer, "prompts")
    console.print(
        f"{task.name}: {len(found)} prompts of at most {text.max_source} pieces; "
        f"{found.dropped} longer ones left out, {found.truncated_pairs} cut ({found.truncated_tokens} pieces lost)"
    )
    if not len(found):
        raise UserError(
            f"--prompts {config.prompts}: all {found.dropped} are longer than {text.max_source} pieces; give more by "
            "--text.max-source, or --text.on-long truncate"
        )
    return unanswered(found, train, first=len(task.splits["train"]), most=text.max_target)


def _check_text(run: RunFolder, task: Task, rules: list[str]) -> None:
    """Has a run that has not begun forget another text, or other rules, that it has seen.

    Raises:
      UserError: the run has begun on another text.
    """
    found = run.info("data") if run.done("data") else {}
    same_text = found.get("fingerprint", task.fingerprint) == task.fingerprint
    if run.begun() and not same_text:
        raise UserError(
            f"the text of {task.name} is not what the run in {run.path} was started on; "
            "choose another --out or restore the text"
        )
    if not (same_text and found.get("rules") == rules):
        run.forget()


def check_place(folder: Path) -> None:
    """Checks that a folder for results can be written, before there are any.

    Raises:
      UserError: it cannot.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"cannot write results to {folder}: {there} is no folder to write in; name another place")


def _encoded(config: Experiment, task: Task, tokenizer: Tokenizer, split: str) -> EncodedSplit:
    text = config.text
    with Progress(f"encoding {split}", total=len(task.splits[split])) as progress:
        return encode_split(
            task,
            split,
            tokenizer,
            max_source=text.max_source,
            max_target=text.max_target,
            on_long=text.on_long,
            instruct=text.instruct,
            progress=lambda done, _: progress.update(done),
        )


def _tokenizer(config: Experiment, task: Task, path: Path) -> Tokenizer:
    """Trained here, for all models."""
    if not path.exists():
        pairs = task.splits.get(TEACHERS, task.splits["train"])
        texts = [text for pair in pairs for text in (pair["source"], pair["target"])]
        # The student reads rules, too: what only they are written with has to be in the vocabulary.
        known = known_constraints(without_budgets(config.of("ask").constraints), config.teacher)
        rules = [text for constraint in known for text in sayings(constraint)]
        if set("".join(rules)) - set("".join(texts)):
            texts += rules
        of = config.text
        trained = train_tokenizer(
            texts, vocab_size=of.vocab_size, character_coverage=of.character_coverage, whole_words=of.whole_words
        )
        trained.save(path)
    return load_tokenizer(path)
