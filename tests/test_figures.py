"""Drawings on given axes: what is drawn is what the tables say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import binomtest

from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.asking_figure import draw_obedience, draw_where
from kdtw_jax.evaluation.figures import written_metric
from kdtw_jax.evaluation.operating_figure import draw_costs, relative_costs
from kdtw_jax.evaluation.training_figure import distil_figure, draw_scores
from kdtw_jax.methods import METHODS
from tests.pictures import alike, colours


def test_the_share_asked_at_has_the_wilson_interval_of_all_seeds_together() -> None:
    counts = {"1": [(3, 40), (5, 60)], "2": [(0, 50), (0, 50)], "3": [(7, 7), (5, 5)], "4": [(0, 0), (1, 9)]}
    rows = [
        {"kind": "kl_decile", "group": int(group), "states": n, "help_rate": k / n if n else None}
        for group, seeds in counts.items()
        for k, n in seeds
    ]
    axes = Figure().subplots()
    draw_where(axes, [*rows, {"kind": "token", "group": "rare", "states": 5, "help_rate": 1.0}], "kl_decile")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(counts)
    bars = [patch.get_height() for patch in axes.patches]
    ((*_, (segments,)),) = [container.lines for container in axes.containers if hasattr(container, "has_yerr")]
    for bar, segment, seeds in zip(bars, segments.get_segments(), counts.values(), strict=True):
        asked, states = map(sum, zip(*seeds, strict=True))
        want = binomtest(asked, states).proportion_ci(method="wilson")
        np.testing.assert_allclose(bar, 100 * asked / states, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(segment[:, 1], [100 * want.low, 100 * want.high], rtol=1e-3, atol=1e-2)


def test_scores_have_a_bar_where_there_is_an_interval_and_unknown_ones_are_left_out() -> None:
    def row(method: str, metric: str, value: float | None, half: float | None) -> dict[str, Any]:
        low, high = (None, None) if half is None or value is None else (value - half, value + half)
        return {"method": method, "metric": metric, "value": value, "low": low, "high": high}

    rows = [row("teacher", "bleu", 30.0, 1.0), row("pcl", "bleu", 20.0, 2.0), row("pcl", "bleu", 21.0, 2.0)]
    rows += [row("pcl", "kl", 1.5, None), row("mle", "kl", None, None)]
    left, right = Figure().subplots(1, 2)
    draw_scores(left, rows, "bleu")
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["teacher", "pcl"]
    assert [float(container.lines[0].get_ydata()[0]) for container in left.containers] == [30.0, 20.0, 21.0]
    assert all(container.has_yerr for container in left.containers)
    assert left.containers[1].lines[0].get_color() == METHODS["pcl"].color
    draw_scores(right, rows, "kl", "nats a token")
    assert [tick.get_text() for tick in right.get_xticklabels()] == ["pcl"]
    assert not right.containers[0].has_yerr and right.get_ylabel() == "kl (nats a token)"
    nothing = Figure().subplots()
    draw_scores(nothing, [row("mle", "v_slope", None, None)], "v_slope")  # undefined for all of them
    assert not nothing.containers and nothing.get_xlim() == (-0.5, 0.5)


def test_obedience_counts_a_decoding_once_however_many_metrics_judged_it() -> None:
    def row(**more: Any) -> dict[str, Any]:
        return {"gate": "learned", "guard": 0, "phrasing": "seen", "budget_seen": 1, "asked": 0.2, "used": 0.1} | more

    kinds = [row(), row(phrasing="unseen"), row(budget_seen=0), row(guard=1), row(gate="random")]
    axes = Figure().subplots()
    draw_obedience(axes, [{**kind, "metric": metric} for kind in kinds for metric in ("bleu", "chrf")])
    assert [len(line.get_xdata()) for line in axes.lines] == [1, 2, 1, 2]  # the last is the diagonal
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[20.0, 10.0]])


def test_the_cheapest_setting_of_a_method_is_one_that_keeps_the_quality() -> None:
    points = {  # method, setting: quality, calls, FLOPs of the teacher and of the student
        ("student_only", "greedy"): (20.0, 0.0, 0.0, 1.0),
        ("teacher_only", "greedy"): (30.0, 1.0, 8.0, 0.0),
        ("speculative", "draft 4"): (30.0, 0.25, 12.0, 2.0),
        ("asking", "0.2"): (26.0, 0.2, 4.0, 1.0),
        ("asking", "0.4"): (28.0, 0.5, 6.0, 1.0),
        ("random", "0.2"): (22.0, 0.2, 4.0, 1.0),
    }
    names = ("method", "setting", "metric", "value", "calls", "teacher_flops", "student_flops")
    rows = [  # seeds differ in quality; their mean counts
        dict(zip(names, (*key, "bleu", value + off, *costs), strict=True))
        for key, (value, *costs) in points.items()
        for off in (-3.0, 3.0)
    ]
    rows.append({**rows[0], "metric": "chrf", "value": 99.0})
    overhead_O = np.array([0.0, 3.0])
    half = relative_costs(rows, "bleu", 0.5, overhead_O)
    assert list(half) == ["teacher_only", "speculative", "asking"]
    np.testing.assert_allclose(half["teacher_only"], [1, 1])
    np.testing.assert_allclose(half["speculative"], [14 / 8, (14 / 8 + 0.75) / 4])
    np.testing.assert_allclose(half["asking"], [5 / 8, (5 / 8 + 0.6) / 4])
    most = relative_costs(rows, "bleu", 0.8, overhead_O)
    np.testing.assert_allclose(most["asking"], [7 / 8, (7 / 8 + 1.5) / 4])
    assert list(relative_costs(rows, "bleu", 1.0, overhead_O)) == ["teacher_only", "speculative"]
    axes = Figure().subplots()
    draw_costs(axes, rows, "bleu", 0.5)
    assert [str(line.get_label()) for line in axes.lines] == ["speculative", "asking", "teacher_only"]
    assert axes.lines[1].get_ydata()[0] == pytest.approx((5 / 8 + 0.01 * 0.2) / 1.01)


def test_a_figure_is_in_its_file_and_a_failure_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(method: str, value: float) -> dict[str, Any]:
        return {"method": method, "metric": "bleu", "value": value, "low": value - 1, "high": value + 1}

    rows, curves = (
        [row("teacher", 30.0), row("mle", 20.0)],
        {"gkd 0": [{"step": 1, "jsd": 0.5}, {"step": 9, "jsd": 0.1}]},
    )
    path = tmp_path / "new" / "distil.png"
    distil_figure(rows, curves, "bleu", path)
    assert {METHODS[method].color for method in ("mle", "gkd")} <= colours(path)
    assert METHODS["pcl"].color not in colours(path)
    distil_figure([*rows, row("pcl", 25.0)], curves, "bleu", tmp_path / "more.png")
    assert METHODS["pcl"].color in colours(tmp_path / "more.png") and not alike(path, tmp_path / "more.png")
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"distil\.png: No space left"):
        distil_figure(rows, {}, "bleu", path)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["distil.png"]


def test_metrics_are_written_as_the_field_writes_them() -> None:
    written = {"bleu": "BLEU", "chrf_sampled": "chrF, sampled", "rougeL": "ROUGE-L", "exact_match": "exact match"}
    assert {metric: written_metric(metric) for metric in written} == written
