"""Drafting with checks: token for token what a slow, obvious loop does; exact where it promises to be."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.constraints import Rule, make_calls, make_share
from kdtw_jax.decoding import generate, generate_with_help
from kdtw_jax.decoding.baselines import (
    big_little,
    silent,
    speculative,
    speculative_cascade,
    speculative_lossy,
    targeting,
    verified,
)
from kdtw_jax.decoding.draft import generate_with_checks
from kdtw_jax.decoding.gate import DecodeState, Gate, stateless
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.strategy import Strategy
from kdtw_jax.errors import UserError
from kdtw_jax.losses.masked import entropy
from kdtw_jax.models import Model, T5Config, make_model

VOCABULARY, BANNED, LENGTH, ROWS, EOS = 24, (0, 2, 3), 19, 6, 1
SOURCE = jnp.asarray(np.random.default_rng(0).integers(4, VOCABULARY, (ROWS, 7)), jnp.int32)
PLAIN = SOURCE[:, :4]  # the teacher reads another text than the student


def network(seed: int, bias: float) -> tuple[Model, Any]:
    """Decided policies that end an output now and then: its log-odds are raised by `bias`."""
    model = make_model(T5Config.toy(VOCABULARY, dropout_rate=0.0, tie_embeddings=False))
    params = jax.tree.map(lambda x: 1.2 * x, model.init(jax.random.key(seed)))
    extend, decode, unembed = model.extend, model.decode, model.unembed
    bias_V = bias * (jnp.arange(VOCABULARY) == EOS)

    def biased(decoded: Any) -> Any:
        return decoded._replace(logits_BxTxV=decoded.logits_BxTxV + bias_V[None, None, :])

    def extended(*args: Any) -> Any:
        decoded, cache = extend(*args)
        return biased(decoded), cache

    logits = {"unembed": lambda *args: unembed(*args) + bias_V[None, None, :]}
    return model._replace(decode=lambda *args: biased(decode(*args)), extend=extended, **logits), params


TEACHER = network(1, 2.1)


def student() -> tuple[Model, Any]:
    """Nearly the teacher: drafts stand for a while."""
    model, other = network(0, 1.5)
    return model, jax.tree.map(lambda a, b: 0.25 * a + 0.85 * b, other, TEACHER[1])


STUDENT = student()


def unsure(state: DecodeState) -> jax.Array:
    return entropy(state.log_policy_BxV)


UNSURE = stateless(unsure)


@functools.cache
def everywhere(model: Model) -> Any:
    """All answers without caches."""
    return jax.jit(lambda params, source, inputs: model.decode(params, model.encode(params, source), inputs))


class Slow(NamedTuple):
    tokens: list[int]
    asked: list[bool]
    calls: int
    positions: int
    passes: int


def slowly(row: int, strategy: Strategy, noise: np.ndarray | None, most_calls: float = np.inf) -> Slow:
    """One row, one token at a time, everything decoded anew. The judge sees one token at a time."""

    def log_probs(network: tuple[Model, Any], source: jax.Array, past: list[int]) -> np.ndarray:
        inputs = jnp.zeros((1, LENGTH), jnp.int32).at[0, 1 : len(past) + 1].set(jnp.asarray(past, jnp.int32))
        logits = everywhere(network[0])(network[1], source[row : row + 1], inputs).logits_BxTxV[:, len(past)]
        return np.asarray(log_policy(logits, BANNED)[0])

    def pick(weights: np.ndarray, which: int, place: int) -> int:
        p = np.exp(weights.astype(np.float64))
        return int(p.argmax()) if noise is None else int((np.cumsum(p) / p.sum() > noise[which, row, place]).argmax())

    def judge(pi: np.ndarray, mu: np.ndarray, draft: int, place: int) -> Any:
        u = None if noise is None else jnp.asarray(noise[1, row, place])[None, None]
        return strategy.judge(jnp.asarray(pi)[None, None], jnp.asarray(mu)[None, None], jnp.asarray([[draft]]), u)

    tokens: list[int] = []
    asked: list[bool] = []
    policies: list[np.ndarray] = []
    calls = positions = passes = seen = owed = 0
    while True:
        risk, call, complete = 0.0, False, False
        while not call and not complete:
            pi = log_probs(STUDENT, SOURCE, tokens)
            passes += 1
            policies = [*policies[: len(tokens)], pi]
            score = float(strategy.gate.score((), DecodeState(jnp.asarray(pi)[None], *([None] * 2), History))[0][0])
            risk += score
            risky = (risk if strategy.summed else score) > strategy.level
            call = (risky and not strategy.verify_at_end) or owed > 0
            call = (call or len(tokens) - seen >= strategy.draft_length) and sum(asked) < most_calls
            if not call:
                owed = 0
                tokens, asked = [*tokens, pick(pi, 0, len(tokens))], [*asked, False]
                complete = tokens[-1] == EOS or len(tokens) == LENGTH
        checks = strategy.check_end or (risky and strategy.verify_at_end)
        if complete and not (checks and sum(asked) < most_calls):
            return Slow(tokens, asked, calls, positions, passes)
        positions += len(tokens) - seen + (not complete)
        calls += owed == 0
        for place in range(seen, len(tokens)):
            mu = log_probs(TEACHER, PLAIN, tokens[:place])
            verdict = judge(policies[place], mu, tokens[place], place)
            if not verdict.accepted_BxN[0, 0]:
                complete = False
                tokens = [*tokens[:place], pick(np.asarray(verdict.residual_logits_BxNxV[0, 0]), 2, place)]
                asked = [*asked[:place], True]
                break
        else:
            if not complete:
                place = len(tokens)
                verdict = judge(policies[place], log_probs(TEACHER, PLAIN, tokens), 1, place)
                tokens, asked = [*tokens, pick(np.asarray(verdict.bonus_logits_BxNxV[0, 0]), 2, place)], [*asked, True]
        seen = len(tokens)
        if complete or tokens[-1] == EOS or seen == LENGTH:
            return Slow(tokens, asked, calls, positions, passes)
        owed = (owed or int(strategy.tokens_per_call)) - 1


class History:
    """Of the slow loop: gates here look at the policy alone, and take the number of rows from this."""

    length_B = jnp.zeros(1, jnp.int32)


STRATEGIES = {
    "speculative": speculative(3),
    "lossy": speculative_lossy(4, 0.8),
    "long_lossy": speculative_lossy(12, 3.0),  # more than the teacher processes at once
    "chow": speculative_cascade("chow", 0.5, 4),
    "diff": speculative_cascade("diff", 0.05, 4),
    "opt": speculative_cascade("opt", 0.3, 4),
    "big_little": big_little(0.24, 1.5),
    "verified": verified(UNSURE, 4.0, 1.0),
    "verified_to_the_end": verified(UNSURE, 4.0, 1.0, check_end=True),
    "asking": verified(UNSURE, 2.45, np.inf, summed=False),
    "long_help": verified(UNSURE, 5.0, 1.0, tokens_per_call=3),
    "verify_at_end": verified(UNSURE, 9.0, 1.0, verify_at_end=True),
}


def run(strategy: Strategy, noise: jax.Array | None = None, rule: Rule | None = None) -> Any:
    return generate_with_checks(
        STUDENT, TEACHER, SOURCE, PLAIN, noise, strategy, banned=BANNED, max_len=LENGTH, rule=rule
    )


@jax.jit
def run_one_of_them(which: jax.Array, noise: jax.Array | None) -> Any:
    """All strategies as one program, which is compiled once."""
    some = list(STRATEGIES.values())

    def number(name: str) -> jax.Array:
        return jnp.asarray([getattr(strategy, name) for strategy in some])[which]

    judges = [strategy.judge for strategy in some]
    gates = [lambda state, gate=strategy.gate: gate.score((), state)[0] for strategy in some]
    strategy = Strategy(
        lambda *arguments: jax.lax.switch(which, judges, *arguments),
        stateless(lambda state: jax.lax.switch(which, gates, state)),
        *map(number, Strategy._fields[2:]),
    )
    return run(strategy, noise)


@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_it_is_the_slow_loop_token_for_token(name: str, sampled: bool) -> None:
    noise = np.random.default_rng(5).random((3, ROWS, LENGTH)).astype(np.float32) if sampled else None
    strategy = STRATEGIES[name]
    given = None if noise is None else jnp.asarray(noise)
    found = jax.device_get(run_one_of_them(list(STRATEGIES).index(name), given))
    for row in range(ROWS):
        slow = slowly(row, strategy, noise)
        count = len(slow.tokens)
        assert found.tokens_BxT[row].tolist() == slow.tokens + [0] * (LENGTH - count)
        assert found.asked_BxT[row].tolist() == slow.asked + [False] * (LENGTH - count)
        assert (found.calls_B[row], found.positions_B[row], found.passes_B[row]) == slow[2:]
        assert found.mask_BxT[row].sum() == count
        assert found.finished_B[row] == (slow.tokens[-1] == EOS)
    assert 0 < found.calls_B.sum() < found.mask_BxT.sum()
    assert (found.positions_B > found.mask_BxT.sum(1)).any() or name in ("asking", "chow", "big_little")
    assert len(set(found.mask_BxT.sum(1).tolist())) > 1


def test_greedy_speculative_decoding_writes_what_the_teacher_would() -> None:
    alone = generate(*TEACHER, PLAIN, None, max_len=LENGTH, banned=BANNED)
    drafted = jax.jit(lambda length: run(speculative(length)))
    found = [drafted(length) for length in (1, 2, 8)]
    found.append(jax.jit(lambda: run(verified(UNSURE, 6.0, 0.0, check_end=True)))())
    for one in found:
        np.testing.assert_array_equal(one.tokens_BxT, alone.tokens_BxT)
        assert (one.calls_B < one.mask_BxT.sum(1)).any()


def test_a_tolerance_without_end_is_asking_without_a_check() -> None:
    def gate(state: DecodeState) -> jax.Array:
        return unsure(state)

    asked = jax.device_get(
        generate_with_help(
            STUDENT,
            TEACHER,
            SOURCE,
            PLAIN,
            None,
            None,
            banned=BANNED,
            max_len=LENGTH,
            threshold=2.45,
            gate=stateless(gate),
        )
    )
    found = jax.device_get(run_one_of_them(list(STRATEGIES).index("asking"), None))
    np.testing.assert_array_equal(found.tokens_BxT, asked.tokens_BxT)
    np.testing.assert_array_equal(found.asked_BxT, asked.asked_BxT)
    np.testing.assert_array_equal(found.calls_B, asked.asked_BxT.sum(1))
    np.testing.assert_array_equal(found.positions_B, asked.positions_B)


def test_what_speculative_sampling_writes_has_exactly_the_target_distribution() -> None:
    """Summed over all drafts; by induction over the span this is the distribution of whole outputs."""
    rng = np.random.default_rng(0)
    pi, mu = rng.dirichlet(np.full(6, 0.5), (2, 40)).astype(np.float32)
    targets = {
        "teacher": (speculative(1).judge, mu),
        "mixture": (targeting(lambda a, b: jnp.logaddexp(a, b) - jnp.log(2.0)), 0.5 * (pi + mu)),
    }
    grid = (np.arange(4000) + 0.5) / 4000
    for judge, nu in targets.values():
        written = np.zeros_like(nu, np.float64)
        for draft in range(6):
            shape = (40, 4000)
            log_pi, log_mu = (jnp.broadcast_to(jnp.log(x)[:, None], (*shape, 6)) for x in (pi, mu))
            verdict = judge(log_pi, log_mu, jnp.full(shape, draft), jnp.broadcast_to(jnp.asarray(grid), shape))
            stands = np.asarray(verdict.accepted_BxN).mean(1)
            instead = np.exp(np.asarray(verdict.residual_logits_BxNxV[:, 0], np.float64))
            instead /= np.maximum(instead.sum(1, keepdims=True), 1e-30)
            written[:, draft] += pi[:, draft] * stands
            written += (pi[:, draft] * (1 - stands))[:, None] * instead
        np.testing.assert_allclose(written, nu, atol=5e-4)


def test_a_rule_limits_calls_and_whoever_may_not_call_writes_alone() -> None:
    strategy = verified(UNSURE, 5.0, 0.5)
    rules = (make_calls(), make_share())
    under = jax.jit(lambda calls, share: run(strategy, rule=Rule(rules, (calls, share))))
    free, kept, share, none = (
        jax.device_get(under(*budgets)) for budgets in ((99.0, 1.0), (2.0, 1.0), (99.0, 0.2), (0.0, 1.0))
    )
    assert free.asked_BxT.sum(1).max() > 2 >= kept.asked_BxT.sum(1).max()
    for row in range(ROWS):
        slow = slowly(row, strategy, None, most_calls=2)
        assert kept.tokens_BxT[row].tolist() == slow.tokens + [0] * (LENGTH - len(slow.tokens))
    # A draft that is rolled back makes the output shorter: the share is kept of what stands.
    assert (share.asked_BxT.sum(1) <= 0.2 * share.mask_BxT.sum(1) + 1e-3).all()
    assert share.asked_BxT.any()
    alone = generate(*STUDENT, SOURCE, None, max_len=LENGTH, banned=BANNED)
    np.testing.assert_array_equal(none.tokens_BxT, alone.tokens_BxT)


def test_numbers_of_a_strategy_change_without_a_new_trace() -> None:
    traces = []
    model, params = STUDENT

    def counting(*args: Any) -> Any:
        traces.append(1)
        return model.extend(*args)

    @jax.jit
    def decode(level: jax.Array, tolerance: jax.Array, length: jax.Array) -> Any:
        strategy = verified(Gate(UNSURE.score), level, tolerance)._replace(draft_length=length)
        counted = (model._replace(extend=counting), params)
        return generate_with_checks(
            counted, TEACHER, SOURCE, PLAIN, None, strategy, banned=BANNED, max_len=LENGTH
        ).calls_B.sum()

    found, counts = set(), []
    for level, length in ((1.0, 9), (5.0, 9), (50.0, 6)):
        found.add(int(decode(jnp.float32(level), jnp.float32(1.0), jnp.int32(length))))
        counts.append(len(traces))
    assert len(found) == 3
    assert 0 < counts[0] == counts[-1]


def test_bad_calls_are_refused() -> None:
    def call(noise: Any, max_len: int) -> Any:
        return generate_with_checks(
            STUDENT, TEACHER, SOURCE, PLAIN, noise, speculative(2), banned=BANNED, max_len=max_len
        )

    with pytest.raises(UserError, match="at least 1"):
        call(None, 0)
    with pytest.raises(UserError, match="noise has shape"):
        call(jnp.zeros((ROWS, LENGTH)), LENGTH)
    assert not np.any(silent().score((), DecodeState(jnp.zeros((1, 3)), None, None, History))[0])  # type: ignore[arg-type]
