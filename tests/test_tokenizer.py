"""Tokenizer: stable ids, exact round trips, nothing a user types is special, nothing crashes."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

from kdtw_jax.data.tokenizer import (
    EOS_ID,
    PAD_ID,
    UNK_ID,
    Tokenizer,
    load_tokenizer,
    normalize,
    train_tokenizer,
)
from kdtw_jax.errors import UserError
from kdtw_jax.pipeline.config import parse
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS

STEMS = [
    "straß",
    "groß",
    "lern",
    "teach",
    "müd",
    "schön",
    "distil",
    "über",
    "haus",
    "café",
    "the",
    "cat",
    "trans",
]
ENDINGS = [
    "e",
    "er",
    "en",
    "ung",
    "ing",
    "ed",
    "est",
    "s",
    "",
    "ation",
    "lich",
    "2024",
    "17",
    "3.5%",
    "²…",
    "(x)",
    "–",
    "“y”",
]
WORDS = [stem + ending for stem in STEMS for ending in ENDINGS]
TEXTS = [" ".join(WORDS[(i * i + j * 37) % len(WORDS)] for j in range(3 + i % 7)) for i in range(400)]
STRANGE = ["😀 emoji", "漢字かな", "\x00nul\x07", "\ud800 lone", "العربية", "", "   ", "\u2581\u2581", "▅"]
SPECIAL = ["<help>", "</s>", "<pad>", "<unk>", "<reserved_0>", "<extra_id_0>", "x<help>y </s> <reserved_11>"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, vocab_size=120)


def t5_like(path: Path, **changes: int) -> Path:
    """A sentencepiece model laid out as T5's is: no help token, sentinels not among the pieces."""
    buffer = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, **changes}
    options: dict[str, Any] = {**ids, "vocab_size": 90, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS), model_writer=buffer, **options)
    path.write_bytes(buffer.getvalue())
    return path


def test_special_ids_are_where_every_model_expects_them(tokenizer: Tokenizer) -> None:
    assert (PAD_ID, EOS_ID, UNK_ID, tokenizer.help_id) == (0, 1, 2, 3)
    assert tokenizer.vocab_size == 120
    assert tokenizer.banned_ids == (0, *range(2, 16))
    larger = train_tokenizer(TEXTS, vocab_size=130)
    assert (larger.help_id, larger.banned_ids) == (tokenizer.help_id, tokenizer.banned_ids)


def test_training_text_round_trips_exactly(tokenizer: Tokenizer) -> None:
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert UNK_ID not in tokenizer.encode(text)


@pytest.mark.parametrize("text", ["  the   cat ", "tab\tand\nline", "u\u0308ber", "so\u00a0the\u202fcat", "a\u2581cat"])
def test_only_normalisation_is_lost(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == normalize(text) != text
    assert normalize(normalize(text)) == normalize(text)


@pytest.mark.parametrize("text", SPECIAL)
def test_no_text_becomes_a_special_token(tokenizer: Tokenizer, tmp_path: Path, text: str) -> None:
    for each in (tokenizer, load_tokenizer(t5_like(tmp_path / "spiece.model")), load_tokenizer("byt5")):
        assert each.encode(text) and each.encode_target(text)
        sentinels = {token.id for token in each.added} - {each.help_id}  # read by their names, never written
        assert not {*each.encode(text)} & {*each.banned_ids, EOS_ID} - {UNK_ID, *sentinels}
        assert not {*each.encode_target(text)} & {*each.banned_ids, EOS_ID} - {UNK_ID}


@pytest.mark.parametrize("text", STRANGE)
def test_unknown_characters_never_crash(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert all(UNK_ID <= i < tokenizer.vocab_size for i in ids)
    tokenizer.decode(ids).encode("utf-8")
    if not normalize(text):
        assert ids == []


def test_an_unknown_character_shows_and_its_neighbours_survive(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("the 😀 cat")) == "the ⁇ cat"
    assert UNK_ID in tokenizer.banned_ids


def test_every_digit_is_its_own_piece(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("20241735")
    assert [tokenizer.decode([i]) for i in ids if tokenizer.decode([i])] == list("20241735")


def test_same_texts_same_bytes(tokenizer: Tokenizer) -> None:
    again = train_tokenizer(iter(TEXTS), vocab_size=120)
    assert (again.proto, again.fingerprint) == (tokenizer.proto, tokenizer.fingerprint)
    assert again == tokenizer
    other = train_tokenizer([*TEXTS, "katze katze katzen"], vocab_size=120)
    assert other.fingerprint != tokenizer.fingerprint
    assert other != tokenizer


def test_decoding_stops_at_eos_and_skips_specials(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the cat")
    noisy = np.array([PAD_ID, tokenizer.help_id, *ids, 5, EOS_ID, *ids, PAD_ID], np.int32)
    assert tokenizer.decode(noisy.tolist()) == "the cat"
    assert tokenizer.decode(list(noisy)) == "the cat"
    assert tokenizer.decode([EOS_ID, *ids]) == ""


def test_saved_and_loaded_is_equal(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    tokenizer.save(path)
    loaded = load_tokenizer(path)
    assert loaded == tokenizer
    assert loaded.encode(TEXTS[5]) == tokenizer.encode(TEXTS[5])
    assert os.listdir(tmp_path) == ["tokenizer.model"]


def test_a_failed_save_leaves_nothing_and_keeps_the_old(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        tokenizer.save(path)
    assert os.listdir(tmp_path) == ["tokenizer.model"]
    assert path.read_bytes() == b"old"


def test_too_large_a_vocabulary_names_the_largest() -> None:
    with pytest.raises(UserError, match=r"vocab_size 5000 is more .* at most \d+$") as caught:
        train_tokenizer(TEXTS, vocab_size=5000)
    largest = int(str(caught.value).split()[-1])
    assert train_tokenizer(TEXTS, vocab_size=largest).vocab_size == largest
    assert train_tokenizer(TEXTS, vocab_size=5000, exact=False).vocab_size <= largest
    with pytest.raises(UserError):
        train_tokenizer(TEXTS, vocab_size=largest + 1)


@pytest.mark.parametrize("vocab_size", [-1, 0, 5, 30])
def test_too_small_a_vocabulary_is_an_error(vocab_size: int) -> None:
    with pytest.raises(UserError, match="vocab_size"):
        train_tokenizer(TEXTS, vocab_size=vocab_size)


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text_is_an_error(texts: list[str]) -> None:
    with pytest.raises(UserError, match="empty"):
        train_tokenizer(texts, vocab_size=100)


def test_long_lines_are_not_dropped() -> None:
    line = " ".join(["q" + "z" * (1 + i % 9) for i in range(4000)])
    tokenizer = train_tokenizer([*TEXTS, line], vocab_size=120)
    assert UNK_ID not in tokenizer.encode("qz")


def test_a_t5_model_has_its_sentinels_above_the_pieces(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(t5_like(tmp_path / "spiece.model"))
    pieces = 90
    assert tokenizer.vocab_size == pieces + 100
    assert tokenizer.help_id == pieces  # <extra_id_99>: T5 numbers its sentinels downwards from the top
    assert tokenizer.banned_ids == (PAD_ID, UNK_ID, *range(pieces, pieces + 100))
    ids = tokenizer.encode("the cat")
    assert tokenizer.decode([pieces, *ids, pieces + 99, EOS_ID]) == "the cat"
    tokenizer.save(tmp_path / "copy.model")
    assert load_tokenizer(tmp_path / "copy.model") == tokenizer


@pytest.mark.parametrize("text", [*TEXTS[:20], *STRANGE, *SPECIAL, "  a\n\n\tb  ", "u\u0308\x00\r\n"])
def test_bytes_say_every_text(text: str, tmp_path: Path) -> None:
    """As it stands: only what is no character is another one."""
    tokenizer = load_tokenizer("byt5")
    ids = tokenizer.encode_target(text)
    said = text.replace("\ud800", "\ufffd")
    assert ids == [3 + byte for byte in said.encode()]
    assert tokenizer.encode(text) == (ids if "<extra_id_0>" not in text else [259])
    assert tokenizer.decode([*ids, EOS_ID, *ids]) == said
    assert not {*ids} & {*tokenizer.banned_ids, EOS_ID}
    tokenizer.save(tmp_path / "copy.model")
    assert load_tokenizer(tmp_path / "copy.model") == tokenizer


def test_bytes_that_are_no_text_are_left_out() -> None:
    tokenizer = load_tokenizer("byt5")
    ids = tokenizer.encode("aé b")
    assert tokenizer.decode([ids[0], ids[1], *ids[3:]]) == "a b"  # half of é
    assert tokenizer.decode([ids[0], UNK_ID, tokenizer.help_id, ids[-1]]) == "a⁇b"
    assert [tokenizer.pieces[i] for i in (*ids, tokenizer.help_id)] == ["a", "<0xC3>", "<0xA9>", "▁", "b", ""]


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        load_tokenizer(tmp_path / "missing.model")
    for name, content in (("empty", b""), ("garbage", b"not a model at all")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="sentencepiece model"):
            load_tokenizer(tmp_path / name)
    with pytest.raises(UserError, match="expected"):
        load_tokenizer(t5_like(tmp_path / "llama.model", pad_id=-1, unk_id=0, bos_id=1, eos_id=2))


@pytest.mark.parametrize(
    "said", ["▅", "a▅▅ b ▅", "<help>", "<unk>", "</s>", "<pad>x", "<reserved_3>", "<s>", "⁇", "\u2047\u2585"]
)
def test_marks_of_sentencepiece_are_characters_like_others(said: str) -> None:
    """It drops lines with one of them, and does not count the characters of its own names."""
    plain = ["b a", "a b b 1", "ba"] * 20
    tokenizer = train_tokenizer([*plain, f"{said} ω b"], vocab_size=60, exact=False)
    for text in (said, f"{said} ω b", f"b {said}{said}"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert not {*tokenizer.encode(text)} & {*tokenizer.banned_ids, EOS_ID}
    assert train_tokenizer(plain, vocab_size=60, exact=False).pieces[16:20] != ["▅"]


def test_remedies_are_named_by_their_flags() -> None:
    assert PRESETS["tiny"].text.character_coverage == 1.0
    chosen = parse(PRESETS, None, ["--preset", "tiny", "--text.character-coverage", "0.9995"])
    assert chosen.text.character_coverage == 0.9995
    assert chosen.identity()["text"]["character_coverage"] == 0.9995
    with pytest.raises(UserError, match=r"text.character_coverage must be in \[0.98, 1\], got 0.5"):
        replace(chosen.text, character_coverage=0.5)
    with pytest.raises(UserError, match=r"need \d+; give --text.vocab-size \d+ .*--text.character-coverage 0"):
        train_tokenizer(TEXTS, vocab_size=30)
    with pytest.raises(UserError, match=r"--text.vocab-size of at most \d+$"):
        train_tokenizer(TEXTS, vocab_size=5000)


CLASS = [
    f"{name} has {a} cards and buys {b} more: {a} + {b} = {a + b}. Answer: {a + b} cards."
    for name in ("Mia", "Tom", "Hugo")
    for a in range(2, 20)
    for b in range(2, 9)
]


def test_frequent_words_and_numbers_are_pieces_whole_if_asked_for_and_apart_from_punctuation() -> None:
    whole, parts = (train_tokenizer(CLASS, vocab_size=110, whole_words=one, exact=False) for one in (True, False))
    cut = [whole.pieces[i] for i in whole.encode(CLASS[40])]
    assert " ".join(cut) == "▁Mia ▁has ▁7 ▁cards ▁and ▁buys ▁7 ▁more : ▁7 ▁+ ▁7 ▁= ▁14 . ▁Answer : ▁14 ▁cards ."
    assert len(cut) < 0.6 * len(parts.encode(CLASS[40]))
    assert [whole.decode(whole.encode(text)) for text in CLASS] == CLASS
    assert whole.decode(whole.encode("98")) == "98" and len(whole.encode("98")) > 1  # which was not in the text
    again = train_tokenizer(iter(CLASS), vocab_size=110, whole_words=True, exact=False)
    assert again.fingerprint == whole.fingerprint
    # sentencepiece 0.2.0 counts the mark that keeps words and punctuation apart, too
    with pytest.raises(UserError, match=r"vocab_size 20 is too small: the characters of this text alone need 5[12];"):
        train_tokenizer(CLASS, vocab_size=20, whole_words=True)
    with pytest.raises(UserError, match="vocab_size 5000 is more than this text supports"):
        train_tokenizer(CLASS, vocab_size=5000, whole_words=True)
