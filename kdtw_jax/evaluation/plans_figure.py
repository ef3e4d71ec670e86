"""What students plan, by what they may ask: which way they go, how often they call, how often they are right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdtw_jax.evaluation.asking_figure import as_trained
from kdtw_jax.evaluation.figures import Rows, save_figure

_LINES = (  # what is drawn: of which metric's rows, which column, its factor, words, colour
    ("answer", "value", 1.0, "right answers", "#009E73"),
    ("long_way", "value", 1.0, "outputs that go the long way", "#0072B2"),
    ("answer", "used", 100.0, "tokens from the teacher", "#CC79A7"),
)


def plans_figure(students: Mapping[str, Rows], path: Path) -> None:
    """Draws students beside each other; writes a PNG to `path`.

    Args:
      students: by what stands above them, rows of their asking.csv, of sums with two ways.
      path: of the PNG.
    """
    figure = Figure(figsize=(5.2 * len(students), 4.2), layout="constrained")
    all_axes = figure.subplots(1, len(students), sharey=True, squeeze=False)[0]
    for axes, (name, rows) in zip(all_axes, students.items(), strict=True):
        draw_plans(axes, rows)
        axes.set_title(name, fontsize=10)
    all_axes[0].set_ylabel("%")
    all_axes[0].legend(fontsize=8)
    save_figure(figure, path)


def draw_plans(axes: Axes, rows: Rows) -> None:
    """The learned gate's outputs by the share that the rule allows: a point a seed, lines through their means."""
    own = [row for row in rows if row["gate"] == "learned" and as_trained(row)]
    budgets = sorted({row["asked"] for row in own})
    for metric, column, factor, words, colour in _LINES:
        found = [[factor * r[column] for r in own if (r["metric"], r["asked"]) == (metric, b)] for b in budgets]
        for budget, values in zip(budgets, found, strict=True):
            axes.plot([100 * budget] * len(values), values, ".", color=colour, alpha=0.5)
        axes.plot([100 * b for b in budgets], [float(np.mean(v)) for v in found], "-", color=colour, label=words)
    axes.set_xlabel("tokens that the rule lets come from the teacher, %")
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.3)
