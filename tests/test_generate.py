"""Greedy decoding and sampling equal a slow loop, follow the probabilities, never say what is banned."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from kdtw_jax.decoding import Generation, generate, log_policy
from kdtw_jax.decoding.sample import inverse_cdf
from kdtw_jax.errors import UserError
from kdtw_jax.models import Model, T5Config, make_model

V, T, ROWS = 12, 9, 6
BANNED = (0, 2, 7)
MODEL = make_model(T5Config.toy(V, num_layers=1, num_decoder_layers=1))
JUST_BELOW_ONE = np.float32(1.0 - 2.0**-24)


@functools.cache
def params() -> Any:
    return jax.jit(MODEL.init)(jax.random.key(3))


def source() -> jax.Array:
    return jax.random.randint(jax.random.key(1), (ROWS, 5), 2, V).at[1, 3:].set(0)


def noise(seed: int, rows: int = ROWS) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), (rows, T))


@functools.partial(jax.jit, static_argnames=("max_len", "banned", "temperature"))
def compiled(params: Any, source_BxS: jax.Array, noise_BxT: jax.Array | None, **options: Any) -> Generation:
    return generate(MODEL, params, source_BxS, noise_BxT, **options)


def run(
    source_BxS: jax.Array,
    noise_BxT: jax.Array | None,
    max_len: int = T,
    banned: tuple[int, ...] = BANNED,
    temperature: float = 1.0,
) -> Generation:
    options = {"max_len": max_len, "banned": banned, "temperature": temperature}
    return compiled(params(), source_BxS, noise_BxT, **options)


@functools.partial(jax.jit, static_argnames="model")
def _decode(model: Model, params: Any, source_BxS: jax.Array, inputs_BxT: jax.Array) -> jax.Array:
    return model.decode(params, model.encode(params, source_BxS), inputs_BxT).logits_BxTxV


def teacher_forced(source_BxS: Any, inputs_BxT: Any) -> jax.Array:
    return _decode(MODEL, params(), source_BxS, inputs_BxT)


def slow_generate(row: np.ndarray, uniforms: np.ndarray | None, temperature: float) -> tuple[list[int], list[float]]:
    """One row, everything decoded anew for each token, the distribution in float64."""
    said: list[int] = []
    log_probs: list[float] = []
    while len(said) < T and 1 not in said:
        inputs = np.zeros((1, T), np.int32)
        inputs[0, 1 : len(said) + 1] = said
        logits = np.asarray(teacher_forced(row[None], inputs)[0, len(said)], np.float64)
        logits[list(BANNED)] = -np.inf
        log_prob = logits - np.log(np.exp(logits).sum())
        if uniforms is None:
            token = int(np.argmax(log_prob))
        else:
            weights = np.exp(log_prob / temperature)
            token = int(np.searchsorted(np.cumsum(weights), uniforms[len(said)] * weights.sum(), side="right"))
        said.append(token)
        log_probs.append(log_prob[token])
    return said, log_probs


@pytest.mark.parametrize("temperature", [None, 1.0, 0.6, 1.7])
def test_equals_a_slow_loop(temperature: float | None) -> None:
    uniforms = None if temperature is None else noise(5)
    got = run(source(), uniforms, temperature=temperature or 1.0)
    for b in range(ROWS):
        row_noise = None if uniforms is None else np.asarray(uniforms[b], np.float64)
        said, log_probs = slow_generate(np.asarray(source()[b]), row_noise, temperature or 1.0)
        n = len(said)
        np.testing.assert_array_equal(got.tokens_BxT[b], said + [0] * (T - n))
        np.testing.assert_allclose(got.log_prob_BxT[b], log_probs + [0.0] * (T - n), atol=1e-5)
        np.testing.assert_array_equal(got.mask_BxT[b], [True] * n + [False] * (T - n))
        assert bool(got.finished_B[b]) == (1 in said)
    if temperature == 1.0:  # the comparison is worth something only with ends early, late and missing
        assert len({int(n) for n in got.mask_BxT.sum(axis=1)}) > 1
        assert int(got.finished_B.sum()) in range(1, ROWS)


def test_log_probs_are_those_of_teacher_forcing() -> None:
    got = run(source(), noise(5), temperature=0.6)
    logits = teacher_forced(source(), jnp.pad(got.tokens_BxT[:, :-1], ((0, 0), (1, 0))))
    want = jnp.take_along_axis(log_policy(logits, BANNED), got.tokens_BxT[:, :, None], axis=-1)[:, :, 0]
    np.testing.assert_allclose(got.log_prob_BxT[got.mask_BxT], want[got.mask_BxT], atol=1e-5)


def test_rows_do_not_know_of_each_other_nor_of_padding() -> None:
    together = run(source(), noise(5))
    halves = [run(source()[part], noise(5)[part]) for part in (slice(0, 3), slice(3, 6))]
    np.testing.assert_array_equal(together.tokens_BxT, np.concatenate([half.tokens_BxT for half in halves]))
    padded = run(jnp.pad(source(), ((0, 0), (0, 4))), noise(5))
    np.testing.assert_array_equal(together.tokens_BxT, padded.tokens_BxT)
    shorter = run(source(), noise(5)[:, :4], max_len=4)
    np.testing.assert_array_equal(together.tokens_BxT[:, :4], shorter.tokens_BxT)


def test_the_loop_ends_with_the_last_row() -> None:
    steps: list[int] = []

    def counted(*args: Any) -> Any:
        jax.debug.callback(lambda position: steps.append(int(position)), args[3])
        return MODEL.extend(*args)

    counting = MODEL._replace(extend=counted)
    run_counting = jax.jit(functools.partial(generate, counting), static_argnames=("max_len", "banned"))
    got = run_counting(params(), source(), noise(8), max_len=T, banned=BANNED)
    jax.effects_barrier()
    longest = int(got.mask_BxT.sum(axis=1).max())
    assert sorted(steps) == list(range(longest))
    only_end = tuple(token for token in range(V) if token != 1)
    steps.clear()
    got = run_counting(params(), source(), None, max_len=T, banned=only_end)
    jax.effects_barrier()
    assert steps == [0]
    np.testing.assert_array_equal(got.tokens_BxT[:, :2], [[1, 0]] * ROWS)
    np.testing.assert_allclose(got.log_prob_BxT, 0.0, atol=1e-6)


def test_frequencies_are_the_probabilities() -> None:
    rows, temperature = 4000, 1.4
    one = jnp.tile(source()[:1], (rows, 1))
    uniforms = jax.random.uniform(jax.random.key(11), (rows, 2))
    first = np.asarray(run(one, uniforms, max_len=2, temperature=temperature).tokens_BxT[:, 0])
    logits = teacher_forced(one[:1], jnp.zeros((1, T), jnp.int32))[0, 0]
    expected = np.exp(np.asarray(log_policy(logits, BANNED, temperature), np.float64)) * rows
    counted = np.bincount(first, minlength=V)
    assert not counted[list(BANNED)].any()
    allowed = [token for token in range(V) if token not in BANNED]
    assert stats.chisquare(counted[allowed], expected[allowed] * rows / expected.sum()).pvalue > 1e-3


def test_inverse_cdf_divides_the_unit_interval_by_probability() -> None:
    prob = np.asarray(jax.random.uniform(jax.random.key(0), (37,)) ** 4).copy()
    prob[[0, 5, 6, 36]] = 0.0
    n = 5000
    uniforms = (np.arange(n, dtype=np.float32) + 0.5) / n
    drawn = np.asarray(inverse_cdf(jnp.tile(prob[None], (n, 1)), jnp.asarray(uniforms)))
    assert (np.diff(drawn) >= 0).all()
    np.testing.assert_allclose(np.bincount(drawn, minlength=37), n * prob / prob.sum(), atol=1.01)


@pytest.mark.parametrize("size", [2, 3, 130, 4000, 32128])
def test_inverse_cdf_never_draws_the_impossible(size: int) -> None:
    rng = np.random.default_rng(size)
    rows = []
    for zeros in (0.0, 0.5, 0.9, 1.0):
        row = rng.random(size).astype(np.float32) ** 8
        row[rng.random(size) < zeros] = 0.0
        row[rng.integers(size)] += 1e-3
        rows.append(row)
    edge_zeros = rng.random(size).astype(np.float32)
    edge_zeros[: size // 3] = edge_zeros[-(size // 3) :] = 0.0
    rows.append(edge_zeros if edge_zeros.any() else np.ones(size, np.float32))
    prob = jnp.asarray(np.stack(rows))
    for uniform in (0.0, 2.0**-30, 0.25, 0.5, 0.75, 1.0 - 2.0**-10, JUST_BELOW_ONE, 1.0):
        drawn = inverse_cdf(prob, jnp.full(len(rows), uniform, jnp.float32))
        assert (np.take_along_axis(np.asarray(prob), np.asarray(drawn)[:, None], axis=1) > 0.0).all(), uniform
    np.testing.assert_array_equal(inverse_cdf(prob, jnp.zeros(len(rows))), [np.flatnonzero(row)[0] for row in rows])


def test_inverse_cdf_survives_its_own_rounding() -> None:
    # Two blocks of 64. Adding w to 1 - 2^-24 crosses 1 and rounds up, so that taking w off again gives 1: more than
    # the threshold, which is what the first block holds. What is left to find in the second is negative.
    prob = np.zeros((1, 128), np.float32)
    prob[0, 0], prob[0, 65] = 1.0 - 2.0**-24, 1.25 * 2.0**-23
    assert int(inverse_cdf(jnp.asarray(prob), jnp.full(1, 1.0 - 3.0 * 2.0**-24, jnp.float32))[0]) == 65


def test_banned_tokens_never_appear() -> None:
    for uniforms in (None, jnp.zeros((ROWS, T)), jnp.full((ROWS, T), JUST_BELOW_ONE), noise(5)):
        for banned in ((0, 2, 7), (0, 1, 2, 3, 4, 5, 11)):
            got = run(source(), uniforms, banned=banned)
            assert not np.isin(np.asarray(got.tokens_BxT)[np.asarray(got.mask_BxT)], banned).any()
            assert np.isfinite(got.log_prob_BxT).all()


def test_log_policy_is_a_distribution_without_the_banned() -> None:
    logits = 5.0 * jax.random.normal(jax.random.key(0), (3, 4, V))
    for banned in ((), BANNED):
        for temperature in (0.5, 1.0, 2.0):
            prob = np.exp(log_policy(logits, banned, temperature))
            np.testing.assert_allclose(prob.sum(axis=-1), 1.0, atol=1e-5)
            assert not prob[..., list(banned)].any()
            weights = np.exp(np.asarray(logits, np.float64) / temperature)
            weights[..., list(banned)] = 0.0
            np.testing.assert_allclose(prob, weights / weights.sum(axis=-1, keepdims=True), atol=1e-5)
    gradient = jax.grad(lambda x: log_policy(x, BANNED)[..., 3].sum())(logits)
    assert np.isfinite(gradient).all()
    assert not gradient[..., list(BANNED)].any()


def test_refusals() -> None:
    with pytest.raises(UserError, match="temperature is 0"):
        run(source(), noise(5), temperature=0.0)
    with pytest.raises(UserError, match="temperature"):
        run(source(), noise(5), temperature=float("nan"))
    with pytest.raises(UserError, match="max_len"):
        run(source(), None, max_len=0)
    with pytest.raises(UserError, match="noise has shape"):
        run(source(), noise(5)[:, :3])
    with pytest.raises(UserError, match="vocabulary"):
        run(source(), None, banned=(V,))
    with pytest.raises(UserError, match="banned"):
        run(source(), None, banned=tuple(range(V)))
