"""Beam search equals greedy decoding, exhaustive search and a slow loop, each where it should."""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.decoding import Generation, beam_search, generate, log_policy
from kdtw_jax.errors import UserError
from kdtw_jax.models import Decoded, Model, T5Config, make_model

ROWS, EOS = 5, 1


@functools.cache
def network(vocab_size: int, sharpness: float = 1.0) -> tuple[Model, Any]:
    model = make_model(T5Config.toy(vocab_size, num_layers=1, num_decoder_layers=1))
    params = jax.jit(model.init)(jax.random.key(4))
    params["decoder"]["final_norm"]["scale"] *= sharpness
    return model, params


def source(vocab_size: int) -> jax.Array:
    return jax.random.randint(jax.random.key(1), (ROWS, 5), 2, vocab_size).at[1, 3:].set(0)


def search(vocab_size: int, source_BxS: jax.Array, sharpness: float = 1.0, **options: Any) -> Generation:
    model, params = network(vocab_size, sharpness)
    return jax.jit(lambda p, s: beam_search(model, p, s, **options))(params, source_BxS)


def scorer(
    vocab_size: int, row: jax.Array, length: int, banned: tuple[int, ...], sharpness: float = 1.0
) -> Any:
    """A function from a prefix to the log-probabilities of its next token, remembered."""
    model, params = network(vocab_size, sharpness)
    encoded = model.encode(params, row[None])
    decode = jax.jit(lambda inputs: log_policy(model.decode(params, encoded, inputs).logits_BxTxV, banned))

    @functools.cache
    def next_log_prob(prefix: tuple[int, ...]) -> np.ndarray:
        inputs = np.zeros((1, length), np.int32)
        inputs[0, 1 : len(prefix) + 1] = prefix
        return np.asarray(decode(inputs)[0, len(prefix)])

    return next_log_prob


def penalty(length: int, exponent: float) -> float:
    return ((5 + length) / 6) ** exponent


def slow_beam(next_log_prob: Any, beams: int, length: int, exponent: float) -> tuple[tuple[int, ...], bool]:
    """The search of the docstring over lists of hypotheses, without the early end."""
    open_: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[tuple[float, tuple[int, ...]]] = []
    for _ in range(length):
        grown = [
            (total + float(gain), (*prefix, token))
            for total, prefix in open_
            for token, gain in enumerate(next_log_prob(prefix))
            if gain > -math.inf
        ]
        grown.sort(key=lambda hypothesis: -hypothesis[0])  # stable: equals stay in order of beam, then token
        ended += [
            (total / penalty(len(said), exponent), said) for total, said in grown[:beams] if said[-1] == EOS
        ]
        open_ = [hypothesis for hypothesis in grown[: 2 * beams] if hypothesis[1][-1] != EOS][:beams]
        if len(ended) >= beams or not open_:
            break
    if ended:
        return max(ended, key=lambda hypothesis: hypothesis[0])[1], True
    return open_[0][1], False


@pytest.mark.parametrize("sharpness", [1.0, 3.0])
def test_one_beam_is_greedy(sharpness: float) -> None:
    vocab, banned = 12, (0, 2)
    model, params = network(vocab, sharpness)
    greedy = jax.jit(lambda p, s: generate(model, p, s, None, max_len=10, banned=banned))(
        params, source(vocab)
    )
    for exponent in (0.0, 2.0):
        options = {"beam_size": 1, "max_len": 10, "length_penalty": exponent, "banned": banned}
        beam = search(vocab, source(vocab), sharpness, **options)
        for got, want in zip(beam, greedy, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.0, 0.6, 4.0])
def test_a_wide_beam_finds_the_best_of_all(exponent: float) -> None:
    vocab, length, banned = 5, 4, (0,)
    got = search(vocab, source(vocab), beam_size=27, max_len=length, length_penalty=exponent, banned=banned)
    for b in range(ROWS):
        next_log_prob = scorer(vocab, source(vocab)[b], length, banned)
        best, best_score = (), -math.inf
        for n in range(length):
            for words in itertools.product((2, 3, 4), repeat=n):
                said = (*words, EOS)
                total = sum(float(next_log_prob(said[:i])[token]) for i, token in enumerate(said))
                if total / penalty(len(said), exponent) > best_score:
                    best, best_score = said, total / penalty(len(said), exponent)
        np.testing.assert_array_equal(got.tokens_BxT[b], best + (0,) * (length - len(best)))
        np.testing.assert_allclose(
            got.log_prob_BxT[b].sum() / penalty(len(best), exponent), best_score, atol=1e-5
        )
        assert bool(got.finished_B[b])


@pytest.mark.parametrize(("beams", "exponent"), [(2, 0.0), (3, 0.6), (4, 1.0), (7, 3.0)])
def test_equals_a_slow_loop(beams: int, exponent: float) -> None:
    vocab, length, banned = 9, 7, (0, 2)
    outcomes = set()
    for sharpness in (1.0, 2.0):
        options = {"beam_size": beams, "max_len": length, "length_penalty": exponent, "banned": banned}
        got = search(vocab, source(vocab), sharpness, **options)
        for b in range(ROWS):
            next_log_prob = scorer(vocab, source(vocab)[b], length, banned, sharpness)
            said, finished = slow_beam(next_log_prob, beams, length, exponent)
            n = len(said)
            np.testing.assert_array_equal(got.tokens_BxT[b], said + (0,) * (length - n))
            np.testing.assert_array_equal(got.mask_BxT[b], [True] * n + [False] * (length - n))
            want = [next_log_prob(said[:i])[token] for i, token in enumerate(said)]
            np.testing.assert_allclose(got.log_prob_BxT[b], want + [0.0] * (length - n), atol=1e-5)
            assert bool(got.finished_B[b]) == finished
            outcomes.add(n)
    assert len(outcomes) > 1  # more than one length among the results, or nothing was compared


def test_rows_do_not_know_of_each_other_nor_of_padding() -> None:
    vocab = 9
    options: dict[str, Any] = {"beam_size": 3, "max_len": 7, "length_penalty": 1.0, "banned": (0,)}
    together = search(vocab, source(vocab), **options)
    padded = search(vocab, jnp.pad(source(vocab), ((0, 0), (0, 3))), **options)
    np.testing.assert_array_equal(together.tokens_BxT, padded.tokens_BxT)
    for b in range(ROWS):
        alone = search(vocab, source(vocab)[b : b + 1], **options)
        np.testing.assert_array_equal(together.tokens_BxT[b], alone.tokens_BxT[0])


def test_what_never_ends_is_returned_as_it_is() -> None:
    got = search(9, source(9), beam_size=3, max_len=6, length_penalty=0.6, banned=(0, EOS))
    assert not got.finished_B.any()
    assert got.mask_BxT.all()
    assert (got.tokens_BxT > 1).all()
    for b in range(ROWS):
        said, finished = slow_beam(scorer(9, source(9)[b], 6, (0, EOS)), 3, 6, 0.6)
        np.testing.assert_array_equal(got.tokens_BxT[b], said)
        assert not finished


def scripted(table_VxV: np.ndarray) -> Model:
    """A model whose next-token logits are a row of a table, chosen by the last token."""
    model, _ = network(table_VxV.shape[0])

    def extend(params: Any, cache: Any, tokens_BxN: jax.Array, position: jax.Array) -> Any:
        logits = jnp.asarray(table_VxV, jnp.float32)[tokens_BxN]
        nothing = jnp.zeros(tokens_BxN.shape)
        return Decoded(logits, nothing, nothing, logits), cache

    return model._replace(extend=extend)


def test_equals_are_resolved_by_beam_and_token() -> None:
    vocab = 6
    _, params = network(vocab)
    options: dict[str, Any] = {"beam_size": 3, "max_len": 4, "length_penalty": 0.0}
    level = scripted(np.zeros((vocab, vocab)))
    # All tokens equal: the end, having the lowest id of those allowed, is first among the first three candidates.
    got = beam_search(level, params, source(vocab), banned=(0,), **options)
    np.testing.assert_array_equal(got.tokens_BxT, [[1, 0, 0, 0]] * ROWS)
    got = beam_search(level, params, source(vocab), banned=(0, 1), **options)
    np.testing.assert_array_equal(got.tokens_BxT, [[2, 2, 2, 2]] * ROWS)


def test_a_long_hypothesis_overtakes_under_a_penalty() -> None:
    # "end" at once has probability 0.4; "2 3 end" has 0.6 * 0.75 * 0.8 = 0.36: shorter wins by probability, but by
    # probability over length to the power 1 (6/6 against 8/6) the longer: -0.916 against -1.022 / 1.333 = -0.766.
    table = np.full((4, 4), -1e9)
    table[0, [1, 2]] = np.log([0.4, 0.6])
    table[2, [1, 2, 3]] = np.log([0.1, 0.15, 0.75])
    table[3, [1, 2]] = np.log([0.8, 0.2])
    _, params = network(4)
    for exponent, want in ((0.0, [1, 0, 0, 0, 0]), (1.0, [2, 3, 1, 0, 0])):
        got = beam_search(
            scripted(table), params, source(4), beam_size=2, max_len=5, length_penalty=exponent, banned=(0,)
        )
        np.testing.assert_array_equal(got.tokens_BxT, [want] * ROWS)
    np.testing.assert_allclose(got.log_prob_BxT[0, :3], np.log([0.6, 0.75, 0.8]), atol=1e-5)


@pytest.mark.parametrize(
    "change", [{"beam_size": 0}, {"max_len": 0}, {"length_penalty": -1.0}, {"banned": (9,)}]
)
def test_refusals(change: dict[str, Any]) -> None:
    options = {"beam_size": 2, "max_len": 4, "length_penalty": 0.6, "banned": (0,)}
    with pytest.raises(UserError):
        search(9, source(9), **{**options, **change})
