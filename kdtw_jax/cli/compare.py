"""Compare ways to share the writing between a run's students and their teacher: quality against what the teacher costs.

    kdtw compare runs/translation-debian-en-de-small

Takes a finished run with the method ask; writes operating_points.csv, .json and .png into its folder. Some hundred ways
to write are decoded and timed per seed; a seed that is done is found again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from kdtw_jax.cli.extensions import load_extensions
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.operating_figure import operating_figure
from kdtw_jax.evaluation.operating_table import COLUMNS, show
from kdtw_jax.pipeline.begin import begin, check_text_is_named
from kdtw_jax.pipeline.operating_report import Timing, check_studied, study_points, table
from kdtw_jax.pipeline.prepare import prepare
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.pipeline.stages import train_students, train_teacher
from kdtw_jax.ranges import check_seeds
from kdtw_jax.runs import keep_compiled, provenance, write_csv, write_json
from kdtw_jax.runs.provenance import typed


@dataclass(frozen=True)
class Compare:
    """Options of `kdtw compare`.

    Raises:
      UserError: no rounds or sentences, or a seed twice.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run whose methods include ask"""
    results: Path | None = None
    """also write the table and its provenance into this folder"""
    seeds: tuple[int, ...] = ()
    """students of these seeds; by default all of the run"""
    repeats: int = 3
    """rounds of timing, all points in turn in each; their median counts"""
    sentences: int = 12
    """sentences that are timed, one by one and in batches of 32"""
    constraint: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """MODULE:FUNCTION that makes a rule of your own, which the run was trained with; may be repeated"""

    def __post_init__(self) -> None:
        if min(self.repeats, self.sentences) < 1:
            raise UserError(f"repeats and sentences must be at least 1, got {self.repeats} and {self.sentences}")
        check_seeds(self.seeds)


def run(arguments: list[str]) -> None:
    """Runs `kdtw compare`; arguments and errors as for `compare`."""
    compare(tyro.cli(Compare, prog="kdtw compare", description=__doc__, args=arguments))


def compare(options: Compare) -> None:
    """Judges and times the ways to share the writing of a run's students, and writes the tables and the figure.

    Raises:
      UserError: the run has no student that learned to ask, its text lives in a program, and as `begin` does.
    """
    started = time.time()
    keep_compiled()
    load_extensions(options.constraint)
    task, config = restore(options.run)
    config = config.only("ask")
    seeds, timing = options.seeds or config.seeds, Timing(options.repeats, options.sentences)
    check_text_is_named(options.run)
    with begin(options.run, task, replace(config, results=options.results)) as (run, given):
        for seed in seeds:
            if not run.done(f"seed{seed}/ask"):
                raise UserError(f"{options.run} has no student of seed {seed} that learned to ask")
            check_studied(config, seed, run)
        setup = prepare(config, run, Console(quiet=True), given)
        teacher = train_teacher(config, setup, run)
        found = {}
        for seed in seeds:
            student = train_students(config, setup, teacher, seed, run)["ask"]
            found[seed] = study_points(config, setup, teacher, student, seed, run, timing)
        rows = table(task, config, found)
        record = provenance(typed(), seeds, started, data={"test_pairs": len(setup.test)})
        summary = {"frontiers": {str(seed): one["frontiers"] for seed, one in found.items()}}
        for folder in [run.path] + ([options.results] if options.results is not None else []):
            write_csv(folder / "operating_points.csv", rows, COLUMNS)
            write_json(folder / "operating_points.json", {**summary, "provenance": record})
            operating_figure(rows, setup.task.metrics[0], folder / "operating_points.png")
        show(rows, summary["frontiers"], setup.task.metrics[0])
