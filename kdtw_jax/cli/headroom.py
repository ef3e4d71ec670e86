"""Say what planning ahead could give a run's students: the head-room of path consistency, before it is tuned.

    kdtw headroom runs/translation-debian-en-de-small --method pcl

At every place one of the student's own likeliest tokens is taken, by the teacher's word about that token alone
("token"), or by what the whole output would be worth that follows. Where "token" gives all of the teacher's quality and
utilities of the whole add nothing, paths have nothing to find in what is written. Writes headroom.csv and .json into
the run's folder. A hundred texts take some minutes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console

from kdtw_jax.cli.extensions import load_extensions
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.headroom import Planned, choices, plan_split
from kdtw_jax.evaluation.rows import spaced_pairs
from kdtw_jax.metrics.scores import score_all
from kdtw_jax.pipeline.begin import begin, check_text_is_named
from kdtw_jax.pipeline.prepare import Setup, prepare
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.pipeline.stages import Row, train_students, train_teacher
from kdtw_jax.ranges import check_seeds
from kdtw_jax.runs import keep_compiled, print_table, provenance, write_csv, write_json
from kdtw_jax.runs.progress import Progress
from kdtw_jax.runs.provenance import typed

COLUMNS = ("task", "data", "preset", "seed", "method", "by", "metric", "value", "low", "high")


@dataclass(frozen=True)
class Headroom:
    """Options of `kdtw headroom`.

    Raises:
      UserError: no texts or tokens, or a seed twice.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run"""
    method: str = "pcl"
    """whose students"""
    results: Path | None = None
    """also write the table and its provenance into this folder"""
    seeds: tuple[int, ...] = ()
    """students of these seeds; by default all of the run"""
    split: Literal["validation", "test"] = "validation"
    """where the texts are from"""
    texts: int = 128
    """how many of these, evenly spaced; 0: all"""
    width: int = 4
    """how many of the student's likeliest tokens to choose from"""
    constraint: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """MODULE:FUNCTION that makes a rule of your own, which the run was trained with; may be repeated"""

    def __post_init__(self) -> None:
        if self.texts < 0 or self.width < 1:
            raise UserError(f"texts must be at least 0 and width at least 1, got {self.texts} and {self.width}")
        check_seeds(self.seeds)


def run(arguments: list[str]) -> None:
    """Runs `kdtw headroom`.

    Raises:
      UserError: the run has no such student, its text lives in a program, and as `begin` does.
    """
    options = tyro.cli(Headroom, prog="kdtw headroom", description=__doc__, args=arguments)
    started = time.time()
    keep_compiled()
    load_extensions(options.constraint)
    task, config = restore(options.run)
    seeds = options.seeds or config.seeds
    check_text_is_named(options.run)
    config = replace(config.only(options.method), eval=replace(config.eval, split=options.split))
    with begin(options.run, task, replace(config, results=options.results)) as (folder, given):
        for seed in seeds:
            if not folder.done(f"seed{seed}/{options.method}"):
                raise UserError(f"{options.run} has no student of {options.method} and seed {seed}; name another")
        setup = prepare(config, folder, Console(quiet=True), given)
        if options.width > (most := setup.tokenizer.vocab_size):
            raise UserError(f"width must be at most {most}, the tokens of the vocabulary, got {options.width}")
        teacher = train_teacher(config, setup, folder)
        data = spaced_pairs(setup.test, options.texts or len(setup.test))
        rows: list[Row] = []
        with Progress("choosing tokens", total=len(data) * len(choices()) * len(seeds)) as bar:
            done = 0

            def tick(count: int) -> None:
                nonlocal done
                done += count
                bar.update(done)

            for seed in seeds:
                student = train_students(config, setup, teacher, seed, folder)[options.method]
                for by in choices():
                    how = {"banned": setup.tokenizer.banned_ids, "width": options.width, "tick": tick}
                    planned = plan_split(student, teacher, data, setup.buckets, by, **how)  # type: ignore[arg-type]
                    named: Row = {"task": task, "data": config.data, "preset": config.preset, "seed": seed}
                    found = _rows(setup, data.examples, planned, config.eval.split)
                    rows += [{**named, "method": options.method, "by": by, **row} for row in found]
        record = provenance(typed(), seeds, started, data={"texts": len(data)})
        for path in [folder.path] + ([options.results] if options.results is not None else []):
            write_csv(path / "headroom.csv", rows, COLUMNS)
            write_json(path / "headroom.json", record)
    _show(rows, f"{options.method}, the best of {options.width} tokens by what is said, {len(data)} texts")


def _rows(setup: Setup, examples: np.ndarray, planned: Planned, split: str) -> list[Row]:
    pairs = setup.task.splits[split]
    texts = [setup.tokenizer.decode(row.tolist()) for row in planned.tokens_NxT]
    references = [pairs[int(i)]["target"] for i in examples]
    scores = score_all(setup.task.metrics, texts, references, scoring=setup.scoring)
    rows: list[Row] = [{"metric": s.name, "value": s.value, "low": s.low, "high": s.high} for s in scores]
    means = {"log_mu": planned.log_mu_N, "length": planned.lengths_N}
    return [*rows, *({"metric": k, "value": float(x.mean()), "low": None, "high": None} for k, x in means.items())]


def _show(rows: list[Row], title: str) -> None:
    metrics = list(dict.fromkeys(str(row["metric"]) for row in rows))
    table: list[Row] = []
    for by in dict.fromkeys(row["by"] for row in rows):
        own = [row for row in rows if row["by"] == by]
        values = {m: float(np.mean([float(r["value"] or 0) for r in own if r["metric"] == m])) for m in metrics}
        table.append({"by": by, **{m: round(value, 1) for m, value in values.items()}})
    print_table(title, table, ["by", *metrics])
