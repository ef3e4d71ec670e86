"""What is meant for accelerators: products in bfloat16 both ways, and fused attention; on a GPU, its values too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.models import T5Config, make_model, shift_right
from kdtw_jax.models.layers import mask_bias
from kdtw_jax.models.t5 import layers

V = 40
PLAIN = replace(
    T5Config.toy(V, d_kv=8, num_layers=1, num_decoder_layers=1, dtype="bfloat16", value_heads=False, dropout_rate=0.0),
    feed_forward="gated-gelu",
    tie_embeddings=False,
)
FUSED = replace(PLAIN, fused_attention=True)


def text(length: int) -> jax.Array:
    """Three rows, one of them padded."""
    return jax.random.randint(jax.random.key(length), (3, length), 2, V).at[1, length // 2 :].set(0)


def lively(config: T5Config) -> Any:
    """Parameters with relative positions that matter."""

    def moved(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        table = any(key.key == "relative_attention_bias" for key in path)
        return 2 * jax.random.normal(jax.random.key(7), x.shape) if table else x

    return jax.tree.map_with_path(moved, make_model(config).init(jax.random.key(0)))


def logits(config: T5Config, params: Any, source: jax.Array, target: jax.Array) -> jax.Array:
    model = make_model(config)

    def run(params: Any) -> jax.Array:
        return model.decode(params, model.encode(params, source), shift_right(target)).logits_BxTxV

    found: jax.Array = jax.jit(run)(params)
    return found


def products(jaxpr: Any) -> Iterator[tuple[Any, Any]]:
    """The dtypes of the operands of all matrix products of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield tuple(x.aval.dtype for x in equation.invars)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from products(getattr(inner, "jaxpr", inner))


@pytest.mark.long
@pytest.mark.parametrize("tied", [False, True])
def test_all_products_of_a_bfloat16_step_are_of_bfloat16_operands(tied: bool) -> None:
    config = replace(PLAIN, tie_embeddings=tied)

    def loss(params: Any) -> jax.Array:
        return jnp.mean(jnp.square(logits(config, params, text(8), text(6))))

    params = lively(config)
    found = list(products(jax.make_jaxpr(jax.grad(loss))(params).jaxpr))
    assert len(found) > 30
    assert {dtype for pair in found for dtype in pair} == {jnp.dtype("bfloat16")}
    rough = jax.jit(jax.grad(loss))(params)
    config = replace(config, dtype="float32")
    exact = jax.jit(jax.grad(lambda params: loss(params)))(params)
    for (path, got), want in zip(jax.tree.leaves_with_path(rough), jax.tree.leaves(exact), strict=True):
        assert np.linalg.norm(got - want) < 0.1 * np.linalg.norm(want), path


@pytest.mark.parametrize(
    ("relative", "lengths", "causal"), [(True, False, True), (True, True, False), (False, True, False)]
)
def test_fused_attention_is_attention(relative: bool, lengths: bool, causal: bool) -> None:
    """Of the same function of `jax.nn` as on a GPU, computed by XLA."""
    rows, heads, queries, keys, depth = 3, 2, 6, 6 if causal else 8, 8
    key = iter(jax.random.split(jax.random.key(0), 4))
    q, k, v = (jax.random.normal(next(key), (rows, heads, n, depth)) for n in (queries, keys, keys))
    bias = positions = None
    if relative:
        bias = positions = 2 * jax.random.normal(next(key), (1, heads, queries, keys))
    lengths_B = jnp.asarray([8, 3, 5]) if lengths else None
    visible = jnp.ones((rows, 1, queries, keys), bool)
    if lengths_B is not None:
        visible &= jnp.arange(keys)[None, None, None, :] < lengths_B[:, None, None, None]
    if causal:
        visible &= jnp.tril(jnp.ones((queries, keys), bool))[None, None]
    bias = mask_bias(visible) + (0.0 if positions is None else positions)
    sight = layers.Sight(bias, positions, lengths_B)
    got = layers.fused_attention(q, (k, v), sight, causal, implementation="xla")
    scores = jnp.einsum("bhte,bhse->bhts", q, k) + bias
    want = jnp.einsum("bhts,bhse->bhte", jax.nn.softmax(scores, axis=-1), v)
    np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)


def test_a_model_with_fused_attention_is_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []

    def counted(*args: Any) -> jax.Array:
        calls.append(args[3])
        return partial(real, implementation="xla")(*args)

    real = layers.fused_attention
    monkeypatch.setattr(layers, "fused_attention", counted)
    params, source, target = lively(PLAIN), text(8), text(6)
    logits(FUSED, params, source, target)
    assert not calls  # on a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()  # of what was traced for a CPU
    got, want = logits(FUSED, params, source, target), logits(PLAIN, params, source, target)
    assert calls == [False, True, False]  # encoder, decoder, across
    np.testing.assert_allclose(got, want, atol=0.05)
    assert np.std(want) > 0.5
    # Not where cuDNN's would not do: odd lengths, dropped weights, a cache.
    calls.clear()
    logits(FUSED, params, text(7), text(5))
    model = make_model(replace(FUSED, dropout_rate=0.1))
    encoded = model.encode(params, source, jax.random.key(0))
    model.extend(params, model.start(params, encoded, 6), target, jnp.asarray(0))
    assert not calls
    jax.clear_caches()  # of what was traced as if for a GPU


def test_fused_attention_is_part_of_no_model_and_needs_bfloat16() -> None:
    assert FUSED == PLAIN
    with pytest.raises(UserError, match="fused_attention with dtype 'float32' and d_kv 8; cuDNN's needs 'bfloat16'"):
        replace(FUSED, dtype="float32")
    with pytest.raises(UserError, match="d_kv 4"):
        replace(FUSED, d_kv=4)


ON_A_GPU = """
from tests.test_accelerators import FUSED, PLAIN, jax, jnp, lively, logits, np, text
params, source, target = lively(PLAIN), text(32), text(24)
def values(config):
    def loss(params):
        found = logits(config, params, source, target)
        return jnp.mean(jnp.square(found)), found
    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
((_, got), slopes), ((_, want), wanted) = values(FUSED), values(PLAIN)
np.testing.assert_allclose(got, want, atol=0.1)
for (path, x), y in zip(jax.tree.leaves_with_path(slopes), jax.tree.leaves(wanted), strict=True):
    assert np.linalg.norm(x - y) < 0.1 * np.linalg.norm(y), path
"""


@pytest.mark.skipif(not os.path.exists("/dev/nvidiactl"), reason="no NVIDIA GPU")
def test_fused_attention_on_a_gpu() -> None:
    found = subprocess.run(
        [sys.executable, "-c", ON_A_GPU],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "JAX_PLATFORMS": "cuda", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
