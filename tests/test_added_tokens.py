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
import tokenizers
from published import BYT5, PIECES, ROWS, TEXTS, V11, pieces, write_folder

from kdtw_jax.data.added_tokens import AddedToken, finder, read_stated
from kdtw_jax.data.tokenizer import EOS_ID, PAD_ID, UNK_ID, Tokenizer, load_tokenizer, load_vocabulary
from kdtw_jax.errors import UserError
from kdtw_jax.models import T5Config, make_model
from kdtw_jax.pretrained.export import export_model
from kdtw_jax.pretrained.load import open_published
from kdtw_jax.pretrained.named import find_model
from kdtw_jax.training.checkpoint import save_model

FIRST = PIECES + 100  # above the sentinels
ADDED = {"\n": FIRST, "{": FIRST + 1, "}": FIRST + 2}
HOUSE, TREE = "house", "tree"
KEY = jax.random.key(0)


def token(content: str, **flags: bool) -> dict[str, Any]:
    """As tokenizer_config.json and tokenizer.json have it."""
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "special": False, **flags}


def decoder(tokens: Mapping[str, int], **flags: bool) -> dict[str, Any]:
    usual = {"0": token("<pad>", special=True), "1": token("</s>", special=True), "2": token("<unk>", special=True)}
    return {"added_tokens_decoder": usual | {str(i): token(text, **flags) for text, i in tokens.items()}}


def of_bytes(tokens: Mapping[str, int] = {}, sentinels: int = 125) -> dict[str, Any]:
    """What `transformers` 5 writes of byT5: the sentinels are listed, and counted as none."""
    listed = decoder({f"<extra_id_{i}>": 259 + i for i in range(sentinels)}, special=True)["added_tokens_decoder"]
    return {
        "tokenizer_class": "ByT5Tokenizer", "extra_ids": 0,
        "added_tokens_decoder": listed | {str(i): token(text) for text, i in tokens.items()},
    }  # fmt: skip


def bytes_with(folder: Path, config: dict[str, Any]) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf8")
    return load_vocabulary(folder, of_bytes=True)


def exported(folder: Path, tokenizer: Tokenizer) -> Tokenizer:
    """There and back, through the published layout and through our own."""
    config = T5Config.toy(tokenizer.vocab_size)
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(make_model(config).init, KEY))
    export_model(folder, config, params, tokenizer)
    tokenizer.save(folder / "tokenizer.model")
    found = load_vocabulary(folder, of_bytes=tokenizer.is_bytes)
    assert load_tokenizer(folder / "tokenizer.model") == tokenizer
    return found


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
    entries = of_bytes(tokens)
    entries["added_tokens_decoder"]["384"]["single_word"] = True
    entries["added_tokens_decoder"]["385"]["lstrip"] = True
    entries["added_tokens_decoder"]["386"]["rstrip"] = True
    config = {**BYT5, "vocab_size": 400}
    folder = write_folder(tmp_path / "model", config)
    (folder / "tokenizer_config.json").write_text(json.dumps(entries))
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


@pytest.mark.parametrize("sentinels", [0, 1, 50, 125])
def test_bytes_have_the_sentinels_that_are_listed_or_stated(sentinels: int, tmp_path: Path) -> None:
    plain = load_tokenizer("byt5")
    listed = bytes_with(tmp_path / "listed", of_bytes(sentinels=sentinels))
    stated = bytes_with(tmp_path / "stated", {"extra_ids": sentinels})
    named = [f"<extra_id_{i}>" for i in range(sentinels)]
    assert listed == stated == bytes_with(tmp_path / "named", {"extra_ids": 0, "additional_special_tokens": named})
    assert (listed.sentinels, listed.help_id) == (sentinels, 258 + max(1, sentinels))
    assert (listed == plain) == (sentinels == 125)
    for text, number in (("<extra_id_0>", 0), ("<extra_id_48>", 48), ("<extra_id_99>", 99)):
        known = number < sentinels - 1  # the last one asks for help
        assert listed.encode(text) == ([259 + number] if known else [3 + byte for byte in text.encode()])
    assert exported(tmp_path / "out", listed) == listed


def test_a_sentinel_of_bytes_elsewhere_stays_there(tmp_path: Path) -> None:
    tokenizer = bytes_with(tmp_path / "in", of_bytes({"<extra_id_0>": 270}, sentinels=0))
    assert tokenizer.encode("<extra_id_0>") != [259] and tokenizer.sentinels == 0 and tokenizer.help_id == 270
    assert exported(tmp_path / "out", tokenizer) == tokenizer


def test_a_token_of_one_byte_may_stand_at_its_id(tmp_path: Path) -> None:
    """`transformers` gives a character below 256 the id of the byte of that number, in ASCII what it has anyway."""
    plain = load_tokenizer("byt5")
    for text in ("\n", "{", " ", "\x00", "\x7f"):
        assert bytes_with(tmp_path / "in", of_bytes({text: 3 + ord(text)})) == plain
    (tmp_path / "in" / "tokenizer_config.json").unlink()
    (tmp_path / "in" / "added_tokens.json").write_text('{"\\n": 13}')
    assert load_vocabulary(tmp_path / "in", of_bytes=True) == plain
    high = bytes_with(tmp_path / "high", of_bytes({"È": 203}))
    assert high.encode("aÈb") == [100, 203, 101] and high.decode([100, 203, 101]) == "aÈb"
    assert exported(tmp_path / "out", high) == high != plain
    entries = of_bytes({"\n": 13})
    entries["added_tokens_decoder"]["13"]["lstrip"] = True
    strips = bytes_with(tmp_path / "strips", entries)
    assert strips.encode("a  \nb") == [100, 13, 101]
    for wrong in ({"\n": 14}, {"{{": 203}):
        with pytest.raises(UserError, match="each token needs an id of its own"):
            bytes_with(tmp_path / "wrong", of_bytes(wrong))


def test_bytes_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install '.[parity]'")
    texts = [
        "a\nb {x}",
        "È Ȁ ²",
        "<extra_id_0><extra_id_49> <extra_id_99>",
        "in word, word",
        "word",
        "swords xord",
        "東",
    ]
    for i, (extra, added) in enumerate([(125, ["\n"]), (50, ["{", "È"]), (0, ["word", "\n"]), (7, [])]):
        theirs = transformers.ByT5Tokenizer(extra_ids=extra)
        theirs.add_tokens([tokenizers.AddedToken(text, single_word=text == "word") for text in [*added, "ord"]])
        theirs.save_pretrained(tmp_path / str(i))
        ours = load_vocabulary(tmp_path / str(i), of_bytes=True)
        again = exported(tmp_path / f"out{i}", ours)
        assert again == ours
        back = transformers.ByT5Tokenizer.from_pretrained(tmp_path / f"out{i}")
        for text in texts:
            wanted = theirs(text).input_ids
            assert back(text).input_ids == wanted
            if ours.help_id not in wanted:
                assert [*ours.encode(text), EOS_ID] == wanted


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("extra", [0, 100])
def test_ids_that_no_token_has_come_back_as_such(bytewise: bool, extra: int, tmp_path: Path) -> None:
    place = 400
    if bytewise:
        tokenizer = bytes_with(tmp_path / "in", of_bytes({"{{": place}, sentinels=extra))
    else:
        config = {"extra_ids": extra, **decoder({"{{": place})}
        tokenizer = load_vocabulary(folder_with(tmp_path / "in", tokenizer_config=config))
    again = exported(tmp_path / "out", tokenizer)
    assert again == tokenizer and again.fingerprint == tokenizer.fingerprint
    for text in ("<reserved_0>", "<reserved_399>", "{{<reserved_399>{{"):
        assert again.encode(text) == tokenizer.encode(text)
        assert not {*again.encode(text)} & {*again.banned_ids} - {UNK_ID}
    # Another's token of such a name is a token.
    named = {"extra_ids": extra, **decoder({"<reserved_399>": 399})}
    other = load_vocabulary(folder_with(tmp_path / "named", tokenizer_config=named))
    assert other.encode("<reserved_399>") == [399] and exported(tmp_path / "again", other) == other


def test_a_vocabulary_without_sentinels_goes_out_and_comes_back(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {**V11, "vocab_size": PIECES + 1})
    (folder / "tokenizer_config.json").write_text('{"extra_ids": 0}')
    tokenizer = open_published(folder).tokenizer
    assert (tokenizer.help_id, tokenizer.vocab_size, tokenizer.sentinels) == (PIECES, PIECES + 1, 0)
    assert exported(tmp_path / "out", tokenizer) == tokenizer


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


def test_a_mark_before_a_file_is_no_damage(tmp_path: Path) -> None:
    for name, content in (("added_tokens", ADDED), ("tokenizer_config", decoder(ADDED))):
        plain = load_vocabulary(folder_with(tmp_path / name, **{name: content}))
        (tmp_path / name / f"{name}.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
        assert load_vocabulary(tmp_path / name) == plain
