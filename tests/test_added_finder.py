"""Where added tokens stand in a text: as `tokenizers` finds them."""

from __future__ import annotations

import pytest
import tokenizers

from kdtw_jax.data.added_tokens import AddedToken, finder

BESIDE = [
    "",
    " ",
    "a",
    "é",
    "e\u0301",
    "\u0301",
    "²",
    "½",
    "Ⅷ",
    "_",
    "-",
    ".",
    "٣",
    "字",
    "\u200d",
    "ⓐ",
    "\n",
    "\u00a0",
    "क\u093f",
]
BESIDE += ["\x1c", "\x1f", "\x85", "\u2028", "\u3000", "\u200b", "‿", "ª", "☃", "😀"]


@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip"])
def test_tokens_are_found_as_the_library_finds_them(flag: str) -> None:
    """`tokenizers` cuts a text at its added tokens before any model sees it."""
    added = [AddedToken(1, "word", **{flag: True}), AddedToken(2, "ord"), AddedToken(3, "word.x"), AddedToken(4, "é")]
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
    flags = ("lstrip", "rstrip", "single_word")
    for token in added:
        entry = tokenizers.AddedToken(token.content, normalized=False, **{name: getattr(token, name) for name in flags})
        assert library.add_tokens([entry]) == 1 and library.token_to_id(token.content) == token.id
    parts = finder(added)
    for before in BESIDE:
        for after in BESIDE:
            for text in (f"{before}word{after}", f"x {before}{after}word{before} word.x{after}word", f"word{after}ord"):
                found = library.encode(text)
                theirs = [i or text[slice(*span)] for i, span in zip(found.ids, found.offsets, strict=True)]
                assert list(parts(text)) == theirs, text
