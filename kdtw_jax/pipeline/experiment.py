"""The main job, from a configuration to tables, a figure and a record of how they came about."""

from __future__ import annotations

import dataclasses
import shlex
import time
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console

from kdtw_jax.constraints import known_constraints
from kdtw_jax.constraints.wording import student_words
from kdtw_jax.data.prompts import OWN, REST
from kdtw_jax.data.task import Task
from kdtw_jax.evaluation.differences import differences
from kdtw_jax.evaluation.training_figure import distil_figure
from kdtw_jax.parallel.hosts import is_writer, join, wait
from kdtw_jax.pipeline.ask_report import report_asking, study_asking
from kdtw_jax.pipeline.begin import begin
from kdtw_jax.pipeline.config import Experiment, plain
from kdtw_jax.pipeline.config_file import write_config
from kdtw_jax.pipeline.labelled import with_labels
from kdtw_jax.pipeline.prepare import Setup, prepare
from kdtw_jax.pipeline.presets import TASKS
from kdtw_jax.pipeline.price_report import price_rows, priced, report_prices, study_prices
from kdtw_jax.pipeline.stages import Row, evaluation_stage, result_rows, train_students, train_teacher
from kdtw_jax.pipeline.teacher_outputs import stages_written
from kdtw_jax.pipeline.watching import curve_rows
from kdtw_jax.runs import (
    Progress,
    RunFolder,
    keep_compiled,
    print_table,
    provenance,
    read_metrics,
    write_csv,
    write_json,
)
from kdtw_jax.runs.folder import REPEAT, SETTINGS
from kdtw_jax.runs.provenance import program, running_code, typed
from kdtw_jax.runs.trackers import check_trackers, logging_to

RULE = "ask the teacher for at most 20% of the words"  # for a first try
COLUMNS = ("task", "data", "preset", "seed", "method", "metric", "value", "low", "high")
CURVES = ("task", "data", "preset", "seed", "method", "step", "seconds", "metric", "value")
DIFFERENCES = ("task", "data", "preset", "seeds", "method", "minus", "metric", "value", "low", "high", "least", "most")


def run_experiment(task: str | Task, config: Experiment) -> list[Row]:
    """Trains and evaluates teacher and students, writes the results, prints the table; returns its tidy rows.

    Args:
      task: what tables and folders call it, the text being that of `config.data`; or a task of the user's own.
    """
    name, own = (task.name, task) if isinstance(task, Task) else (task, None)
    if own is not None and len(own.prompts) and config.prompts != REST:
        config = dataclasses.replace(config, prompts=OWN)
    started = time.time()
    running_code()
    check_trackers(config.log_to)
    keep_compiled()
    join(config.hosts)
    console = Console(quiet=not is_writer())
    out = config.out or default_folder(name, config)
    known = known_constraints(config.of("ask").constraints, config.teacher) if "ask" in config.methods else ()
    alike = "pcl" in config.methods and config.of("pcl").pcl.alpha == config.of("ask").distil.pcl.alpha
    shares, prices_known = any(c.name == "share" for c in known), bool(priced(known))
    # What judges asking decodes with the teacher's weights.
    judged, sold = shares and config.has_teacher, prices_known and config.has_teacher
    with logging_to(config.log_to, out), begin(out, name, config, own) as (run, given):
        setup = with_labels(config, prepare(config, run, console, given), run)
        write_json(run.path / SETTINGS, plain(config.eval))
        if own is None:  # a task of the user's own is no file's to repeat
            write_config(run.path / REPEAT, name, config, TASKS.get(name, {}).get(config.preset))
        teacher = train_teacher(config, setup, run) if config.has_teacher else None
        rows = []
        if teacher is not None:
            rows += result_rows(config, setup, teacher, teacher, "teacher", config.seeds[0], run)
        for seed in config.seeds:
            students = train_students(config, setup, teacher, seed, run)
            for method, student in students.items():
                rows += result_rows(config, setup, teacher, student, method, seed, run)
            if judged and teacher is not None:
                twin = students.get("pcl") if alike else None
                study_asking(config, setup, teacher, students["ask"], twin, seed, run)
            if sold and teacher is not None:
                study_prices(config, setup, teacher, students["ask"], seed, run)
        rows = [{"task": name, **row} for row in rows]
        wait("evaluated")
        if not is_writer():
            return rows
        ahead = _compare(name, config, setup, run)
        _write(config, setup, run, rows, ahead, started)
        _show(config, setup, rows, ahead)
        prices = price_rows(name, config, run) if sold else []
        if judged:
            report_asking(name, config, setup, run, prices)
        if sold:
            report_prices(config, prices, run)
        if "ask" in config.methods and not config.has_teacher:
            console.print(
                "asking is judged with the teacher's weights, which are not here: no asking.csv; kdtw write and kdtw "
                "serve with --teacher have the student ask",
                soft_wrap=True,
            )
        elif "ask" in config.methods and not judged and not sold:
            console.print(
                "asking is judged by the share of words it uses and by its price, and ask.constraints has neither "
                "'share' nor 'price': no asking.csv"
            )
        console.print(f"run folder: {run.path}")
        if (shares or prices_known) and own is None:
            some = sorted((pair["source"] for pair in islice(setup.task.splits[config.eval.split], 51)), key=len)
            source = some[len(some) // 2]
            rule = RULE if shares else student_words(priced(known)[0].wording, priced(known)[0].high)
            at = f" --teacher {shlex.quote(str(config.teacher_model))}" if config.teacher_elsewhere else ""
            said = f"{program()} write {shlex.quote(str(run.path))}{at} --rule {shlex.quote(rule)}"
            console.print(f"next: {said} --text {shlex.quote(source)}", soft_wrap=True, markup=False, highlight=False)
    return rows


def default_folder(task: str, config: Experiment) -> Path:
    """Where a run goes that is given no place."""
    return Path("runs") / f"{task}-{config.data.replace('/', '-').replace(':', '-')}-{config.preset}"


def _compare(task: str, config: Experiment, setup: Setup, run: RunFolder) -> list[Row]:
    """Rows of differences.csv: path consistency, or else the first method, against each other one; greedy outputs."""
    base = "pcl" if "pcl" in config.methods else config.methods[0]
    pairs = setup.task.splits[config.eval.split]
    outputs: dict[str, list[list[str]]] = {
        m: [run.info(evaluation_stage(config, m, seed))["outputs"] for seed in config.seeds] for m in config.methods
    }
    references = [pairs[int(i)]["target"] for i in np.sort(setup.test.examples)]
    named = {"task": task, "data": config.data, "preset": config.preset, "seeds": " ".join(map(str, config.seeds))}
    metrics = setup.task.metrics
    with Progress("comparing methods", total=len(metrics) * len(outputs)) as bar:
        ahead = differences(base, outputs, references, metrics, scoring=setup.scoring, progress=bar.update)
    return [{**named, **row} for row in ahead]


def _write(config: Experiment, setup: Setup, run: RunFolder, rows: list[Row], ahead: list[Row], started: float) -> None:
    stages = ["teacher"] if config.trains_teacher else []
    first = ["warmup"] if config.warms_up else []
    stages += [f"seed{seed}/{m}" for seed in config.seeds for m in (*first, *config.methods)]
    stages += stages_written(config)
    by_stage = {stage: run.info(stage) for stage in stages}
    record = provenance(
        typed(),
        config.seeds,
        started,
        hours=round(sum(info["seconds"] for info in by_stage.values()) / 3600, 4),
        stages=by_stage,
        data={
            "notes": dict(setup.task.notes),
            "train_pairs": len(setup.train),
            "test_pairs": len(setup.test),
            "too_long_left_out": {"train": setup.train.dropped, "test": setup.test.dropped},
            "vocabulary": setup.tokenizer.vocab_size,
            "language": setup.task.language,
            "tokenizers": setup.scoring._asdict(),
            "unwritable_references": setup.ceiling.unwritable,
            "best_possible": setup.ceiling.best,
        },
        signatures=run.info(evaluation_stage(config, str(rows[0]["method"]), config.seeds[0]))["signatures"],
        **({} if setup.cache is None else {"teacher_cache": setup.cache.facts()}),
    )
    curves = {
        f"{method} {seed}": read_metrics(run.path / f"seed{seed}" / method)
        for seed in config.seeds
        for method in config.methods
    }
    named = {"task": rows[0]["task"], "data": config.data, "preset": config.preset}
    learning = [{**named, **row} for row in curve_rows(curves)]
    for folder in [run.path] + ([config.results] if config.results is not None else []):
        write_csv(folder / "distil.csv", rows, COLUMNS)
        write_csv(folder / "differences.csv", ahead, DIFFERENCES)
        write_json(folder / "provenance.json", {**record, "config": config.to_json()})
        if learning:
            write_csv(folder / "curves.csv", learning, CURVES)
        distil_figure(rows, curves, setup.task.metrics[0], folder / "distil.png", learning)
    write_json(run.path / "results.json", {"rows": rows, **record, "config": config.to_json()})


def _show(config: Experiment, setup: Setup, rows: list[Row], ahead: list[Row]) -> None:
    """Prints one line per method and one per difference.

    That of a method has means over seeds, and how much of the way from likelihood student to teacher was made.
    """
    shown = [*setup.task.metrics, "tokens_per_s", "parameters"]

    def mean(method: str, metric: str) -> float:
        return float(np.mean([r["value"] for r in rows if r["method"] == method and r["metric"] == metric]))

    table: list[Row] = []
    for method in (*(["teacher"] if config.has_teacher else []), *config.methods):
        numbers: Row = {metric: mean(method, metric) for metric in shown}
        table.append({"method": method, **numbers, "unfinished %": 100 * mean(method, "unfinished")})
        first = setup.task.metrics[0]
        if config.has_teacher and method not in ("teacher", "mle") and "mle" in config.methods:
            whole = mean("teacher", first) - mean("mle", first)
            table[-1]["gap closed %"] = 100 * (mean(method, first) - mean("mle", first)) / whole if whole else None
    seeds = f"mean of seeds {', '.join(map(str, config.seeds))}" if len(config.seeds) > 1 else f"seed {config.seeds[0]}"
    print_table(
        f"{config.data}, {len(setup.test)} {config.eval.split} pairs, {seeds}",
        table,
        ["method", *setup.task.metrics, "gap closed %", "unfinished %", "parameters", "tokens_per_s"],
    )
    if ahead:
        print_table("differences, paired over test sentences", ahead, [*DIFFERENCES[4:]])
