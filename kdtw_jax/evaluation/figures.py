"""Figures of a run: quality by method with intervals, and the learning curves behind it; quality against use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from kdtw_jax.runs.atomic import explained

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = {"teacher": "#000000", "mle": "#E69F00", "word_kd": "#56B4E9", "pcl": "#009E73", "ask": "#CC79A7"}
GATE_COLOURS = {
    "learned": "#CC79A7",
    "random": "#999999",
    "entropy": "#0072B2",
    "max_prob": "#56B4E9",
    "oracle_kl": "#E69F00",
    "oracle_regret": "#D55E00",
}


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
    _save(figure, path)


def asking_figure(rows: Sequence[Mapping[str, Any]], metric: str, levels: Mapping[str, float], path: Path) -> None:
    """Draws `metric` against use for every gate, and use against what was asked for; writes a PNG to `path`.

    `rows` are those of asking.csv, of any number of seeds: lines and bands are means over them. `levels` are drawn
    across by name (the teacher's score, the student's alone).
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    chosen = [r for r in rows if r["metric"] == metric]
    seen = [r for r in chosen if not r["guard"] and r["phrasing"] == "seen" and r["budget_seen"]]
    for gate, colour in GATE_COLOURS.items():
        own = [r for r in seen if r["gate"] == gate]
        budgets = sorted({r["asked"] for r in own})
        if not budgets:
            continue
        use, value, low, high = (
            [float(np.mean([r[name] for r in own if r["asked"] == budget])) for budget in budgets]
            for name in ("used", "value", "low", "high")
        )
        use = [100 * u for u in use]
        left.plot(use, value, "o-", color=colour, markersize=4, label=gate, zorder=3 if gate == "learned" else 2)
        left.fill_between(use, low, high, color=colour, alpha=0.1, linewidth=0)
    for (name, level), style in zip(levels.items(), ("--", ":", "-."), strict=False):
        left.axhline(level, color="#000000", linestyle=style, linewidth=1, label=name)
    left.set_xlabel("tokens from the teacher, %")
    left.set_ylabel(f"{metric} (95% interval over sentences)")
    left.grid(alpha=0.3)
    left.legend(fontsize=8)
    learned = [r for r in chosen if r["gate"] == "learned"]
    kinds = {
        "seen in training": ("o", [r for r in seen if r["gate"] == "learned"]),
        "budget or words never seen": (
            "^",
            [r for r in learned if not r["guard"] and (r["phrasing"] == "unseen" or not r["budget_seen"])],
        ),
        "rule enforced": ("x", [r for r in learned if r["guard"]]),
    }
    for (label, (marker, own)), colour in zip(kinds.items(), ("#CC79A7", "#0072B2", "#000000"), strict=True):
        right.plot(
            [100 * r["asked"] for r in own],
            [100 * r["used"] for r in own],
            marker,
            color=colour,
            label=label,
            markersize=5,
            alpha=0.7,
        )
    most = 100 * max([r["asked"] for r in learned], default=0.5)
    right.plot([0, most], [0, most], color="#000000", linewidth=1)
    right.set_xlabel("allowed by the words of the rule, %")
    right.set_ylabel("tokens from the teacher, %")
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """A PNG that is either wholly there or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.stem}.{os.getpid()}.png")
    with explained(path):
        try:
            figure.savefig(scratch, dpi=130)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
            plt.close(figure)
