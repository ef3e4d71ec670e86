"""A word is what white space divides, whatever the pieces; scripts without spaces go by pieces."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer, normalize, train_tokenizer
from kdtw_jax.text.words import word_numbers
from tests.added import ADDED, decoder, fast_json, folder_with
from tests.test_fast_tokenizer import written
from tests.test_tokenizer import t5_like

SENTENCES = [
    "The quick (brown) fox said: “3.5% of 12 foxes!” - and left.",
    "Straßenbahnhaltestelle, größer als je zuvor; am 12. Oktober 2026?",
    "C'est l'été à Orléans... n'est-ce pas ?",
    "Привет, мир! Как дела у 25-летнего?",
    "مرحبا بالعالم، كيف حالك؟",
    "안녕하세요, 세계! 좋은 아침입니다.",
    "नमस्ते दुनिया, आप कैसे हैं?",
    "Γειά σου Κόσμε · e.g. \u201equoted\u201c",
]
UNSPACED = "我们在家里。カタカナとかな ภาษาไทย"
WORDS = " ".join(SENTENCES).split()


def vocabularies(folder: Path) -> dict[str, Tokenizer]:
    texts = [" ".join(random.Random(i).sample(WORDS, 12)) for i in range(300)]
    return {
        "own": train_tokenizer([*texts, *[UNSPACED] * 20], vocab_size=200),
        "T5": load_tokenizer(t5_like(folder / "spiece.model")),
        "json": load_tokenizer(written(folder / "fast", fast_json(ADDED))),
        "byt5": load_tokenizer("byt5"),
    }


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    return vocabularies(tmp_path_factory.mktemp("vocabularies"))


def count(tokenizer: Tokenizer, text: str) -> int:
    return words_of(tokenizer, tokenizer.encode(text))


def words_of(tokenizer: Tokenizer, ids: list[int]) -> int:
    return max(word_numbers(tokenizer.words, [*ids, 1])) + 1


@pytest.mark.parametrize("name", ["own", "T5", "json", "byt5"])
def test_as_many_words_are_counted_as_white_space_divides(known: dict[str, Tokenizer], name: str) -> None:
    tokenizer, rng = known[name], random.Random(0)
    texts = SENTENCES + [" ".join(rng.choices(WORDS, k=rng.randrange(1, 9))) for _ in range(300)]
    for text in map(normalize, texts):
        assert count(tokenizer, text) == len(text.split()), text


def test_every_begun_word_is_a_word_of_the_text_with_its_punctuation(known: dict[str, Tokenizer]) -> None:
    tokenizer, text = known["own"], normalize(SENTENCES[0])
    ids, found = tokenizer.encode(text), list[str]()
    numbers = word_numbers(tokenizer.words, ids)
    for word in range(max(numbers) + 1):
        found.append(
            "".join(tokenizer.pieces[i] for i, n in zip(ids, numbers, strict=True) if n == word).strip("\u2581")
        )
    assert found == text.split()


def test_blank_tokens_are_no_words_wherever_they_stand(known: dict[str, Tokenizer]) -> None:
    ids = known["byt5"].encode("  two\t\n words  ")
    assert words_of(known["byt5"], ids) == 2
    own = known["own"]
    space, a = own.pieces.index("\u2581"), own.pieces.index("a")
    begins = next(i for i, piece in enumerate(own.pieces) if piece.startswith("\u2581") and len(piece) > 1)
    for tokens, words in (([space, a], 1), ([space], 0), ([space, begins], 1), ([a, space, space, begins, a], 2)):
        assert words_of(own, tokens) == words
    assert own.words.blank_V[0] and not own.words.begins_V[:16].any()


def test_a_piece_of_a_script_without_spaces_is_a_word_but_of_bytes(known: dict[str, Tokenizer]) -> None:
    own, text = known["own"], normalize(UNSPACED)
    pieces = [own.pieces[i] for i in own.encode(text)]
    letters = sum(piece.replace("\u2581", "")[:1].isalpha() for piece in pieces)  # "。" is glued to what is before it
    alone = pieces[0] == "\u2581"
    assert count(own, text) == letters + (alone and not pieces[1][0].isalpha()) > len(text.split())
    assert count(known["byt5"], text) == len(text.split())


def test_added_tokens_are_words_as_decoding_writes_them(tmp_path: Path) -> None:
    config = decoder({**ADDED, "house": max(ADDED.values()) + 1})
    tokenizer = load_tokenizer(folder_with(tmp_path / "added", tokenizer_config=config))
    tree = tokenizer.encode("tree")
    for added, words in (("\n", 2), ("{", 1), ("house", 2)):
        ids = [*tree, tokenizer.pieces.index(added)]
        text = tokenizer.decode([*ids, *(tree if added == "\n" else [])])
        assert words_of(tokenizer, [*ids, *(tree if added == "\n" else [])]) == len(text.split()) == words
