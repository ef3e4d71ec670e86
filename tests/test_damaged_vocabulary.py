"""Files of a vocabulary that clash, are damaged or are another model's: each is one line that says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from published import PIECES

from kdtw_jax.data.added_tokens import read_stated
from kdtw_jax.data.tokenizer import load_tokenizer, load_vocabulary
from kdtw_jax.errors import UserError
from tests.added import ADDED, FIRST, bytes_with, fast_json, folder_with, of_bytes, token


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"added_tokens": {"{": 5}}, r"at id 5, which its .* gives to '\{'"),
        ({"added_tokens": {"{": PIECES}}, r"has '<extra_id_99>' at id 40, which .* to '\{'"),
        ({"added_tokens": {"{": FIRST, "}": FIRST}}, r"has '\{' at id 140, which .* to '\}'"),
        ({"added_tokens": {"{": -1}}, r"gives id -1 to '\{'; ids are"),
        ({"added_tokens": {"{": "x"}}, "gives id 'x'"),
        ({"added_tokens": ["{"]}, "no JSON object"),
        ({"tokenizer_config": {"added_tokens_decoder": ["{"]}}, "map ids to tokens"),
        ({"tokenizer_config": {"added_tokens_decoder": {"140": {"lstrip": True}}}}, "a text or to have a content"),
        (
            {"tokenizer_config": {"added_tokens_decoder": {"140": token("{"), "141": token("{")}}},
            r"gives '\{' both id 140 and 141",
        ),
        *(({"tokenizer_config": {"extra_ids": wrong}}, f"extra_ids {wrong!r}; it has to be a whole number from 0")
          for wrong in (-3, True, "0", 1.0, 10**9)),
        *(({"tokenizer_config": {"additional_special_tokens": wrong}}, f"tokens {wrong!r}; it has to be a list")
          for wrong in (3, 0, "", False)),
        *(({"tokenizer_config": {"added_tokens_decoder": wrong}}, "has to map ids to tokens")
          for wrong in ([], "", 0, False, 3)),
        ({"tokenizer": {"added_tokens": ""}}, "has added_tokens ''; it has to be a list"),
        ({"tokenizer": {"added_tokens": ["{"]}}, r"gives id None to '\{'"),
        *(({"tokenizer_config": {"added_tokens_decoder": {"140": {**token("{"), flag: wrong}}}},
           f"has {flag} {wrong!r} for '.'; it has to be true or false")
          for flag, wrong in (("special", "false"), ("lstrip", "false"), ("single_word", 0), ("rstrip", 1.5))),
        *(({"added_tokens": {name: FIRST}}, f"'{name}' at id {i}, and its .* at 140 as well; leave it out")
          for i, name in enumerate(("<pad>", "</s>", "<unk>"))),
        ({"added_tokens": {"\ud800": FIRST}}, r"added token '\\ud800' with half of a surrogate pair"),
        ({"special_tokens_map": {"additional_special_tokens": ["a\udfffb"]}}, "half of a surrogate pair"),
    ],
)  # fmt: skip
def test_what_clashes_is_one_line(files: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_vocabulary(folder_with(tmp_path, **files))
    assert "\n" not in str(caught.value)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (folder_with(tmp_path) / "added_tokens.json").write_text("{")
    with pytest.raises(UserError, match=r"added_tokens\.json is damaged: not JSON"):
        load_vocabulary(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, "of type 'BPE'; T5's is 'Unigram'"),
        ({"model": {"type": "Unigram", "vocab": [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0]]}}, "begins with '<s>'"),
        ({"model": {"type": "Unigram", "vocab": 3}}, "is damaged"),
        ({"model": None}, "of type None"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "no pre_tokenizer of type Metaspace"),
        ({"added_tokens": [{"content": "x"}]}, "is damaged"),
    ],
)
def test_newer_files_of_other_models_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({**fast_json({}), **change}), encoding="utf8")
    with pytest.raises(UserError, match=message) as caught:
        load_vocabulary(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no spiece\.model and no tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": ' + "[" * 200_000 + "}", "is damaged: not JSON"),
        ('{"{": Infinity}', "gives id inf"),
        ('{"{": 1e300}', "gives id 1e\\+300"),
        ('{"{": 1000000000}', "gives id 1000000000"),
        ('{"{": 140.7}', "gives id 140.7"),
        ('{"{": true}', "gives id True"),
        ('{"{": "1_40"}', "gives id '1_40'"),
    ],
)
def test_ids_that_are_none_and_deep_files_are_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "added_tokens.json").write_text(content, encoding="utf8")
    with pytest.raises(UserError, match=message) as raised:
        read_stated(tmp_path)
    assert "\n" not in str(raised.value)


def test_too_few_rows_are_explained_by_what_has_none(tmp_path: Path) -> None:
    bare = load_vocabulary(folder_with(tmp_path / "bare", tokenizer_config={"extra_ids": 0}))
    added = load_vocabulary(folder_with(tmp_path / "added", added_tokens=ADDED))
    plain, raw = load_vocabulary(folder_with(tmp_path / "plain")), load_tokenizer("byt5")
    more = bytes_with(tmp_path / "more", of_bytes({"{{": 384}))
    for tokenizer, rows, message in (
        (
            bare,
            PIECES,
            "vocabulary of 40 has a row for each token, and none for asking.*resize its embedding to 41 rows",
        ),
        (bare, PIECES - 1, "smaller than its tokenizer's .*needs the spiece.model that it was trained with"),
        (plain, FIRST - 1, "140 ids, of which 100 are sentinels above the pieces.*needs the spiece.model"),
        (added, FIRST + 2, r"added_tokens.json gives '}' id 142: resize the embedding, or leave that out"),
        (added, FIRST - 1, "and 3 were added.*needs the spiece.model"),
        (raw, 300, "384 ids, of which 125 are sentinels above the bytes.*as many sentinels as .* has as extra_ids"),
        (more, 384, r"and 1 was added.*gives '\{\{' id 384: resize"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            tokenizer.padded_to(rows)
        assert "\n" not in str(raised.value)
        assert not (tokenizer.is_bytes and "spiece" in str(raised.value))


WRONG_HEADERS: list[Any] = [
    [], 3, None, {}, {"extra_ids": 100}, {"extra_ids": True, "tokens": []}, {"extra_ids": -1, "tokens": []},
    {"extra_ids": 10**9, "tokens": []}, {"extra_ids": None, "tokens": []}, {"extra_ids": 100, "tokens": 3},
    *({"extra_ids": 100, "tokens": [wrong]} for wrong in (
        "abcdef", 3, [140], [-1, "{", False, False, False, False], ["140", "{", False, False, False, False],
        [140, 3, False, False, False, False], [140, "{", "false", False, False, False], [True, "{"] + [False] * 4,
        [2**40, "{", False, False, False, False], [140, "\ud800", False, False, False, False], [140, "{"] + [False] * 5,
    )),
]  # fmt: skip


@pytest.mark.parametrize("header", WRONG_HEADERS, ids=[str(i) for i in range(len(WRONG_HEADERS))])
def test_a_saved_vocabulary_of_odd_types_is_damaged(header: Any, tmp_path: Path) -> None:
    tokenizer = load_vocabulary(folder_with(tmp_path, added_tokens={"{": FIRST}))
    start, _, file = tokenizer.proto.split(b"\n", 2)
    (tmp_path / "tokenizer.model").write_bytes(b"\n".join([start, json.dumps(header).encode(), file]))
    with pytest.raises(UserError, match=r"tokenizer\.model is damaged: it does not say which tokens") as raised:
        load_tokenizer(tmp_path / "tokenizer.model")
    assert "\n" not in str(raised.value)
