"""Speed of decoding with help, from a run's operating points: `python -m benchmarks.help`.

`experiments/operating_points.py` has timed every way to share the writing on one machine, all of them in turn, sentence
by sentence and in batches of 32. Here: what asking costs by the share of words asked for, how much of that is the
student's, and how it compares with the teacher alone and with speculative decoding of at least its quality.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.common import Line, report
from kdtw_jax.errors import UserError

TIMES = {"b1": "ms_b1", "b32": "ms_b32"}
Points = Mapping[tuple[str, str], Mapping[str, str]]  # of one seed, by method and setting


@dataclass(frozen=True)
class Args:
    """What to compare."""

    points: Path = Path("results/translation/operating_points.csv")
    """a table of `experiments/operating_points.py`"""
    metric: str = "chrf"
    """the quality that is to be equal"""
    results: Path | None = None
    """folder for help.json"""


def main(args: Args) -> None:
    """Prints the table, and writes help.json if asked to."""
    started = time.time()
    seeds = read_points(args.points, args.metric)
    settings = sorted(
        {setting for points in seeds.values() for method, setting in points if method == "asking"}, key=float
    )
    table: list[Line] = []
    numbers: dict[str, float] = {}
    for setting in settings:
        asking = ("asking", setting)
        line: Line = {"allowed": float(setting), "used": mean(seeds, asking, "teacher_tokens")}
        line[args.metric] = mean(seeds, asking, "value")
        for name, column in TIMES.items():
            ms = mean(seeds, asking, column)
            rival = float(np.mean([fastest_speculative(p, p[asking], column) for p in seeds.values()]))
            student, teacher = (mean(seeds, (f"{who}_only", "greedy"), column) for who in ("student", "teacher"))
            line |= {f"ms, {name}": ms, f"student, {name}": student / ms, f"spec., {name}": rival}
            if setting == "0.2":
                numbers[f"vs_teacher_only_at_20pct_{name}"] = teacher / ms
                numbers[f"vs_speculative_equal_quality_{name}"] = rival / ms
        table.append(line)
    ratios = {key: numbers[f"{key}_b1"] for key in ("vs_teacher_only_at_20pct", "vs_speculative_equal_quality")}
    title = f"asking, seeds {', '.join(seeds)}: ms a sentence, share of the student alone, ms of speculative decoding"
    report("help", title, table, ratios, numbers, args.results, started)


def read_points(path: Path, metric: str) -> dict[str, Points]:
    """The points of each seed, with that metric. Raises UserError where there are none."""
    found: dict[str, dict[tuple[str, str], Mapping[str, str]]] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row["metric"] == metric:
                    found.setdefault(row["seed"], {})[row["method"], row["setting"]] = row
    except (OSError, KeyError) as error:
        raise UserError(f"{path} is no table of experiments/operating_points.py ({error})") from error
    if not found:
        raise UserError(f"{path} has no row of the metric {metric}")
    return dict(found)


def mean(seeds: Mapping[str, Points], which: tuple[str, str], column: str) -> float:
    """Over the seeds, of one point."""
    return float(np.mean([float(points[which][column]) for points in seeds.values()]))


def fastest_speculative(points: Points, least: Mapping[str, str], column: str) -> float:
    """Milliseconds of the fastest speculative decoding, exact or lossy, that is at least as good as `least`."""
    good = [
        float(point[column])
        for (method, _), point in points.items()
        if method in ("speculative", "speculative_lossy") and float(point["value"]) >= float(least["value"])
    ]
    return min(good)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
