"""What it costs to enforce a share, by who keeps it: `python -m benchmarks.accounts RUN`.

The students of a finished run that may ask write a split under several shares, not enforced, each output keeping the
share by itself, and all of them together (`--account` of `kdtw write`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.common import Line
from kdtw_jax.judge import evaluate
from kdtw_jax.pipeline.prepare import look_up
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.runs import print_table, provenance, write_csv, write_json
from kdtw_jax.student import Student, load
from kdtw_jax.text.normal import normalize

KEPT = ("", "output", "document")  # "": not enforced
_NAMED = ("task", "data", "preset", "seed", "account", "asked", "used", "metric", "value", "low", "high")
COLUMNS = (*_NAMED, "words", "over", "outputs", "unit")


@dataclass(frozen=True)
class Args:
    """What to judge."""

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run"""
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    """of the words"""
    split: Literal["validation", "test"] = "test"
    """choose settings on validation"""
    limit: int | None = None
    """pairs at the most, the first ones; by default all"""
    results: Path | None = None
    """folder for accounts.csv and accounts-provenance.json"""


def main(args: Args) -> None:
    """Prints the table, and writes it if asked to."""
    started = time.time()
    task, config = restore(args.run)
    given = look_up(replace(config, results=args.results)).task
    pairs = [(pair["source"], pair["target"]) for pair in given.splits[args.split]][: args.limit]
    rows: list[Line] = []
    for seed in config.seeds:
        named: Line = {"task": task, "data": config.data, "preset": config.preset, "seed": seed}
        student = load(args.run, "ask", seed)
        chosen = pairs if config.text.on_long == "truncate" else [pair for pair in pairs if fits(student, *pair)]
        rows += [{**named, **row} for row in kept_by(student, chosen, given.metrics, args.shares)]
    first = [row for row in rows if row["metric"] == given.metrics[0]]
    print_table(f"{config.data}, {args.split}", first, ["seed", "account", "asked", "used", "value", "words", "over"])
    if args.results is not None:
        command = ["python", "-m", "benchmarks.accounts", *sys.argv[1:]]
        write_csv(args.results / "accounts.csv", rows, COLUMNS)
        write_json(args.results / "accounts-provenance.json", provenance(command, config.seeds, started))


def fits(student: Student, source: str, target: str) -> bool:
    """Whether a pair is no longer than those that the student was trained on, as in the tables of its run."""
    tokenizer = student.model.tokenizer
    _, cut = tokenizer.prompt(student.instruction.replace("{source}", source), student.max_source)
    return not cut and len(tokenizer.encode(target)) < student.max_target


def kept_by(
    student: Student, pairs: Sequence[tuple[str, str]], metrics: Sequence[str], shares: Sequence[float]
) -> Iterator[Line]:
    """A row for each share, who keeps it and metric: what is used, quality, words an output, outputs over the share.

    Args:
      student: one that may ask.
      pairs: (source, reference).
      metrics: their names.
      shares: 0 to 1.
    """
    pairs = [pair for pair in pairs if normalize(pair[0])]
    for share in shares:
        rule = f"ask the teacher for at most {100 * share:g}% of the words"
        for account in KEPT:
            how = {"guard": False} if not account else {"account": account}
            found = evaluate(student, pairs, rule, metrics=metrics, **how)
            answers = found.answers
            same: Line = {"account": account, "asked": share, "used": answers.share, "unit": student.unit.name}
            same |= {"words": sum(answer.length for answer in answers) / len(answers), "outputs": len(answers)}
            same["over"] = sum(answer.helped > share * answer.length + 1e-6 for answer in answers)
            for score in found.scores.values():
                yield {**same, "metric": score.name, "value": score.value, "low": score.low, "high": score.high}


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
