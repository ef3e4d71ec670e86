"""Figures of training methods: quality by method, and the learning curves behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdtw_jax.evaluation.figures import (
    OVER_SENTENCES,
    Rows,
    method_colours,
    save_figure,
    written_metric,
)
from kdtw_jax.methods import METHODS

CURVES = {"nll": "negative log-likelihood", "kl": "KL, student and teacher", "jsd": "Jensen-Shannon"}


def distil_figure(
    rows: Rows, curves: Mapping[str, Sequence[Mapping[str, float]]], metric: str, path: Path, learning: Rows = ()
) -> None:
    """Draws `metric` of every model (95% interval), and how students learned; writes a PNG to `path`.

    Args:
      rows: those of distil.csv.
      curves: maps "method seed" to the lines of its metrics.jsonl.
      metric: which of the metrics of `rows`.
      path: of the PNG.
      learning: rows of curves.csv. Where there are none, the token KL or likelihood over steps is drawn in their place.
    """
    figure = Figure(figsize=(15 if learning else 10, 4), layout="constrained")
    left, *others = figure.subplots(1, 3 if learning else 2)
    draw_scores(left, rows, metric)
    if learning:
        draw_learning(others[0], learning, metric, "step")
        draw_learning(others[1], learning, metric, "seconds")
    else:
        draw_curves(others[0], curves)
    save_figure(figure, path)


def draw_scores(axes: Axes, rows: Rows, metric: str, unit: str = OVER_SENTENCES) -> None:
    """`metric` by method, a point a seed, with its interval where it has one. `rows` are those of distil.csv."""
    chosen = [r for r in rows if r["metric"] == metric and r["value"] is not None]
    methods = list(dict.fromkeys(r["method"] for r in chosen))
    colours = method_colours(methods)
    for x, method in enumerate(methods):
        own = [r for r in chosen if r["method"] == method]
        for i, r in enumerate(own):
            known = r["low"] is not None
            axes.errorbar(
                x + 0.15 * (i - (len(own) - 1) / 2),
                r["value"],
                yerr=[[r["value"] - r["low"]], [r["high"] - r["value"]]] if known else None,
                fmt="o",
                capsize=3,
                color=colours[method],
            )
    axes.set_xticks(range(len(methods)), methods, rotation=30 if len(methods) > 5 else 0)
    axes.set_xlim(-0.5, max(len(methods), 1) - 0.5)
    axes.set_ylabel(f"{written_metric(metric)} ({unit})")
    axes.set_xlabel("training method, one point a seed")
    axes.grid(axis="y", alpha=0.3)


def draw_learning(axes: Axes, rows: Rows, metric: str, by: str) -> None:
    """`metric` on validation texts while students learned, `by` "step" or "seconds"; a line a seed.

    `rows` are those of curves.csv.
    """
    own = [r for r in rows if r["metric"] == metric]
    methods = list(dict.fromkeys(r["method"] for r in own))
    colours = method_colours(methods)
    for method in methods:
        for i, seed in enumerate(dict.fromkeys(r["seed"] for r in own if r["method"] == method)):
            line = [r for r in own if (r["method"], r["seed"]) == (method, seed)]
            x, y = ([r[name] for r in line] for name in (by, "value"))
            axes.plot(x, y, color=colours[method], linewidth=1, label=None if i else method)
    axes.set_xlabel("step after the shared warm-up" if by == "step" else "seconds of training")
    axes.set_ylabel(f"{written_metric(metric)}, validation")
    axes.grid(alpha=0.3)
    if own:
        axes.legend(fontsize=8)


def draw_curves(axes: Axes, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """The token KL or likelihood over steps. `curves` maps "method seed" to the lines of its metrics.jsonl."""
    labelled = set()
    colours = method_colours(list(dict.fromkeys(name.split(" ")[0] for name in curves)))
    for name, lines in curves.items():
        method = name.split(" ")[0]
        term = METHODS[method].curve if method in METHODS else "kl"
        points = [(line["step"], line[term]) for line in lines if term in line]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                color=colours[method],
                label=None if method in labelled else f"{method}: {CURVES.get(term, term)}",
            )
            labelled.add(method)
    axes.set_xlabel("step after the shared warm-up")
    axes.set_ylabel("nats per token, on training rows")
    axes.grid(alpha=0.3)
    if labelled:
        axes.legend()
