"""Labels and students of a teacher elsewhere against one that is here: `python -m benchmarks.remote_teacher RUN`.

The teacher of a run is served by `kdtw serve-teacher` in another process of the same machine, so that both share its
cores: what the network adds is seen, what a second machine would give is not. Labels are greedy outputs with their
likeliest tokens; students are warmed up and then learn from these by word-level distillation, or by path consistency on
rows of their own, too, as the run's preset has it. Each is done once for the compiler, on a few texts, before it is
timed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from kdtw_jax.errors import UserError
from kdtw_jax.methods.word_kd import WordKDConfig
from kdtw_jax.pipeline.begin import begin
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.label import Wanted, label
from kdtw_jax.pipeline.labelled import with_labels
from kdtw_jax.pipeline.prepare import prepare
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.pipeline.stages import train_students, train_teacher
from kdtw_jax.runs import keep_compiled, provenance, write_json
from kdtw_jax.training.readings import Kept


@dataclass(frozen=True)
class Args:
    """What to measure."""

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run, of whose teacher"""
    texts: int = 2000
    """pairs of its data that are labelled"""
    top_k: int = 64
    """likeliest tokens of each place"""
    warmup: int = 200
    """steps of students before they learn from the teacher"""
    steps: int = 200
    """steps in which they do"""
    results: Path | None = None
    """folder for training.json"""


def main(args: Args) -> None:
    """Runs it, and prints what came out; writes it if asked to."""
    started = time.time()
    keep_compiled()
    _, config = restore(args.run)
    model, vocabulary = args.run / "teacher" / "model", args.run / "tokenizer.model"
    kd = WordKDConfig(demonstrations="greedy", top_k=args.top_k)
    paths = replace(config.of("pcl"), demonstrations="greedy", read_ahead=True)
    config = replace(
        config, out=None, methods=("word_kd",), results=None, seeds=config.seeds[:1], teacher_model=str(model),
        student_pairs=0, prompts="none",
        text=replace(config.text, tokenizer=vocabulary, limit=args.texts),
    ).with_settings(word_kd=kd, pcl=paths)  # fmt: skip
    config = _steps(config, args.warmup, args.steps)
    report: dict[str, Any] = {
        "texts": args.texts,
        "top_k": args.top_k,
        "cores": len(os.sched_getaffinity(0)),
        "load_of_others": round(os.getloadavg()[0], 1),
    }
    with serving(args.run) as (address, _), tempfile.TemporaryDirectory() as scratch:
        there = replace(config, teacher_model=address)
        few = replace(config.text, limit=100)
        for name, one in (("in_process", config), ("elsewhere", there)):
            label(replace(one, text=few), Path(scratch) / f"{name}-few", Wanted("greedy", Kept(args.top_k)))
            begun = time.monotonic()
            made = label(one, Path(scratch) / name, Wanted("greedy", Kept(args.top_k))).manifest()
            took = time.monotonic() - begun
            speed = {"tokens": made["tokens"], "tokens_per_second": round(made["tokens"] / took, 1)}
            report[f"labels_{name}"] = {"seconds": round(took, 1), **speed}
        for name, one in (("in_process", config), ("elsewhere", there)):
            _learn(_steps(replace(one, text=few), 1, 1), Path(scratch) / f"{name}-few-run")
            begun = time.monotonic()
            _learn(one, Path(scratch) / f"{name}-run")
            report[f"students_{name}"] = {
                "seconds": round(time.monotonic() - begun, 1), "warmup_steps": args.warmup, "steps": args.steps,
            }  # fmt: skip
        for name, one in (("in_process", config), ("elsewhere", there)):
            own = replace(one, methods=("pcl",))
            _learn(_steps(replace(own, text=few), 1, paths.updates_per_rollout), Path(scratch) / f"{name}-few-own")
            begun = time.monotonic()
            _learn(own, Path(scratch) / f"{name}-own")
            report[f"own_rows_{name}"] = {
                "seconds": round(time.monotonic() - begun, 1), "steps": args.steps,
                "updates_per_rollout": paths.updates_per_rollout,
            }  # fmt: skip
        labels = Path(scratch) / "elsewhere"
        begun = time.monotonic()
        _learn(replace(config, teacher_model=None, teacher_cache=labels), Path(scratch) / "cached-run")
        report["students_of_labels_that_are_there"] = {"seconds": round(time.monotonic() - begun, 1)}
    for what in ("labels", "students", "own_rows"):
        here, other = (report[f"{what}_{name}"]["seconds"] for name in ("in_process", "elsewhere"))
        report[f"{what}_elsewhere_take_times"] = round(other / here, 2)
    print(json.dumps(report, indent=2))
    if args.results is not None:
        command = ["python", "-m", "benchmarks.remote_teacher", *sys.argv[1:]]
        write_json(args.results / "training.json", {**report, "provenance": provenance(command, 0, started)})


@contextlib.contextmanager
def serving(run: Path, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The teacher of a run in a process of its own: its address, and that process, which is killed in the end.

    Raises:
      UserError: it does not start.
    """
    command = [sys.executable, "-m", "kdtw_jax.cli", "serve-teacher", str(run), "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"at (http://\S+);", line):
                yield found[1], server
                return
        raise UserError(f"the teacher of {run} is not served")
    finally:
        server.kill()
        server.wait()


def _steps(config: Experiment, warmup: int, steps: int) -> Experiment:
    loops = [replace(one.loop, steps=n) for one, n in ((config.warmup, warmup), (config.training, steps))]
    warm = replace(config.warmup, loop=loops[0], optimizer=replace(config.warmup.optimizer, warmup_steps=0))
    training = replace(config.training, loop=loops[1], optimizer=replace(config.training.optimizer, warmup_steps=0))
    return replace(config, warmup=warm, training=training)


def _learn(config: Experiment, folder: Path) -> None:
    with begin(folder, "translation", config) as (run, given):
        setup = with_labels(config, prepare(config, run, Console(stderr=True), given), run)
        teacher = train_teacher(config, setup, run) if config.has_teacher else None
        train_students(config, setup, teacher, config.seeds[0], run)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
