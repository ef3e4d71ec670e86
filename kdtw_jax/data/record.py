"""What a task is, and what a source of tasks is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kdtw_jax.data.features import Features
from kdtw_jax.data.pair import Source
from kdtw_jax.data.pairs import Given, split_pairs
from kdtw_jax.data.prompts import clean_prompts
from kdtw_jax.data.store import fingerprint
from kdtw_jax.data.textfiles import FileSpec
from kdtw_jax.errors import UserError
from kdtw_jax.metrics.scores import check_metrics
from kdtw_jax.text.language import guess_language

TRANSLATION_METRICS = ("bleu", "chrf")
SUMMARY_METRICS = ("rouge1", "rouge2", "rougeL")
SCRIPT_FROM = 1000  # targets by whose script a language is told


@dataclass(frozen=True)
class Task:
    """Everything about a task that does not depend on a model."""

    name: str
    splits: Mapping[str, Source]
    """by name: train, validation, test"""
    metrics: tuple[str, ...]
    """names in `kdtw_jax.evaluation.METRICS`; the first decides what is shown first"""
    instruction: str
    """has {source} where the source goes"""
    notes: Mapping[str, float]
    """counts, mean lengths and how much of the test split is in training"""
    fingerprint: str = ""
    """a hash of all text, where the text is prepared here; equal if two runs had the same data"""
    language: str = ""
    """a code for the language of the targets, "" where neither the task nor their script says it"""
    prompts: Source = ()
    """further sources, whose targets are empty: a teacher can answer them; none is held out, or near to what is"""

    @classmethod
    def from_pairs(
        cls,
        train: Given,
        test: Given | None = None,
        *,
        validation: Given | None = None,
        prompts: Iterable[str] = (),
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
          prompts: further sources without targets, which a teacher can answer; what is held out, or near to that, is
            left out, and counted in the notes.
          metrics: of bleu, chrf, rouge1, rouge2, rougeL, exact_match, or your own (`register_metric`); the first
            decides what is shown first.
          instruction: words around a source, with {source} in them, for models that were trained to follow one.
          language: a code for the language of the targets; by default their script says it.
          name: what tables and folders call it.
          seed: of what is held out.

        Raises:
          UserError: anything that is no pair of texts, a split without pairs, held-out sources that are in training,
            prompts of which none is left, or an unknown metric; before anything else.
        """
        check_metrics(metrics, "metrics")
        if "{source}" not in instruction:
            raise UserError(f"instruction must have {{source}} where the source goes, got {instruction!r}")
        splits = split_pairs(train, validation, test, seed=seed)
        notes: dict[str, float] = {f"{split}_pairs": len(pairs) for split, pairs in splits.items()}
        language = language or guess_language(pair["target"] for pair in splits["train"][:SCRIPT_FROM])
        given = list(prompts)
        if not given:
            return cls(name, splits, tuple(metrics), instruction, notes, fingerprint(splits), language)
        if wrong := [text for text in given if not isinstance(text, str)]:
            raise UserError(f"prompts must be texts, got {wrong[0]!r:.80}")
        cleaned = clean_prompts(given, splits, what=name)
        texts, parts = cleaned.splits["prompts"], {**splits, **cleaned.splits}
        notes |= cleaned.notes
        return cls(name, splits, tuple(metrics), instruction, notes, fingerprint(parts), language, texts)


class TaskRequest(NamedTuple):
    """What a source of tasks is asked for; it takes what it needs of that."""

    name: str  # prefix and what follows it
    data_dir: Path  # a folder for prepared data
    files: FileSpec
    features: Features
    limit: int | None  # training pairs at the most: taken off what is loaded, whatever the source does
    test_limit: int | None


class OwnPrompts(NamedTuple):
    """The prompts that a source of tasks has itself.

    texts(request, task): sources like the task's, of its relatives none that is held out; they are cleaned elsewhere.
    recipe: what they depend on beside the pairs, in words.
    fold_digits: whether texts that differ in numbers alone are the same.
    """

    texts: Callable[[TaskRequest, Task], Iterable[str]]
    recipe: str
    fold_digits: bool


class TaskSource(NamedTuple):
    """Where tasks come from.

    load(request): the task; leaves nothing half-written in the folder. Raises UserError for a name that is none of the
      source's, and whatever is wrong with the data.
    form: what a name looks like, for messages.
    language(name): a code for the language of the targets as far as a name tells it, before anything is read.
    notes(request, task): what is measured on the pairs that the limits leave.
    prompts: further sources without targets; None: it has none.
    """

    load: Callable[[TaskRequest], Task]
    form: str
    language: Callable[[str], str] = lambda name: ""
    notes: Callable[[TaskRequest, Task], Mapping[str, float]] = lambda request, task: {}
    prompts: OwnPrompts | None = None
