"""Tokens beside the pieces of a checkpoint: read and written as in the published tokenizers, wherever they stand."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import sentencepiece
from published import BYT5, PIECES, ROWS, TEXTS, V11, pieces, write_folder

from kdtw_jax.data.added_tokens import read_stated
from kdtw_jax.data.tokenizer import EOS_ID, PAD_ID, UNK_ID, Tokenizer, load_tokenizer, load_vocabulary
from kdtw_jax.errors import UserError
from kdtw_jax.models import make_model
from kdtw_jax.pretrained.export import export_model
from kdtw_jax.pretrained.load import open_published
from kdtw_jax.pretrained.named import find_model
from kdtw_jax.train.checkpoint import save_model

FIRST = PIECES + 100  # above the sentinels
ADDED = {"\n": FIRST, "{": FIRST + 1, "}": FIRST + 2}
HOUSE, TREE = "house", "tree"


def token(content: str, **flags: bool) -> dict[str, Any]:
    """As tokenizer_config.json and tokenizer.json have it."""
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "special": False, **flags}


def decoder(tokens: Mapping[str, int], **flags: bool) -> dict[str, Any]:
    usual = {"0": token("<pad>", special=True), "1": token("</s>", special=True), "2": token("<unk>", special=True)}
    return {"added_tokens_decoder": usual | {str(i): token(text, **flags) for text, i in tokens.items()}}


def folder_with(folder: Path, **files: Any) -> Path:
    """A vocabulary of 40 pieces and 100 sentinels, and JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(pieces())
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf8")
    return folder


def fast_json(added: Mapping[str, int]) -> dict[str, Any]:
    """What `transformers` 5 saves of the same vocabulary."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    model = pb.ModelProto.FromString(pieces())
    charsmap = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
    sentinels = {f"<extra_id_{i}>": FIRST - 1 - i for i in reversed(range(100))}
    flags = {"normalized": False}
    listed = [{"id": i, **token(text, special=True), **flags} for i, text in enumerate(("<pad>", "</s>", "<unk>"))]
    listed += [{"id": i, **token(text, special=True), **flags} for text, i in sentinels.items()]
    listed += [{"id": i, **token(text), **flags} for text, i in added.items()]
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": listed,
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "post_processor": None, "decoder": space,
        "model": {
            "type": "Unigram", "unk_id": 2, "byte_fallback": False,
            "vocab": [[p.piece, p.score] for p in model.pieces] + [[text, 0.0] for text in sentinels],
        },
    }  # fmt: skip


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
    pytest.importorskip("tokenizers", reason="needs tokenizers, which requirements.txt asks for")
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


def test_bytes_have_added_tokens_too(tmp_path: Path) -> None:
    tokens = {"word": 384, "<l>": 385, "<r>": 386}
    entries = decoder(tokens)
    entries["added_tokens_decoder"]["384"]["single_word"] = True
    entries["added_tokens_decoder"]["385"]["lstrip"] = True
    entries["added_tokens_decoder"]["386"]["rstrip"] = True
    config = {**BYT5, "vocab_size": 400}
    folder = write_folder(tmp_path / "model", config)
    (folder / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 0, **entries}))
    tokenizer = open_published(folder).tokenizer
    assert (tokenizer.help_id, tokenizer.vocab_size) == (383, 400)
    assert {387, 399} <= {*tokenizer.banned_ids} and not {384, 385, 386} & {*tokenizer.banned_ids}

    def raw(text: str) -> list[int]:
        return [3 + byte for byte in text.encode()]

    for text, ids in (
        (" word\n", [*raw(" "), *raw("word"), *raw("\n")]),  # between spaces only
        ("a word b", [*raw("a "), 384, *raw(" b")]),
        ("words", raw("words")),
        ("a  <l> b", [*raw("a"), 385, *raw(" b")]),
        ("a <r>  b", [*raw("a "), 386, *raw("b")]),
        ("<extra_id_3>", [262]),
    ):
        assert tokenizer.encode(text) == ids
    assert tokenizer.decode([*raw("aé"), 384, *raw(" b")]) == "aéword b"


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


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"added_tokens": {"{": 5}}, r"at id 5, which its .* gives to '\{'"),
        ({"added_tokens": {"{": PIECES}}, r"has '<extra_id_99>' at id 40, which .* to '\{'"),
        ({"added_tokens": {"{": FIRST, "}": FIRST}}, r"has '\{' at id 140, which .* to '\}'"),
        ({"added_tokens": {"{": -1}}, r"gives id -1 to '\{'; ids are"),
        ({"added_tokens": {"{": "x"}}, "gives id 'x'"),
        ({"added_tokens": ["{"]}, "one object in braces"),
        ({"tokenizer_config": {"added_tokens_decoder": ["{"]}}, "map ids to tokens"),
        ({"tokenizer_config": {"added_tokens_decoder": {"140": {"lstrip": True}}}}, "a text or to have a content"),
        (
            {"tokenizer_config": {"added_tokens_decoder": {"140": token("{"), "141": token("{")}}},
            r"gives '\{' both id 140 and 141",
        ),
        ({"tokenizer_config": {"extra_ids": -3}}, "extra_ids -3"),
        ({"tokenizer_config": {"additional_special_tokens": 3}}, "it has to be a list"),
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
    pytest.importorskip("tokenizers", reason="needs tokenizers, which requirements.txt asks for")
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
