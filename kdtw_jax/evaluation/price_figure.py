"""Figure of students that are told what a call costs: what they make of help as its price falls."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdtw_jax.evaluation.figures import SPARE_COLOURS, Rows, save_figure, written_metric

_WAYS = {"answer": ("right answers", "#009E73"), "long_way": ("outputs that go the long way", "#0072B2")}
_USE = "#CC79A7"


def price_figure(students: Mapping[str, Rows], path: Path) -> None:
    """Draws kinds of students beside each other; writes a PNG to `path`.

    Args:
      students: by what stands above them, rows of their asking.csv.
      path: of the PNG.
    """
    figure = Figure(figsize=(5.2 * len(students), 4.2), layout="constrained")
    all_axes = figure.subplots(1, len(students), sharey=True, squeeze=False)[0]
    for axes, (name, rows) in zip(all_axes, students.items(), strict=True):
        draw_prices(axes, rows)
        axes.set_title(name, fontsize=10)
    all_axes[0].set_ylabel("%")
    all_axes[0].legend(fontsize=8)
    save_figure(figure, path)


def draw_prices(axes: Axes, rows: Rows) -> None:
    """Every metric, and what came from the teacher, by the price of a call: a point a seed, lines through their means.

    `rows` are those of asking.csv; words of rules that training had, and rules that say a price.
    """
    own = [r for r in rows if is_priced(r) and r["phrasing"] == "seen"]
    metrics = list(dict.fromkeys(str(r["metric"]) for r in own))
    prices = sorted({float(r["asked"]) for r in own})
    spare = itertools.cycle(SPARE_COLOURS)
    lines = [(m, "value", 1.0, *(_WAYS.get(m) or (written_metric(m), next(spare)))) for m in metrics]
    counted = "words" if {r["unit"] for r in own} == {"word"} else "tokens"
    lines += [(m, "used", 100.0, f"{counted} from the teacher", _USE) for m in metrics[:1]]
    for metric, column, factor, words, colour in lines:
        found = [
            [factor * float(r[column]) for r in own if (r["metric"], r["asked"]) == (metric, price)] for price in prices
        ]
        for price, values in zip(prices, found, strict=True):
            axes.plot([price] * len(values), values, ".", color=colour, alpha=0.5)
        axes.plot(prices, [float(np.mean(values)) for values in found], "-", color=colour, label=words)
    axes.set_xlabel("price of a call, nats")
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.3)


def is_priced(row: Mapping[str, object]) -> bool:
    """Whether `asked` is a price, and not a share; older tables have shares alone."""
    return row.get("rule", "share") != "share"
