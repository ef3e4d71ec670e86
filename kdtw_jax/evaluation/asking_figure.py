"""Figures of asking: quality against use, obedience, leads over other gates, where a student asks, expected calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdtw_jax.decoding.gates import GATES
from kdtw_jax.evaluation.figures import (
    OVER_SENTENCES,
    Rows,
    gate_colours,
    save_figure,
    written_metric,
)


def asking_figure(
    rows: Rows, metric: str, levels: Mapping[str, float], compared: Mapping[str, Any], path: Path
) -> None:
    """Draws `metric` against use for every gate, the learned gate's leads, and use against what was asked for.

    Args:
      rows: those of asking.csv, of any number of seeds.
      metric: which of their metrics.
      levels: drawn across by name (the teacher's score, the student's alone).
      compared: the metric's `equal_use` in asking.json.
      path: of the PNG.
    """
    figure = Figure(figsize=(16, 4.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    draw_use(left, rows, metric, levels)
    draw_leads_by_use(middle, compared, metric)
    draw_obedience(right, rows)
    save_figure(figure, path)


def draw_use(axes: Axes, rows: Rows, metric: str, levels: Mapping[str, float]) -> None:
    """`metric` against use for every gate, means over seeds; `levels` are drawn across by name.

    The intervals of single scores say nothing of how gates differ, which are judged on the same sentences: for that see
    `draw_leads_by_use`.
    """
    seen = [r for r in rows if r["metric"] == metric and as_trained(r)]
    for gate, colour in gate_colours(dict.fromkeys(r["gate"] for r in seen)).items():
        own = [r for r in seen if r["gate"] == gate]
        budgets = sorted({r["asked"] for r in own})
        if not budgets:
            continue
        use, value = (
            [float(np.mean([r[name] for r in own if r["asked"] == budget])) for budget in budgets]
            for name in ("used", "value")
        )
        use = [100 * u for u in use]
        axes.plot(use, value, "o-", color=colour, markersize=4, label=gate, zorder=3 if gate == "learned" else 2)
    for (name, level), style in zip(levels.items(), ("--", ":", "-."), strict=False):
        axes.axhline(level, color="#000000", linestyle=style, linewidth=1, label=name)
    axes.set_xlabel(f"{_counted(rows)} from the teacher, %")
    axes.set_ylabel(written_metric(metric))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def draw_leads_by_use(axes: Axes, compared: Mapping[str, Any], metric: str) -> None:
    """The learned gate minus each rival at equal use, with bands over the same resamples of the sentences.

    `compared` is the metric's `equal_use` in asking.json.
    """
    use = [100 * u for u in compared["uses"]]
    for gate, colour in gate_colours(compared["learned_minus"]).items():
        found = compared["learned_minus"][gate]["at"]
        value, low, high = ([one[name] for one in found] for name in ("value", "low", "high"))
        axes.plot(use, value, "o-", color=colour, markersize=4, label=gate)
        axes.fill_between(use, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0, color="#000000", linewidth=1)
    axes.set_xlabel("use of help, %")
    axes.set_ylabel(f"learned gate minus rival, {written_metric(metric)}")
    axes.grid(alpha=0.3)
    if use:
        axes.legend(fontsize=8)


def draw_obedience(axes: Axes, rows: Rows) -> None:
    """What the learned gate used against what the words of the rule allowed, a point a budget, phrasing and seed."""
    first = next(iter(rows), {"metric": None})["metric"]  # use is the same in the rows of every metric
    learned = [r for r in rows if r["gate"] == "learned" and r["metric"] == first]
    kinds = {
        "seen in training": ("o", [r for r in learned if as_trained(r)]),
        "budget or words never seen": ("^", [r for r in learned if not r["guard"] and not as_trained(r)]),
        "rule enforced": ("x", [r for r in learned if r["guard"]]),
    }
    for (label, (marker, own)), colour in zip(kinds.items(), ("#CC79A7", "#0072B2", "#000000"), strict=True):
        axes.plot(
            [100 * r["asked"] for r in own],
            [100 * r["used"] for r in own],
            marker,
            color=colour,
            label=label,
            markersize=5,
            alpha=0.7,
        )
    most = 100 * max([r["asked"] for r in learned], default=0.5)
    axes.plot([0, most], [0, most], color="#000000", linewidth=1)
    axes.set_xlabel("allowed by the words of the rule, %")
    axes.set_ylabel(f"{_counted(rows)} from the teacher, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def draw_leads(axes: Axes, compared: Mapping[str, Any]) -> None:
    """The learned gate's mean lead over each rival at equal use. `compared`: a metric's `equal_use` in asking.json."""
    colours = gate_colours(compared["learned_minus"])
    for y, (rival, lead) in enumerate(compared["learned_minus"].items()):
        error = [[lead["value"] - lead["low"]], [lead["high"] - lead["value"]]]
        axes.errorbar(lead["value"], y, xerr=error, fmt="o", capsize=3, color=colours[rival])
    axes.set_yticks(range(len(compared["learned_minus"])), list(compared["learned_minus"]))
    axes.invert_yaxis()
    axes.axvline(0, color="#000000", linewidth=1)
    axes.set_xlabel(f"learned gate minus rival, points ({OVER_SENTENCES})")
    axes.grid(axis="x", alpha=0.3)


def draw_where(axes: Axes, rows: Rows, kind: str) -> None:
    """The share of states asked at, by group of a `kind` ("kl_decile", "token", "position"), with Wilson intervals.

    `rows` are those of where.csv; states of several seeds count together. The intervals take states as independent.
    """
    own = [r for r in rows if r["kind"] == kind and r["states"]]
    groups = list(dict.fromkeys(str(r["group"]) for r in own))
    states_G = np.array([sum(r["states"] for r in own if str(r["group"]) == g) for g in groups])
    asked_G = np.array([sum(r["states"] * r["help_rate"] for r in own if str(r["group"]) == g) for g in groups])
    rate_G, square = asked_G / states_G, 1.96**2
    middle_G = (asked_G + square / 2) / (states_G + square)
    half_G = np.sqrt(square * (rate_G * (1 - rate_G) * states_G + square / 4)) / (states_G + square)
    error = np.maximum([rate_G - middle_G + half_G, middle_G + half_G - rate_G], 0.0)
    axes.bar(groups, 100 * rate_G, yerr=100 * error, capsize=3, color=GATES["learned"].color, alpha=0.8)
    axes.set_ylabel("states asked in, % (95% interval)")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)


def draw_expected_calls(axes: Axes, found: Mapping[str, Mapping[str, Any]]) -> None:
    """V_C before the first token against the calls then made, a line per seed. `found`: the `seeds` of asking.json."""
    most = 1.0
    for (seed, told), marker in zip(found.items(), "os^Dv" * len(found), strict=False):
        budgets = told["expected_calls"]["by_budget"]
        made, expected = [b["calls"] for b in budgets], [b["expected"] for b in budgets]
        axes.plot(made, expected, marker + "-", color=GATES["learned"].color, markersize=5, label=f"seed {seed}")
        for b in budgets:
            axes.annotate(f" {b['asked']:.0%}", (b["calls"], b["expected"]), fontsize=8, va="top")
        most = max([most, *made, *expected])
    axes.plot([0, most], [0, most], color="#000000", linewidth=1, label="as expected")
    axes.set_xlabel("calls made, mean per output")
    axes.set_ylabel("V_C before the first token, mean, calls")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _counted(rows: Rows) -> str:
    """What shares count; older tables, which do not say so, counted tokens."""
    return "words" if {row.get("unit") for row in rows} == {"word"} else "tokens"


def as_trained(row: Mapping[str, Any]) -> bool:
    """Not enforced, and a budget and words of training."""
    return bool(not row["guard"] and row["phrasing"] == "seen" and row["budget_seen"])
