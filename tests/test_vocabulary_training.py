"""What the trainer of a vocabulary is given, how long it takes over it, and what it says of sizes."""

from __future__ import annotations

import random
import string
import time

import pytest

from kdtw_jax.data.tokenizer import UNK_ID, normalize, train_tokenizer
from kdtw_jax.data.vocabulary_training import LONG, MOST_PIECES, training_lines
from kdtw_jax.errors import UserError
from kdtw_jax.pipeline.config import TextConfig

PLAIN = ["b a", "a b b 1", "ba"] * 20
UNLIKE = " ".join(str(i * i) for i in range(3000))


def letters(count: int, seed: int, alphabet: str = string.ascii_lowercase) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=count))


@pytest.mark.parametrize(
    "line",
    [
        "the cat sat; " * 2000,
        "z" * 50000,
        letters(20000, 0),
        UNLIKE,
        "a " + "z" * LONG,
        "z" * LONG + " b",
        "<help>" * LONG,
        "▅ b " * LONG,
    ],
    ids=["sentence", "letter", "letters", "numbers", "letter first", "letter last", "names", "marks"],
)
def test_long_lines_are_cut_between_words_where_there_are_any(line: str) -> None:
    lines, _ = training_lines([line])
    assert max(map(len, lines)) <= LONG < len(line) and len(lines) < 3 * len(line) / LONG
    assert all(part and part == normalize(part) for part in lines)
    whole = training_lines(PLAIN + normalize(line).split())[0][len(PLAIN) :]
    if max(map(len, normalize(line).split())) <= LONG // 2:
        assert " ".join(lines).split() == " ".join(whole).split()
    assert "".join(lines).replace(" ", "") == "".join(whole).replace(" ", "")


def test_other_lines_are_left_as_they_are() -> None:
    edge = letters(LONG, 1, "ab ").strip()
    texts = [UNLIKE[:LONG].strip(), edge, *PLAIN]
    assert training_lines(["", *texts, " \n"]) == ([normalize(text) for text in texts], False)


def test_what_two_lines_share_in_their_middle_costs_no_more_than_other_text() -> None:
    """Its square would be some fifty times as much."""
    words = [letters(2 + i % 8, i) for i in range(3000)]

    def text(seed: int) -> str:
        return " ".join(random.Random(seed).choices(words, k=20_000))

    def seconds(first: str, second: str) -> float:
        texts = [f"{UNLIKE} {first} {text(0)[:5000]}", f"{UNLIKE[9999:]} {second} {text(1)[:4999]}"]
        started = time.process_time()
        train_tokenizer(texts, vocab_size=100)
        return time.process_time() - started

    unlike, alike = seconds(text(2), text(3)), seconds(text(2), text(2))
    assert alike < 8 * unlike, (alike, unlike)


def test_a_word_without_end_is_trained_on() -> None:
    tokenizer = train_tokenizer([letters(100_000, 5) + "ω"], vocab_size=100)
    assert UNK_ID not in tokenizer.encode("ωxyz")


@pytest.mark.parametrize("texts", [["a"], PLAIN, ["▅ a"]])
def test_too_small_a_vocabulary_names_the_least_that_works(texts: list[str]) -> None:
    least = 17 + len(set("".join(texts)) - {" "})  # ids of no text, the space and the characters
    for vocab_size in (1, 2, 16, least - 1):
        with pytest.raises(UserError, match=rf"^vocab_size {vocab_size} is too small.*give --text.vocab-size {least} "):
            train_tokenizer(texts, vocab_size=vocab_size)
    assert train_tokenizer(texts, vocab_size=least).vocab_size == least


@pytest.mark.parametrize("vocab_size", [0, MOST_PIECES + 1, 2**31, 2**40])
def test_sizes_beyond_the_trainers_numbers_are_refused(vocab_size: int) -> None:
    with pytest.raises(UserError, match=f"^vocab_size must be between 1 and {MOST_PIECES}, got {vocab_size}$"):
        train_tokenizer(PLAIN, vocab_size=vocab_size)
    with pytest.raises(UserError, match=rf"^text.vocab_size must be in \[1, {MOST_PIECES}\], got {vocab_size}$"):
        TextConfig(vocab_size=vocab_size)


def test_the_largest_size_is_no_size_the_trainer_hangs_on() -> None:
    with pytest.raises(UserError, match=r"more than this text supports.* at most \d+$"):
        train_tokenizer(PLAIN, vocab_size=MOST_PIECES)


@pytest.mark.parametrize("text", ["▅", " ▅\n▅▅"])
def test_text_of_the_trainers_mark_alone_is_told_from_none(text: str) -> None:
    with pytest.raises(UserError, match=r"is nothing but U\+2585, sentencepiece's own mark; give other characters"):
        train_tokenizer([text, ""], vocab_size=100)
