"""The network: equal to a slow T5 in numpy, causal, blind to padding, the same by steps as at once."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.models import Model, T5Config, count_params, make_model, shift_right
from kdtw_jax.models.t5.layers import relative_position_bucket

V = 32
V10 = T5Config.toy(V)
V11 = T5Config.toy(V, feed_forward="gated-gelu", tie_embeddings=False, num_layers=1, num_decoder_layers=3)
both = pytest.mark.parametrize("config", [V10, V11], ids=["v1.0", "v1.1"])


def tokens(seed: int, rows: int, length: int) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), (rows, length), 2, V)


def source() -> jax.Array:
    return tokens(1, 3, 7).at[1, 4:].set(0)


@functools.cache
def compiled(config: T5Config) -> Model:
    """The model with its functions jitted, and compiled once for all the tests of this file."""
    model = make_model(config)
    return model._replace(
        init=jax.jit(model.init),
        encode=jax.jit(model.encode),
        decode=jax.jit(model.decode),
        start=jax.jit(model.start, static_argnums=2),
        extend=jax.jit(model.extend),
    )


@functools.cache
def lively(config: T5Config) -> Any:
    """Parameters moved off their initial values, so that no head is zero and no scale one."""

    def moved(key: jax.Array) -> Any:
        leaves, tree = jax.tree.flatten(make_model(config).init(key))
        keys = jax.random.split(jax.random.key(99), len(leaves))
        return jax.tree.unflatten(
            tree, [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
        )

    return jax.jit(moved)(jax.random.key(0))


def slow_bucket(offset: int, bidirectional: bool, buckets: int, max_distance: int) -> int:
    """In whole numbers: bucket exact + k starts at the first distance n with (n/exact)^m >= (max/exact)^k."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if offset > 0 else 0
        distance = abs(offset)
    else:
        distance = max(-offset, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    many, k = buckets - exact, 0
    while k + 1 < many and distance**many * exact ** (k + 1) >= max_distance ** (k + 1) * exact**many:
        k += 1
    return first + exact + k


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 12), (32, 100), (4, 3), (64, 2000)])
def test_buckets_equal_whole_number_arithmetic(bidirectional: bool, buckets: int, max_distance: int) -> None:
    reach = 3 * max_distance
    offsets = np.arange(-reach, reach + 1)
    got = relative_position_bucket(
        jnp.asarray(offsets), bidirectional=bidirectional, num_buckets=buckets, max_distance=max_distance
    )
    np.testing.assert_array_equal(got, [slow_bucket(int(o), bidirectional, buckets, max_distance) for o in offsets])


def test_buckets_of_the_published_models() -> None:
    starts = {
        8: 8,
        11: 8,
        12: 9,
        15: 9,
        16: 10,
        22: 10,
        23: 11,
        32: 12,
        45: 12,
        46: 13,
        64: 14,
        91: 15,
        999: 15,
    }
    offsets = jnp.asarray([-d for d in starts])
    got = relative_position_bucket(offsets, bidirectional=True, num_buckets=32, max_distance=128)
    np.testing.assert_array_equal(got, list(starts.values()))


def numpy_t5(config: T5Config, params: Any, source: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Logits of one unpadded row in float64, one query and one head at a time."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return np.stack([row / np.sqrt((row**2).mean() + config.layer_norm_epsilon) * scale for row in x])

    def attend(a: Any, x: np.ndarray, memory: np.ndarray, table: np.ndarray | None, causal: bool) -> np.ndarray:
        width, out = config.d_kv, np.zeros((len(x), config.num_heads * config.d_kv))
        for head in range(config.num_heads):
            part = slice(head * width, (head + 1) * width)
            for i, query in enumerate(x @ a["q"]["kernel"][:, part]):
                seen = range(i + 1) if causal else range(len(memory))
                scores = np.array([query @ (memory[j] @ a["k"]["kernel"][:, part]) for j in seen])
                if table is not None:
                    pick = (
                        not causal,
                        config.relative_attention_num_buckets,
                        config.relative_attention_max_distance,
                    )
                    scores += [table[slow_bucket(j - i, *pick), head] for j in seen]
                weights = np.exp(scores - scores.max())
                out[i, part] = sum(
                    w * (memory[j] @ a["v"]["kernel"][:, part]) for w, j in zip(weights, seen, strict=True)
                )
                out[i, part] /= weights.sum()
        return out @ a["o"]["kernel"]

    def feed(f: Any, x: np.ndarray) -> np.ndarray:
        if config.feed_forward == "relu":
            return np.maximum(x @ f["wi"]["kernel"], 0.0) @ f["wo"]["kernel"]
        gate = x @ f["wi_0"]["kernel"]
        gate = 0.5 * gate * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (gate + 0.044715 * gate**3)))
        return (gate * (x @ f["wi_1"]["kernel"])) @ f["wo"]["kernel"]

    def stack(s: Any, layers: int, x: np.ndarray, memory: np.ndarray | None) -> np.ndarray:
        table = s["relative_attention_bias"]["embedding"]
        for layer in range(layers):
            b = s[f"block_{layer}"]
            normed = norm(x, b["self_attention_norm"]["scale"])
            x = x + attend(b["self_attention"], normed, normed, table, causal=memory is not None)
            if memory is not None:
                x = x + attend(b["cross_attention"], norm(x, b["cross_attention_norm"]["scale"]), memory, None, False)
            x = x + feed(b["feed_forward"], norm(x, b["feed_forward_norm"]["scale"]))
        return norm(x, s["final_norm"]["scale"])

    embedding = p["shared"]["embedding"]
    memory = stack(p["encoder"], config.num_layers, embedding[source], None)
    hidden = stack(p["decoder"], config.num_decoder_layers, embedding[inputs], memory)
    if config.tie_embeddings:
        return (hidden / np.sqrt(config.d_model)) @ embedding.T
    return hidden @ p["lm_head"]["kernel"]


@both
def test_equals_a_slow_t5(config: T5Config) -> None:
    model, params = compiled(config), lively(config)
    row, inputs = tokens(1, 1, 17), shift_right(tokens(2, 1, 15))  # beyond the last bucket, on either side
    logits = model.decode(params, model.encode(params, row), inputs).logits_BxTxV
    np.testing.assert_allclose(
        logits[0], numpy_t5(config, params, np.asarray(row[0]), np.asarray(inputs[0])), atol=2e-5
    )


@both
def test_steps_equal_teacher_forcing(config: T5Config) -> None:
    model, params = compiled(config), lively(config)
    inputs = shift_right(tokens(2, 3, 11))
    encoded = model.encode(params, source())
    whole = model.decode(params, encoded, inputs)
    for scalar in (True, False):
        cache = model.start(params, encoded, 13)
        for t in range(11):
            step, cache = model.extend(
                params, cache, inputs[:, t : t + 1], jnp.asarray(t) if scalar else jnp.full(3, t)
            )
            for one, all_ in zip(step, whole, strict=True):
                np.testing.assert_allclose(one[:, 0], all_[:, t], atol=1e-5)


@both
def test_chunks_at_a_position_of_each_row_equal_teacher_forcing(config: T5Config) -> None:
    model, params = compiled(config), lively(config)
    inputs = shift_right(tokens(2, 3, 12))
    encoded = model.encode(params, source())
    whole = model.decode(params, encoded, inputs)
    # A prefill of 5, then wrong tokens up to the end (as of a rejected draft), then 4 right ones a row from
    # places of its own: what is stale beyond them must not be seen.
    prefix, cache = model.extend(params, model.start(params, encoded, 12), inputs[:, :5], jnp.asarray(0))
    np.testing.assert_allclose(prefix.logits_BxTxV, whole.logits_BxTxV[:, :5], atol=1e-5)
    _, cache = model.extend(params, cache, tokens(7, 3, 7), jnp.asarray(5))
    position = np.array([5, 2, 3])
    chunk = jnp.stack([inputs[b, p : p + 4] for b, p in enumerate(position)])
    answer, cache = model.extend(params, cache, chunk, jnp.asarray(position))
    for b, p in enumerate(position):
        np.testing.assert_allclose(answer.logits_BxTxV[b], whole.logits_BxTxV[b, p : p + 4], atol=1e-5)
        np.testing.assert_allclose(answer.value_BxT[b], whole.value_BxT[b, p : p + 4], atol=1e-5)
    position += 4
    chunk = jnp.stack([inputs[b, p : p + 3] for b, p in enumerate(position)])
    answer, _ = model.extend(params, cache, chunk, jnp.asarray(position))
    for b, p in enumerate(position):
        np.testing.assert_allclose(answer.logits_BxTxV[b], whole.logits_BxTxV[b, p : p + 3], atol=1e-5)


@both
def test_a_token_changes_nothing_before_it(config: T5Config) -> None:
    model, params = compiled(config), lively(config)
    encoded = model.encode(params, source())
    inputs = shift_right(tokens(2, 3, 6))
    before = model.decode(params, encoded, inputs)
    for t in range(6):
        after = model.decode(params, encoded, inputs.at[:, t].set((inputs[:, t] + 5) % V))
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old[:, :t], new[:, :t])
            assert not np.allclose(old[:, t:], new[:, t:])


@both
def test_padding_changes_nothing(config: T5Config) -> None:
    model, params = compiled(config), lively(config)
    targets = tokens(2, 3, 6)

    def decode(source_BxS: jax.Array, targets_BxT: jax.Array) -> Any:
        return model.decode(params, model.encode(params, source_BxS), shift_right(targets_BxT))

    plain = decode(source(), targets)
    padded = decode(jnp.pad(source(), ((0, 2), (0, 4))), jnp.pad(targets, ((0, 2), (0, 5))))
    for small, large in zip(plain, padded, strict=True):
        assert np.isfinite(large).all()  # the rows of nothing but padding too
        np.testing.assert_allclose(large[:3, :6], small, atol=1e-5)
    for b in range(3):
        for one, all_ in zip(decode(source()[b : b + 1], targets[b : b + 1]), plain, strict=True):
            np.testing.assert_allclose(one[0], all_[b], atol=1e-5)


@both
def test_a_fresh_model(config: T5Config) -> None:
    model = compiled(config)
    params = model.init(jax.random.key(0))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    decoded = model.decode(params, model.encode(params, source()), shift_right(tokens(2, 3, 6)))
    assert not decoded.value_BxT.any()
    assert 0.5 < float(decoded.logits_BxTxV.std()) < 2.0
    bare = compiled(dataclasses.replace(config, value_heads=False))
    fewer = bare.init(jax.random.key(0))
    assert count_params(params) - count_params(fewer) == config.d_model + 1
    without = bare.decode(fewer, bare.encode(fewer, source()), shift_right(tokens(2, 3, 6)))
    np.testing.assert_array_equal(without.logits_BxTxV, decoded.logits_BxTxV)
    assert without.value_BxT.shape == (3, 6)
    assert not without.value_BxT.any()


@both
def test_every_parameter_learns(config: T5Config) -> None:
    model, params = compiled(config), lively(config)

    def loss(params: Any) -> jax.Array:
        decoded = model.decode(params, model.encode(params, source()), shift_right(tokens(2, 3, 12)))
        return jnp.sum(decoded.logits_BxTxV**2) + jnp.sum(decoded.value_BxT**2)

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        assert np.isfinite(gradient).all(), path
        assert gradient.any(), path


@both
def test_bfloat16_stays_near_float32(config: T5Config) -> None:
    exact, rough = compiled(config), compiled(dataclasses.replace(config, dtype="bfloat16"))
    params = lively(config)
    inputs = shift_right(tokens(2, 3, 6))
    want = exact.decode(params, exact.encode(params, source()), inputs)
    encoded = rough.encode(params, source())
    got = rough.decode(params, encoded, inputs)
    assert encoded.states_BxSxD.dtype == got.hidden_BxTxD.dtype == jnp.bfloat16
    assert got.logits_BxTxV.dtype == got.value_BxT.dtype == jnp.float32
    np.testing.assert_allclose(got.logits_BxTxV, want.logits_BxTxV, atol=0.15)
    assert not np.allclose(got.logits_BxTxV, want.logits_BxTxV, atol=1e-5)
    stepped, _ = rough.extend(params, rough.start(params, encoded, 6), inputs, jnp.asarray(0))
    # Programs of different shapes round at different places.
    np.testing.assert_allclose(stepped.logits_BxTxV, got.logits_BxTxV, atol=0.05)


def test_dropout_is_on_only_with_a_key() -> None:
    config = T5Config.toy(V, dropout_rate=0.3)
    model, params = compiled(config), lively(config)
    inputs = shift_right(tokens(2, 3, 6))

    def logits(encoder_key: Any, decoder_key: Any) -> np.ndarray:
        encoded = model.encode(params, source(), encoder_key)
        return np.asarray(model.decode(params, encoded, inputs, decoder_key).logits_BxTxV)

    one, two = jax.random.key(1), jax.random.key(2)
    np.testing.assert_array_equal(logits(None, None), logits(None, None))
    np.testing.assert_array_equal(logits(one, two), logits(one, two))
    for other in (
        logits(None, None),
        logits(one, None),
        logits(None, one),
        logits(two, one),
        logits(one, one),
    ):
        assert not np.allclose(other, logits(one, two))
