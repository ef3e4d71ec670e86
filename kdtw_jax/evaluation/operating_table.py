"""The table of operating points, and the area under each frontier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdtw_jax.evaluation.tradeoff import envelope, mean_quality
from kdtw_jax.runs import print_table

COLUMNS = (
    "task",
    "data",
    "preset",
    "seed",
    "method",
    "setting",
    "metric",
    "value",
    "low",
    "high",
    "teacher_tokens",
    "calls",
    "positions",
    "no_call_share",
    "teacher_flops",
    "student_flops",
    "ms_b1",
    "ms_b32",
    "unfinished",
    "unit",
    "account",
)
ALONE = ("student_only", "teacher_only")  # the two ends: no ways to share the writing


def areas(methods: Sequence[str], costs: Sequence[dict[str, float]], values: np.ndarray) -> dict[str, Any]:
    """The mean quality of each method over calls per token, and over teacher tokens, from 0 to 0.4: the area under the
    upper envelope of its points, which begins at the student alone."""
    alone = float(values[list(methods).index("student_only")])
    found: dict[str, Any] = {}
    for axis in ("calls", "teacher_tokens"):
        found[axis] = {}
        for method in dict.fromkeys(methods):
            if method in ALONE:
                continue
            own = [i for i, name in enumerate(methods) if name == method]
            use = np.array([0.0, *(costs[i][axis] for i in own)])
            best = envelope(use, np.array([alone, *values[own]]))
            found[axis][method] = mean_quality(*best, 0.4)
    return found


def show(rows: Sequence[Mapping[str, Any]], frontiers: dict[str, dict[str, Any]], metric: str) -> None:
    """Prints one line per method: the area under its frontier, and its best points at 0.2 and 0.4 calls per token."""
    chosen = [r for r in rows if r["metric"] == metric]
    lines: list[dict[str, Any]] = []
    for method in dict.fromkeys(str(r["method"]) for r in chosen):
        own = [r for r in chosen if r["method"] == method]

        def best(most: float, own: list[Mapping[str, Any]] = own) -> float | None:
            """Mean over seeds of the best point within that many calls."""
            seeds = {r["seed"] for r in own}
            found = [[r["value"] for r in own if r["seed"] == s and float(r["calls"] or 0) <= most] for s in seeds]
            return float(np.mean([max(map(float, f)) for f in found])) if all(found) else None

        line: dict[str, Any] = {"method": method, "at 0.2 calls": best(0.2), "at 0.4 calls": best(0.4)}
        for axis in ("calls", "teacher_tokens"):
            areas_found = [f[metric][axis][method] for f in frontiers.values() if method in f[metric][axis]]
            line[f"area, {axis.replace('_', ' ')}"] = float(np.mean(areas_found)) if areas_found else None
        known = [float(r["unfinished"]) for r in own if r.get("unfinished") is not None]
        lines.append({**line, "unfinished %": 100 * float(np.mean(known)) if known else None})
    print_table(f"{metric}; areas: mean over 0 to 0.4 per token", lines, list(lines[0]))
