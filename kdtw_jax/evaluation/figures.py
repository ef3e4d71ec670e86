"""Figures of a run: quality by method with intervals, and the learning curves behind it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from kdtw_jax.runs.atomic import explained

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = {"teacher": "#000000", "mle": "#E69F00", "word_kd": "#56B4E9", "pcl": "#009E73"}


def distil_figure(
    rows: Sequence[Mapping[str, Any]], curves: Mapping[str, Sequence[Mapping[str, float]]], metric: str, path: Path
) -> None:
    """Draws `metric` of every model (95% interval) and the token KL or likelihood over steps; writes a PNG to `path`.

    `rows` are those of distil.csv; `curves` maps "method seed" to the lines of its metrics.jsonl.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    chosen = [r for r in rows if r["metric"] == metric]
    methods = list(dict.fromkeys(r["method"] for r in chosen))
    for x, method in enumerate(methods):
        own = [r for r in chosen if r["method"] == method]
        for i, r in enumerate(own):
            left.errorbar(
                x + 0.15 * (i - (len(own) - 1) / 2),
                r["value"],
                yerr=[[r["value"] - r["low"]], [r["high"] - r["value"]]],
                fmt="o",
                capsize=3,
                color=COLOURS[method],
            )
    left.set_xticks(range(len(methods)), methods)
    left.set_ylabel(f"{metric} (95% interval over sentences)")
    left.set_xlabel("training method, one point a seed")
    left.grid(axis="y", alpha=0.3)
    labelled = set()
    for name, lines in curves.items():
        method = name.split(" ")[0]
        term = "nll" if method == "mle" else "kl"
        points = [(line["step"], line[term]) for line in lines if term in line]
        label = {"nll": "negative log-likelihood", "kl": "KL, student and teacher"}[term]
        if points:
            right.plot(
                *zip(*points, strict=True),
                color=COLOURS[method],
                label=None if method in labelled else f"{method}: {label}",
            )
            labelled.add(method)
    right.set_xlabel("step after the shared warm-up")
    right.set_ylabel("nats a token, on training rows")
    right.grid(alpha=0.3)
    if labelled:
        right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.stem}.{os.getpid()}.png")
    with explained(path):
        try:
            figure.savefig(scratch, dpi=130)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
            plt.close(figure)
