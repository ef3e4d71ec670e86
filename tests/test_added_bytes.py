"""Tokens beside the bytes of byT5: sentinels and added ones, read and written as `transformers` does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from published import BYT5, write_folder

from kdtw_jax.data.tokenizer import EOS_ID, UNK_ID, load_tokenizer, load_vocabulary
from kdtw_jax.errors import UserError
from kdtw_jax.pretrained.load import open_published
from tests.added import bytes_with, decoder, exported, folder_with, of_bytes


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
