"""A task: text pairs by split, how answers are judged, and the words that ask for them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from babel import Locale, UnknownLocaleError
from rich.console import Console

from kdtw_jax.data import cldr
from kdtw_jax.data.debian import RECIPE, summary_pairs, translation_pairs
from kdtw_jax.data.debian_apt import download_indices
from kdtw_jax.data.features import Features
from kdtw_jax.data.language import guess_language, is_language, main_language
from kdtw_jax.data.overlap import RECIPE as OVERLAP
from kdtw_jax.data.overlap import contained, overlap
from kdtw_jax.data.pair import Pair, Source
from kdtw_jax.data.pairs import Given, split_pairs
from kdtw_jax.data.remarks import remark
from kdtw_jax.data.splits import PairSplits
from kdtw_jax.data.store import fingerprint, kept_notes, stored
from kdtw_jax.data.textfiles import FileSpec, file_pairs
from kdtw_jax.data.tfds_source import tfds_pairs
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.metrics import check_metrics

__all__ = ["Pair", "Source", "Task", "load_task"]

TRANSLATION_METRICS = ("bleu", "chrf")
SUMMARY_METRICS = ("rouge1", "rouge2", "rougeL")
_LANGUAGES = re.compile(r"([a-z]{2,3}(?:_[A-Z]{2})?)-([a-z]{2,3}(?:_[A-Z]{2})?)")  # of debian/
_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")
_COUNTRIES = {"cn": "zh", "jp": "ja", "kr": "ko", "ua": "uk", "gr": "el", "cz": "cs", "dk": "da", "vn": "vi"}
_MEASURED = 100_000  # training pairs up to which it is measured whether the texts of tfds are in training
_SEEN = 1000  # targets by whose script a language is told
# Summaries of tensorflow-datasets, all of them English, which does not say so.
_ENGLISH = (
    *("aeslc", "big_patent", "billsum", "booksum", "cnn_dailymail", "covid19sum", "gigaword", "gov_report"),
    *("media_sum", "multi_news", "newsroom", "opinion_abstracts", "opinosis", "reddit", "reddit_tifu", "samsum"),
    *("scientific_papers", "summscreen", "wikihow", "xsum"),
)


@dataclass(frozen=True)
class Task:
    """Everything about a task that does not depend on a model."""

    name: str
    splits: Mapping[str, Source]
    """by name: train, validation, test"""
    metrics: tuple[str, ...]
    """of bleu, chrf, rouge1, rouge2, rougeL, exact_match"""
    instruction: str
    """has {source} where the source goes"""
    notes: Mapping[str, float]
    """counts, mean lengths and how much of the test split is in training"""
    fingerprint: str = ""
    """a hash of all text, where the text is prepared here; equal if two runs had the same data"""
    language: str = ""
    """a code for the language of the targets, "" where neither the task nor their script says it"""

    @classmethod
    def from_pairs(
        cls,
        train: Given,
        test: Given | None = None,
        *,
        validation: Given | None = None,
        metrics: Sequence[str] = TRANSLATION_METRICS,
        instruction: str = "{source}",
        language: str = "",
        name: str = "pairs",
        seed: int = 0,
    ) -> Task:
        """A task of text pairs in memory.

        Args:
          train: (source, target) pairs, or mappings with these keys, from any iterable; likewise `test` and
            `validation`. Of a split that is not given, a twentieth of the distinct training sources is held out.
          metrics: of bleu, chrf, rouge1, rouge2, rougeL, exact_match; the first decides what is shown first.
          instruction: words around a source, with {source} in them, for models that were trained to follow one.
          language: a code for the language of the targets; by default their script says it.
          name: what tables and folders call it.
          seed: of what is held out.

        Raises:
          UserError: anything that is no pair of texts, a split without pairs, held-out sources that are in training,
            or an unknown metric; before anything else.
        """
        check_metrics(metrics, "metrics")
        if "{source}" not in instruction:
            raise UserError(f"instruction must have {{source}} where the source goes, got {instruction!r}")
        splits = split_pairs(train, validation, test, seed=seed)
        notes: dict[str, float] = {f"{split}_pairs": len(pairs) for split, pairs in splits.items()}
        language = language or guess_language(pair["target"] for pair in splits["train"][:_SEEN])
        return cls(name, splits, tuple(metrics), instruction, notes, fingerprint(splits), language)


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
) -> Task:
    """The task of that name; what has to be prepared is kept in `data_dir` and found there by a later call.

    Args:
      name: `cldr`; `debian/en-de` (or another pair of languages that the archive has); `debian/summarize`;
        `tfds:NAME` as in `tfds:wmt14_translate/de-en`; or `files`.
      data_dir: a folder for prepared data.
      files: for `files`: where they are.
      features: for `tfds:NAME`: feature and split names that do not follow from the data set.
      limit, test_limit: training pairs, and validation and test pairs, at the most; evenly spaced over the split.

    Raises:
      UserError: an unknown name, or whatever is wrong with the data; nothing half-written is left.
    """
    limits = {"train": limit, "validation": test_limit, "test": test_limit}
    for split, most in limits.items():
        if most is not None and most < 1:
            raise UserError(f"the limit on {split} pairs must be at least 1, got {most}")
    task = _load(name, Path(data_dir), files or FileSpec(), features or Features())
    script = guess_language(pair["target"] for pair in _Limited(task.splits["train"], _SEEN))
    if not task.language:
        task = replace(task, language=script)
    elif script not in ("", main_language(task.language)):
        remark(f"{name}: the targets are said to be in {task.language!r}, but are in the script of {script!r}")
    splits, notes = dict(task.splits), dict(task.notes)
    for split, most in limits.items():
        if most is not None and split in splits:
            splits[split] = _Limited(splits[split], most)
            notes[f"{split}_pairs"] = len(splits[split])
    if name == "files":  # measured on what is used, which may be a small part of what is there
        notes |= _file_notes(splits, f"{task.fingerprint} {limit} {test_limit}", Path(data_dir))
    if name.startswith("tfds:") and len(splits["train"]) <= _MEASURED:
        notes |= _contained_notes(name, splits)
    return replace(task, splits=splits, notes=notes)


def _load(name: str, data_dir: Path, files: FileSpec, features: Features) -> Task:
    if name == "cldr":
        made = stored(data_dir, name, _cldr_recipe(), _make_cldr)
        return Task(name, made.splits, cldr.METRICS, cldr.INSTRUCTION, made.notes, made.fingerprint, "de")
    if name.startswith("debian/"):
        return _load_debian(name, data_dir)
    if name.startswith("tfds:"):
        return _load_tfds(name, features, data_dir)
    if name == "files":
        language = stated_language(name, files)
        with Console(stderr=True).status("files: reading"):
            pairs = file_pairs(files)
        digest = fingerprint(pairs.splits)
        return Task(name, pairs.splits, files.metrics, files.instruction, pairs.notes, digest, language)
    raise UserError(f"unknown task {name!r}; use cldr, debian/en-de, debian/summarize, tfds:NAME or files")


def _contained_notes(name: str, splits: Mapping[str, Source]) -> dict[str, float]:
    """What of validation and test is in training by its text, which is said where it is any."""
    train, notes = list(splits["train"]), dict[str, float]()
    for split in ("validation", "test"):
        shares = contained(train, list(splits[split]))
        notes |= {note.replace("test", split, 1): share for note, share in shares.items()}
        if found := shares["test_source_in_train"]:
            remark(
                f"{name}: {found:.1%} of the sources of {split} are training sources, too: scores on them are no test"
            )
    return notes


def _file_notes(splits: Mapping[str, Source], key: str, data_dir: Path) -> dict[str, float]:
    """How much of test is in training. Texts that differ in a number are different ones, as in sums or dates; how many
    are equal but for numbers is said besides."""
    train, test = list(splits["train"]), list(splits["test"])

    def measure() -> dict[str, float]:
        with Console(stderr=True).status("files: measuring how much of test is in training"):
            notes = overlap(train, test, fold_digits=False)
            folded = contained(train, test, fold_digits=True)
        return notes | {f"{note}_but_for_digits": value for note, value in folded.items()}

    return kept_notes(data_dir, f"{OVERLAP} {key}", measure)


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


def _load_debian(name: str, data_dir: Path) -> Task:
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


def _load_tfds(name: str, features: Features, data_dir: Path) -> Task:
    found = tfds_pairs(name.removeprefix("tfds:"), features, data_dir)
    notes = {f"{split}_pairs": len(pairs) for split, pairs in found.splits.items()}
    if found.is_translation:
        instruction = translation_instruction(found.source, found.target)
        return Task(name, found.splits, TRANSLATION_METRICS, instruction, notes, language=found.target)
    language = "en" if re.split("[:/]", name)[1] in _ENGLISH else ""
    return Task(name, found.splits, SUMMARY_METRICS, "summarize: {source}", notes, language=language)


def stated_language(name: str, files: FileSpec) -> str:
    """The language of the targets of a task as far as its name (or the user, for files) says, before anything is read.

    Raises UserError where what is said of files is no code of a language.
    """
    if name == "files":
        if files.language and not (_CODE.fullmatch(files.language) and is_language(files.language)):
            meant = _COUNTRIES.get(main_language(files.language))
            advice = f"; is {meant} meant?" if meant else ""
            raise UserError(f"files: language must be a code such as en, zh or pt_BR, got {files.language!r}{advice}")
        return files.language
    translation = _LANGUAGES.fullmatch(name.removeprefix("debian/"))
    return "de" if name == "cldr" else translation[2] if translation else ""


def translation_instruction(source: str, target: str) -> str:
    """T5's wording, with the English names of two language codes: "translate English to German: {source}"."""
    return f"translate {_language(source)} to {_language(target)}: {{source}}"


def _language(code: str) -> str:
    try:
        return Locale.parse(code).get_display_name("en") or code
    except (UnknownLocaleError, ValueError):
        return code
