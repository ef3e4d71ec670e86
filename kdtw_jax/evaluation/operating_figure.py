"""Quality against what the teacher costs, a line a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdtw_jax.evaluation.figures import save_figure
from kdtw_jax.evaluation.tradeoff import envelope

# Okabe and Ito's colours, told apart by marker where two methods share one.
STYLES = {
    "random": ("#999999", "o"),
    "entropy": ("#E69F00", "o"),
    "max_prob": ("#E69F00", "s"),
    "co_llm": ("#E69F00", "^"),
    "asking": ("#CC79A7", "o"),
    "verified_asking": ("#CC79A7", "D"),
    "verified_long_help": ("#D55E00", "D"),
    "long_help": ("#D55E00", "x"),
    "speculative": ("#0072B2", "o"),
    "speculative_lossy": ("#0072B2", "s"),
    "bild": ("#56B4E9", "^"),
    "cascade_chow": ("#009E73", "o"),
    "cascade_diff": ("#009E73", "s"),
    "cascade_opt": ("#009E73", "^"),
    "oracle_kl": ("#000000", "1"),
    "oracle_regret": ("#000000", "2"),
}
COSTS = {
    "calls": "calls of the teacher a token",
    "teacher_tokens": "tokens written by the teacher, share",
    "positions": "positions that the teacher processed, a token",
    "teacher_flops": "FLOPs of the teacher, a token",
    "ms_b1": "milliseconds a sentence, one by one",
    "ms_b32": "milliseconds a sentence, 32 together",
}


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

    for method, (colour, marker) in STYLES.items():
        settings = list(dict.fromkeys(r["setting"] for r in chosen if r["method"] == method))
        if not settings:
            continue
        use, value = (np.array([mean(method, s, name) for s in settings]) for name in (cost, "value"))
        axes.plot(use, value, marker, color=colour, markersize=4, alpha=0.5)
        axes.plot(*envelope(use, value), "-", color=colour, linewidth=1)
        axes.plot([], [], marker + "-", color=colour, markersize=4, label=method)
    for method, style in (("teacher_only", "--"), ("student_only", ":")):
        own = [r["value"] for r in chosen if r["method"] == method]
        if own:
            axes.axhline(float(np.mean(own)), color="#000000", linestyle=style, linewidth=1, label=method)
    if cost in ("calls", "teacher_tokens"):
        axes.set_xlim(-0.01, 0.8)
    axes.set_xlabel(COSTS[cost])
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2)
