"""Judge the models of a finished run anew: on another split, on more or fewer pairs, by other metrics.

    kdtw evaluate runs/quickstart --split validation
    kdtw evaluate runs/mine --split test --test-limit 0 --results results/mine

Nothing is trained. Tables, figures and provenance in the run's folder are those of the newest evaluation; what was
computed before with the same settings is found again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kdtw_jax.cli.extensions import load_extensions
from kdtw_jax.errors import UserError
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.experiment import run_experiment
from kdtw_jax.pipeline.restore import restore


@dataclass(frozen=True)
class Evaluate:
    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run"""
    split: Literal["validation", "test"] | None = None
    """what models are judged on; what is left out here and below stays as it was the last time"""
    test_limit: int | None = None
    """pairs to judge on at the most; 0: all"""
    metrics: tuple[str, ...] | None = None
    """for data of your own files: bleu, chrf, rouge1, rouge2, rougeL, exact_match"""
    language: str | None = None
    """of the targets of your own files, as in en, zh or pt_BR"""
    bleu_tokenizer: str | None = None
    """how BLEU takes texts apart"""
    judged_on: int | None = None
    """pairs that asking is judged on, in some 150 decodings of them; 0: all"""
    results: Path | None = None
    """also write the tables and their provenance into this folder"""
    constraint: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """MODULE:FUNCTION that makes a rule of your own, which the run was trained with; may be repeated"""


def run(arguments: list[str]) -> None:
    """Raises UserError where the folder has no run that is finished, and as an evaluation does."""
    options = tyro.cli(Evaluate, prog="kdtw evaluate", description=__doc__, args=arguments)
    load_extensions(options.constraint)
    task, config = restore(options.run)
    missing = [
        stage
        for stage in ("teacher", *(f"seed{seed}/{method}" for seed in config.seeds for method in config.methods))
        if not (options.run / "stages" / f"{stage}.json").exists()
        and not (stage == "teacher" and config.teacher_model is not None)
    ]
    if missing:
        raise UserError(f"{options.run} is not finished: {', '.join(missing)} missing; go on with the command it began")
    run_experiment(task, judged_by(config, options))


def judged_by(config: Experiment, options: Evaluate) -> Experiment:
    """The configuration with what the options say of evaluation."""

    def said(**changes: Any) -> dict[str, Any]:
        return {name: value for name, value in changes.items() if value is not None}

    files = replace(config.text.files, **said(metrics=options.metrics, language=options.language))
    text = replace(config.text, files=files)
    text = replace(text, **said(test_limit=options.test_limit, bleu_tokenizer=options.bleu_tokenizer))
    config = config.with_settings(ask=replace(config.of("ask"), **said(judged_on=options.judged_on)))
    return replace(config, text=text, results=options.results, **said(split=options.split))
