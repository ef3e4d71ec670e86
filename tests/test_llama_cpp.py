"""llama.cpp's own server, with SmolLM2: it says what our reading of the same file says, up to its rounded products."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from kdtw_jax.data.tokenizer import EOS_ID, Tokenizer
from kdtw_jax.pretrained.named import find_model, read_teacher
from kdtw_jax.pretrained.packages import place
from kdtw_jax.teachers import Prefix, Teacher, TeacherUnavailable
from kdtw_jax.teachers.in_process import InProcessTeacher
from kdtw_jax.teachers.named import open_teacher
from kdtw_jax.teachers.resilience import Patience
from tests.llama_server import free_port, program, serving

pytestmark = pytest.mark.long
NAME = "smollm2-135m"
TEXTS = ["What is the capital of France?", "Write a haiku about rain.", "2 + 2 ="]
# Nats between products with activations rounded to 8 bits and ours: 0.5 at the most and 0.1 on average were measured.
NEAR, MEAN = 1.0, 0.25


class Pair(NamedTuple):
    """Both readings of one file."""

    theirs: Teacher
    ours: Teacher
    tokenizer: Tokenizer
    port: int
    program: Path


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    server = program()
    if not place(NAME).is_file():
        pytest.skip(f"{NAME} is not here; fetch it: kdtw fetch {NAME}")
    saved = read_teacher(find_model(NAME), dtype="float32")
    port = free_port()
    with serving(server, place(NAME), port):
        patience = Patience(attempts=400, first_wait_s=0.1, longest_wait_s=0.5, failures=10_000)
        theirs = open_teacher(f"llama.cpp+http://127.0.0.1:{port}", tokenizer=saved.tokenizer, patience=patience)
        yield Pair(theirs, InProcessTeacher(saved, NAME), saved.tokenizer, port, server)
        theirs.close()


def prefixes(pair: Pair) -> list[Prefix]:
    prompts = [tuple(pair.tokenizer.prompt(text, 200)[0]) for text in TEXTS]
    written = [(), tuple(pair.tokenizer.encode("Rain falls")), tuple(pair.tokenizer.encode(" 4, and"))]
    return [Prefix(prompt, more) for prompt, more in zip(prompts, written, strict=True)]


def test_it_says_the_same_of_the_next_token(pair: Pair) -> None:
    assert pair.theirs.about.vocabulary == pair.ours.about.vocabulary and not pair.theirs.about.reads_rows
    both = zip(pair.theirs.next_token(prefixes(pair), 1000), pair.ours.next_token(prefixes(pair), 1000), strict=True)
    for theirs, ours in both:
        assert theirs.ids_K[0] in ours.ids_K[:2]
        assert 0.9 < np.exp(theirs.log_probs_K).sum() <= 1 + 1e-3
        said = dict(zip(ours.ids_K.tolist(), ours.log_probs_K.tolist(), strict=True))
        apart = [
            abs(value - said[i]) for i, value in zip(theirs.ids_K[:50], theirs.log_probs_K, strict=False) if i in said
        ]
        assert len(apart) > 45 and max(apart) < NEAR and np.mean(apart) < MEAN


def test_it_says_the_same_of_a_row_whatever_its_tokens(pair: Pair) -> None:
    encode = pair.tokenizer.encode
    rows = [[*encode("Paris."), EOS_ID], encode(" 🦜ẞ東"), encode(" zebra zebra zebra")]
    theirs, ours = (teacher.score(prefixes(pair), rows, 5) for teacher in (pair.theirs, pair.ours))
    for one, other, row in zip(theirs, ours, rows, strict=True):
        assert one.top_ids_TxK.shape == (len(row), 5)
        np.testing.assert_allclose(one.log_probs_T, other.log_probs_T, atol=NEAR)
    apart = np.concatenate([one.log_probs_T - other.log_probs_T for one, other in zip(theirs, ours, strict=True)])
    assert np.mean(np.abs(apart)) < MEAN
    # and the same as when each place is asked for by itself
    before = prefixes(pair)[1]
    for place_, token in enumerate(rows[1]):
        ask = before._replace(written=(*before.written, *rows[1][:place_]))
        (top,) = pair.theirs.next_token([ask], pair.theirs.about.max_top_k)
        found = top.log_probs_K[top.ids_K == token]
        np.testing.assert_allclose(theirs[1].log_probs_T[place_], found, atol=0.05)


def test_it_writes_what_it_finds_most_probable(pair: Pair) -> None:
    banned, before = pair.tokenizer.banned_ids, prefixes(pair)
    theirs = pair.theirs.generate(before, 12, banned)
    for row, score in zip(theirs, pair.ours.score(before, theirs, 5), strict=True):
        assert len(row) == 12 or row[-1] == EOS_ID
        assert np.all(score.log_probs_T > score.top_log_probs_TxK[:, 0] - NEAR)  # by our reading as well
    (found,) = pair.theirs.score(before[:1], theirs[:1], 2)
    assert np.all(found.log_probs_T >= found.top_log_probs_TxK[:, 0] - 0.05)
    (other,) = pair.theirs.generate(before[:1], 3, [*banned, theirs[0][0]])
    assert other[0] != theirs[0][0]


def test_killed_and_started_again_it_answers_as_before(pair: Pair) -> None:
    port = free_port()
    url, hasty = f"llama.cpp+http://127.0.0.1:{port}", Patience(attempts=2, first_wait_s=0.05, failures=10_000)
    patience = Patience(attempts=400, first_wait_s=0.1, longest_wait_s=0.5, failures=10_000)
    with serving(pair.program, place(NAME), port):
        open_teacher(url, tokenizer=pair.tokenizer, patience=patience).close()
        teacher = open_teacher(url, tokenizer=pair.tokenizer, patience=hasty)
        first = teacher.generate(prefixes(pair)[:1], 8)
    with pytest.raises(TeacherUnavailable):
        teacher.generate(prefixes(pair)[:1], 8)
    with serving(pair.program, place(NAME), port):
        open_teacher(url, tokenizer=pair.tokenizer, patience=patience).close()
        assert teacher.generate(prefixes(pair)[:1], 8) == first
    teacher.close()
