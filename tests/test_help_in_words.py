"""Decoding where a call buys a word: what a slow loop does; lazy or not; no finished text is over its rule in words."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.constraints import Rule, Unit, make_calls, make_pause, make_share, make_unit
from kdtw_jax.constraints.credit import Credit, Purse
from kdtw_jax.decoding import generate_with_help
from kdtw_jax.decoding.enforced import draft_credit
from kdtw_jax.decoding.gate import DecodeState, stateless
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.text.words import word_marks
from tests.counting import count_words
from tests.test_help_decoding import BANNED, LENGTH, PLAIN, ROWS, SOURCE, STUDENT, TEACHER, VOCABULARY, everywhere

LETTERS = "abcdefghijklmnopqrst"
PIECES = ["", "</s>", "", "", "▁", *(("▁" if i % 3 == 0 else "") + LETTERS[i] for i in range(VOCABULARY - 5))]
BYTES = ["", "</s>", "", "", "▁", "▁", "▁", *LETTERS[: VOCABULARY - 7]]  # three spaces, or hardly any would be written
UNITS = {
    "word": (make_unit("word", word_marks(PIECES)), PIECES),
    "bytes": (make_unit("word", word_marks(BYTES)), BYTES),
    "3": (make_unit("3"), PIECES),
}
UNSURE = 0.75


def unsure(state: DecodeState) -> jax.Array:
    return 1 - jnp.exp(jnp.max(state.log_policy_BxV, axis=-1))


def run(unit: Unit, rule: Rule | None, noise: Any, credit: Any = None, **changes: Any) -> Any:
    given = {"banned": BANNED, "max_len": LENGTH, "threshold": UNSURE, "gate": stateless(unsure), **changes}
    source, plain = given.pop("texts", (SOURCE, PLAIN))
    return generate_with_help(
        STUDENT, TEACHER, source, plain, None, noise, rule=rule, credit=credit, unit=unit, **given
    )  # fmt: skip


def slowly(row: int, name: str, noise: np.ndarray | None) -> tuple[list[int], list[bool], list[bool], int]:
    """One row, a token at a time, everything decoded anew: tokens, who wrote them, where calls are, positions read."""
    pieces = UNITS[name][1]
    tokens, asked, calls = list[int](), list[bool](), list[bool]()
    positions, owed, has_word = 0, 0, False

    def policy(network: Any, source: jax.Array) -> np.ndarray:
        inputs = jnp.zeros((1, LENGTH), jnp.int32).at[0, 1 : len(tokens) + 1].set(jnp.asarray(tokens, jnp.int32))
        logits = everywhere(network[0])(network[1], source[None], inputs).logits_BxTxV[:, len(tokens)]
        return np.exp(np.asarray(log_policy(logits, BANNED)[0], np.float64))

    def drawn(probability: np.ndarray) -> int:
        if noise is None:
            return int(probability.argmax())
        return int((np.cumsum(probability) / probability.sum() > noise[row, len(tokens)]).argmax())

    while len(tokens) < LENGTH and 1 not in tokens:
        own, theirs = policy(STUDENT, SOURCE[row]), policy(TEACHER, PLAIN[row])
        proposal = drawn(theirs)
        if name == "3":
            goes_on, heard = owed > 0, owed > 0
        else:
            blank, spaced = not pieces[proposal].strip("▁"), pieces[proposal].startswith("▁")
            after_space = not tokens or not pieces[tokens[-1]].strip("▁")
            goes_on = owed > 0 and proposal != 1 and (not has_word or not (blank or spaced or after_space))
            heard = owed > 0
        asks = not goes_on and 1 - own.max() > UNSURE
        token = proposal if goes_on or asks else drawn(own)
        if heard or asks:
            positions = len(tokens) + 1
        if asks:
            owed, has_word = (3 if name == "3" else 1), False
        has_word = has_word or bool(pieces[token].strip("▁"))
        owed = (owed - (name == "3")) if goes_on or asks else 0
        tokens.append(token)
        asked.append(goes_on or asks)
        calls.append(asks)
    return tokens, asked, calls, positions


@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", list(UNITS))
def test_it_is_the_slow_loop_token_for_token_whether_the_teacher_is_lazy_or_not(name: str, sampled: bool) -> None:
    noise = np.random.default_rng(3).random((ROWS, LENGTH)).astype(np.float32) if sampled else None
    unit, pieces = UNITS[name]
    lazy, along = (
        jax.device_get(jax.jit(lambda r=r: run(unit, None, noise, read_along=r))()) for r in (False, True)
    )  # fmt: skip
    longer = 0
    for row in range(ROWS):
        tokens, asked, calls, positions = slowly(row, name, noise)
        more = [0] * (LENGTH - len(tokens))
        for found in (lazy, along):
            assert found.tokens_BxT[row].tolist() == tokens + more
            assert found.asked_BxT[row].tolist() == asked + [bool(x) for x in more]
            assert found.called_BxT[row].tolist() == calls + [bool(x) for x in more]
            assert found.positions_B[row] == positions
            assert found.history.calls_B[row] == sum(calls)
        if name != "3":
            slow = count_words([pieces[i] for i in tokens], asked)
            assert (lazy.history.length_B[row], lazy.history.helped_B[row]) == (slow.length, slow.helped)
        longer += sum(asked) - sum(calls)
    assert longer > 0


def noises(seed: int, rows: int) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), (rows, LENGTH))


@pytest.mark.parametrize("read_along", [False, True], ids=["lazy", "reads_along"])
@pytest.mark.parametrize("name", ["word", "bytes"])
def test_no_text_is_over_a_share_of_its_words_wherever_it_is_cut_off(name: str, read_along: bool) -> None:
    unit, pieces = UNITS[name]
    rows, over, ahead, cut = 240, 0, 0, 0
    texts = jnp.tile(SOURCE, (rows // ROWS, 1)), jnp.tile(PLAIN, (rows // ROWS, 1))
    share = jnp.asarray(np.tile([0.05, 0.1, 0.2, 0.3, 0.5], rows // 5), jnp.float32)
    rng = np.random.default_rng(0)

    @jax.jit
    def write(noise: jax.Array, trusted_B: jax.Array, often_B: jax.Array) -> Any:
        gate = stateless(lambda state: often_B)
        rule = Rule((make_share(), make_pause()), (share, jnp.float32(0)))
        return run(unit, rule, noise, Credit(trusted_B), gate=gate, texts=texts, read_along=read_along)

    for seed in range(9):
        trusted = jnp.asarray(rng.integers(0, 2 * LENGTH, rows), jnp.int32)
        often = jnp.asarray(rng.random(rows) < 0.9, jnp.float32)
        found = jax.device_get(write(noises(seed, rows), trusted, often))
        for row in range(rows):
            mask = found.mask_BxT[row]
            tokens, asked = found.tokens_BxT[row][mask], found.asked_BxT[row][mask]
            assert (tokens > 0).all()
            slow = count_words([pieces[i] for i in tokens], asked)
            over += slow.helped > float(share[row]) * slow.length + 1e-4
            cut += not found.finished_B[row]
            early = [count_words([pieces[i] for i in tokens[:t]], asked[:t]) for t in (3, 6)]
            ahead += any(c.helped > float(share[row]) * c.length + 1e-4 for c in early)
    assert over == 0 and ahead > 100 and cut > 100


def test_answers_of_several_tokens_are_cut_short_where_the_share_says_so() -> None:
    unit, share = UNITS["3"][0], jnp.asarray([0.0, 0.1, 0.2, 0.3, 0.5, 1.0])
    gate = stateless(lambda state: jnp.asarray(state.history.length_B < 8, jnp.float32))

    @jax.jit
    def write(noise: jax.Array, credit: Credit | None) -> Any:
        return run(unit, Rule((make_share(),), (share,)), noise, credit, gate=gate)

    longest, short = 0, 0
    for seed in range(4):
        for credit in (Credit(jnp.asarray([9, 99, 20, 10, 0, 5])), None):
            found = jax.device_get(write(noises(seed, ROWS), credit))
            assert (found.asked_BxT.sum(1) <= np.asarray(share) * found.mask_BxT.sum(1) + 1e-3).all()
            np.testing.assert_array_equal(found.history.helped_B, found.asked_BxT.sum(1))
            longest = max(longest, int((found.asked_BxT.sum(1) - found.called_BxT.sum(1)).max()))
            asked = np.pad(found.asked_BxT, ((0, 0), (0, 1)))
            ends = asked[:, :-1] & ~asked[:, 1:]
            short += int((ends & (np.cumsum(found.called_BxT, 1) * 3 > np.cumsum(found.asked_BxT, 1))).sum())
    assert longest >= 2 and short > 0


def test_a_share_of_half_the_words_is_nearly_used_up() -> None:
    unit = UNITS["word"][0]
    rule = Rule((make_share(),), (jnp.float32(0.5),))
    everywhere = stateless(lambda state: jnp.ones(ROWS))
    found = jax.jit(lambda noise: run(unit, rule, noise, Credit(jnp.full(ROWS, 99)), gate=everywhere))(noises(0, ROWS))
    assert (found.history.helped_B + 2 > 0.5 * found.history.length_B).all() and (found.history.helped_B > 0).any()


@pytest.mark.parametrize("name", ["word", "bytes"])
def test_outputs_with_one_budget_keep_it_together_in_words(name: str) -> None:
    unit, pieces = UNITS[name]
    rows, share, saved, spent = 60, 0.2, 1.5, 0.0
    member = np.arange(rows) % 4 > 0
    texts = jnp.tile(SOURCE, (rows // ROWS, 1)), jnp.tile(PLAIN, (rows // ROWS, 1))

    @jax.jit
    def write(noise: jax.Array, trusted_B: jax.Array, often_B: jax.Array) -> Any:
        rule, gate = Rule((make_share(),), (jnp.float32(share),)), stateless(lambda state: often_B)
        credit = Credit(trusted_B, Purse((jnp.float32(saved),), jnp.asarray(member)))
        return run(unit, rule, noise, credit, gate=gate, texts=texts)

    rng = np.random.default_rng(1)
    for seed in range(6):
        trusted = jnp.asarray(rng.integers(0, LENGTH, rows) * (seed % 2), jnp.int32)
        found = jax.device_get(write(noises(seed, rows), trusted, jnp.asarray(rng.random(rows) < 0.6, jnp.float32)))
        over = []
        for row in range(rows):
            mask = found.mask_BxT[row]
            slow = count_words([pieces[i] for i in found.tokens_BxT[row][mask]], found.asked_BxT[row][mask])
            over.append(slow.helped - share * slow.length)
        assert sum(np.asarray(over)[member]) <= saved + 1e-3
        assert max(np.asarray(over)[~member]) <= 1e-3
        spent = max(spent, max(np.asarray(over)[member]))
    assert spent > 1


def test_rules_that_nothing_repays_hold_in_words() -> None:
    unit, pieces = UNITS["word"]
    rule = Rule((make_calls(), make_pause()), (jnp.float32(2), jnp.float32(2)))
    found = jax.device_get(jax.jit(lambda noise: run(unit, rule, noise, threshold=-1.0))(noises(1, ROWS)))
    assert found.history.calls_B.max() == 2
    for row in range(ROWS):
        words = list[bool]()
        for t, token in enumerate(found.tokens_BxT[row][found.mask_BxT[row]]):
            before = pieces[found.tokens_BxT[row, t - 1]] if t else "▁"
            if token == 1 or not pieces[token].strip("▁"):
                continue
            if pieces[token].startswith("▁") or before == "▁":
                words.append(False)
            words[-1] |= bool(found.asked_BxT[row, t])
        places = np.flatnonzero(words)
        assert (np.diff(places) > 2).all()


def test_a_draft_is_trusted_with_its_words() -> None:
    unit, pieces = UNITS["word"]
    rule = Rule((make_share(),), (jnp.float32(0.2),))
    credit = draft_credit(STUDENT, SOURCE, rule, banned=BANNED, max_len=LENGTH, unit=unit)
    alone = jax.device_get(run(unit, None, None, threshold=2.0))
    assert credit is not None
    for row in range(ROWS):
        tokens = alone.tokens_BxT[row][alone.mask_BxT[row]]
        words = count_words([pieces[i] for i in tokens], [False] * len(tokens)).length
        assert credit.length_B[row] == (int(0.9 * words + 1e-3) if alone.finished_B[row] else 0)
