"""Engines of others as teachers, as their pages describe them: what is asked, and what of the replies is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer
from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.errors import UserError
from kdtw_jax.pretrained.causal_vocabulary import load_prompt_vocabulary
from kdtw_jax.teachers import Prefix, TeacherUnavailable
from kdtw_jax.teachers.llama_cpp import LlamaCppTeacher
from kdtw_jax.teachers.vllm import VllmTeacher
from tests.engines import Engine, LlamaCpp, Vllm
from tests.small_llama import write_vocabulary

Teacher = LlamaCppTeacher | VllmTeacher
TEACHERS: dict[type[Engine], type[Teacher]] = {LlamaCpp: LlamaCppTeacher, Vllm: VllmTeacher}
PREFIXES = [Prefix((9, 12, 30)), Prefix((40,), (50, 60)), Prefix((7, 8, 9, 10), (11,), "a")]
TOKENS = [(20, 21, 1), (), (90,)]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, int]:
    folder = tmp_path_factory.mktemp("vocabulary")
    rows = write_vocabulary(folder)
    return load_prompt_vocabulary(folder, rows), rows


@pytest.fixture(params=[LlamaCpp, Vllm])
def engine(request: pytest.FixtureRequest, vocabulary: tuple[Tokenizer, int]) -> Engine:
    made = request.param(*vocabulary)
    assert isinstance(made, Engine)
    return made


def connect(engine: Engine) -> Teacher:
    teacher = TEACHERS[type(engine)](engine.endpoint(), engine.tokenizer)
    engine.requests.clear()
    return teacher


def prompt(engine: Engine, prefix: Prefix, more: tuple[int, ...] = ()) -> list[int]:
    return [int(engine.published[i]) for i in (*prefix.source, *prefix.written, *more)]


def greedy(engine: Engine, prefix: Prefix, max_len: int, banned: tuple[int, ...] = ()) -> list[int]:
    row: list[int] = []
    while len(row) < max_len and row[-1:] != [1]:
        log_prob_V = engine.ours(prompt(engine, prefix, tuple(row)))
        log_prob_V[list(banned)] = -np.inf
        row.append(int(log_prob_V.argmax()))
    return row


def test_ids_of_ours_are_others_there(vocabulary: tuple[Tokenizer, int]) -> None:
    published = vocabulary[0].published_ids
    assert published is not None and any(published != np.arange(len(published)))


def test_it_says_what_it_can(engine: Engine) -> None:
    about = connect(engine).about
    assert about.vocabulary == vocabulary_hash(engine.tokenizer) and about.vocab_size == engine.tokenizer.vocab_size
    assert (about.reads_rows, about.max_top_k) == ((False, engine.rows) if isinstance(engine, LlamaCpp) else (True, 20))


def test_next_tokens_are_the_engines_in_our_ids(engine: Engine) -> None:
    for prefix, top in zip(PREFIXES, connect(engine).next_token(PREFIXES, 6), strict=True):
        log_prob_V = engine.ours(prompt(engine, prefix))
        np.testing.assert_array_equal(top.ids_K, np.argsort(-log_prob_V)[:6])
        np.testing.assert_allclose(top.log_probs_K, np.sort(log_prob_V)[::-1][:6], rtol=1e-6)
    assert len(engine.requests) == 1  # all in one


@pytest.mark.parametrize("top_k", [0, 4])
def test_scores_are_those_of_one_token_after_the_other(engine: Engine, top_k: int) -> None:
    for prefix, row, score in zip(PREFIXES, TOKENS, connect(engine).score(PREFIXES, TOKENS, top_k), strict=True):
        assert score.log_probs_T.shape == (len(row),) and score.top_ids_TxK.shape == (len(row), top_k)
        for place, token in enumerate(row):
            log_prob_V = engine.ours(prompt(engine, prefix, row[:place]))
            np.testing.assert_allclose(score.log_probs_T[place], log_prob_V[token], rtol=1e-6)
            np.testing.assert_array_equal(score.top_ids_TxK[place], np.argsort(-log_prob_V)[:top_k])
    assert len(engine.requests) == (4 if isinstance(engine, LlamaCpp) else 1)


def test_continuations_are_greedy_and_nothing_banned_is_among_them(engine: Engine) -> None:
    teacher = connect(engine)
    wanted = [greedy(engine, prefix, 12) for prefix in PREFIXES]
    assert teacher.generate(PREFIXES, 12) == wanted
    banned = tuple({*wanted[0][:4], *engine.tokenizer.banned_ids} - {1})
    assert teacher.generate(PREFIXES, 12, banned) == [greedy(engine, prefix, 12, banned) for prefix in PREFIXES]


def test_another_end_of_the_engines_own_is_a_token_like_any_other(engine: Engine) -> None:
    moved = np.flatnonzero(engine.published != np.arange(len(engine.published)))  # ids that are others there
    banned = tuple(sorted({*range(engine.tokenizer.vocab_size)} - {*moved.tolist()} | {1}))
    wanted = greedy(engine, PREFIXES[0], 12, banned)
    assert isinstance(engine, LlamaCpp | Vllm) and len(wanted) == 12
    engine.ends = frozenset(int(engine.published[i]) for i in wanted[1:4])
    assert connect(engine).generate(PREFIXES[:1], 12, banned) == [wanted]
    assert len(engine.requests) > 1


def test_a_token_that_has_no_entry_is_looked_for_among_all(vocabulary: tuple[Tokenizer, int]) -> None:
    engine = LlamaCpp(*vocabulary)
    engine.partial = frozenset(range(engine.rows)) - {engine.eos}
    score = connect(engine).score(PREFIXES, TOKENS, 2)
    for place, token in enumerate(TOKENS[0]):
        log_prob_V = engine.ours(prompt(engine, PREFIXES[0], TOKENS[0][:place]))
        np.testing.assert_allclose(score[0].log_probs_T[place], log_prob_V[token], rtol=1e-6)
        np.testing.assert_array_equal(score[0].top_ids_TxK[place], np.argsort(-log_prob_V)[:2])


def _first(value: Any) -> Any:
    return value["choices"][0] if "choices" in value else value


SPOILT: dict[str, Any] = {
    "cut prompt": lambda x: _first(x).update(tokens_evaluated=2, prompt_token_ids=[5, 6]),
    "nothing of the prompt": lambda x: [_first(x).pop(name, None) for name in ("tokens_evaluated", "prompt_token_ids")],
    "other order": lambda x: _first(x).update(index=1),
    "no probabilities": lambda x: _first(x).update(completion_probabilities=[], logprobs=None),
    "another token": lambda x: _first(x).update(tokens=[3], logprobs={"top_logprobs": [{"three": -1.0}]}),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_an_engine_ignores_is_noticed(engine: Engine, how: str) -> None:
    teacher = connect(engine)

    def spoil(value: Any) -> Any:
        SPOILT[how](value)
        return value

    engine.spoil = spoil
    with pytest.raises(TeacherUnavailable):
        teacher.next_token(PREFIXES[:1], 3)


def test_fewer_log_probabilities_than_were_asked_for_are_noticed(engine: Engine) -> None:
    teacher = connect(engine)

    def spoil(value: Any) -> Any:
        first = _first(value)
        if "choices" in value:
            first["logprobs"]["top_logprobs"][0].popitem()
        else:
            first["completion_probabilities"][0]["top_logprobs"].pop()
        return value

    engine.spoil = spoil
    with pytest.raises(TeacherUnavailable, match="log-probabilities"):
        teacher.next_token(PREFIXES[:1], 3)


@pytest.mark.parametrize("how", ["far below all numbers", "a name of many digits"])
def test_numbers_that_none_can_be_are_noticed(engine: Engine, how: str) -> None:
    """And are no requests that can never be answered, which raise ValueError."""
    teacher = connect(engine)

    def spoil(value: Any) -> Any:
        first = _first(value)
        if "choices" in value:
            tops = first["logprobs"]["top_logprobs"][0] if first["logprobs"] else first["prompt_logprobs"][-1]
            some = next(iter(tops))
            before = some.rpartition(":")[0] + some.rpartition(":")[1]
            said = {"logprob": -(10**400)} if isinstance(tops[some], dict) else -(10**400)
            tops |= {some: said} if how == "far below all numbers" else {before + "9" * 5000: tops.pop(some)}
        elif how == "far below all numbers":
            first["completion_probabilities"][0]["logprob"] = -(10**400)
        else:
            first["completion_probabilities"][0]["top_logprobs"][0]["id"] = 10**400
        return value

    engine.spoil = spoil
    for ask in (lambda: teacher.next_token(PREFIXES[:1], 3), lambda: teacher.score(PREFIXES[:1], TOKENS[:1], 3)):
        with pytest.raises(TeacherUnavailable, match="cannot be right"):
            ask()


def test_a_ban_that_is_ignored_is_noticed(engine: Engine) -> None:
    teacher = connect(engine)
    banned = greedy(engine, PREFIXES[0], 1)
    there = int(engine.published[banned[0]])

    def spoil(value: Any) -> Any:
        _first(value).update(tokens=[there], token_ids=[there])
        return value

    engine.spoil = spoil
    with pytest.raises(TeacherUnavailable, match="banned"):
        teacher.generate(PREFIXES[:1], 1, banned)


def test_a_row_that_has_no_room_is_refused(engine: Engine) -> None:
    teacher = connect(engine)
    with pytest.raises(ValueError, match="tokens; "):
        teacher.generate(PREFIXES, 64)
    with pytest.raises(ValueError, match="tokens; "):
        teacher.next_token([Prefix((5,) * 70)])
    assert engine.requests == []


def test_an_id_that_only_we_have_is_refused(vocabulary: tuple[Tokenizer, int]) -> None:
    tokenizer, rows = vocabulary
    wider = tokenizer.padded_to(rows + 3)
    teacher = LlamaCppTeacher(LlamaCpp(wider, rows).endpoint(), wider)
    with pytest.raises(ValueError, match="no token for the id"):
        teacher.score([PREFIXES[0]], [(wider.vocab_size - 1,)])
    assert len(teacher.generate([PREFIXES[0]], 3, [wider.vocab_size - 1])[0]) == 3


def test_a_model_of_another_vocabulary_is_refused(engine: Engine) -> None:
    engine.spoil = lambda value: {**value, "tokens": [1, 2]} if "tokens" in value else value
    with pytest.raises(UserError, match="another vocabulary"):
        connect(engine)


def test_more_ids_than_the_tokenizer_has_are_refused(vocabulary: tuple[Tokenizer, int]) -> None:
    with pytest.raises(UserError, match="ids"):
        connect(LlamaCpp(vocabulary[0], vocabulary[0].vocab_size + 1))


def test_an_encoder_decoders_vocabulary_is_refused(engine: Engine) -> None:
    with pytest.raises(UserError, match="decoder-only"):
        TEACHERS[type(engine)](engine.endpoint(), load_tokenizer("byt5"))


def test_what_is_sent_to_vllm(vocabulary: tuple[Tokenizer, int]) -> None:
    """Requests in full, as the documentation has them."""
    engine = Vllm(*vocabulary)
    teacher = connect(engine)
    there = prompt(engine, PREFIXES[1])
    always = {"model": "small", "temperature": 0.0, "add_special_tokens": False, "return_token_ids": True, "n": 1}
    teacher.next_token(PREFIXES[1:2], 3)
    teacher.score(PREFIXES[1:2], [(5,)], 2)
    teacher.generate(PREFIXES[1:2], 1, [6])
    row = [*there, int(engine.published[5])]
    never, ends = {str(int(engine.published[6])): -100.0}, [engine.eos]
    assert engine.requests == [
        (
            "/v1/completions",
            {**always, "prompt": [there], "max_tokens": 1, "logprobs": 3, "return_tokens_as_token_ids": True},
        ),
        ("/v1/completions", {**always, "prompt": [row], "max_tokens": 1, "prompt_logprobs": 2}),
        (
            "/v1/completions",
            {
                **always,
                "prompt": [there],
                "max_tokens": 1,
                "ignore_eos": True,
                "stop_token_ids": ends,
                "logit_bias": never,
            },
        ),
    ]


def test_the_vocabulary_is_read_of_a_folder(vocabulary: tuple[Tokenizer, int], tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    assert vocabulary_hash(load_prompt_vocabulary(tmp_path, vocabulary[1])) == vocabulary_hash(vocabulary[0])
