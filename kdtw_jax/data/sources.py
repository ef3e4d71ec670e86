"""The sources of tasks that come with the package."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from babel import Locale, UnknownLocaleError
from rich.console import Console

from kdtw_jax.data import cldr
from kdtw_jax.data.classroom import SOURCES as CLASSROOM
from kdtw_jax.data.debian import RECIPE, summary_pairs, summary_prompts, translation_pairs, translation_prompts
from kdtw_jax.data.debian_apt import download_indices
from kdtw_jax.data.overlap import RECIPE as OVERLAP
from kdtw_jax.data.overlap import contained, overlap
from kdtw_jax.data.record import SUMMARY_METRICS, TRANSLATION_METRICS, OwnPrompts, Task, TaskRequest, TaskSource
from kdtw_jax.data.remarks import remark
from kdtw_jax.data.splits import PairSplits
from kdtw_jax.data.store import fingerprint, kept_notes, stored
from kdtw_jax.data.textfiles import file_pairs
from kdtw_jax.data.tfds_source import tfds_pairs
from kdtw_jax.data.ways import SOURCE as WAYS
from kdtw_jax.errors import UserError

_LANGUAGES = re.compile(r"([a-z]{2,3}(?:_[A-Z]{2})?)-([a-z]{2,3}(?:_[A-Z]{2})?)")  # of debian/
_MEASURED = 100_000  # training pairs up to which it is measured whether the texts of tfds are in training
# Summaries of tensorflow-datasets, all of them English, which does not say so.
_ENGLISH = (
    *("aeslc", "big_patent", "billsum", "booksum", "cnn_dailymail", "covid19sum", "gigaword", "gov_report"),
    *("media_sum", "multi_news", "newsroom", "opinion_abstracts", "opinosis", "reddit", "reddit_tifu", "samsum"),
    *("scientific_papers", "summscreen", "wikihow", "xsum"),
)


def _load_cldr(request: TaskRequest) -> Task:
    made = stored(request.data_dir, request.name, _cldr_recipe(), _make_cldr)
    return Task(request.name, made.splits, cldr.METRICS, cldr.INSTRUCTION, made.notes, made.fingerprint, "de")


def _make_cldr() -> PairSplits:
    with Console(stderr=True).status("cldr: making pairs"):
        splits = cldr.cldr_pairs()
    notes: dict[str, float] = {f"{split}_pairs": len(pairs) for split, pairs in splits.items()}
    # Texts that differ in a number alone are different phrases here, so only equal ones count as overlap.
    for side in ("source", "target"):
        seen = {pair[side] for pair in splits["train"]}
        found = sum(pair[side] in seen for pair in splits["test"])
        notes[f"test_{side}_in_train"] = found / len(splits["test"])
    return PairSplits(splits, notes)


def _cldr_recipe() -> str:
    """The generator's own text and the CLDR release: with another of either the pairs are made anew."""
    modules = sorted(Path(cldr.__file__).parent.glob("cldr*.py"))
    text = b"".join(module.read_bytes() for module in modules)
    return f"{hashlib.blake2b(text, digest_size=8).hexdigest()} babel {version('babel')}"


def _load_debian(request: TaskRequest) -> Task:
    name, data_dir = request.name, request.data_dir
    kind = name.removeprefix("debian/")
    lists = data_dir / "apt"
    status = Console(stderr=True).status
    if kind == "summarize":

        def make() -> PairSplits:
            indices = download_indices(lists, ("en",))
            with status(f"{name}: cleaning and splitting, half a minute"):
                return summary_pairs(indices)

        made = stored(data_dir, name, RECIPE, make)
        return Task(name, made.splits, SUMMARY_METRICS, "summarize: {source}", made.notes, made.fingerprint, "en")
    languages = _LANGUAGES.fullmatch(kind)
    if languages is None or languages[1] == languages[2]:
        raise UserError(f"unknown task {name!r}; use debian/summarize or two languages as in debian/en-de")
    source, target = languages.groups()

    def make_translation() -> PairSplits:
        indices = download_indices(lists, (source, target))
        with status(f"{name}: aligning and splitting, a few seconds"):
            return translation_pairs(indices, source, target)

    made = stored(data_dir, name, RECIPE, make_translation)
    instruction = translation_instruction(source, target)
    return Task(name, made.splits, TRANSLATION_METRICS, instruction, made.notes, made.fingerprint, target)


def _debian_prompts(request: TaskRequest, task: Task) -> Iterator[str]:
    """Of the archive as it is now: what is held out is known by the families of the pairs, whenever these were made."""
    held_out = {pair["group"] for split in ("validation", "test") for pair in task.splits[split]}
    kind, lists = request.name.removeprefix("debian/"), request.data_dir / "apt"
    if kind == "summarize":
        return summary_prompts(download_indices(lists, ("en",)), held_out)
    source, target = kind.split("-")
    return translation_prompts(download_indices(lists, (source, target)), source, held_out)


def _debian_language(name: str) -> str:
    translation = _LANGUAGES.fullmatch(name.removeprefix("debian/"))
    return translation[2] if translation else ""


def _load_tfds(request: TaskRequest) -> Task:
    name = request.name
    found = tfds_pairs(name.removeprefix("tfds:"), request.features, request.data_dir)
    notes = {f"{split}_pairs": len(pairs) for split, pairs in found.splits.items()}
    if found.is_translation:
        instruction = translation_instruction(found.source, found.target)
        return Task(name, found.splits, TRANSLATION_METRICS, instruction, notes, language=found.target)
    language = "en" if re.split("[:/]", name)[1] in _ENGLISH else ""
    return Task(name, found.splits, SUMMARY_METRICS, "summarize: {source}", notes, language=language)


def _contained_notes(request: TaskRequest, task: Task) -> dict[str, float]:
    """What of validation and test is in training by its text, which is said where it is any."""
    if len(task.splits["train"]) > _MEASURED:
        return {}
    train, notes = list(task.splits["train"]), dict[str, float]()
    for split in ("validation", "test"):
        shares = contained(train, list(task.splits[split]))
        notes |= {note.replace("test", split, 1): share for note, share in shares.items()}
        if found := shares["test_source_in_train"]:
            said = f"{found:.1%} of the sources of {split} are training sources, too"
            remark(f"{request.name}: {said}: scores on them are no test")
    return notes


def _load_files(request: TaskRequest) -> Task:
    files = request.files
    with Console(stderr=True).status("files: reading"):
        pairs = file_pairs(files)
    digest = fingerprint(pairs.splits)
    return Task(request.name, pairs.splits, TRANSLATION_METRICS, files.instruction, pairs.notes, digest)


def _file_notes(request: TaskRequest, task: Task) -> dict[str, float]:
    """How much of test is in training. Texts that differ in a number are different ones, as in sums or dates; how many
    are equal but for numbers is said besides."""
    train, test = list(task.splits["train"]), list(task.splits["test"])
    key = f"{task.fingerprint} {request.limit} {request.test_limit}"

    def measure() -> dict[str, float]:
        with Console(stderr=True).status("files: measuring how much of test is in training"):
            notes = overlap(train, test, fold_digits=False)
            folded = contained(train, test, fold_digits=True)
        return notes | {f"{note}_but_for_digits": value for note, value in folded.items()}

    return kept_notes(request.data_dir, f"{OVERLAP} {key}", measure)


def translation_instruction(source: str, target: str) -> str:
    """T5's wording, with the English names of two language codes: "translate English to German: {source}"."""
    return f"translate {_language(source)} to {_language(target)}: {{source}}"


def _language(code: str) -> str:
    try:
        return Locale.parse(code).get_display_name("en") or code
    except (UnknownLocaleError, ValueError):
        return code


BUILTIN: Mapping[str, TaskSource] = {
    "cldr": TaskSource(_load_cldr, "cldr", lambda name: "de"),
    "debian/": TaskSource(
        _load_debian,
        "debian/en-de, debian/summarize",
        _debian_language,
        prompts=OwnPrompts(_debian_prompts, RECIPE, fold_digits=True),
    ),
    "tfds:": TaskSource(_load_tfds, "tfds:NAME", notes=_contained_notes),
    "ways": WAYS,
    **CLASSROOM,
    "files": TaskSource(_load_files, "files", notes=_file_notes),
}
