"""Quality against use: curves, and gates at equal use."""

from __future__ import annotations

import numpy as np
import pytest

from kdtw_jax.evaluation.tradeoff import Curve, compare_gates, mean_quality, pool, quality_at


def test_curves_are_straight_between_their_points() -> None:
    use, quality = np.array([0.4, 0.0, 0.2, 0.2]), np.array([50.0, 10.0, 20.0, 40.0])
    np.testing.assert_allclose(quality_at(use, quality, np.array([0.0, 0.1, 0.2, 0.3, 0.9])), [10, 20, 30, 40, 50])
    assert mean_quality(use, quality, 0.4) == pytest.approx(30)
    assert mean_quality(use, quality, 0.2) == pytest.approx(20)
    assert mean_quality(np.array([0.1, 0.3]), np.array([10.0, 30.0]), 0.2) == pytest.approx((10 + 15) / 2)


def curve(slope: float, noise: np.ndarray) -> Curve:
    use = np.array([0.0, 0.25, 0.5])
    quality = 20 + slope * use
    return Curve(use, quality, np.broadcast_to(use, (len(noise), 3)), quality + noise[:, None])


def test_gates_are_compared_at_equal_use_on_the_same_resamples() -> None:
    noise = np.random.default_rng(0).normal(size=200) * 5  # of the test set, the same for all gates: it cancels
    curves = {"learned": curve(30, noise), "random": curve(10, noise), "oracle_regret": curve(50, noise)}
    curves["entropy"] = curve(30, noise)._replace(use_K=np.array([0.0, 0.25, 0.3]))  # reaches 30% only
    curves["oracle_kl"] = curve(50, noise)._replace(use_K=np.array([0.0, 0.1, 0.2]))  # needs no more
    found, draws = compare_gates(curves)
    assert found["range"] == [0.0, 0.3]
    assert found["mean_quality"]["learned"] == pytest.approx(24.5)
    lead = {name: found["learned_minus"]["random"][name] for name in ("value", "low", "high")}
    assert lead == pytest.approx(dict.fromkeys(lead, 3.0), abs=1e-4)
    assert found["way"] == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})
    assert found["mean_quality"]["oracle_kl"] == pytest.approx((0.1 * (26.25 + 38.75) + 0.1 * 45) / 0.3)
    assert found["ceiling"] == "oracle_regret"
    ahead, _ = compare_gates({**curves, "oracle_rest": curve(90, noise)})
    assert (ahead["ceiling"], ahead["way"]["value"]) == ("oracle_rest", pytest.approx(0.25))
    together = pool([found, found], [draws, draws])
    assert together["learned_minus"]["random"]["value"] == pytest.approx(3.0)
    # 10 + 20 x use apart from the random gate, with none of the noise of the sentences; level beyond 30%.
    assert found["uses"] == [0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    for use, one in zip(found["uses"], together["learned_minus"]["random"]["at"], strict=True):
        assert one == pytest.approx(dict.fromkeys(("value", "low", "high"), 20 * use), abs=1e-3)
    short, fewer = compare_gates({**curves, "entropy": curve(30, noise)._replace(use_K=np.array([0.0, 0.05, 0.1]))})
    assert short["uses"] == [0.02, 0.05, 0.1]
    both = pool([found, short], [draws, fewer])
    assert both["uses"] == short["uses"] and len(both["learned_minus"]["oracle_kl"]["at"]) == 3
    silent = {gate: c._replace(use_K=np.zeros(3)) for gate, c in curves.items()}
    assert compare_gates(silent)[0]["way"] is None
