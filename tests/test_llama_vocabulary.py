"""One vocabulary as scored pieces (GGUF) and as merges (tokenizer.json): found the same, or what differs is named."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from small_llama import make_tokenizer

from kdtw_jax.data.chat import Chat
from kdtw_jax.data.pairing import Joined, joined_by_merges, joined_by_scores
from kdtw_jax.data.prompt_vocabulary import make_vocabulary
from kdtw_jax.data.tokenizer import Tokenizer, open_tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.pretrained.causal_vocabulary import check_beside, load_prompt_vocabulary
from kdtw_jax.pretrained.gguf_vocabulary import read_gguf_vocabulary

G = "tokenizer.ggml."
TEMPLATE = "{% for m in messages %}{{ '<s>[USER] ' + m['content'] + ' [END]' }}{% endfor %}"
TEXTS = ["the red house and the tree", "a small house in the north", "trees, trees  and houses!", "1234 and 56"]


@pytest.fixture(scope="module")
def pieces() -> list[Any]:
    """Of a sentencepiece model as Llama's is: byte pairs, bytes for what is unknown, spaces as they are."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    described: Any = sentencepiece_model_pb2
    made = io.BytesIO()
    how: dict[str, Any] = {"model_type": "bpe", "byte_fallback": True, "vocab_size": 330, "hard_vocab_limit": False}
    how |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "minloglevel": 2}
    how |= {"allow_whitespace_only_pieces": True}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(9 * TEXTS), model_writer=made, **how)
    return list(described.ModelProto.FromString(made.getvalue()).pieces)


def stated(pieces: list[Any], **changes: Any) -> dict[str, Any]:
    """What a GGUF file says of it."""
    usual = {
        "model": "llama",
        "tokens": [piece.piece for piece in pieces],
        "scores": [piece.score for piece in pieces],
        "token_type": [piece.type for piece in pieces],
    }
    return {
        **{f"{G}{name}": value for name, value in {**usual, **changes}.items()},
        "tokenizer.chat_template": TEMPLATE,
    }


def as_json(pieces: list[Any]) -> dict[str, Any]:
    """The `tokenizer.json` that the published library makes of it: merges by the scores of what they make."""
    place = {piece.piece: i for i, piece in enumerate(pieces)}
    apart = {piece.piece for piece in pieces if piece.type != 1}
    ranked = sorted((piece for piece in pieces if piece.type == 1), key=lambda piece: -piece.score)
    halves = [(p.piece[:at], p.piece[at:]) for p in ranked for at in range(1, len(p.piece))]
    merges = [list(pair) for pair in halves if all(half in place and half not in apart for half in pair)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    special = [(i, p.piece, p.type in (2, 3)) for i, p in enumerate(pieces) if p.type in (2, 3, 4)]
    space = "\u2581"
    decoder = [{"type": "Replace", "pattern": {"String": space}, "content": " "}, {"type": "ByteFallback"}]
    decoder += [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    normalizer = [
        {"type": "Prepend", "prepend": space},
        {"type": "Replace", "pattern": {"String": " "}, "content": space},
    ]
    return {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": text, **flags, "special": only} for i, text, only in special],
        "normalizer": {"type": "Sequence", "normalizers": normalizer},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoder},
        "model": {
            "type": "BPE",
            "vocab": place,
            "merges": merges,
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
        },
    }


def of_json(said: dict[str, Any], folder: Path, rows: int, **stated: Any) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(said), encoding="utf8")
    config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "chat_template": TEMPLATE, **stated}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf8")
    return load_prompt_vocabulary(folder, rows)


def differences(one: Tokenizer, other: Tokenizer) -> tuple[str | None, str | None]:
    found = one.difference(other), other.difference(one)
    assert all(said is None or "\n" not in said for said in found)
    return found


def test_pieces_of_a_gguf_file_and_merges_of_a_tokenizer_json_are_one_vocabulary(
    pieces: list[Any], tmp_path: Path
) -> None:
    rows = len(pieces)
    one = read_gguf_vocabulary(tmp_path / "x.gguf", stated(pieces), rows)
    other = of_json(as_json(pieces), tmp_path / "there", rows)
    assert one.prompts is not None and one.prompts.cutter.published == "tokenizer.model"
    assert differences(one, other) == (None, None) and one.fingerprint != other.fingerprint
    for text in [*TEXTS, "Ünïcode <s> \t\n 東京", "", "   ", "and </s>", "a<0x0A>b"]:
        assert one.encode(text) == other.encode(text)
        assert one.prompt(text, 99) == other.prompt(text, 99)
    # Rows of the embedding without a token, which the converter of llama.cpp names, are none.
    padded = [f"[PAD{i}]" for i in range(rows, rows + 6)]
    said = stated(pieces)
    longer: dict[str, Any] = {f"{G}{name}": [*said[f"{G}{name}"], *more] for name, more in (
        ("tokens", padded), ("scores", [-1e4] * 6), ("token_type", [5] * 6))}  # fmt: skip
    again = read_gguf_vocabulary(tmp_path / "x.gguf", {**said, **longer}, rows + 6)
    assert differences(again, of_json(as_json(pieces), tmp_path / "there", rows + 6)) == (None, None)


def merged(change: Any) -> Any:
    def changed(said: dict[str, Any]) -> None:
        change(said["model"]["merges"])

    return changed


def swapped(merges: list[Any]) -> None:
    made = ["".join(pair) for pair in merges]
    i = next(i for i in range(9, len(made)) if made[i - 1] not in made[i:] and made[i] != made[i - 1])
    merges[i - 1], merges[i] = merges[i], merges[i - 1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (merged(swapped), r"pieces are joined in another order: .* comes first there, .* here"),
        (merged(lambda merges: merges.pop()), r"is made of .* and not (t)?here"),
        (lambda s: s["model"].update(byte_fallback=False), "unknown characters become bytes there and not here"),
        (lambda s: s["model"].update(ignore_merges=True), "words that are pieces are kept whole here and not there"),
        (lambda s: s["normalizer"]["normalizers"].pop(0), r"' ?.*' is \[.*\] there and \[.*\] here"),
        (lambda s: s.update(normalizer={"type": "Sequence", "normalizers": [{"type": "Lowercase"}, s["normalizer"]]}),
         r"is \[.*\] there and \[.*\] here"),
    ],
)  # fmt: skip
def test_what_differs_is_named(change: Any, said: str, pieces: list[Any], tmp_path: Path) -> None:
    rows = len(pieces)
    one = read_gguf_vocabulary(tmp_path / "x.gguf", stated(pieces), rows)
    stated_json = as_json(pieces)
    change(stated_json)
    there, here = differences(one, of_json(stated_json, tmp_path / "there", rows))
    assert there is not None and here is not None and re.search(said, there)


def test_scores_of_another_order_and_pieces_of_another_kind_are_named(pieces: list[Any], tmp_path: Path) -> None:
    rows, other = len(pieces), of_json(as_json(pieces), tmp_path / "there", len(pieces))
    kinds = [piece.type for piece in pieces]
    i = max(i for i, kind in enumerate(kinds) if kind == 1)
    for changes, wanted in (
        ({"scores": [-piece.score for piece in pieces]}, "joined in another order"),
        ({"scores": [-1000.0] * rows}, "here after"),  # whose order is that of their ids
        ({"token_type": [*kinds[:i], 5, *kinds[i + 1 :]]}, "is never used there and not here"),
        ({"add_space_prefix": False}, "there and"),
    ):
        one = read_gguf_vocabulary(tmp_path / "x.gguf", stated(pieces, **changes), rows)
        assert wanted in str(one.difference(other))


def test_tokens_that_are_found_first_are_the_same_where_no_space_is_put_before_texts(
    pieces: list[Any], tmp_path: Path
) -> None:
    # As Gemma's are: a run of spaces, say, is found before anything is joined.
    rows, kinds = len(pieces), [piece.type for piece in pieces]
    i = next(i for i in range(rows) if pieces[i].piece == "ho")
    one = read_gguf_vocabulary(
        tmp_path / "x.gguf",
        stated(pieces, token_type=[*kinds[:i], 4, *kinds[i + 1 :]], add_space_prefix=False),
        rows,
    )
    said = as_json(pieces)
    said["normalizer"]["normalizers"].pop(0)
    said["decoder"]["decoders"].pop()
    assert "'ho'" in str(one.difference(of_json(said, tmp_path / "there", rows)))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
    said["added_tokens"].append({"id": i, "content": "ho", **flags, "normalized": True})
    other = of_json(said, tmp_path / "there", rows)
    assert differences(one, other) == (None, None)
    assert one.encode("the house") == other.encode("the house") and i in one.encode("the house")


def test_a_prompt_that_is_cut_otherwise_than_its_text_is_named(pieces: list[Any], tmp_path: Path) -> None:
    # A special token that takes the space after it: texts are cut alike, and what a template makes of them is not.
    rows, said = len(pieces), as_json(pieces)
    template = TEMPLATE.replace("<s>", "<s> ")
    said["added_tokens"][1]["rstrip"] = True
    gguf = {**stated(pieces), "tokenizer.chat_template": template}
    one = read_gguf_vocabulary(tmp_path / "x.gguf", gguf, rows)
    other = of_json(said, tmp_path / "there", rows, chat_template=template)
    assert str(one.difference(other)).startswith("as a prompt ")


def test_a_tokenizer_json_beside_a_gguf_file_has_to_be_of_its_vocabulary(pieces: list[Any], tmp_path: Path) -> None:
    rows, file = len(pieces), tmp_path / "x.gguf"
    one = read_gguf_vocabulary(file, stated(pieces), rows)
    check_beside(file, one, rows)
    of_json(as_json(pieces), tmp_path, rows)
    check_beside(file, one, rows)
    of_json(as_json(pieces), tmp_path, rows, chat_template="{{ messages[0]['content'] + '</s>' }}")
    with pytest.raises(UserError, match=r"x.gguf and the tokenizer.json beside it have different vocab.*a prompt is"):
        check_beside(file, one, rows)
    (tmp_path / "tokenizer_config.json").unlink()
    check_beside(file, one, rows)
    other = as_json(pieces)
    swapped(other["model"]["merges"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="joined in another order") as raised:
        check_beside(file, one, rows)
    assert "\n" not in str(raised.value)


def test_llama_3_files_keep_words_that_are_pieces_whole_and_begin_with_a_token(tmp_path: Path) -> None:
    said = json.loads(make_tokenizer())
    vocabulary = said["model"]["vocab"]
    known = {f"{G}model": "gpt2", f"{G}pre": "llama-bpe", f"{G}tokens": sorted(vocabulary, key=vocabulary.get)}
    known |= {f"{G}merges": [" ".join(pair) for pair in said["model"]["merges"]], f"{G}eos_token_id": 2}
    special = {token["id"] for token in said["added_tokens"]}
    known[f"{G}token_type"] = [3 if i in special else 1 for i in range(len(vocabulary))]
    found = [read_gguf_vocabulary(tmp_path / "x", {**known, f"{G}pre": pre}, 400) for pre in ("llama-bpe", "gpt-2")]
    assert [one.prompts.cutter.pairing().words_whole for one in found if one.prompts] == [True, False]
    assert [one.prompts.chat.begin for one in found if one.prompts] == [True, False]


def test_merges_and_scores_say_the_same_where_every_half_is_listed() -> None:
    scores = {"a": -9.0, "b": -8.0, "ab": -1.0, "aba": -3.0, "ba": -2.0, "x": -4.0, "xy": -5.0}
    found = joined_by_scores([*scores], [*scores.values()])
    assert found == (Joined("ab", ("a",)), Joined("ba", ("b",)), Joined("aba", ("a", "ab")))
    merges = [("a", "b"), ("b", "a"), ("ab", "a"), ("a", "ba")]
    assert joined_by_merges(merges, ()) == found == joined_by_merges([*merges, ("aba", "s")], ("s",))
    assert joined_by_merges(merges[::-1], ()) != found


def test_padding_that_another_token_is_named_for_is_chosen_as_if_nothing_were_said(pieces: list[Any]) -> None:
    file = json.dumps(as_json(pieces)).encode()
    how: dict[str, Any] = {"rows": len(pieces), "chat": Chat("", "<s>", "</s>"), "eos": 2}
    found = {make_vocabulary("json", file, "x", pad=pad, **how) for pad in (None, 0, 2)}
    assert len(found) == 1 and open_tokenizer(found.pop(), "x").prompts is not None
