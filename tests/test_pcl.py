"""Path consistency: residuals against their definition, what has a gradient and what has none."""

import inspect
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.losses import PCLConfig, Weighted, pcl, policy_and_value


class Rows(NamedTuple):
    """The arguments of `pcl_loss`, in order."""

    log_pi: jax.Array
    log_mu: jax.Array
    value: jax.Array
    mask: jax.Array
    finished: jax.Array


def random_rows(lengths: tuple[int, ...], finished: tuple[bool, ...], width: int, seed: int = 0) -> Rows:
    """Paths whose places outside the mask hold poison."""
    keys = jax.random.split(jax.random.key(seed), 3)
    mask = jnp.arange(width)[None] < jnp.array(lengths)[:, None]
    log_pi, log_mu, value = (jax.random.normal(key, mask.shape) for key in keys)
    rows = (-jnp.abs(log_pi), -jnp.abs(log_mu), value)
    log_pi, log_mu, value = (jnp.where(mask, x, jnp.nan) for x in rows)
    return Rows(log_pi, log_mu, value, mask, jnp.array(finished))


def pcl_loss(rows: Rows, config: PCLConfig, **kwargs: Any) -> tuple[Weighted, dict[str, Weighted]]:
    return jax.jit(partial(pcl.pcl_loss, **config.of_loss))(*rows, **kwargs)


def residuals(rows: Rows, config: PCLConfig) -> list[tuple[np.ndarray, np.ndarray]]:
    def segments(rows: Rows) -> tuple[pcl.Segments, ...]:
        arrays = (rows.log_mu, rows.log_pi, rows.value, rows.value, rows.mask, rows.finished)
        how = {name: config.of_loss[name] for name in ("alpha", "gamma", "segment_lengths")}
        return pcl.segment_residuals(*arrays, **how)

    return [(np.asarray(s.residual_BxT), np.asarray(s.valid_BxT)) for s in jax.jit(segments)(rows)]


def definition(rows: Rows, config: PCLConfig, d: int, far: jax.Array | None = None) -> dict[tuple[int, int], float]:
    """C(i,d) by the sum in its definition, in float64, for every (row, i) where it exists."""
    log_pi, log_mu, value = (np.asarray(x, np.float64) for x in rows[:3])
    far64 = value if far is None else np.asarray(far, np.float64)
    found = {}
    for b, count in enumerate(np.asarray(rows.mask).sum(1)):
        # The last state whose value is known: the terminal one (0), or the one before the last token.
        last = count if rows.finished[b] else count - 1
        for i in range(last):
            end = last if d == 0 or (rows.finished[b] and i + d > last) else i + d
            if end > last or np.isneginf(log_pi[b, i:end]).any():
                continue
            steps = config.gamma ** np.arange(end - i) * (log_mu[b, i:end] - config.alpha * log_pi[b, i:end])
            beyond = 0.0 if end == count else config.gamma ** (end - i) * far64[b, end]
            found[b, i] = float(-value[b, i] + beyond + steps.sum())
    return found


def check(rows: Rows, config: PCLConfig, tolerance: float) -> None:
    for d, (residual, valid) in zip(config.segment_lengths, residuals(rows, config), strict=True):
        want = definition(rows, config, d)
        assert set(zip(*np.nonzero(valid), strict=True)) == set(want), d
        for where, c in want.items():
            assert abs(residual[where] - c) < tolerance * max(1.0, abs(c)), (d, where)


@pytest.mark.parametrize(("alpha", "gamma"), [(1.0, 1.0), (0.7, 0.9), (2.0, 0.5)])
def test_residuals_are_their_definition(alpha: float, gamma: float) -> None:
    lengths = (6, 4, 6, 4, 1, 1, 0, 0)
    rows = random_rows(lengths, (True, True, False, False, True, False, True, False), 6)
    check(rows, PCLConfig(alpha=alpha, gamma=gamma, segment_lengths=(1, 2, 3, 5, 6, 9, 0)), 1e-5)


@pytest.mark.parametrize("gamma", [1.0, 0.99])
def test_long_paths_keep_their_precision(gamma: float) -> None:
    rows = random_rows((512, 500), (True, False), 512)
    rows = rows._replace(log_mu=rows.log_mu * 5)
    check(rows, PCLConfig(gamma=gamma, segment_lengths=(1, 7, 64, 400, 0)), 1e-4)


def test_unfinished_path_by_hand() -> None:
    """Two tokens known, the third token's successor not: V(s_2) is the last value there is."""
    rows = Rows(
        log_pi=jnp.array([[-1.0, -2.0, -3.0]]),
        log_mu=jnp.array([[-1.5, -1.0, -9.0]]),
        value=jnp.array([[0.25, 0.5, 4.0]]),
        mask=jnp.ones((1, 3), bool),
        finished=jnp.array([False]),
    )
    one, two, three, full = residuals(rows, PCLConfig(segment_lengths=(1, 2, 3, 0)))
    np.testing.assert_allclose(one[0], [[-0.25 + 0.5 - 0.5, -0.5 + 4.0 + 1.0, 0]])
    np.testing.assert_allclose(two[0], [[-0.25 + 4.0 - 0.5 + 1.0, 0, 0]])
    np.testing.assert_array_equal(three[1], [[False, False, False]])
    np.testing.assert_allclose(full[0], [[-0.25 + 4.0 - 0.5 + 1.0, -0.5 + 4.0 + 1.0, 0]])
    np.testing.assert_array_equal(full[1], [[True, True, False]])
    # With EOS last, the same numbers end in V = 0 and the third step counts.
    done = residuals(rows._replace(finished=jnp.array([True])), PCLConfig(segment_lengths=(0,)))[0]
    np.testing.assert_allclose(done[0], [[-0.25 - 0.5 + 1.0 - 6.0, -0.5 + 1.0 - 6.0, -4.0 - 6.0]])


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_a_student_equal_to_the_teacher_has_no_residual(gamma: float) -> None:
    rows = random_rows((6, 4, 5), (True, True, False), 6)
    rows = rows._replace(log_pi=rows.log_mu, value=jnp.zeros_like(rows.value))
    config = PCLConfig(gamma=gamma, segment_lengths=(1, 2, 4, 0))
    for residual, valid in residuals(rows, config):
        assert valid.any() and not residual.any()
    assert pcl_loss(rows, config)[0].total == 0


@pytest.mark.parametrize("d", [2, 3, 5])
def test_d_step_residual_is_the_discounted_sum_of_one_step_ones(d: int) -> None:
    rows, gamma = random_rows((6, 3), (True, True), 6), 0.9
    (one, _), (many, valid) = residuals(rows, PCLConfig(gamma=gamma, segment_lengths=(1, d)))
    padded = np.pad(one, ((0, 0), (0, d)))
    want = np.sum([gamma**j * padded[:, j : j + 6] for j in range(d)], axis=0)
    np.testing.assert_allclose(many[valid], want[valid], atol=1e-5)


def test_loss_pools_all_lengths_and_places_equally() -> None:
    rows = random_rows((6, 4, 5), (True, True, False), 6)
    config = PCLConfig(segment_lengths=(1, 3, 0), gamma=0.9)
    every = [c for d in config.segment_lengths for c in definition(rows, config, d).values()]
    loss, diagnostics = pcl_loss(rows, config)
    np.testing.assert_allclose(loss.total, 0.5 * np.square(every).sum(), rtol=1e-5)
    assert loss.weight == len(every)
    np.testing.assert_allclose(diagnostics["residual"].mean(), np.abs(every).mean(), rtol=1e-5)
    np.testing.assert_allclose(diagnostics["value"].mean(), rows.value[rows.mask].mean(), rtol=1e-5)
    np.testing.assert_allclose(diagnostics["log_pi"].mean(), rows.log_pi[rows.mask].mean(), rtol=1e-5)
    np.testing.assert_allclose(diagnostics["reward"].mean(), rows.log_mu[rows.mask].mean(), rtol=1e-5)


def test_padding_and_batch_splits_change_nothing() -> None:
    rows = random_rows((6, 4, 5), (True, True, False), 6)
    config = PCLConfig(segment_lengths=(1, 3, 0), gamma=0.9)
    whole = pcl_loss(rows, config)
    wide = Rows(
        log_pi=jnp.pad(rows.log_pi, ((0, 0), (0, 5)), constant_values=-jnp.inf),
        log_mu=jnp.pad(rows.log_mu, ((0, 0), (0, 5)), constant_values=jnp.nan),
        value=jnp.pad(rows.value, ((0, 0), (0, 5)), constant_values=1e9),
        mask=jnp.pad(rows.mask, ((0, 0), (0, 5))),
        finished=rows.finished,
    )
    first, rest = (pcl_loss(Rows(*(x[part] for x in rows)), config) for part in (slice(0, 1), slice(1, 3)))
    merged = first[0].merge(rest[0]), {k: first[1][k].merge(rest[1][k]) for k in whole[1]}
    for other in (pcl_loss(wide, config), merged):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, other)


def gradients(rows: Rows, config: PCLConfig, **kwargs: Any) -> tuple[jax.Array, jax.Array]:
    """With respect to log pi and V."""

    def total(log_pi: jax.Array, value: jax.Array) -> jax.Array:
        return pcl.pcl_loss(log_pi, rows.log_mu, value, *rows[3:], **config.of_loss, **kwargs)[0].total

    return jax.jit(jax.grad(total, argnums=(0, 1)))(rows.log_pi, rows.value)


@pytest.mark.parametrize("finished", [True, False])
def test_far_end_has_a_gradient_only_if_asked(finished: bool) -> None:
    rows = random_rows((5, 3), (finished, finished), 6)
    config = PCLConfig(segment_lengths=(2,), gamma=0.9)
    ((residual, valid),) = residuals(rows, config)
    stopped = gradients(rows, config)[1]
    np.testing.assert_allclose(stopped, -residual, rtol=1e-5)
    through = gradients(rows, replace(config, stop_far_end=False))[1]
    far = np.pad(np.where(valid, 0.9**2 * residual, 0), ((0, 0), (2, 0)))[:, :6]
    np.testing.assert_allclose(through, np.where(rows.mask, far - residual, 0), atol=1e-5)


def test_no_gradient_outside_the_mask() -> None:
    rows = random_rows((5, 3), (True, False), 6)
    for gradient in gradients(rows, PCLConfig(segment_lengths=(1, 2, 0), stop_far_end=False)):
        assert jnp.isfinite(gradient).all() and not gradient[~rows.mask].any()


@pytest.mark.parametrize("stop", [True, False])
def test_target_network_supplies_the_far_end_and_is_not_trained(stop: bool) -> None:
    rows = random_rows((6, 4, 5), (True, True, False), 6)
    config = PCLConfig(segment_lengths=(1, 2, 0), gamma=0.9, stop_far_end=stop)
    far = jax.random.normal(jax.random.key(9), rows.value.shape)
    every = [c for d in config.segment_lengths for c in definition(rows, config, d, far).values()]
    np.testing.assert_allclose(
        pcl_loss(rows, config, far_value_BxT=far)[0].total, 0.5 * np.square(every).sum(), rtol=1e-5
    )
    gradient = jax.grad(lambda far: pcl_loss(rows, config, far_value_BxT=far)[0].total)(far)
    assert not gradient.any()


def test_rows_that_may_not_move_the_value_still_train_the_policy() -> None:
    rows = random_rows((5, 4), (True, False), 6)
    for stop in (True, False):
        config = PCLConfig(segment_lengths=(1, 0), stop_far_end=stop)
        policy, value = gradients(rows, config)
        only_first = gradients(rows, config, fit_value_B=jnp.array([True, False]))
        np.testing.assert_allclose(only_first[0], policy, rtol=1e-6)
        np.testing.assert_allclose(only_first[1][0], value[0], rtol=1e-6)
        assert value[1].any() and not only_first[1][1].any()


def test_floor_bounds_the_reward() -> None:
    rows = random_rows((4, 4), (True, True), 4)
    rows = rows._replace(log_mu=rows.log_mu.at[0, 1].set(-jnp.inf).at[1, 2].set(-8.0).at[1, 3].set(-4.9))
    config = PCLConfig(segment_lengths=(1, 0), min_log_prob=-5.0)
    loss, diagnostics = pcl_loss(rows, config)
    same = pcl_loss(rows._replace(log_mu=jnp.maximum(rows.log_mu, -5.0)), replace(config, min_log_prob=None))[0]
    np.testing.assert_allclose(loss, same)
    assert diagnostics["floored"].total == 2 and diagnostics["floored"].weight == 8
    assert all(jnp.isfinite(g).all() for g in gradients(rows, config))
    assert jnp.isinf(pcl_loss(rows, replace(config, min_log_prob=None))[0].total)


def test_nan_is_not_hidden() -> None:
    rows = random_rows((4, 4), (True, False), 4)
    for name in ("log_pi", "log_mu", "value"):
        broken = rows._replace(**{name: rows._asdict()[name].at[0, 1].set(jnp.nan)})
        assert jnp.isnan(pcl_loss(broken, PCLConfig())[0].total), name


@pytest.mark.parametrize(("option", "slope_beyond"), [("huber", 1.5), ("clip", 0.0)])
def test_huber_and_clip_limit_the_pull_of_large_residuals(option: str, slope_beyond: float) -> None:
    """Values one step before EOS, so that C = -V."""
    value = jnp.array([[-4.0], [-1.5], [-1.0], [0.5], [7.0]])
    rows = Rows(jnp.zeros((5, 1)), jnp.zeros((5, 1)), value, jnp.ones((5, 1), bool), jnp.ones(5, bool))
    limited = PCLConfig(huber=1.5) if option == "huber" else PCLConfig(clip=1.5)
    want = np.where(np.abs(value) <= 1.5, np.abs(value), slope_beyond) * np.sign(value)
    inside = np.array([2, 3])
    slopes = gradients(rows, limited)[1]
    np.testing.assert_allclose(slopes[inside], want[inside])
    np.testing.assert_allclose(slopes[np.array([0, 4])], want[np.array([0, 4])])
    each = [float(pcl_loss(Rows(*(x[i : i + 1] for x in rows)), limited)[0].total) for i in range(5)]
    flat = 0.5 * 1.5**2
    np.testing.assert_allclose(
        each, [flat + slope_beyond * 2.5, flat, 0.5, 0.125, flat + slope_beyond * 5.5], rtol=1e-6
    )


def test_unified_and_head_parameterisations() -> None:
    logits = 2 * jax.random.normal(jax.random.key(0), (2, 3, 5))
    head = jax.random.normal(jax.random.key(1), (2, 3))
    tokens = jax.random.randint(jax.random.key(2), (2, 3), 0, 5)
    for alpha in (1.0, 0.3):
        unified, headed = (PCLConfig(alpha=alpha, values=v) for v in ("unified", "head"))
        log_pi, value = policy_and_value(logits, head, tokens, **unified.of_values)
        q = jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0]
        np.testing.assert_allclose(alpha * log_pi + value, q, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(jnp.exp((logits - value[..., None]) / alpha).sum(-1), 1.0, rtol=1e-5)
        moved = policy_and_value(logits + 3.0, head, tokens, **unified.of_values)
        np.testing.assert_allclose(moved[0], log_pi, atol=1e-5)
        np.testing.assert_allclose(moved[1], value + 3.0, rtol=1e-5)
        same = policy_and_value(logits + 3.0, head, tokens, **headed.of_values)
        np.testing.assert_allclose(same[0], log_pi, atol=1e-5)
        np.testing.assert_array_equal(same[1], head)


@pytest.mark.parametrize("values", ["unified", "head"])
def test_banned_tokens_drop_out_of_policy_and_value(values: Any) -> None:
    """Everything, gradient included, is as with a vocabulary that lacks them."""
    logits, head = jax.random.normal(jax.random.key(0), (2, 3, 6)), jnp.ones((2, 3))
    kept, config = jnp.array([1, 2, 4]), PCLConfig(alpha=0.5, values=values, segment_lengths=(1, 0))
    tokens = jax.random.randint(jax.random.key(2), (2, 3), 0, 3)
    log_mu, mask, finished = -jnp.ones((2, 3)), jnp.ones((2, 3), bool), jnp.array([True, False])
    allowed = jnp.isin(jnp.arange(6), kept)[None, None]

    def loss(logits: jax.Array, tokens: jax.Array) -> jax.Array:
        log_pi, value = policy_and_value(logits, head, tokens, **config.of_values)
        return pcl.pcl_loss(log_pi, log_mu, value, mask, finished, **config.of_loss)[0].total

    def banned(logits: jax.Array) -> jax.Array:
        return loss(jnp.where(jnp.broadcast_to(allowed, logits.shape), logits, -jnp.inf), kept[tokens])

    value, gradient = jax.jit(jax.value_and_grad(banned))(logits)
    want, small = jax.jit(jax.value_and_grad(loss))(logits[..., kept], tokens)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(gradient[..., kept], small, rtol=1e-4, atol=1e-6)
    assert not gradient[..., jnp.array([0, 3, 5])].any()


def test_a_token_the_student_cannot_emit_drops_the_segments_that_contain_it() -> None:
    rows = random_rows((6, 6), (True, False), 6)
    rows = rows._replace(log_pi=rows.log_pi.at[:, 3].set(-jnp.inf))
    config = PCLConfig(segment_lengths=(1, 2, 0), gamma=0.9)
    check(rows, config, 1e-5)
    loss, diagnostics = pcl_loss(rows, config)
    assert jnp.isfinite(loss.total) and diagnostics["impossible"].total == 2
    assert all(jnp.isfinite(g).all() for g in gradients(rows, config))
    # The full path of the finished row keeps the two steps after it, that of the unfinished row one.
    np.testing.assert_array_equal(residuals(rows, config)[2][1].sum(1), [2, 1])


def test_diagnostics_have_no_gradient() -> None:
    rows = random_rows((4, 4), (True, False), 4)
    gradient = jax.grad(lambda v: pcl_loss(rows._replace(value=v), PCLConfig())[1]["value"].total)(rows.value)
    assert not gradient.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"gamma": 0.0}, "gamma"),
        ({"gamma": 1.1}, "gamma"),
        ({"segment_lengths": ()}, "segment_lengths"),
        ({"segment_lengths": (1, -2)}, "segment_lengths"),
        ({"values": "both"}, "values"),
        ({"huber": 1.0, "clip": 1.0}, "alternatives"),
        ({"huber": 0.0}, "huber"),
        ({"clip": -1.0}, "clip"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PCLConfig(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": jnp.zeros((2, 4, 1))}, "value_BxT must have the axes B x T"),
        ({"finished": jnp.array([True])}, "B is 2 in log_pi_BxT, but 1 in finished_B"),
        ({"log_mu": jnp.zeros((1, 4))}, "B is 2 in log_pi_BxT, but 1 in teacher_log_prob_BxT"),
        ({"mask": jnp.ones((2, 1), bool)}, "T is 4 in log_pi_BxT, but 1 in mask_BxT"),
    ],
)
def test_what_would_be_broadcast_into_another_loss_is_refused(change: dict[str, jax.Array], message: str) -> None:
    rows = random_rows((4, 3), (True, False), 4)
    pcl_loss(rows, PCLConfig())
    with pytest.raises(ValueError, match=message):
        pcl_loss(rows._replace(**change), PCLConfig())


def test_settings_of_methods_are_the_arguments_of_the_losses_by_default_and_by_name() -> None:
    config = PCLConfig()
    for function, options in ((pcl.pcl_loss, config.of_loss), (pcl.policy_and_value, config.of_values)):
        known = inspect.signature(function).parameters
        assert {name: known[name].default for name in options} == options
    assert {*config.of_loss, *config.of_values} == {field.name for field in fields(PCLConfig)}
