"""`tokenizer.json`: the same vocabulary as its `spiece.model`, and one line for whatever else it may hold."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from published import PIECES, TEXTS, pieces
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import Tokenizer as Library

from kdtw_jax.data.tokenizer import EOS_ID, UNK_ID, Tokenizer, load_tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import parse_object
from kdtw_jax.training.saved import check_vocabulary
from tests.added import ADDED, FIRST, HOUSE, decoder, fast_json, folder_with, token

BOM = b"\xef\xbb\xbf"
DEEP = json.loads("[" * 300 + "]" * 300)
ODD: list[Any] = [None, True, -1, "x", [], {}, float("inf"), float("nan"), 10**400, "\ud800", DEEP]


def written(folder: Path, content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tokenizer.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return file


def refused(file: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_tokenizer(file)
    said = str(raised.value)
    assert said.startswith(str(file)) and "\n" not in said and len(said.removeprefix(str(file))) < 400
    return said


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything in a JSON value; of long lists the first entries and the last."""
    yield path
    inner: list[Any] = list(value) if isinstance(value, dict) else []
    if isinstance(value, list):
        inner = [i for i in range(len(value)) if i < 4 or i >= len(value) - 2]
    for key in inner:
        yield from places(value[key], (*path, key))


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    value = copy.deepcopy(value)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return value


def works(tokenizer: Tokenizer, stated: Any) -> None:
    """It cuts every text as the library does that wrote the file, and knows what it wrote."""
    plain = {**stated, "truncation": None, "padding": None, "post_processor": None}
    library = Library.from_str(json.dumps({**plain, "added_tokens": plain.get("added_tokens") or []}))
    for text in (*TEXTS[:2], "house\n{tree} \u4e00 <extra_id_0>", ""):
        ids = tokenizer.encode(text)
        never = {0, 1, tokenizer.help_id}
        assert ids == [UNK_ID if i in never else i for i in library.encode(text, add_special_tokens=False).ids]
        assert not {*tokenizer.encode_target(text)} & {*tokenizer.banned_ids, EOS_ID} - {UNK_ID}
        assert tokenizer.decode(ids) is not None
    for each in tokenizer.added:
        assert library.token_to_id(each.content) == each.id


def outcome(file: Path, stated: Any) -> str:
    """Either a tokenizer that works, or one line."""
    written(file.parent, stated)
    try:
        tokenizer = load_tokenizer(file)
    except UserError:
        return refused(file)
    works(tokenizer, stated)
    return ""


def small_json() -> dict[str, Any]:
    """Without most of the map of characters, which would take the time."""
    return {**fast_json(ADDED), "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}}


def test_whatever_stands_in_a_place_is_a_tokenizer_or_one_line(tmp_path: Path) -> None:
    stated = small_json()
    found = [path for path in places(stated) if path]
    assert len(found) > 80 and ("model", "vocab", 3, 1) in found and ("added_tokens", 104, "special") in found
    drawn = random.Random(1)
    messages = set()
    for path in found:
        for odd in drawn.sample(ODD, 4):
            messages.add(
                outcome(tmp_path / "tokenizer.json", changed(stated, path, lambda h, k, v=odd: h.__setitem__(k, v)))
            )
        if isinstance(path[-1], str):
            messages.add(outcome(tmp_path / "tokenizer.json", changed(stated, path, lambda h, k: h.pop(k))))
    assert "" in messages and len(messages) > 40


@pytest.mark.parametrize("odd", ODD, ids=[str(i) for i in range(len(ODD))])
def test_odd_values_where_they_matter_are_refused(odd: Any, tmp_path: Path) -> None:
    stated = small_json()
    vocab, added = ("model", "vocab"), ("added_tokens", 104)
    paths = [("model",), vocab, (*vocab, 5), (*vocab, 5, 0), (*vocab, 5, 1), (*added,), (*added, "id")]
    paths += [("model", "type"), ("model", "unk_id"), ("pre_tokenizer",), (*added, "content"), (*added, "special")]
    paths += [("pre_tokenizer", "pretokenizers", 1, "replacement")]
    good = {(*vocab, 5, 0): ["x"], (*vocab, 5, 1): [-1], (*added, "content"): ["x"], (*added, "special"): [True]}
    for path in paths:
        if odd not in good.get(path, []):
            refused(written(tmp_path, changed(stated, path, lambda h, k: h.__setitem__(k, odd))))


def update(**values: Any) -> Callable[[Any], None]:
    return lambda stated: stated.update(values)


def of_model(**values: Any) -> Callable[[Any], None]:
    return lambda stated: stated["model"].update(values)


def entry(i: int, piece: Any) -> Callable[[Any], None]:
    return lambda stated: stated["model"]["vocab"].__setitem__(i, piece)


def of_added(**values: Any) -> Callable[[Any], None]:
    return lambda stated: stated["added_tokens"][-1].update(values)


CASES: list[tuple[str, Callable[[Any], None], str]] = [
    ("null piece", entry(7, None), r"vocab has None at id 7; each entry has to be a text and its score"),
    ("null score", entry(7, ["x", None]), r"has \['x', None\] at id 7"),
    ("no score", entry(7, ["x"]), "at id 7"),
    ("true as score", entry(7, ["x", True]), "at id 7"),
    ("infinity", entry(7, ["x", float("inf")]), r"\['x', inf\] at id 7; .* a finite number"),
    ("no vocab", lambda stated: stated["model"].pop("vocab"), "vocab has to be a list and is None"),
    ("twice", lambda stated: entry(9, stated["model"]["vocab"][5])(stated), "at both id 5 and 9 of its vocab"),
    ("unk_id null", of_model(unk_id=None), "unk_id None; expected 2, the id of <unk>"),
    ("unk_id 5", of_model(unk_id=5), "unk_id 5; expected 2"),
    ("unk_id 2.0", of_model(unk_id=2.0), r"unk_id 2\.0; expected 2"),
    ("bytes", of_model(byte_fallback=True), "byte_fallback True; expected false"),
    ("two ids", lambda stated: stated["added_tokens"].append({**stated["added_tokens"][-1], "id": 143}),
     r"gives id 143 to '\}' among its added_tokens, which is 142 as well"),
    ("gap", of_added(id=150), r"gives id 150 to '\}' among its added_tokens, which is 142;"),
    ("a piece's id", of_added(id=5), r"gives id 5 to '\}'"),
    ("EOS elsewhere", of_added(content="</s>"), "gives id 142 to '</s>' among its added_tokens, which is 1 as well"),
    ("no id", of_added(id=None), "added_tokens hold .*'id': None"),
    ("flags", of_added(lstrip="false"), "expected a boolean"),
    ("letters for spaces", lambda stated: stated["pre_tokenizer"]["pretokenizers"][1].update(replacement="_"),
     "writes a space as '_' .*; expected '▁'"),
    ("characters", lambda stated: stated["normalizer"].update(precompiled_charsmap="AAAAAAAA"), "precompiled_charsmap"),
    ("letters", lambda stated: stated["normalizer"].update(precompiled_charsmap="!"), "precompiled_charsmap is none"),
    ("nothing is normalised", lambda stated: stated["normalizer"].pop("precompiled_charsmap"), "precompiled_charsmap"),
    ("of the library", update(version="2.0"), "tokenizers can read .*version '2.0'.*; fetch or write it again"),
    ("nested deeply", update(normalizer=DEEP), "tokenizers can read"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_t5s_file_never_has_is_one_line(
    change: Callable[[Any], None], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stated = fast_json(ADDED)
    works(load_tokenizer(written(tmp_path, stated)), stated)
    change(stated)
    with pytest.raises(UserError, match=message):
        load_tokenizer(written(tmp_path, stated))
    refused(tmp_path / "tokenizer.json")
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n {", "not JSON from line 2 on; fetch or write it again"),
        (b"[1]", "no JSON object"),
        (b"null", "no JSON object"),
        (b"\xff{}", "not JSON in UTF-8"),
        (b'{"model": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"model": 1' + b"1" * 5000 + b"}", "thousands of digits"),
    ],
)
def test_what_is_no_object_is_damaged(content: bytes, message: str, tmp_path: Path) -> None:
    assert message in refused(written(tmp_path, content))


def test_a_mark_and_white_space_before_the_file_are_no_damage(tmp_path: Path) -> None:
    plain = written(tmp_path / "plain", fast_json(ADDED))
    tokenizer = load_tokenizer(plain)
    for i, start in enumerate((BOM, b"\n ", BOM + b"\r\n")):
        found = load_tokenizer(written(tmp_path / str(i), start + plain.read_bytes()))
        assert found.encode("house\n{tree") == tokenizer.encode("house\n{tree")
        assert found.difference(tokenizer) is None and (found == tokenizer) == (start == BOM)
        found.save(tmp_path / "tokenizer.model")
        assert load_tokenizer(tmp_path / "tokenizer.model") == found
    assert parse_object(BOM + b'{"a": 1}') == {"a": 1}


def test_one_vocabulary_in_two_files_is_one(tmp_path: Path) -> None:
    for i, added in enumerate(({}, {"{": FIRST, "<=": FIRST + 1})):
        older = load_tokenizer(folder_with(tmp_path / f"old{i}", added_tokens=added))
        newer = load_tokenizer(written(tmp_path / f"new{i}", fast_json(added)))
        assert older.fingerprint != newer.fingerprint
        assert older.difference(newer) is None and newer.difference(older) is None
        assert older.difference(newer.padded_to(FIRST + 8)) is None
        check_vocabulary("teacher", older, newer)
        with pytest.raises(UserError, match="it has more rows; name the model where the run begins"):
            check_vocabulary("teacher", older.padded_to(FIRST + 8), newer)
    other = pb.ModelProto.FromString(pieces())
    other.trainer_spec.input[:] = ["elsewhere"]
    folder_with(tmp_path / "said").joinpath("spiece.model").write_bytes(other.SerializeToString())
    assert load_tokenizer(tmp_path / "said").difference(load_tokenizer(tmp_path / "old0")) is None


def of_pieces(change: Callable[[Any], None]) -> bytes:
    model = pb.ModelProto.FromString(pieces())
    change(model)
    return bytes(model.SerializeToString())


USER_DEFINED = pb.ModelProto.SentencePiece.USER_DEFINED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model.pieces[7], "piece", "zz"), "id 7 is 'zz' there and '.*' here"),
        (lambda model: model.pieces.add(piece="zz"), "id 40 is 'zz' there and '<extra_id_99>' here"),
        (lambda model: setattr(model.pieces[7], "score", -1.0), "has score -1 there and -.* here"),
        (lambda model: setattr(model.pieces[7], "type", USER_DEFINED), "pieces are chosen in another way"),
        (lambda model: setattr(model.normalizer_spec, "precompiled_charsmap", b""), "texts are normalised in another"),
        (lambda model: setattr(model.normalizer_spec, "remove_extra_whitespaces", False), r"'  \w+ .*' is \[.* there"),
        (lambda model: setattr(model.normalizer_spec, "add_dummy_prefix", False), r"'  \w+ .*' is \[.* there and \["),
    ],
    ids=["text", "number", "score", "kind", "characters", "spaces", "prefix"],
)
def test_what_makes_another_vocabulary_is_said(change: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(of_pieces(change))
    own = load_tokenizer(tmp_path / "spiece.model")
    (tmp_path / "usual.model").write_bytes(pieces())
    for run in (load_tokenizer(tmp_path / "usual.model"), load_tokenizer(written(tmp_path, fast_json({})))):
        with pytest.raises(UserError, match=f"trained with another vocabulary .*: .*{message}") as raised:
            check_vocabulary("teacher", own, run)
        assert "\n" not in str(raised.value)
        assert str(raised.value).endswith(
            "; take a teacher and a student of one vocabulary, with the same tokenizer files"
        )


def test_other_added_tokens_and_steps_make_another_vocabulary(tmp_path: Path) -> None:
    plain = load_tokenizer(folder_with(tmp_path / "plain", added_tokens={"{": FIRST}))
    lower = fast_json({"{": FIRST})
    lower["normalizer"] = {"type": "Sequence", "normalizers": [lower["normalizer"], {"type": "Lowercase"}]}
    flagged = fast_json({"{": FIRST})
    flagged["added_tokens"][-1]["lstrip"] = True
    for i, (stated, message) in enumerate((
        (fast_json({}), "id 140 is '{' there and no token here"),
        (lower, "texts are normalised in another way"),
        (flagged, "'{' is an added token (without flags) there and an added token (lstrip) here"),
    )):  # fmt: skip
        assert plain.difference(load_tokenizer(written(tmp_path / str(i), stated))) == message


def test_headers_of_saved_vocabularies_are_read_or_damaged(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder_with(tmp_path, added_tokens={"{": FIRST}))
    file = tmp_path / "tokenizer.model"
    first, second, rest = tokenizer.proto.split(b"\n", 2)
    file.write_bytes(b"\n".join([first, second, rest]))
    assert load_tokenizer(file) == tokenizer and tokenizer.encode("{" + HOUSE)[0] == FIRST and len(rest) > PIECES
    deep = b"[" * 100_000
    lines = [b"", b"{", deep, b'{"tokens": ' + deep, b"null", b"[]", b"3", b"{}", b"\xff", b"1" * 5000]
    for line in (*lines, b'{"tokens": null, "extra_ids": 100}', b'{"tokens": [[1]], "extra_ids": 100}'):
        file.write_bytes(b"\n".join([first, line, rest]))
        assert "is damaged: it does not say which tokens were added; copy or train it" in refused(file)
    file.write_bytes(first + b"\n" + second + b"\n")
    assert "is damaged: it ends after its second line; copy or train it again" in refused(file)


@pytest.mark.parametrize("name", ["added_tokens", "tokenizer_config", "tokenizer"])
def test_a_clash_is_said_of_the_file_that_makes_it(name: str, tmp_path: Path) -> None:
    clash = {"{": 5}
    listed = [{"id": i, **token(text)} for text, i in clash.items()]
    content = {"added_tokens": clash, "tokenizer_config": decoder(clash), "tokenizer": {"added_tokens": listed}}[name]
    with pytest.raises(UserError, match=rf"at id 5, which its {name}\.json gives to '\{{'; each token needs"):
        load_tokenizer(folder_with(tmp_path / "in", **{name: content}))
    tokenizer = load_tokenizer(folder_with(tmp_path, added_tokens={"{": FIRST}))
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.proto.replace(b'[[140, "{"', b'[[5, "{"'))
    assert "at id 5, which its second line gives to '{'" in refused(tmp_path / "tokenizer.model")
