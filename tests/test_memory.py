"""What saves memory changes no number: chunks of the vocabulary's distributions, blocks made again, bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.data.batches import Batch, training_batches
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.evaluation.agreement import make_comparison
from kdtw_jax.losses.kl import TopK
from kdtw_jax.methods.mle import likelihood_loss
from kdtw_jax.methods.path_terms import coefficients, path_loss
from kdtw_jax.methods.word_kd import word_loss
from kdtw_jax.models import Model, T5Config, make_model, shift_right
from kdtw_jax.replay import Sample
from kdtw_jax.training.context import Chunks
from kdtw_jax.training.scoring import Trajectories, score_paths
from kdtw_jax.training.state import LossFn
from tests.world import DISTIL, FIT, WIDE, World, heard

SMOOTH = replace(FIT, label_smoothing=0.1)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def slope(loss: LossFn, names: tuple[str, ...], key: jax.Array) -> Callable[..., Any]:
    """Value of these terms' means, and gradient."""

    def objective(params: Any, rows: Any) -> jax.Array:
        terms = loss(params, params, rows, key)
        return sum((terms[name].mean() for name in names), jnp.zeros(()))

    return jax.jit(jax.value_and_grad(objective))


CHUNKS = ({"chunk": 5}, {"chunk": 5, "vocab_chunk": 7})


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("kind", ["mle", "pcl"])
def test_chunks_change_no_number(world: World, kind: str, chunks: dict[str, int]) -> None:
    batch = next(training_batches(world.data, WIDE, seed=0))
    rows: Any = (batch, heard(*world.teacher, batch))
    if kind == "pcl":
        rows = Sample(
            score_paths(*world.teacher, *map(jnp.asarray, batch), top_k=4, banned=world.banned), jnp.arange(8) % 3
        )

    def run(**chunks: int) -> Any:
        if kind == "mle":
            loss = word_loss(world.model, world.model, SMOOTH, world.banned, Chunks(**chunks))
            return slope(loss, ("nll", "kl"), jax.random.key(0))(world.params, rows)
        config = replace(DISTIL, pcl=replace(DISTIL.pcl, values="unified", alpha=0.8))
        loss = path_loss(world.model, config, world.banned, Chunks(**chunks))
        return slope(loss, tuple(coefficients(config)), jax.random.key(0))(world.params, rows)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), run(), run(**chunks))


@pytest.mark.parametrize("chunks", CHUNKS)
def test_the_teacher_scores_by_chunks_what_it_scores_at_once(world: World, chunks: dict[str, int]) -> None:
    batch = [jnp.asarray(x) for x in next(training_batches(world.data, WIDE, seed=0))]
    how = {"banned": world.banned, "alpha": 0.7}
    run = jax.jit(partial(score_paths, world.teacher[0], **how), static_argnames=("top_k", "chunk", "vocab_chunk"))
    model, params = world.teacher
    decoded = model.decode(params, model.encode(params, batch[1]), shift_right(batch[2]))
    mu_BxTxV, sharp_BxTxV = (log_policy(decoded.logits_BxTxV, world.banned, heat) for heat in (1.0, 0.7))
    taken_BxT = jnp.take_along_axis(mu_BxTxV, batch[2][..., None], axis=-1)[..., 0]
    want = jnp.where(batch[2] != 0, taken_BxT, 0.0)
    for k in (0, 4):
        whole, parts = (run(world.teacher[1], *batch, top_k=k, **how) for how in ({}, chunks))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), whole, parts)
        np.testing.assert_allclose(whole.teacher_log_prob_BxT, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole.top.log_prob_BxTxK, jax.lax.top_k(sharp_BxTxV, 4)[0], rtol=1e-4, atol=1e-5)


def test_students_are_compared_with_their_teacher_by_positions(world: World) -> None:
    _, source, target = (jnp.asarray(x) for x in next(training_batches(world.data, WIDE, seed=0)))
    both, values = (world.params, world.teacher[1]), replace(DISTIL.pcl, values="unified", alpha=0.8)

    def run(chunk: int) -> Any:
        compare = jax.jit(make_comparison(world.model, world.teacher[0], world.banned, values, 4, chunk))
        return compare(both, source, target)

    def policy(model: Model, params: Any) -> np.ndarray:
        decoded = model.decode(params, model.encode(params, source), shift_right(target))
        return np.asarray(log_policy(decoded.logits_BxTxV, world.banned))

    whole, parts = run(0), run(5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), whole, parts)
    pi, mu = policy(world.model, world.params), policy(*world.teacher)
    forward = np.where(np.isfinite(mu), np.exp(mu) * (np.nan_to_num(mu) - np.nan_to_num(pi)), 0.0).sum(-1)
    np.testing.assert_allclose(parts.kl_forward, forward, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(parts.agree, pi.argmax(-1) == mu.argmax(-1))


@pytest.mark.parametrize(
    "kind", [*(pytest.param(name, marks=pytest.mark.long) for name in ("mle", "pcl")), "score", "compare"]
)
def test_chunks_save_the_memory_of_whole_distributions(kind: str) -> None:
    b, small, large = 8, 2000, 8000

    def memory(t: int, vocabulary: int = large, **chunks: int) -> int:
        model = make_model(T5Config.toy(vocabulary, dropout_rate=0.0, num_layers=1, num_decoder_layers=1))
        params = jax.eval_shape(model.init, jax.random.key(0))
        row, source = jax.ShapeDtypeStruct((b,), jnp.int32), jax.ShapeDtypeStruct((b, 8), jnp.int32)
        ids, numbers = jax.ShapeDtypeStruct((b, t), jnp.int32), jax.ShapeDtypeStruct((b, t), jnp.float32)
        if kind == "score":
            call = jax.jit(partial(score_paths, model, top_k=4, banned=(), **chunks))
            return int(call.lower(params, row, source, ids).compile().memory_analysis().temp_size_in_bytes)
        if kind == "compare":
            call = jax.jit(make_comparison(model, model, (), DISTIL.pcl, 4, **{"chunk": 0, **chunks}))
            return int(call.lower((params, params), source, ids).compile().memory_analysis().temp_size_in_bytes)
        if kind == "mle":
            loss = word_loss(model, model, FIT, (), Chunks(**chunks))
            names: tuple[str, ...] = ("nll", "kl")
            batch = Batch(row, source, ids)  # type: ignore[arg-type]
            rows: Any = (batch, jax.eval_shape(partial(heard, model), params, batch))
        else:
            loss, names = path_loss(model, DISTIL, (), Chunks(**chunks)), tuple(coefficients(DISTIL))
            kept = [jax.ShapeDtypeStruct((b, t, 4), dtype) for dtype in (jnp.float32, jnp.int32)]
            rows = Sample(Trajectories(row, source, ids, numbers, TopK(*kept)), row)  # type: ignore[arg-type]
        compiled = slope(loss, names, jax.random.key(0)).lower(params, rows).compile()
        return int(compiled.memory_analysis().temp_size_in_bytes)

    one = b * 32 * large * 4  # bytes of one [B, T, V] at T = 32
    assert memory(64) - memory(32) > 0.9 * one  # whole, it grows with the length
    assert memory(64, chunk=8) - memory(32, chunk=8) < one / 4  # by chunks, not by any [B, T, V]
    if kind == "compare":
        return
    # By slices it grows neither with T nor with V, but by what slices are cut from and its gradient. A single
    # distribution that is held would add 1.75 times `one`.
    assert memory(64, large, vocab_chunk=100) - memory(32, small, vocab_chunk=100) < one / 2


def test_blocks_made_again_change_no_number_and_save_memory() -> None:
    config = T5Config.toy(32, dropout_rate=0.2, num_layers=4, num_decoder_layers=4)
    assert config == replace(config, remat=True)  # no part of what the model is
    params = make_model(config).init(jax.random.key(0))
    rng = np.random.default_rng(0)
    source, target = (rng.integers(3, 32, (8, 32)).astype(np.int32) for _ in range(2))
    rows = Batch(np.arange(8, dtype=np.int32), source, target)

    def run(remat: bool) -> tuple[Any, int]:
        loss = likelihood_loss(make_model(replace(config, remat=remat)), FIT)
        # On a CPU, XLA takes away the barriers early and then finds that the same is computed twice.
        options = {"xla_disable_hlo_passes": "cse_barrier_expander"}
        compiled = slope(loss, ("nll",), jax.random.key(1)).lower(params, rows).compile(options)
        return compiled(params, rows), int(compiled.memory_analysis().temp_size_in_bytes)

    (kept, much), (again, little) = run(False), run(True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), kept, again)
    assert little < 0.7 * much


def test_logits_are_summed_and_kept_in_float32_whatever_the_arithmetic() -> None:
    for tied in (True, False):
        model = make_model(T5Config.toy(64, dtype="bfloat16", tie_embeddings=tied))
        params = model.init(jax.random.key(0))
        hidden = jax.random.normal(jax.random.key(1), (2, 3, 16)).astype(jnp.bfloat16)
        table = params["shared"]["embedding"].T if tied else params["lm_head"]["kernel"]
        inner = np.asarray(hidden * 16**-0.5 if tied else hidden).astype(np.float64)
        want = inner @ np.asarray(table.astype(jnp.bfloat16)).astype(np.float64)
        got = np.asarray(model.unembed(params, hidden))
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)
        tokens = jnp.ones((2, 3), jnp.int32)
        decoded = model.decode(params, model.encode(params, tokens), shift_right(tokens))
        assert decoded.value_BxT.dtype == jnp.float32
