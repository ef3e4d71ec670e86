"""Decoding with help: token for token what a slow, obvious loop without caches does; rules are kept."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.constraints import Rule, histories, make_calls, make_pause, make_share
from kdtw_jax.decoding import generate, generate_with_help
from kdtw_jax.decoding.gate import DecodeState, Gate, stateless
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.spans import SPAN
from kdtw_jax.decoding.view import encoder_inputs, gate_features, instructed, prefixes_and_history, with_fixed_rule
from kdtw_jax.errors import UserError
from kdtw_jax.models import Model, T5Config, make_model, shift_right

SCALE = 1.3
VOCABULARY, BANNED, LENGTH, ROWS = 24, (0, 2, 3), 21, 6  # longer than two spans of the lazy teacher
SOURCE = jnp.asarray(np.random.default_rng(0).integers(4, VOCABULARY, (ROWS, 7)), jnp.int32).at[:, 5:].set(0)
PLAIN = SOURCE[:, :4]  # the teacher reads another text than the student


def network(seed: int, gate_width: int = 0) -> tuple[Model, Any]:
    """Random weights, large enough for decided policies, and for a gate that says now yes, now no."""
    model = make_model(T5Config.toy(VOCABULARY, dropout_rate=0.0, tie_embeddings=False, gate_width=gate_width))
    params = jax.tree.map(lambda x: SCALE * x, model.init(jax.random.key(seed)))
    decode, extend, unembed = model.decode, model.extend, model.unembed
    bias_V = 0.5 * (jnp.arange(VOCABULARY) == 1)

    def biased(decoded: Any) -> Any:
        return decoded._replace(logits_BxTxV=decoded.logits_BxTxV + bias_V[None, None, :])

    def extended(*args: Any) -> Any:
        decoded, cache = extend(*args)
        return biased(decoded), cache

    if gate_width:
        params["gate"]["saving_out"] = {"kernel": 30.0 * params["gate"]["saving_out"]["kernel"], "bias": jnp.ones(1)}
    logits = {"unembed": lambda *args: unembed(*args) + bias_V[None, None, :]}
    return model._replace(decode=lambda *args: biased(decode(*args)), extend=extended, **logits), params


STUDENT, TEACHER = network(0, gate_width=8), network(1)


@functools.cache
def everywhere(model: Model) -> Any:
    """The decoder's answers at every position, without caches: what comes later changes nothing."""
    return jax.jit(lambda params, source, inputs: model.decode(params, model.encode(params, source), inputs))


@jax.jit
def wishes(source: jax.Array, plain: jax.Array, tokens: jax.Array, asked: jax.Array) -> jax.Array:
    """How probable the student finds asking at every position of written rows."""
    model, params = STUDENT
    encoded = model.encode(params, source)
    decoded = model.decode(params, encoded, shift_right(tokens))
    before = histories(plain, tokens, asked)
    view = gate_features(
        log_policy(decoded.logits_BxTxV, BANNED), decoded.hidden_BxTxD, *prefixes_and_history(tokens, before)
    )
    return jax.nn.sigmoid(model.apply_gate(params, model.read_rule(params, encoded), view).logit())


class Slow(NamedTuple):
    tokens: list[int]
    asked: list[bool]
    positions: int


def slowly(
    row: int, gate_noise: np.ndarray | None, token_noise: np.ndarray | None, threshold: float, share: float | None
) -> Slow:
    """One row, one token at a time, everything decoded anew."""
    tokens: list[int] = []
    asked: list[bool] = []
    positions = 0

    def logits(network: tuple[Model, Any], source: jax.Array) -> jax.Array:
        inputs = jnp.zeros((1, LENGTH), jnp.int32).at[0, 1 : len(tokens) + 1].set(jnp.asarray(tokens, jnp.int32))
        return everywhere(network[0])(network[1], source[None], inputs).logits_BxTxV[:, len(tokens)]

    for t in range(LENGTH):
        own = logits(STUDENT, SOURCE[row])
        written = np.zeros((2, 1, LENGTH), np.int32)
        written[0, 0, :t], written[1, 0, :t] = tokens, asked
        wish = float(wishes(SOURCE[row][None], PLAIN[row][None], *map(jnp.asarray, (written[0], written[1] > 0)))[0, t])
        ask = wish > (threshold if gate_noise is None else gate_noise[row, t])
        if share is not None and sum(asked) + 1 > (share + 1e-5) * (t + 1):
            ask = False
        writer = logits(TEACHER, PLAIN[row]) if ask else own
        if ask:
            positions = t + 1
        probability = np.exp(np.asarray(log_policy(writer, BANNED)[0], np.float64))
        if token_noise is None:
            token = int(probability.argmax())
        else:
            token = int((np.cumsum(probability) / probability.sum() > token_noise[row, t]).argmax())
        tokens.append(token)
        asked.append(ask)
        if token == 1:
            break
    return Slow(tokens, asked, positions)


@pytest.mark.parametrize("read_along", [False, True], ids=["lazy", "reads_along"])
@pytest.mark.parametrize("share", [None, 0.25])
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("gate", ["threshold", "sampled"])
def test_it_is_the_slow_loop_token_for_token(gate: str, sampled: bool, share: float | None, read_along: bool) -> None:
    rng = np.random.default_rng(3)
    gate_noise, token_noise = rng.random((2, ROWS, LENGTH)).astype(np.float32)
    noises = (gate_noise if gate == "sampled" else None, token_noise if sampled else None)
    threshold = 0.2

    @jax.jit
    def decode(budget: jax.Array) -> Any:
        rule = None if share is None else Rule((make_share(),), (budget,))
        return generate_with_help(
            STUDENT, TEACHER, SOURCE, PLAIN, *(None if n is None else jnp.asarray(n) for n in noises),
            banned=BANNED, max_len=LENGTH, threshold=threshold, rule=rule, read_along=read_along,
        )  # fmt: skip

    found = jax.device_get(decode(jnp.float32(0 if share is None else share)))
    calls = 0
    for row in range(ROWS):
        slow = slowly(row, *noises, threshold, share)
        count = len(slow.tokens)
        assert found.tokens_BxT[row].tolist() == slow.tokens + [0] * (LENGTH - count)
        assert found.asked_BxT[row].tolist() == slow.asked + [False] * (LENGTH - count)
        assert found.positions_B[row] == slow.positions
        assert found.mask_BxT[row].sum() == count
        assert found.finished_B[row] == (slow.tokens[-1] == 1)
        calls += sum(slow.asked)
    assert 0 < calls < found.mask_BxT.sum()
    if share is None:  # some row caught up over more than one span of the lazy teacher
        gaps = [np.diff(np.flatnonzero(np.concatenate([[1], row]))).max(initial=0) for row in found.asked_BxT]
        assert max(gaps) > 1


def call(rule: Rule | None = None, gate: Any = None, **changes: Any) -> Any:
    settings: dict[str, Any] = {"banned": BANNED, "max_len": LENGTH, "rule": rule, **changes}
    settings["gate"] = gate
    return jax.device_get(generate_with_help(STUDENT, TEACHER, SOURCE, PLAIN, None, None, **settings))


def test_who_never_asks_is_the_student_and_who_always_asks_the_teacher() -> None:
    for threshold, (model, params), source in ((2.0, STUDENT, SOURCE), (-1.0, TEACHER, PLAIN)):
        alone = generate(model, params, source, None, max_len=LENGTH, banned=BANNED)
        found = call(threshold=threshold)
        np.testing.assert_array_equal(found.tokens_BxT, alone.tokens_BxT)
        np.testing.assert_array_equal(found.asked_BxT, found.mask_BxT if threshold < 0 else 0 * found.mask_BxT)
        assert (found.positions_B > 0).all() == (threshold < 0)


def test_a_long_gap_is_caught_up_with() -> None:
    """A single question late in the text, after more own tokens than the teacher processes at once."""

    def late(state: DecodeState) -> jax.Array:
        return (state.history.length_B == 19).astype(jnp.float32)

    found = call(gate=stateless(late))
    asked = [row for row in range(ROWS) if found.asked_BxT[row].any()]
    assert asked  # rows that were not finished by then
    model, params = TEACHER
    for row in asked:
        inputs = jnp.asarray([[0, *found.tokens_BxT[row, :19]]], jnp.int32)
        decoded = model.decode(params, model.encode(params, PLAIN[row : row + 1]), inputs)
        assert found.tokens_BxT[row, 19] == int(log_policy(decoded.logits_BxTxV[0, -1], BANNED).argmax())
        assert found.positions_B[row] == 20


def test_rows_alone_and_together_are_written_alike_whatever_the_gap() -> None:
    """A teacher processes spans of other lengths for a single row."""

    @jax.jit
    def decode(source: jax.Array, plain: jax.Array, gap: jax.Array) -> Any:
        asks = stateless(lambda state: (state.history.length_B % gap == gap - 1).astype(jnp.float32))
        how: dict[str, Any] = {"banned": BANNED, "max_len": LENGTH, "gate": asks}
        written = generate_with_help(STUDENT, TEACHER, source, plain, None, None, **how)
        return written.tokens_BxT, written.asked_BxT, written.positions_B

    furthest = 0  # behind
    for gap in range(2, LENGTH):
        together = decode(SOURCE, PLAIN, jnp.int32(gap))
        for row in range(2):
            alone = decode(SOURCE[row : row + 1], PLAIN[row : row + 1], jnp.int32(gap))
            for one, of_all in zip(alone, together, strict=True):
                np.testing.assert_array_equal(one[0], of_all[row])
            furthest = max(furthest, gap * bool(alone[1].any()))
    assert furthest > 2 * SPAN


def test_a_rule_may_differ_from_row_to_row_and_is_kept_however_eager_the_gate() -> None:
    budget = jnp.asarray([0.0, 0.1, 0.2, 0.3, 0.5, 1.0])
    rule = Rule((make_share(), make_calls(), make_pause()), (budget, jnp.full(ROWS, 4.0), jnp.float32(1)))
    found = call(rule, threshold=-1.0)
    used, length = found.asked_BxT.sum(1), found.mask_BxT.sum(1)
    assert (used <= np.asarray(budget) * length + 1e-3).all()
    assert used[0] == 0
    assert 1 <= used.max() <= 4
    assert not (found.asked_BxT[:, 1:] & found.asked_BxT[:, :-1]).any()


def test_bad_calls_are_refused() -> None:
    with pytest.raises(UserError, match="at least 1"):
        call(max_len=0)
    with pytest.raises(UserError, match="noise has shape"):
        generate_with_help(STUDENT, TEACHER, SOURCE, PLAIN, jnp.zeros((2, 2)), None, banned=BANNED, max_len=LENGTH)


def test_the_rule_stands_before_the_source_without_padding_in_between_or_apart() -> None:
    rule = jnp.asarray([[7, 8, 0, 0], [9, 0, 0, 0], [0, 0, 0, 0], [5, 6, 7, 8]])
    source = jnp.asarray([[4, 5, 1], [6, 1, 0], [4, 1, 0], [4, 5, 1]])
    expected = [[7, 8, 4, 5, 1, 0, 0], [9, 6, 1, 0, 0, 0, 0], [4, 1, 0, 0, 0, 0, 0], [5, 6, 7, 8, 4, 5, 1]]
    assert instructed(rule, source).tolist() == expected
    model, params = STUDENT
    for together in (True, False):
        config = replace(model.config, rule_in_source=together)
        both, rule_alone = encoder_inputs(config, rule, source)
        assert (both.tolist(), rule_alone.tolist()) == (
            (expected, expected) if together else (source.tolist(), rule.tolist())
        )
        by_hand = model.encode(params, instructed(jnp.full((ROWS, 2), 5), SOURCE) if together else SOURCE)
        reads = with_fixed_rule(model._replace(config=config), [5, 5]).encode(params, SOURCE)
        np.testing.assert_array_equal(reads.states_BxSxD, by_hand.states_BxSxD)


def test_a_gate_may_keep_a_state() -> None:
    def every_third(count: jax.Array, state: DecodeState) -> tuple[jax.Array, jax.Array]:
        return (count % 3 == 2).astype(jnp.float32) * jnp.ones(ROWS), count + 1

    found = call(gate=Gate(every_third, jnp.int32(0)))
    expected = found.mask_BxT & (np.arange(LENGTH) % 3 == 2)[None, :]
    np.testing.assert_array_equal(found.asked_BxT, expected)
    assert expected.any()
