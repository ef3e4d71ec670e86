"""Beam search equals greedy decoding, exhaustive search and a slow loop, each where it should."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.decoding import Generation, beam_search, generate, log_policy
from kdtw_jax.errors import UserError
from kdtw_jax.models import Decoded, Model, T5Config, make_model

ROWS, EOS = 5, 1


class Words(NamedTuple):
    """A model, and what it says after a prefix, by itself."""

    model: Model
    params: Any
    next_log_prob: Callable[[int, tuple[int, ...]], np.ndarray]  # (row of source(), prefix) -> [V]


def source(vocab_size: int) -> jax.Array:
    return jax.random.randint(jax.random.key(1), (ROWS, 5), 2, vocab_size).at[1, 3:].set(0)


def network(vocab_size: int, length: int, banned: tuple[int, ...]) -> Words:
    """A T5, asked anew for each prefix."""
    model = make_model(T5Config.toy(vocab_size, num_layers=1, num_decoder_layers=1))
    params = jax.jit(model.init)(jax.random.key(4))
    encoded = jax.jit(model.encode)(params, source(vocab_size))
    decode = jax.jit(lambda inputs: log_policy(model.decode(params, encoded, inputs).logits_BxTxV, banned))

    @functools.cache
    def next_log_prob(row: int, prefix: tuple[int, ...]) -> np.ndarray:
        inputs = np.zeros((ROWS, length), np.int32)
        inputs[row, 1 : len(prefix) + 1] = prefix
        return np.asarray(decode(inputs)[row, len(prefix)])

    return Words(model, params, next_log_prob)


def table_of_prefixes(vocab_size: int, banned: tuple[int, ...], sharpness: float, end_bonus: float) -> Words:
    """Logits looked up by a number that sums up source and prefix and lives in the cache.

    `sharpness` spreads the logits, `end_bonus` goes to the end-of-sequence token.
    """
    table = np.random.default_rng(7).normal(size=(997, vocab_size)).astype(np.float32) * sharpness
    table[:, EOS] += end_bonus
    model = make_model(T5Config.toy(vocab_size))

    def of_source(source_BxS: Any) -> Any:
        return (source_BxS * (1 + np.arange(source_BxS.shape[1]))[None]).sum(axis=1) % 997

    def start(params: Any, source_BxS: jax.Array, max_len: int) -> jax.Array:
        return of_source(source_BxS).astype(jnp.int32)

    def extend(params: Any, state_B: jax.Array, tokens_Bx1: jax.Array, position: Any) -> tuple[Decoded, jax.Array]:
        state_B = (state_B * 31 + tokens_Bx1[:, 0] + position) % 997
        logits = jnp.asarray(params)[state_B][:, None]
        nothing = jnp.zeros(tokens_Bx1.shape)
        return Decoded(logits, nothing, logits), state_B

    log_prob = np.asarray(log_policy(jnp.asarray(table), banned))
    states = of_source(np.asarray(source(vocab_size)))

    def next_log_prob(row: int, prefix: tuple[int, ...]) -> np.ndarray:
        state = states[row]
        for position, token in enumerate((0, *prefix)):
            state = (state * 31 + token + position) % 997
        return log_prob[state]

    model = model._replace(
        encode=lambda params, source_BxS: source_BxS,
        start=start,
        extend=extend,
        reorder=lambda state_B, index_B: state_B[index_B],
    )
    return Words(model, jnp.asarray(table), next_log_prob)


def search(words: Words, source_BxS: jax.Array, **options: Any) -> Generation:
    return jax.jit(lambda params, source: beam_search(words.model, params, source, **options))(words.params, source_BxS)


def penalty(length: int, exponent: float) -> float:
    return ((5 + length) / 6) ** exponent


def slow_beam(words: Words, row: int, beams: int, length: int, exponent: float) -> tuple[tuple[int, ...], bool]:
    """The search of the docstring over lists of hypotheses, without the early end."""
    open_: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[tuple[float, tuple[int, ...]]] = []
    for _ in range(length):
        grown = [
            (total + float(gain), (*prefix, token))
            for total, prefix in open_
            for token, gain in enumerate(words.next_log_prob(row, prefix))
            if gain > -math.inf
        ]
        grown.sort(key=lambda hypothesis: -hypothesis[0])  # stable: equals stay in order of beam, then token
        ended += [(total / penalty(len(said), exponent), said) for total, said in grown[:beams] if said[-1] == EOS]
        open_ = [hypothesis for hypothesis in grown[: 2 * beams] if hypothesis[1][-1] != EOS][:beams]
        if len(ended) >= beams or not open_:
            break
    if ended:
        return max(ended, key=lambda hypothesis: hypothesis[0])[1], True
    return open_[0][1], False


def check_against_slow_beam(words: Words, got: Generation, beams: int, length: int, exponent: float) -> None:
    for b in range(ROWS):
        said, finished = slow_beam(words, b, beams, length, exponent)
        n = len(said)
        np.testing.assert_array_equal(got.tokens_BxT[b], said + (0,) * (length - n))
        np.testing.assert_array_equal(got.mask_BxT[b], [True] * n + [False] * (length - n))
        want = [words.next_log_prob(b, said[:i])[token] for i, token in enumerate(said)]
        np.testing.assert_allclose(got.log_prob_BxT[b], want + [0.0] * (length - n), atol=1e-5)
        assert bool(got.finished_B[b]) == finished


@pytest.mark.parametrize(("beams", "exponent"), [(1, 0.6), (2, 0.0), (3, 0.6), (4, 1.0), (7, 3.0)])
def test_equals_a_slow_loop(beams: int, exponent: float) -> None:
    length, banned = 8, (0, 2)
    lengths: set[int] = set()
    for sharpness, end_bonus in ((1.0, 0.5), (2.0, 0.0), (0.5, -2.0)):
        words = table_of_prefixes(9, banned, sharpness, end_bonus)
        options = {"beam_size": beams, "max_len": length, "length_penalty": exponent, "banned": banned}
        got = search(words, source(9), **options)
        check_against_slow_beam(words, got, beams, length, exponent)
        lengths.update(int(n) for n in got.mask_BxT.sum(axis=1))
    assert len(lengths) > 2  # or little was compared


def test_a_network_in_a_beam_equals_a_slow_loop() -> None:
    words = network(9, 6, (0, 2))
    got = search(words, source(9), beam_size=3, max_len=6, length_penalty=0.6, banned=(0, 2))
    check_against_slow_beam(words, got, 3, 6, 0.6)


def test_one_beam_is_greedy() -> None:
    words = network(12, 8, (0, 2))
    options: dict[str, Any] = {"max_len": 8, "banned": (0, 2)}
    greedy = jax.jit(lambda p, s: generate(words.model, p, s, None, **options))(words.params, source(12))
    beam = search(words, source(12), beam_size=1, length_penalty=2.0, **options)
    for got, want in zip(beam, greedy, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.0, 0.6, 4.0])
def test_a_wide_beam_finds_the_best_of_all(exponent: float) -> None:
    length, banned = 4, (0,)
    words = table_of_prefixes(5, banned, 1.0, -1.0)
    got = search(words, source(5), beam_size=27, max_len=length, length_penalty=exponent, banned=banned)
    lengths = set()
    for b in range(ROWS):
        scores: dict[tuple[int, ...], float] = {}
        for n in range(length):
            for body in itertools.product((2, 3, 4), repeat=n):
                said = (*body, EOS)
                total = sum(float(words.next_log_prob(b, said[:i])[token]) for i, token in enumerate(said))
                scores[said] = total / penalty(len(said), exponent)
        best = max(scores, key=lambda said: scores[said])
        np.testing.assert_array_equal(got.tokens_BxT[b], best + (0,) * (length - len(best)))
        np.testing.assert_allclose(got.log_prob_BxT[b].sum() / penalty(len(best), exponent), scores[best], atol=1e-5)
        assert bool(got.finished_B[b])
        lengths.add(len(best))
    assert len(lengths) > 1 or exponent == 4.0


def test_rows_do_not_know_of_each_other_nor_of_padding() -> None:
    words = network(9, 6, (0,))
    options: dict[str, Any] = {"beam_size": 3, "max_len": 6, "length_penalty": 1.0, "banned": (0,)}
    together = search(words, source(9), **options)
    padded = search(words, jnp.pad(source(9), ((0, 0), (0, 3))), **options)
    halves = [search(words, source(9)[part], **options) for part in (slice(0, 2), slice(2, 5))]
    np.testing.assert_array_equal(together.tokens_BxT, padded.tokens_BxT)
    np.testing.assert_array_equal(together.tokens_BxT, np.concatenate([half.tokens_BxT for half in halves]))


def test_what_never_ends_is_returned_as_it_is() -> None:
    words = table_of_prefixes(9, (0, EOS), 1.0, 0.0)
    got = search(words, source(9), beam_size=3, max_len=6, length_penalty=0.6, banned=(0, EOS))
    assert not got.finished_B.any()
    check_against_slow_beam(words, got, 3, 6, 0.6)


def markov(table_VxV: np.ndarray) -> Words:
    """The logits of the next token are the table's row of the last one."""
    words = table_of_prefixes(table_VxV.shape[0], (), 1.0, 0.0)

    def extend(params: Any, cache: Any, tokens_Bx1: jax.Array, position: Any) -> tuple[Decoded, Any]:
        logits, nothing = jnp.asarray(params)[tokens_Bx1], jnp.zeros(tokens_Bx1.shape)
        return Decoded(logits, nothing, logits), cache

    return words._replace(model=words.model._replace(extend=extend), params=jnp.asarray(table_VxV, jnp.float32))


def test_equals_are_resolved_by_beam_and_token() -> None:
    options: dict[str, Any] = {"beam_size": 3, "max_len": 4, "length_penalty": 0.0}
    level = markov(np.zeros((6, 6)))
    # All tokens equal: the end, of lowest id among those allowed, is first among the first three candidates.
    got = search(level, source(6), banned=(0,), **options)
    np.testing.assert_array_equal(got.tokens_BxT, [[1, 0, 0, 0]] * ROWS)
    got = search(level, source(6), banned=(0, 1), **options)
    np.testing.assert_array_equal(got.tokens_BxT, [[2, 2, 2, 2]] * ROWS)


def test_a_long_hypothesis_overtakes_under_a_penalty() -> None:
    # "end" has probability 0.4, "2 3 end" 0.6 * 0.75 * 0.8 = 0.36: plain probability prefers the short one.
    # Over penalties of 6/6 and 8/6 (exponent 1) they score -0.916 and -1.022 / 1.333 = -0.766.
    table = np.full((4, 4), -1e9)
    table[0, [1, 2]] = np.log([0.4, 0.6])
    table[2, [1, 2, 3]] = np.log([0.1, 0.15, 0.75])
    table[3, [1, 2]] = np.log([0.8, 0.2])
    for exponent, want in ((0.0, [1, 0, 0, 0, 0]), (1.0, [2, 3, 1, 0, 0])):
        got = search(markov(table), source(4), beam_size=2, max_len=5, length_penalty=exponent, banned=(0,))
        np.testing.assert_array_equal(got.tokens_BxT, [want] * ROWS)
    np.testing.assert_allclose(got.log_prob_BxT[0, :3], np.log([0.6, 0.75, 0.8]), atol=1e-5)


@pytest.mark.parametrize("change", [{"beam_size": 0}, {"max_len": 0}, {"length_penalty": -1.0}, {"banned": (9,)}])
def test_refusals(change: dict[str, Any]) -> None:
    options = {"beam_size": 2, "max_len": 4, "length_penalty": 0.6, "banned": (0,)}
    with pytest.raises(UserError):
        search(table_of_prefixes(9, (0,), 1.0, 0.0), source(9), **{**options, **change})
