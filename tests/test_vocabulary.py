"""A distribution made a slice of the vocabulary at a time is the whole one: in every answer and every gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.losses.jsd import jsd_terms
from kdtw_jax.losses.masked import kl_terms
from kdtw_jax.losses.vocabulary import Distribution, compare_distributions
from kdtw_jax.models import Model, T5Config, make_model
from kdtw_jax.training.distribution import distribution

B, X, V = 2, 3, 11
BANNED = (0, 7)
Ask = Callable[[Distribution], Any]


def world(tied: bool) -> tuple[Model, Any, jax.Array]:
    """A model, its last layer, and states."""
    config = T5Config.toy(V, tie_embeddings=tied)
    model = make_model(config)
    hidden = 3 * jax.random.normal(jax.random.key(1), (B, X, config.d_model))
    return model, model.output_layer(model.init(jax.random.key(0))), hidden


def answers(model: Model, ask: Ask, vocab_chunk: int, temperature: float = 1.0) -> Callable[..., Any]:
    """The answer, and the gradient of a weighted sum of its numbers by last layer and states."""

    def scalar(layer: Any, hidden: jax.Array) -> tuple[jax.Array, Any]:
        found = ask(distribution(model, layer, hidden, BANNED, vocab_chunk=vocab_chunk, temperature=temperature))
        leaves = [x for x in jax.tree.leaves(found) if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum((jnp.sum(x * jnp.cos(jnp.arange(x.size).reshape(x.shape))) for x in leaves), 0.0), found

    return jax.jit(jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True))


def close(found: Any, want: Any, relative: float = 1e-4) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=relative, atol=0.1 * relative), found, want)


def ids(count: int) -> jax.Array:
    """Distinct tokens a state, none of them banned."""
    free, rng = np.setdiff1d(np.arange(V), BANNED), np.random.default_rng(0)
    return jnp.asarray([[rng.permutation(free)[:count] for _ in range(X)] for _ in range(B)], jnp.int32)


ASKED: dict[str, Ask] = {
    "likelihood": lambda d: d.token_loss(ids(1)[..., 0], 0.1, 1e-2),
    "a path": lambda d: d.token_stats(ids(1)[..., 0])[:2],
    "a path and some outcomes": lambda d: d.token_stats(ids(5)[..., 4], ids(4)),
    "a path and every outcome that can be": lambda d: d.token_stats(ids(3)[..., 1], ids(V - len(BANNED))),
    "the best few": lambda d: d.top_k(4),
}


@pytest.mark.parametrize(("tied", "temperature", "width"), [(True, 1.0, 4), (False, 0.5, V - 1)])
def test_slices_answer_as_the_whole_does(tied: bool, temperature: float, width: int) -> None:
    model, layer, hidden = world(tied)

    def all_of_them(d: Distribution) -> dict[str, Any]:
        return {name: ask(d) for name, ask in ASKED.items()}

    (_, want), slopes = answers(model, all_of_them, 0, temperature)(layer, hidden)
    (_, found), others = answers(model, all_of_them, width, temperature)(layer, hidden)
    for name in ASKED:
        close(found[name], want[name])
    for a, b, x in zip(*map(jax.tree.leaves, (others, slopes, (layer, hidden))), strict=True):
        assert a.shape == b.shape == x.shape and np.abs(b).max() > 0.1  # there is a gradient to get wrong
        close(a, b)


@pytest.mark.parametrize("beta", [None, 0.3])
def test_slices_of_two_distributions_compare_as_wholes_do(beta: float | None) -> None:
    model, layer, hidden = world(True)
    terms = kl_terms if beta is None else partial(jsd_terms, beta=beta)

    def ask(vocab_chunk: int) -> Ask:
        other = distribution(model, layer, hidden[::-1], BANNED, vocab_chunk=vocab_chunk)
        return lambda own: compare_distributions(terms, own, other, ids(1)[..., 0])

    want, found = (answers(model, ask(n), n)(layer, hidden) for n in (0, 4))
    close(found, want)
    assert float(want[0][1][0].min()) > 1e-3


def test_a_confident_student_keeps_a_tail_with_a_gradient() -> None:
    """The rest is summed up, not taken for 1 - sum: right to float32's relative precision, far below its epsilon."""
    model, layer, hidden = world(True)
    hidden = 80 * hidden
    best = distribution(model, layer, hidden, BANNED).top_k(2).ids_BxTxK
    want, found = (
        answers(model, lambda d: d.token_stats(best[..., 0], best).outcomes_BxXxK, n)(layer, hidden) for n in (0, 4)
    )
    tail = np.asarray(want[0][1][..., -1])
    assert tail.max() < np.log(np.finfo(np.float32).eps) and tail.min() >= -100.1
    close(found, want, 1e-3)


def test_equal_logits_are_ranked_alike() -> None:
    model, layer, hidden = world(True)
    flat = jax.tree.map(jnp.zeros_like, layer)
    for n in (0, 1, 4):
        assert (
            distribution(model, flat, hidden, BANNED, vocab_chunk=n).top_k(3).ids_BxTxK.tolist()
            == [[[1, 2, 3]] * X] * B
        )


def test_what_cannot_be_is_refused() -> None:
    model, layer, hidden = world(True)
    for n in (0, 4):
        with pytest.raises(UserError, match="not all within the vocabulary of 11"):
            distribution(model, layer, hidden, (11,), vocab_chunk=n)
        for k in (0, V + 1):
            with pytest.raises(ValueError, match=f"between 1 and the vocabulary's size {V}, got {k}"):
                distribution(model, layer, hidden, (), vocab_chunk=n).top_k(k)
