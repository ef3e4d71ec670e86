"""Data and vocabulary of a run: what every stage needs before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from kdtw_jax.config import Experiment
from kdtw_jax.constraints import known_constraints, sayings
from kdtw_jax.data.batches import Bucket, EncodedSplit, encode_split, make_buckets
from kdtw_jax.data.task import Task, load_task, stated_language
from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.ceiling import Ceiling, find_ceiling
from kdtw_jax.evaluation.scoring import ENGLISH, Scoring, bleu_metric, choose_scoring, look_tokenized
from kdtw_jax.hosts import first_alone
from kdtw_jax.pretrained.named import Named, find_model
from kdtw_jax.runs import Progress, RunFolder
from kdtw_jax.train import parallel
from kdtw_jax.train.checkpoint import check_vocabulary


class Setup(NamedTuple):
    """Data and vocabulary of a run."""

    task: Task
    tokenizer: Tokenizer
    buckets: tuple[Bucket, ...]
    train: EncodedSplit
    test: EncodedSplit  # or validation, as configured
    references: list[str]
    devices: parallel.Devices
    teacher: Named | None  # models that were named instead of trained
    student: Named | None
    scoring: Scoring
    ceiling: Ceiling  # of the references


def check_scoring(config: Experiment) -> None:
    """Raises UserError, before anything is read or written, where BLEU's tokenizer cannot be had, as far as it is known
    then: the language may only be told by the text."""
    language = stated_language(config.data, config.text.files)
    if config.data != "files" or "bleu" in config.text.files.metrics:
        bleu_metric(choose_scoring(language, config.text.bleu_tokenizer).bleu)


def prepare(config: Experiment, run: RunFolder, console: Console) -> Setup:
    """Loads the text, trains or loads the vocabulary, cuts everything into pieces, and says what was left out."""
    devices = parallel.select_devices(config.devices)
    text = config.text

    def load() -> Task:
        return load_task(
            config.data,
            data_dir=text.folder,
            files=text.files,
            features=text.features,
            limit=text.limit or None,
            test_limit=text.test_limit or None,
        )

    task = first_alone(load, "data")
    if run.done("data") and run.info("data")["fingerprint"] != task.fingerprint:
        raise UserError(
            f"the text of {task.name} is not what the run in {run.path} was started on; "
            "choose another --out or restore the text"
        )
    instruction = task.instruction if text.instruct else "{source}"
    buckets = make_buckets(text.max_source, text.max_target, text.batch_tokens, text.buckets, multiple_of=len(devices))
    if run.done("data") and (begun := run.info("data").get("buckets")):
        buckets = tuple(Bucket(*shape) for shape in begun)  # of as many rows on any number of devices
        devices = parallel.dividing_devices(config.devices, [bucket.rows for bucket in buckets])
    scoring = _scoring(config, task, run, console)
    about = {"fingerprint": task.fingerprint, "notes": dict(task.notes), "instruction": instruction, "buckets": buckets}
    run.mark_done("data", {**about, "scoring": scoring._asdict()})
    for note, value in task.notes.items():
        console.print(f"{task.name}: {note} {value:g}")
    teacher, student = (
        None if name is None else find_model(name, offline=config.offline)
        for name in (config.teacher_model, config.student_model)
    )
    named = [model for model in (teacher, student) if model is not None]
    tokenizer = first_alone(lambda: _tokenizer(config, task, run.path / "tokenizer.model", named), "tokenizer")
    teacher, student = (
        None if model is None else model.padded_to(tokenizer.vocab_size) for model in (teacher, student)
    )
    encoded = {}
    for split in ("train", config.split):
        part = _encoded(config, task, tokenizer, split)
        console.print(
            f"{task.name} {split}: {len(part)} pairs of at most {text.max_source} and {text.max_target} pieces; "
            f"{part.dropped} longer ones left out, {part.truncated_pairs} cut ({part.truncated_tokens} pieces lost)"
        )
        encoded[split] = part
    test = encoded[config.split]
    references = [task.splits[config.split][int(i)]["target"] for i in test.examples]
    ceiling = _ceiling(config, task, tokenizer, test, references, scoring, console)
    models = (teacher, student)
    return Setup(task, tokenizer, buckets, encoded["train"], test, references, devices, *models, scoring, ceiling)


def _scoring(config: Experiment, task: Task, run: RunFolder, console: Console) -> Scoring:
    """Tokenizers by the language of the targets or as configured; a run goes on with those that it began with."""
    wanted = config.text.bleu_tokenizer
    scoring = choose_scoring(task.language, wanted)
    reason = f"as the targets are in the language {task.language!r}" if task.language else "for an unknown language"
    if config.data == "files" and task.language != config.text.files.language:
        reason += ", which their script says"
    if run.done("data"):
        begun = Scoring(**run.info("data").get("scoring", ENGLISH._asdict()))  # before there was a choice
        if wanted and wanted != begun.bleu:
            raise UserError(
                f"the run in {run.path} was started with BLEU's tokenizer {begun.bleu}, not {wanted}; "
                "choose another --out or leave out --text.bleu-tokenizer"
            )
        scoring, reason = begun, reason if begun == scoring else "as the run began"
    if "bleu" in task.metrics:
        bleu_metric(scoring.bleu)
        if scoring.bleu != ENGLISH.bleu:
            because = "as configured" if wanted else f"{reason} (--text.bleu-tokenizer chooses another)"
            console.print(f"{task.name}: BLEU by the tokenizer {scoring.bleu}, {because}", soft_wrap=True)
    if any(metric.startswith("rouge") for metric in task.metrics) and scoring.rouge != ENGLISH.rouge:
        console.print(f"{task.name}: ROUGE of words in any script, {reason}", soft_wrap=True)
    return scoring


def _ceiling(
    config: Experiment,
    task: Task,
    tokenizer: Tokenizer,
    test: EncodedSplit,
    references: Sequence[str],
    scoring: Scoring,
    console: Console,
) -> Ceiling:
    """Says what is wrong with the references that models are judged on."""
    named = f"{task.name} {config.split}"
    if "bleu" in task.metrics and scoring.bleu != "none" and look_tokenized(references):
        plain = "BLEU is meant for text as people write it"
        console.print(
            f"{named}: 100 or more references end in a period with a space before it; {plain}", soft_wrap=True
        )
    targets = [test.targets[i].tolist() for i in range(len(test))]
    ceiling = find_ceiling(tokenizer, references, targets, task.metrics, scoring)
    if ceiling.unwritable:
        best = ", ".join(f"{metric} {value:.1f}" for metric, value in ceiling.best.items())
        console.print(
            f"{named}: {ceiling.unwritable} of {ceiling.references} references cannot be written in this vocabulary "
            f"({', '.join(ceiling.changes)}); the best possible outputs have {best}",
            markup=False,
            soft_wrap=True,
        )
    return ceiling


def validation_split(config: Experiment, setup: Setup) -> EncodedSplit:
    """Pairs that no model was trained on, to set thresholds and prices on; what models are judged on, if they are
    judged on validation."""
    return setup.test if config.split == "validation" else _encoded(config, setup.task, setup.tokenizer, "validation")


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


def _tokenizer(config: Experiment, task: Task, path: Path, models: Sequence[Named]) -> Tokenizer:
    """The configured vocabulary, or that of the models that were named, or one trained here; all models share it."""
    if config.text.tokenizer is not None:
        tokenizer = load_tokenizer(config.text.tokenizer)
        tokenizer = tokenizer.padded_to(max(m.vocab_size for m in (tokenizer, *(m.tokenizer for m in models))))
    elif models:
        tokenizer = max((model.tokenizer for model in models), key=lambda own: own.vocab_size)
    for model in models:
        check_vocabulary(str(model.folder), model.tokenizer, tokenizer)
    if config.text.tokenizer is not None or models:
        return tokenizer
    if not path.exists():
        pairs = task.splits["train"]
        texts = [text for pair in pairs for text in (pair["source"], pair["target"])]
        # The student reads rules, too: what only they are written with has to be in the vocabulary.
        rules = [text for c in known_constraints(config.ask.constraints, config.teacher) for text in sayings(c)]
        if set("".join(rules)) - set("".join(texts)):
            texts += rules
        size, coverage = config.text.vocab_size, config.text.character_coverage
        train_tokenizer(texts, vocab_size=size, character_coverage=coverage).save(path)
    return load_tokenizer(path)
