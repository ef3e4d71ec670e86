"""How a student keeps to the rules that it is given. Shares are 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdtw_jax.evaluation.cells import EvalCell, Found
from kdtw_jax.evaluation.written import Written

_OVER = 1e-3  # calls; below it lies the rounding of float32


def obedience_of(cell: EvalCell) -> dict[str, Any]:
    """What a student used of what it was given."""
    return {
        "guard": int(cell.guard),
        "phrasing": cell.phrasing,
        "budget_seen": int(cell.budget_seen),
        "asked": cell.asked,
        **rule_excess(cell.written),
    }


def rule_excess(written: Written) -> Found:
    """How outputs keep to their rule; `excess`: calls (or other costs) of an output beyond it, below 0 within it."""
    over_N = written.excess_N
    return {
        "used": written.used,
        "excess_calls_mean": float(over_N.mean()),
        "outputs": len(over_N),
        "outputs_over": int((over_N > _OVER).sum()),
        "excess_calls_p95": float(max(np.quantile(over_N, 0.95), 0.0)),
        "excess_share_p95": float(max(np.quantile(over_N / np.maximum(written.lengths_N, 1), 0.95), 0.0)),
        "unfinished": written.unfinished,
    }


def obedience(cells: Sequence[Found]) -> list[Found]:
    """What `obedience_of` says of many budgets (and seeds), by kind: errors |used - asked| in percentage points."""
    kinds = dict.fromkeys((c["guard"], c["phrasing"], c["budget_seen"]) for c in cells)
    found = []
    for guard, phrasing, seen in kinds:
        own = [c for c in cells if (c["guard"], c["phrasing"], c["budget_seen"]) == (guard, phrasing, seen)]
        errors = 100 * np.array([c["used"] - c["asked"] for c in own])
        found.append(
            {
                "guard": guard,
                "phrasing": phrasing,
                "budget_seen": seen,
                "cells": len(own),
                "error_mean": float(np.abs(errors).mean()),
                "error_p95": float(np.quantile(np.abs(errors), 0.95)),
                "bias": float(errors.mean()),
                "outputs_over": sum(c["outputs_over"] for c in own),
                "outputs": sum(c["outputs"] for c in own),
                "excess_calls_p95": float(np.mean([c["excess_calls_p95"] for c in own])),
                "excess_share_p95": float(np.mean([c["excess_share_p95"] for c in own])),
            }
        )
    return found
