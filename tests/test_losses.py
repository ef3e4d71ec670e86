"""Weighted sums, cross-entropy, and divergences that survive impossible tokens."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest

from kdtw_jax import losses
from kdtw_jax.losses import weighted
from kdtw_jax.losses.kl import Direction, teacher_tail, topk_divergence
from kdtw_jax.losses.masked import entropy, kl_divergence, masked_sum, mul_exp
from kdtw_jax.losses.metric import Weighted
from kdtw_jax.losses.outcomes import student_outcomes

B, T, V = 3, 5, 11
ALL = jnp.ones((B, T), bool)

# Compiled whole: op by op, these tests would spend their time compiling.
cross_entropy = jax.jit(losses.cross_entropy, static_argnums=(3, 4))
token_kl = jax.jit(losses.token_kl, static_argnums=3)
topk_kl = jax.jit(losses.topk_kl, static_argnums=3)
top_k_with_tail = jax.jit(losses.top_k_with_tail, static_argnums=1)


def log_probs(seed: int, shape: tuple[int, ...] = (B, T, V), spread: float = 2.0) -> jax.Array:
    return jax.nn.log_softmax(spread * jax.random.normal(jax.random.key(seed), shape))


def ban(logits: jax.Array, banned: tuple[int, ...]) -> jax.Array:
    return logits.at[..., jnp.array(banned)].set(-jnp.inf)


def kl64(log_p: npt.ArrayLike, log_q: npt.ArrayLike) -> np.ndarray:
    p, q = np.exp(np.asarray(log_p, np.float64)), np.exp(np.asarray(log_q, np.float64))
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0).sum(-1)


def test_weighted_of_parts_is_weighted_of_whole() -> None:
    terms, mask = jnp.arange(12.0).reshape(4, 3), jnp.arange(12).reshape(4, 3) % 5 != 0
    whole = weighted(terms, mask)
    parts = weighted(terms[:1], mask[:1]).merge(weighted(terms[1:], mask[1:]))
    np.testing.assert_allclose(parts, whole)
    # The tell-tale wrong number: the mean of the parts' means.
    wrong = (weighted(terms[:1], mask[:1]).mean() + weighted(terms[1:], mask[1:]).mean()) / 2
    assert abs(float(parts.mean() - terms[mask].mean())) < 1e-6 < abs(float(wrong - parts.mean()))


def test_masked_places_are_never_read() -> None:
    mask = jnp.array([[True, False, True]])
    for poison in (jnp.inf, -jnp.inf, jnp.nan):
        x = jnp.array([[1.0, poison, 3.0]])
        for f in (
            lambda x: weighted(x, mask).mean(),
            lambda x: masked_sum(x, mask) / 2,
        ):
            value, gradient = jax.value_and_grad(f)(x)
            assert value == 2.0
            np.testing.assert_array_equal(gradient, [[0.5, 0.0, 0.5]])


def test_mean_of_nothing_is_zero_with_zero_gradient() -> None:
    x, nothing = jnp.ones((2, 3)), jnp.zeros((2, 3), bool)
    value, gradient = jax.value_and_grad(lambda x: weighted(x, nothing).mean())(x)
    assert value == 0 and not gradient.any()
    assert not jax.grad(lambda x: Weighted(x.sum(), jnp.zeros(())).mean())(x).any()


def reference_cross_entropy(logits: jax.Array, targets: jax.Array, smoothing: float, z: float) -> jax.Array:
    log_p = jax.nn.log_softmax(logits)
    target = (1 - smoothing) * jax.nn.one_hot(targets, V) + smoothing / V
    return -jnp.sum(target * log_p, -1) + z * jnp.square(jax.nn.logsumexp(logits, axis=-1))


@pytest.mark.parametrize(("smoothing", "z"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.3), (0.2, 0.1)])
def test_cross_entropy_and_its_gradient(smoothing: float, z: float) -> None:
    logits = 3 * jax.random.normal(jax.random.key(0), (B, T, V))
    targets = jax.random.randint(jax.random.key(1), (B, T), 0, V)
    mask = jnp.arange(T)[None] < jnp.array([5, 1, 3])[:, None]
    got = cross_entropy(logits, targets, mask, smoothing, z)
    assert got.weight == 9
    ours = jax.value_and_grad(lambda x: cross_entropy(x, targets, mask, smoothing, z).total)(logits)
    reference = jax.value_and_grad(
        lambda x: jnp.sum(jnp.where(mask, reference_cross_entropy(x, targets, smoothing, z), 0.0))
    )(logits)
    for a, b in zip(ours, reference, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_over_allowed_tokens_only(smoothing: float) -> None:
    logits = jax.random.normal(jax.random.key(0), (B, T, V))
    banned, kept = (0, 4, V - 1), jnp.array([i for i in range(V) if i not in (0, 4, V - 1)])
    targets = jax.random.randint(jax.random.key(1), (B, T), 0, len(kept))

    def loss(logits: jax.Array) -> jax.Array:
        return cross_entropy(ban(logits, banned), kept[targets], ALL, smoothing).total

    full = jax.value_and_grad(loss)(logits)
    small = jax.value_and_grad(lambda x: cross_entropy(x, targets, ALL, smoothing).total)(logits[..., kept])
    np.testing.assert_allclose(full[0], small[0], rtol=1e-6)
    np.testing.assert_allclose(full[1][..., kept], small[1], rtol=1e-5, atol=1e-6)
    assert not full[1][..., jnp.array(banned)].any()


def test_cross_entropy_ignores_padding_ids_and_computes_in_float32() -> None:
    logits = (10 * jax.random.normal(jax.random.key(0), (B, T, V))).astype(jnp.bfloat16)
    mask = jnp.arange(T)[None] < jnp.array([2, 5, 1])[:, None]
    targets = jnp.where(mask, 3, -1)
    got = cross_entropy(logits, targets, mask)
    assert got.total.dtype == jnp.float32
    exact = -jax.nn.log_softmax(logits.astype(jnp.float32))[..., 3]
    np.testing.assert_allclose(got.total, jnp.sum(jnp.where(mask, exact, 0)), rtol=1e-5)


def test_mul_exp_is_zero_times_anything() -> None:
    log_p = jnp.array([-jnp.inf, -jnp.inf, 0.0])
    x = jnp.array([jnp.inf, jnp.nan, 2.0])
    np.testing.assert_array_equal(mul_exp(x, log_p), [0, 0, 2])
    gradients = jax.grad(lambda x, log_p: mul_exp(x, log_p).sum(), argnums=(0, 1))(x, log_p)
    np.testing.assert_array_equal(gradients, [[0, 0, 1], [0, 0, 2]])


@pytest.mark.parametrize("banned", [(0,), (0, 4, 10)])
def test_entropy_and_kl_survive_banned_tokens(banned: tuple[int, ...]) -> None:
    """Value and gradient are those of the vocabulary without the banned tokens."""
    p, q = jax.random.normal(jax.random.key(0), (2, B, T, V))
    kept = jnp.array([i for i in range(V) if i not in banned])

    def quantity(p: jax.Array, q: jax.Array) -> jax.Array:
        log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
        return jnp.sum(entropy(log_p) + 3 * kl_divergence(log_p, log_q))

    def over_all(p: jax.Array, q: jax.Array) -> jax.Array:
        return quantity(ban(p, banned), ban(q, banned))

    value, gradients = jax.jit(jax.value_and_grad(over_all, argnums=(0, 1)))(p, q)
    want, wants = jax.jit(jax.value_and_grad(quantity, argnums=(0, 1)))(p[..., kept], q[..., kept])
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for gradient, expected in zip(gradients, wants, strict=True):
        np.testing.assert_allclose(gradient[..., kept], expected, rtol=1e-4, atol=1e-5)
        assert not gradient[..., jnp.array(banned)].any()


def test_token_kl_directions_against_float64() -> None:
    student, teacher = log_probs(0), log_probs(1)
    mask = jnp.arange(T)[None] < jnp.array([5, 0, 2])[:, None]
    middle = jnp.logaddexp(student, teacher) - jnp.log(2.0)
    wants: dict[Direction, np.ndarray] = {
        "forward": kl64(teacher, student),
        "reverse": kl64(student, teacher),
        "jsd": (kl64(teacher, middle) + kl64(student, middle)) / 2,
    }
    for direction, want in wants.items():
        got = token_kl(student, teacher, mask, direction)
        np.testing.assert_allclose(got.total, want[np.asarray(mask)].sum(), rtol=1e-5)
        assert got.weight == 7
    assert abs(float(token_kl(teacher, teacher, ALL).total)) < 1e-5
    with pytest.raises(ValueError, match="direction"):
        token_kl(student, teacher, mask, "sideways")


def test_disjoint_support_costs_much_but_not_infinity() -> None:
    logits, teacher = jnp.zeros((1, 1, 3)), jnp.log(jnp.array([[[0.5, 0.5, 0.0]]]))
    mask = jnp.ones((1, 1), bool)

    def reverse(logits: jax.Array) -> jax.Array:
        return token_kl(jax.nn.log_softmax(logits), teacher, mask, "reverse").total

    value, gradient = jax.value_and_grad(reverse)(logits)
    assert 30 < float(value) < 40 and float(gradient[0, 0, 2]) > 1  # descent leaves the impossible token
    student = jnp.log(jnp.array([[[0.0, 0.5, 0.5]]]))
    assert 40 < float(token_kl(student, teacher, mask, "forward").total) < 60


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize("spread", [0.5, 6.0])
def test_top_k_kl_is_a_lower_bound_that_grows_to_the_full_one(direction: Direction, spread: float) -> None:
    student, teacher = log_probs(0, spread=spread), log_probs(1, spread=spread)
    full = token_kl(student, teacher, ALL, direction)
    bounds = [float(topk_kl(student, top_k_with_tail(teacher, k), ALL, direction).total) for k in range(1, V + 1)]
    slack = 1e-5 * float(full.total)
    assert all(a <= b + slack for a, b in pairwise(bounds))
    assert bounds[0] < 0.9 * float(full.total)
    np.testing.assert_allclose(bounds[-1], full.total, rtol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_top_k_kl_is_the_kl_of_merged_outcomes(direction: Direction) -> None:
    student, teacher, k = log_probs(0), log_probs(1), 4
    order = np.argsort(-np.asarray(teacher), axis=-1)

    def merge(log_p: jax.Array) -> np.ndarray:
        p = np.take_along_axis(np.exp(np.asarray(log_p, np.float64)), order, -1)
        return np.log(np.concatenate([p[..., :k], p[..., k:].sum(-1, keepdims=True)], -1))

    p, q = (teacher, student) if direction == "forward" else (student, teacher)
    got = topk_kl(student, top_k_with_tail(teacher, k), ALL, direction)
    np.testing.assert_allclose(got.total, kl64(merge(p), merge(q)).sum(), rtol=1e-5)


def test_tails_of_confident_distributions() -> None:
    """A student's tail of e^-38 has full relative precision; a teacher's below rounding is never taken for
    zero.
    """
    logits = jnp.zeros((1, 1, V)).at[0, 0, 2].set(40.0)
    log_p, ids = jax.nn.log_softmax(logits), jnp.array([[[2]]])
    np.testing.assert_allclose(student_outcomes(log_p, ids), [[[0.0, np.log(V - 1) - 40]]], rtol=1e-6)
    gradient = jax.grad(lambda x: student_outcomes(x, ids)[..., 1].sum())(logits)
    np.testing.assert_allclose(gradient[0, 0], np.where(np.arange(V) == 2, -1, 1 / (V - 1)), rtol=1e-5)
    assert -17 < float(teacher_tail(top_k_with_tail(log_p, 1))[0, 0]) < -15
    sure = jnp.full((1, 1, V), -jnp.inf).at[0, 0, 2].set(0.0)  # nothing is left for the tail: the floor, no gradient
    np.testing.assert_allclose(student_outcomes(sure, ids), [[[0.0, -100.0]]], rtol=1e-6)
    assert jnp.isfinite(jax.grad(lambda x: student_outcomes(x, ids)[..., 1].sum())(sure)).all()


@pytest.mark.parametrize("k", [3, V])
def test_top_k_divergence_takes_logits_as_they_are(k: int) -> None:
    student, top = log_probs(0), top_k_with_tail(log_probs(1), k)
    shifted = student + jnp.linspace(-9.0, 9.0, student.shape[1])[None, :, None]
    for direction in ("forward", "reverse", "jsd"):
        found = topk_divergence(shifted, top, direction)
        np.testing.assert_allclose(found, topk_divergence(student, top, direction), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
def test_top_k_kl_survives_banned_tokens(direction: Direction) -> None:
    teacher, banned = jax.nn.log_softmax(ban(log_probs(1), (0, 5, 6))), (0, 5, 6)

    def loss(logits: jax.Array, k: int) -> jax.Array:
        student = jax.nn.log_softmax(ban(logits, banned))
        return topk_kl(student, top_k_with_tail(teacher, k), ALL, direction).total

    full = token_kl(jax.nn.log_softmax(ban(log_probs(0), banned)), teacher, ALL, direction)
    for k in (1, V - 3, V - 2, V):
        value, gradient = jax.jit(jax.value_and_grad(loss), static_argnums=1)(log_probs(0), k)
        assert jnp.isfinite(value) and jnp.isfinite(gradient).all()
        if k >= V - 3:  # all of the teacher's support
            np.testing.assert_allclose(value, full.total, rtol=1e-4)


def test_k_outside_the_vocabulary() -> None:
    for k in (0, V + 1):
        with pytest.raises(ValueError, match="between 1 and"):
            top_k_with_tail(log_probs(0), k)


def test_losses_ignore_padding_and_batch_splits() -> None:
    student, teacher = log_probs(0), log_probs(1)
    targets = jax.random.randint(jax.random.key(2), (B, T), 0, V)
    mask = jnp.arange(T)[None] < jnp.array([5, 2, 4])[:, None]
    wide = [jnp.pad(x, ((0, 0), (0, 3), (0, 0)), constant_values=jnp.nan) for x in (student, teacher)]
    wide_mask, wide_targets = jnp.pad(mask, ((0, 0), (0, 3))), jnp.pad(targets, ((0, 0), (0, 3)))
    top, wide_top = top_k_with_tail(teacher, 3), top_k_with_tail(wide[1], 3)
    want = cross_entropy(student, targets, mask)
    np.testing.assert_allclose(cross_entropy(wide[0], wide_targets, wide_mask), want, rtol=1e-6)
    want = token_kl(student, teacher, mask)
    np.testing.assert_allclose(token_kl(wide[0], wide[1], wide_mask), want, rtol=1e-6)
    whole = topk_kl(student, top, mask)
    np.testing.assert_allclose(whole, topk_kl(wide[0], wide_top, wide_mask), rtol=1e-6)
    first, rest = (
        topk_kl(student[part], jax.tree.map(lambda x, part=part: x[part], top), mask[part])
        for part in (slice(0, 1), slice(1, B))
    )
    np.testing.assert_allclose(first.merge(rest), whole, rtol=1e-6)
