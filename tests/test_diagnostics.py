"""Diagnostics against slow definitions, hand-made cases and an enumerated chain whose KL-to-go is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import log_softmax

from kdtw_jax.errors import UserError
from kdtw_jax.evaluation import diagnostics


def distributions(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return log_softmax(np.random.default_rng(seed).normal(size=shape) * 2, axis=-1)


def test_kl_to_go_is_the_sum_of_the_rest_of_the_row() -> None:
    rng = np.random.default_rng(0)
    step = rng.normal(size=(4, 6))
    lengths = np.array([6, 3, 1, 4])
    mask = np.arange(6)[None] < lengths[:, None]
    found = diagnostics.kl_to_go(step, mask)
    for row in range(4):
        for t in range(6):
            expected = step[row, t : lengths[row]].sum() if t < lengths[row] else 0.0
            assert found[row, t] == pytest.approx(expected)
    # Padding a batch further, with whatever lies there, changes nothing.
    padded = diagnostics.kl_to_go(
        np.pad(step, ((0, 0), (0, 3)), constant_values=np.nan), np.pad(mask, ((0, 0), (0, 3)))
    )
    np.testing.assert_array_equal(padded[:, :6], found)


def test_sampled_and_exact_kl_to_go_have_the_same_mean() -> None:
    """A two-step chain: the mean over the student's own samples is the sum over all paths."""
    rng = np.random.default_rng(0)
    pi, mu = distributions(0, (4, 3)), distributions(1, (4, 3))  # state 0 first, then state 1 + first token
    paths = 40_000
    first = rng.choice(3, size=paths, p=np.exp(pi[0]))
    second = np.array([rng.choice(3, p=np.exp(row)) for row in pi[1 + first]])
    states, tokens = np.stack([np.zeros_like(first), 1 + first], 1), np.stack([first, second], 1)
    mask = np.ones((paths, 2), bool)
    each = (np.exp(pi) * (pi - mu)).sum(-1)
    sampled = diagnostics.kl_to_go(pi[states, tokens] - mu[states, tokens], mask)
    exact = diagnostics.kl_to_go(each[states], mask)
    root = each[0] + np.exp(pi[0]) @ each[1:]
    assert exact[:, 0].mean() == pytest.approx(root, abs=0.02)
    assert sampled[:, 0].mean() == pytest.approx(root, abs=0.05)
    assert sampled[:, 0].std() > exact[:, 0].std()  # the expectation at each step takes noise away
    # And V = -KL-to-go of each state, exactly known here, is found to be calibrated.
    value = -np.concatenate([[root], each[1:]])[states]
    calibration = diagnostics.value_calibration(value, sampled, mask)
    assert calibration.slope == pytest.approx(1.0, abs=0.06)
    assert calibration.intercept == pytest.approx(0.0, abs=0.06)
    assert calibration.states == 2 * paths


@pytest.mark.parametrize("levels", [3, 20, 10_000])
def test_spearman_is_the_correlation_of_mean_ranks(levels: int) -> None:
    rng = np.random.default_rng(levels)
    x = rng.integers(levels, size=200)
    y = x + rng.integers(levels, size=200)
    ranks = [[np.sum(z < value) + np.sum(z == value) / 2 for value in z] for z in (x, y)]
    assert diagnostics.spearman(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_the_line_has_the_least_squares() -> None:
    rng = np.random.default_rng(0)
    value, to_go = rng.normal(size=(2, 30))
    found = diagnostics.value_calibration(value, to_go, np.ones(30, bool))
    assert (found.slope, found.intercept) == pytest.approx(np.polyfit(value, -to_go, 1))


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 / 3])
def test_a_value_that_is_the_same_everywhere_has_no_line_and_no_rank(constant: float) -> None:
    """Whatever the rounding of its mean."""
    found = diagnostics.value_calibration(np.full(7, constant), np.arange(7.0), np.ones(7, bool))
    assert math.isnan(found.slope) and math.isnan(found.intercept) and math.isnan(found.spearman)
    assert found.rmse > 0 and found.states == 7
    level = diagnostics.value_calibration(np.arange(7.0), np.full(7, constant), np.ones(7, bool))
    assert level.slope == pytest.approx(0.0, abs=1e-6) and math.isnan(level.spearman)


def test_infinities_are_ranked() -> None:
    assert diagnostics.spearman([-np.inf, 0.0, 1.0, np.inf], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(1.0)


def test_spearman_sees_order_and_nothing_else() -> None:
    x = np.random.default_rng(0).normal(size=50)
    assert diagnostics.spearman(x, np.exp(3 * x)) == pytest.approx(1.0)
    assert diagnostics.spearman(x, -(x**3)) == pytest.approx(-1.0)
    assert math.isnan(diagnostics.spearman(x, np.ones(50)))


def test_calibration_of_a_perfect_a_scaled_and_a_reversed_value() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((6, 8)) < 0.7
    to_go = diagnostics.kl_to_go(rng.random((6, 8)), mask)
    perfect = diagnostics.value_calibration(-to_go, to_go, mask)
    assert perfect == pytest.approx(
        (1.0, 1.0, 0.0, -to_go[mask].mean(), -to_go[mask].mean(), 0.0, mask.sum()), abs=1e-9
    )
    scaled = diagnostics.value_calibration(-0.5 * to_go - 1.0, to_go, mask)
    assert scaled.spearman == pytest.approx(1.0)
    assert (scaled.slope, scaled.intercept) == pytest.approx((2.0, 2.0))
    assert scaled.rmse == pytest.approx(np.sqrt(((0.5 * to_go[mask] - 1.0) ** 2).mean()))
    assert diagnostics.value_calibration(to_go, to_go, mask).spearman == pytest.approx(-1.0)


def test_masked_and_infinite_states_are_left_out_of_the_calibration() -> None:
    value = np.array([[-3.0, -2.0, -1.0, 99.0], [-2.5, -1.5, -np.inf, 99.0]])
    to_go = np.array([[3.0, 2.0, 1.0, 0.0], [2.5, np.inf, 1.0, 0.0]])
    mask = np.array([[1, 1, 1, 0]] * 2, bool)
    calibration = diagnostics.value_calibration(value, to_go, mask)
    assert calibration.states == 4
    assert (calibration.spearman, calibration.rmse) == pytest.approx((1.0, 0.0))


def test_too_few_states_leave_a_calibration_undefined_and_do_not_raise() -> None:
    none = diagnostics.value_calibration(np.zeros((3, 5)), np.ones((3, 5)), np.zeros((3, 5), bool))
    assert none.states == 0 and all(math.isnan(x) for x in none[:-1])
    one = diagnostics.value_calibration([-2.0, 9.0], [3.0, 9.0], [True, False])
    assert math.isnan(one.spearman) and math.isnan(one.slope)
    assert (one.mean_value, one.mean_measured, one.rmse, one.states) == (-2.0, -3.0, 1.0, 1)
    assert math.isnan(diagnostics.spearman([], []))


def test_bad_arrays_are_named() -> None:
    with pytest.raises(UserError, match="must be the same"):
        diagnostics.kl_to_go(np.zeros((3, 4)), np.ones((3, 5), bool))
    with pytest.raises(UserError, match="NaNs"):
        diagnostics.spearman(np.array([0.0, math.nan]), np.array([0.0, 1.0]))
