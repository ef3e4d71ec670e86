"""Tokens beside the pieces of a checkpoint: read and written as in the published tokenizers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import sentencepiece
from published import PIECES, ROWS, TEXTS, V11, write_folder

from kdtw_jax.data.tokenizer import EOS_ID, PAD_ID, UNK_ID, Tokenizer, load_tokenizer, load_vocabulary
from kdtw_jax.errors import UserError
from kdtw_jax.models import make_model
from kdtw_jax.pretrained.export import export_model
from kdtw_jax.pretrained.load import open_published
from kdtw_jax.pretrained.named import find_model
from kdtw_jax.training.saved import save_model
from tests.added import ADDED, FIRST, HOUSE, TREE, decoder, exported, fast_json, folder_with, token

STATED: dict[str, dict[str, Any]] = {
    "added_tokens": {"added_tokens": ADDED},
    "tokenizer_config": {"tokenizer_config": decoder(ADDED)},
    "tokenizer": {"tokenizer": {"added_tokens": [{"id": i, **token(text)} for text, i in ADDED.items()]}},
}


@pytest.fixture(params=[*STATED, "fast"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    """With three tokens added, whichever file says so."""
    if request.param != "fast":
        return load_vocabulary(folder_with(tmp_path / "in", **STATED[request.param]))
    (tmp_path / "tokenizer.json").write_text(json.dumps(fast_json(ADDED)), encoding="utf8")
    return load_vocabulary(tmp_path)


def test_added_tokens_are_found_said_and_not_banned(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (house,), (tree,) = tokenizer.encode(HOUSE), tokenizer.encode(TREE)
    for text, ids in (
        ("house\ntree", [house, FIRST, tree]),
        ("{house}", [FIRST + 1, house, FIRST + 2]),
        ("{house}\n\n{tree}\n", [FIRST + 1, house, FIRST + 2, FIRST, FIRST, FIRST + 1, tree, FIRST + 2, FIRST]),
        ("\n", [FIRST]),
    ):
        assert tokenizer.encode(text) == tokenizer.encode_target(text) == ids
        assert tokenizer.decode([*ids, EOS_ID, *ids]) == text
        assert not {*ids} & {*tokenizer.banned_ids}
    assert tokenizer.encode(" { house\t}") == [FIRST + 1, house, FIRST + 2]  # a piece begins there like a text
    assert tokenizer.vocab_size == FIRST + 3 and tokenizer.help_id == PIECES and tokenizer.sentinels == 100
    assert [tokenizer.pieces[i] for i in ADDED.values()] == list(ADDED)
    tokenizer.save(tmp_path / "tokenizer.model")
    again = load_tokenizer(tmp_path / "tokenizer.model")
    assert again == tokenizer and again.encode("{house}\n") == tokenizer.encode("{house}\n")


def test_sentinels_are_read_by_name_and_never_written(tokenizer: Tokenizer) -> None:
    house, tree = *tokenizer.encode(HOUSE), *tokenizer.encode(TREE)
    text = "house<extra_id_0> tree <extra_id_98>"
    assert tokenizer.encode(text) == [house, FIRST - 1, tree, PIECES + 1]
    assert not {*tokenizer.encode_target(text)} & {*tokenizer.banned_ids} - {UNK_ID}
    for never in ("<extra_id_99>", "</s>", "<pad>", "<help>"):
        for ids in (tokenizer.encode(never), tokenizer.encode_target(never)):
            assert ids and not {*ids} & {PAD_ID, EOS_ID, tokenizer.help_id}
    assert tokenizer.decode([house, FIRST - 1, tree]) == "house tree"


def test_only_other_tokens_make_another_vocabulary(tmp_path: Path) -> None:
    """What the files say of the usual tokens changes nothing, not even the bytes that are saved."""
    usual = {f"<extra_id_{i}>": FIRST - 1 - i for i in range(100)}
    plain = load_vocabulary(folder_with(tmp_path / "plain"))
    for i, files in enumerate(({"added_tokens": usual}, {"tokenizer_config": decoder(usual, special=True)})):
        assert load_vocabulary(folder_with(tmp_path / str(i), **files)) == plain
    found = [load_vocabulary(folder_with(tmp_path / name, **STATED[name])) for name in STATED]
    assert found[0] == found[1] == found[2] != plain
    assert load_tokenizer(tmp_path / "tokenizer_config" / "spiece.model") == found[0]
    others = load_vocabulary(
        folder_with(tmp_path / "other", added_tokens={"\n": FIRST, "}": FIRST + 1, "{": FIRST + 2})
    )
    assert others != found[0] and others.fingerprint != found[0].fingerprint


def test_special_tokens_are_read_and_never_written(tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "added_tokens": {"<sep>": FIRST},
        "special_tokens_map": {"additional_special_tokens": ["<sep>", {"content": "<cls>"}]},
    }
    tokenizer = load_vocabulary(folder_with(tmp_path, **files))
    (house,) = tokenizer.encode(HOUSE)
    assert tokenizer.encode("house<sep>house<cls>") == [house, FIRST, house, FIRST + 1]  # the next id without one
    assert {FIRST, FIRST + 1} <= {*tokenizer.banned_ids}
    assert not {*tokenizer.encode_target("house<sep>house<cls>")} & {FIRST, FIRST + 1}
    assert tokenizer.decode([house, FIRST, house]) == "house house"


def test_a_word_after_an_added_token_is_apart(tmp_path: Path) -> None:
    tokenizer = load_vocabulary(folder_with(tmp_path, added_tokens={"covid": FIRST, " <=": FIRST + 1, "[": FIRST + 2}))
    for text in ("house covid tree", "house <= tree", "covid[tree", "house[covid"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_white_space_among_the_pieces_is_said(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=buffer, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
        vocab_size=44, user_defined_symbols=["\n", "\t"],
    )  # fmt: skip
    (tmp_path / "spiece.model").write_bytes(buffer.getvalue())
    tokenizer, processor = (
        load_vocabulary(tmp_path),
        sentencepiece.SentencePieceProcessor(model_proto=buffer.getvalue()),
    )
    for text in ("house\ntree", "\n\nhouse\t\ttree\n", "house\n house", *TEXTS[:5]):
        assert tokenizer.encode(text) == tokenizer.encode_target(text) == processor.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not {*tokenizer.encode("\n\t")} & {UNK_ID, *tokenizer.banned_ids}


def test_ids_without_a_token_are_banned_and_help_needs_one(tmp_path: Path) -> None:
    gaps = load_vocabulary(folder_with(tmp_path / "gaps", added_tokens={"{": FIRST + 3}))
    assert {FIRST, FIRST + 1, FIRST + 2} <= {*gaps.banned_ids} and gaps.vocab_size == FIRST + 4
    none = {"extra_ids": 0, **decoder({"\n": PIECES, "{": PIECES + 1})}
    tokenizer = load_vocabulary(folder_with(tmp_path / "none", tokenizer_config=none))
    assert tokenizer.encode("{\n") == [PIECES + 1, PIECES]
    assert tokenizer.help_id == PIECES + 2 == tokenizer.banned_ids[-1] == tokenizer.vocab_size - 1
    assert tokenizer.encode("<extra_id_0>") == tokenizer.encode_target("<extra_id_0>")


def test_a_student_keeps_what_was_added(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", V11)
    (folder / "added_tokens.json").write_text(json.dumps(ADDED))
    found = find_model(str(folder))
    assert found.tokenizer.banned_ids[-1] == ROWS - 1 and not {*ADDED.values()} & {*found.tokenizer.banned_ids}
    params = jax.tree.map(np.asarray, make_model(found.config).init(jax.random.key(0)))
    save_model(tmp_path / "ours", found.config, params, found.tokenizer)
    export_model(tmp_path / "out", found.config, params, found.tokenizer)
    for again in (find_model(str(tmp_path / "ours")).tokenizer, open_published(tmp_path / "out").tokenizer):
        assert again == found.tokenizer
        assert again.decode(again.encode_target("{house}\n")) == "{house}\n"
    folder = write_folder(tmp_path / "in", {**V11, "vocab_size": FIRST + 2})
    (folder / "added_tokens.json").write_text(json.dumps(ADDED))
    with pytest.raises(UserError, match=r"vocabulary of 142 .*143 ids, of which 100 are sentinels .* and 3 were added"):
        find_model(str(folder))


def test_the_newer_file_is_the_same_vocabulary(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", V11)
    older = open_published(folder).tokenizer
    (folder / "spiece.model").unlink()
    (folder / "tokenizer.json").write_text(json.dumps(fast_json({})), encoding="utf8")
    found = open_published(folder)
    assert (found.tokenizer.banned_ids, found.tokenizer.help_id) == (older.banned_ids, older.help_id)
    for text in [*TEXTS[:50], "", "  house\n tree ", "ﬁne ²", "house😀tree", "<extra_id_7> house", "a\x00b", "\ud800"]:
        ids = older.encode(text)
        assert found.tokenizer.encode(text) == ids and found.tokenizer.encode_target(text) == older.encode_target(text)
        assert found.tokenizer.decode(ids) == older.decode(ids)
    params = jax.tree.map(np.asarray, make_model(found.config).init(jax.random.key(0)))
    save_model(tmp_path / "ours", found.config, params, found.tokenizer)
    export_model(tmp_path / "out", found.config, params, found.tokenizer)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert find_model(str(tmp_path / "ours")).tokenizer == open_published(tmp_path / "out").tokenizer == found.tokenizer


def test_a_vocabulary_without_sentinels_goes_out_and_comes_back(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {**V11, "vocab_size": PIECES + 1})
    (folder / "tokenizer_config.json").write_text('{"extra_ids": 0}')
    tokenizer = open_published(folder).tokenizer
    assert (tokenizer.help_id, tokenizer.vocab_size, tokenizer.sentinels) == (PIECES, PIECES + 1, 0)
    assert exported(tmp_path / "out", tokenizer) == tokenizer


def test_a_mark_before_a_file_is_no_damage(tmp_path: Path) -> None:
    for name, content in (("added_tokens", ADDED), ("tokenizer_config", decoder(ADDED))):
        plain = load_vocabulary(folder_with(tmp_path / name, **{name: content}))
        (tmp_path / name / f"{name}.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
        assert load_vocabulary(tmp_path / name) == plain
