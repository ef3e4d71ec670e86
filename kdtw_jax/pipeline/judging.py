"""By what outputs are judged, and how good they can be: said before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from kdtw_jax.data.batches import EncodedSplit
from kdtw_jax.data.task import Task
from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.evaluation.ceiling import Ceiling, find_ceiling
from kdtw_jax.metrics.scoring import ENGLISH, Scoring, choose_scoring, look_tokenized
from kdtw_jax.pipeline.config import Experiment


def tell_scoring(config: Experiment, task: Task, console: Console) -> Scoring:
    """Chooses tokenizers by the language of the targets or as configured, and prints what is not usual."""
    wanted = config.eval.bleu_tokenizer
    scoring = choose_scoring(task.language, wanted)
    reason = f"as the targets are in the language {task.language!r}" if task.language else "for an unknown language"
    if config.data == "files" and task.language != config.eval.language:
        reason += ", which their script says"
    if "bleu" in task.metrics and scoring.bleu != ENGLISH.bleu:
        because = "as configured" if wanted else f"{reason} (--eval.bleu-tokenizer chooses another)"
        console.print(f"{task.name}: BLEU by the tokenizer {scoring.bleu}, {because}", soft_wrap=True)
    if any(metric.startswith("rouge") for metric in task.metrics) and scoring.rouge != ENGLISH.rouge:
        console.print(f"{task.name}: ROUGE of words in any script, {reason}", soft_wrap=True)
    return scoring


def tell_ceiling(
    config: Experiment,
    task: Task,
    tokenizer: Tokenizer,
    test: EncodedSplit,
    references: Sequence[str],
    scoring: Scoring,
    console: Console,
) -> Ceiling:
    """Finds the best scores that outputs can have, and prints what is wrong with the references."""
    named = f"{task.name} {config.eval.split}"
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
