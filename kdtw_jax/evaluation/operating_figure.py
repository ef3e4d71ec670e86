"""Quality against what the teacher costs, a line per method."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdtw_jax.decoding.gates import is_oracle
from kdtw_jax.evaluation.figures import SPARE_COLOURS, save_figure, written_metric
from kdtw_jax.evaluation.strategies import every_strategy
from kdtw_jax.evaluation.tradeoff import envelope

_ACROSS = {"teacher_only": "--", "student_only": ":"}  # lines of the two ends
COSTS = {
    "calls": "calls of the teacher per token",
    "teacher_tokens": "tokens written by the teacher, share",
    "positions": "positions that the teacher processed, per token",
    "teacher_flops": "FLOPs of the teacher, per token",
    "ms_b1": "milliseconds per sentence, one by one",
    "ms_b32": "milliseconds per sentence, 32 together",
}


def strategy_styles(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each way to share the writing but of each model alone: its own, or the next that is free;
    ways that are not registered are named by runs of others."""
    spare, known = itertools.cycle((colour, "v") for colour in SPARE_COLOURS), every_strategy()
    shared = [name for name in dict.fromkeys(names) if name not in _ACROSS]
    own = {name: known[name].style if name in known else ("", "") for name in shared}
    return {name: style if all(style) else next(spare) for name, style in own.items()}


def relative_costs(
    rows: Sequence[Mapping[str, Any]], metric: str, kept: float, overhead_O: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns what each method costs beside the teacher alone, [O], at its cheapest setting that keeps the quality.

    Args:
      rows: those of operating_points.csv; means over seeds count.
      kept: the share of the way from student to teacher that a setting has to make in `metric`, 0 to 1.
      overhead_O: what a call costs beside its arithmetic (latency, reading the weights), in units of the teacher's
        arithmetic for a token. 0: FLOPs count alone; large: calls do.

    Methods of which no setting is good enough are left out.
    """
    chosen = [r for r in rows if r["metric"] == metric]
    names = ("value", "calls", "teacher_flops", "student_flops")
    points: dict[str, list[np.ndarray]] = {}
    for method, setting in dict.fromkeys((r["method"], r["setting"]) for r in chosen):
        own = [[float(r[n]) for n in names] for r in chosen if (r["method"], r["setting"]) == (method, setting)]
        points.setdefault(method, []).append(np.mean(own, axis=0))
    (student,), (teacher,) = points["student_only"], points["teacher_only"]
    least = student[0] + kept * (teacher[0] - student[0])

    def cost(point: np.ndarray) -> np.ndarray:
        _, calls, teacher_flops, student_flops = point
        return (teacher_flops + student_flops) / teacher[2] + overhead_O * calls

    found = {}
    for method, settings in points.items():
        enough = [cost(p) / cost(teacher) for p in settings if p[0] >= least - 1e-9]
        if enough:
            found[method] = np.min(enough, axis=0)
    return found


def draw_costs(axes: Axes, rows: Sequence[Mapping[str, Any]], metric: str, kept: float) -> None:
    """`relative_costs` over the overhead of a call."""
    overhead_O = np.geomspace(0.01, 100, 60)
    costs = relative_costs(rows, metric, kept, overhead_O)
    for method, (colour, marker) in strategy_styles(costs).items():
        if not is_oracle(method):
            cost_O = costs[method]
            axes.plot(overhead_O, cost_O, marker + "-", color=colour, markersize=4, markevery=10, label=method)
    axes.axhline(1, color="#000000", linestyle="--", linewidth=1, label="teacher_only")
    axes.set_xscale("log")
    axes.set_xlabel("a call's overhead, in the teacher's work for a token")
    axes.set_ylabel("cost, the teacher alone = 1")
    axes.set_title(f"at least {kept:.0%} of the way from student to teacher, {written_metric(metric)}", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def operating_figure(rows: Sequence[Mapping[str, Any]], metric: str, path: Path) -> None:
    """Against calls and against teacher tokens; writes a PNG to `path`. `rows` are those of operating_points.csv."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    for axes, cost in zip(figure.subplots(1, 2), ("calls", "teacher_tokens"), strict=True):
        draw_operating(axes, rows, metric, cost)
    save_figure(figure, path)


def draw_operating(axes: Axes, rows: Sequence[Mapping[str, Any]], metric: str, cost: str) -> None:
    """Points are means over seeds of a setting; lines join those that no other of the method beats at as much cost.

    `cost` is one of `COSTS`; points for which it was not measured are left out.
    """
    chosen = [r for r in rows if r["metric"] == metric and r[cost] is not None]

    def mean(method: str, setting: str, name: str) -> float:
        own = [r[name] for r in chosen if (r["method"], r["setting"]) == (method, setting)]
        return float(np.mean(own))

    for method, (colour, marker) in strategy_styles(r["method"] for r in chosen).items():
        settings = list(dict.fromkeys(r["setting"] for r in chosen if r["method"] == method))
        if not settings:
            continue
        use, value = (np.array([mean(method, s, name) for s in settings]) for name in (cost, "value"))
        axes.plot(use, value, marker, color=colour, markersize=4, alpha=0.5)
        axes.plot(*envelope(use, value), "-", color=colour, linewidth=1)
        axes.plot([], [], marker + "-", color=colour, markersize=4, label=method)
    for method, style in _ACROSS.items():
        own = [r["value"] for r in chosen if r["method"] == method]
        if own:
            axes.axhline(float(np.mean(own)), color="#000000", linestyle=style, linewidth=1, label=method)
    if cost in ("calls", "teacher_tokens"):
        axes.set_xlim(-0.01, 0.8)
    axes.set_xlabel(COSTS[cost])
    axes.set_ylabel(written_metric(metric))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2)
