"""How a student keeps to its rules, and whether it knew how often it would ask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdtw_jax.evaluation.look_back import expected_cost_fit
from kdtw_jax.evaluation.obedience import obedience


def test_obedience_is_told_apart_by_guard_phrasing_and_budget() -> None:
    def cell(asked: float, used: float, **changes: Any) -> dict[str, Any]:
        numbers = {"outputs": 10, "outputs_over": 2, "excess_calls_p95": 1.0, "excess_share_p95": 0.1}
        return {"guard": 0, "phrasing": "seen", "budget_seen": 1, "asked": asked, "used": used, **numbers, **changes}

    found = obedience([cell(0.1, 0.12), cell(0.2, 0.16), cell(0.2, 0.2, guard=1, outputs_over=0)])
    assert found[0]["error_mean"] == pytest.approx(3) and found[0]["bias"] == pytest.approx(-1)
    assert found[0]["error_p95"] == pytest.approx(3.9) and found[0]["outputs_over"] == 4
    assert (found[1]["guard"], found[1]["cells"], found[1]["outputs_over"]) == (1, 1, 0)


def test_calls_expected_are_fitted_to_calls_made() -> None:
    found = expected_cost_fit(np.array([1.0, 2.0, 3.0]), np.array([3.0, 5.0, 7.0]))
    assert found == pytest.approx({"spearman": 1.0, "slope": 2.0, "intercept": 1.0, "rmse": np.sqrt((4 + 9 + 16) / 3)})
    assert expected_cost_fit(np.ones(3), np.array([1.0, 2.0, 3.0]))["slope"] is None
    assert set(expected_cost_fit(np.zeros(0), np.zeros(0)).values()) == {None}
