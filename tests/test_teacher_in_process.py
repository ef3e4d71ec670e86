"""A model in this process as a teacher: what it answers is what the model says, whatever was asked before."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.data.tokenizer import load_tokenizer
from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.decoding import generate
from kdtw_jax.models import CausalConfig, T5Config, make_model, shift_right
from kdtw_jax.teachers import Prefix, TeacherUnavailable
from kdtw_jax.teachers.in_process import InProcessTeacher
from kdtw_jax.training.identity import model_hash
from kdtw_jax.training.saved import SavedModel

TOKENIZER = load_tokenizer("byt5")
V = TOKENIZER.vocab_size
SOURCES = [(70, 71, 1), (*range(80, 98), 1), (90, 1)]
WRITTEN = [(), (100, 101, 102), (50, 60, 70, 80, 90, 100, 110, 120, 130)]
PREFIXES = [Prefix(source, written) for source, written in zip(SOURCES, WRITTEN, strict=True)]


@pytest.fixture(scope="module", params=["t5", "causal"])
def saved(request: pytest.FixtureRequest) -> SavedModel:
    if request.param == "t5":
        config: Any = T5Config.toy(V, num_layers=1, num_decoder_layers=2, dropout_rate=0.0)
    else:
        config = CausalConfig.toy(V)
    model = make_model(config)
    params = jax.tree.map(lambda x: np.asarray(1.5 * x), jax.jit(model.init)(jax.random.key(1)))
    return SavedModel(model, params, TOKENIZER)


@pytest.fixture(scope="module")
def decode(saved: SavedModel) -> Any:
    """Log-probabilities of whole rows, [B, T, V], of padded sources and targets."""
    model, params, _ = saved

    @jax.jit
    def decoded(params: Any, source_BxS: jax.Array, target_BxT: jax.Array) -> jax.Array:
        logits_BxTxV = model.decode(params, model.encode(params, source_BxS), shift_right(target_BxT)).logits_BxTxV
        return jax.nn.log_softmax(logits_BxTxV.astype(jnp.float32), axis=-1)

    def by_hand(prefix: Prefix, tokens: tuple[int, ...] = (0,)) -> np.ndarray:
        """Of every token at each of the places after a prefix, [T, V]."""
        source_1xS, target_1xT = np.zeros((1, 24), np.int32), np.zeros((1, 32), np.int32)
        whole = (*prefix.written, *tokens)
        source_1xS[0, : len(prefix.source)], target_1xT[0, : len(whole)] = prefix.source, whole
        return np.asarray(decoded(params, source_1xS, target_1xT))[0, len(prefix.written) : len(whole)]

    return by_hand


@pytest.fixture(scope="module")
def teacher(saved: SavedModel) -> InProcessTeacher:
    return InProcessTeacher(saved)


def in_session(prefixes: list[Prefix]) -> list[Prefix]:
    return [prefix._replace(session=f"output {i}") for i, prefix in enumerate(prefixes)]


def test_it_says_what_it_is(saved: SavedModel, teacher: InProcessTeacher) -> None:
    assert teacher.about.model == model_hash(saved.model, saved.params)
    assert teacher.about.vocab_size == teacher.about.max_top_k == V
    assert teacher.about.vocabulary == vocabulary_hash(TOKENIZER) and teacher.about.reads_rows


def test_the_next_token_is_as_the_model_says(decode: Any, teacher: InProcessTeacher) -> None:
    for prefix, top in zip(PREFIXES, teacher.next_token(PREFIXES, top_k=V), strict=True):
        assert sorted(top.ids_K) == list(range(V))
        np.testing.assert_allclose(top.log_probs_K, decode(prefix)[0, top.ids_K], atol=2e-4)
        assert np.all(np.diff(top.log_probs_K) <= 0)
        assert abs(float(np.exp(top.log_probs_K).sum()) - 1) < 1e-4


def test_fewer_are_the_first_of_more(teacher: InProcessTeacher) -> None:
    for few, all_of_them in zip(teacher.next_token(PREFIXES, 5), teacher.next_token(PREFIXES, V), strict=True):
        np.testing.assert_array_equal(few.ids_K, all_of_them.ids_K[:5])
        np.testing.assert_allclose(few.log_probs_K, all_of_them.log_probs_K[:5], atol=1e-5)


def test_a_score_is_that_of_one_token_after_the_other(decode: Any, teacher: InProcessTeacher) -> None:
    rows: list[tuple[int, ...]] = [(5, 6, 1), (), (*range(200, 217), 1)]
    for prefix, tokens, score in zip(PREFIXES, rows, teacher.score(PREFIXES, rows, top_k=3), strict=True):
        assert score.log_probs_T.shape == (len(tokens),) and score.top_ids_TxK.shape == (len(tokens), 3)
        if tokens:
            log_prob_TxV = decode(prefix, tokens)
            np.testing.assert_allclose(score.log_probs_T, log_prob_TxV[range(len(tokens)), tokens], atol=2e-4)
        for place, token in list(enumerate(tokens))[-3:]:
            before = prefix._replace(written=(*prefix.written, *tokens[:place]))
            (top,) = teacher.next_token([before], V)
            np.testing.assert_allclose(score.log_probs_T[place], top.log_probs_K[top.ids_K == token][0], atol=2e-4)
            np.testing.assert_allclose(score.top_log_probs_TxK[place], top.log_probs_K[:3], atol=2e-4)


def test_it_continues_as_greedy_decoding_does(saved: SavedModel, teacher: InProcessTeacher) -> None:
    model, params, tokenizer = saved
    banned, max_len = tokenizer.banned_ids, 11
    greedy = jax.jit(lambda params, x: generate(model, params, x, None, max_len=max_len, banned=banned))
    for source in SOURCES:
        source_1xS = np.zeros((1, 24), np.int32)
        source_1xS[0, : len(source)] = source
        whole = greedy(params, source_1xS)
        wanted = np.asarray(whole.tokens_BxT)[np.asarray(whole.mask_BxT)].tolist()
        (said,) = teacher.generate([Prefix(source)], max_len, banned)
        assert said == wanted
        written = tuple(said[:2])
        assert teacher.generate([Prefix(source, written)], max_len - 2, banned) == [wanted[2:]]


def test_none_that_is_banned_is_written(teacher: InProcessTeacher) -> None:
    free = teacher.generate(PREFIXES, 6)
    banned = {token for row in free for token in row}
    other = teacher.generate(PREFIXES, 6, sorted(banned))
    assert not banned & {token for row in other for token in row}


def test_rows_of_a_batch_do_not_know_each_other(teacher: InProcessTeacher) -> None:
    many = [*PREFIXES, *PREFIXES[::-1], *PREFIXES]
    alone = [teacher.next_token([prefix], V)[0] for prefix in PREFIXES]
    for i, top in enumerate(teacher.next_token(many, V)):
        (same,) = (one for one, prefix in zip(alone, PREFIXES, strict=True) if prefix == many[i])
        np.testing.assert_allclose(top.log_probs_K, same.log_probs_K, atol=2e-4)


def test_sessions_change_nothing_but_the_work(saved: SavedModel) -> None:
    plain, kept = InProcessTeacher(saved), InProcessTeacher(saved)
    prefixes, sessions = PREFIXES, in_session(PREFIXES)
    for further in ((40,), (41, 42)):
        prefixes = [prefix._replace(written=(*prefix.written, *further)) for prefix in prefixes]
        sessions = [prefix._replace(written=(*prefix.written, *further)) for prefix in sessions]
        for one, other in zip(plain.next_token(prefixes, V), kept.next_token(sessions, V), strict=True):
            order, again = np.argsort(one.ids_K), np.argsort(other.ids_K)
            np.testing.assert_allclose(one.log_probs_K[order], other.log_probs_K[again], atol=2e-4)
        assert plain.generate(prefixes, 6) == kept.generate(sessions, 6)
        rows = [(3, 4, 5, 1)] * len(prefixes)
        for a, b in zip(plain.score(prefixes, rows), kept.score(sessions, rows), strict=True):
            np.testing.assert_allclose(a.log_probs_T, b.log_probs_T, atol=2e-4)
    assert kept.positions < plain.positions / 2


def test_a_session_reads_only_what_is_new_and_goes_back_where_texts_part(saved: SavedModel, decode: Any) -> None:
    teacher = InProcessTeacher(saved)
    prefix = Prefix(SOURCES[1], (20, 21, 22), "a")

    def work(prefix: Prefix) -> int:
        before = teacher.positions
        (top,) = teacher.next_token([prefix], V)
        log_prob_V = decode(prefix)[0]
        np.testing.assert_allclose(top.log_probs_K, log_prob_V[top.ids_K], atol=2e-4)
        return teacher.positions - before

    assert work(prefix) == len(prefix.source) + 4
    assert work(prefix._replace(written=(20, 21, 22, 23, 24))) == 2
    assert work(prefix._replace(written=(20, 30))) == 1
    other = prefix._replace(source=SOURCES[0])
    assert work(other) == len(other.source) + 4  # another text under the same name


def test_what_sessions_keep_is_bounded_and_the_oldest_goes(saved: SavedModel) -> None:
    teacher = InProcessTeacher(saved)
    teacher.next_token([PREFIXES[0]._replace(session="a")])
    size = teacher.kept_bytes
    assert size > 0
    teacher = InProcessTeacher(saved, cache_bytes=2 * size)
    for name in ("a", "b", "a", "c"):
        teacher.next_token([PREFIXES[0]._replace(session=name)])
        assert teacher.kept_bytes <= 2 * size
    before = teacher.positions
    teacher.next_token([PREFIXES[0]._replace(session="a")])
    assert teacher.positions == before + 1  # b was the one that went
    teacher.next_token([PREFIXES[0]._replace(session="b")])
    assert teacher.positions > before + 2


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        (Prefix((V,)), "ids go from 0"),
        (Prefix((5, -1)), "ids go from 0"),
        (Prefix((5,), (True,)), "ids go from 0"),
        (Prefix(()), "empty"),
        (Prefix((5, 0, 6)), "padding"),
    ],
)
def test_what_can_never_be_answered_is_refused(teacher: InProcessTeacher, prefix: Prefix, said: str) -> None:
    for ask in (
        lambda: teacher.next_token([prefix]),
        lambda: teacher.score([prefix], [(1,)]),
        lambda: teacher.generate([prefix], 3),
    ):
        with pytest.raises(ValueError, match=said):
            ask()


def test_numbers_that_cannot_be_are_refused(teacher: InProcessTeacher) -> None:
    prefix = PREFIXES[0]
    for ask, said in (
        (lambda: teacher.next_token([prefix], V + 1), "top_k"),
        (lambda: teacher.next_token([prefix], 0), "top_k"),
        (lambda: teacher.score([prefix], [(1,)], -1), "top_k"),
        (lambda: teacher.score([prefix], [(V,)]), "tokens"),
        (lambda: teacher.score([prefix], []), "one for each"),
        (lambda: teacher.generate([prefix], 0), "max_len"),
        (lambda: teacher.generate([prefix], 3, [V]), "banned"),
        (lambda: teacher.generate([prefix], 3, range(V)), "at least one"),
    ):
        with pytest.raises(ValueError, match=said):
            ask()


def test_a_closed_one_does_not_answer(saved: SavedModel) -> None:
    teacher = InProcessTeacher(saved)
    assert teacher.next_token([]) == [] and teacher.generate([], 3) == []
    teacher.close()
    with pytest.raises(TeacherUnavailable):
        teacher.next_token(PREFIXES)
