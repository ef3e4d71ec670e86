"""Tokens that files add beside a `tokenizer.json` are those of the published library, and their rows are not spare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_llama import write_vocabulary

from kdtw_jax.data.tokenizer import load_tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.pretrained.causal_vocabulary import load_prompt_vocabulary
from tests.added import ADDED, FIRST, decoder, fast_json, token

TEXTS = ["a tool{{ tree<img>", "{{red}} tool tools", "  tool  {{  ", "tree"]


def listed(**tokens: Any) -> dict[str, Any]:
    return {"added_tokens_decoder": {i.removeprefix("_"): entry for i, entry in tokens.items()}}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "decoder": (listed(_305=token("tool"), _306=token("{{")), {}),
    "flags": (listed(_305=token("tool", single_word=True), _306=token("{{", lstrip=True, rstrip=True)), {}),
    "file": ({}, {"tool": 305, "{{": 306}),
    "a piece": (listed(_264=token("ree")), {}),
    "none": (listed(_1=token("<|start|>", special=True)), {}),
}


def written(folder: Path, name: str) -> int:
    config, added = CASES[name]
    rows = write_vocabulary(folder, **config)
    if added:
        (folder / "added_tokens.json").write_text(json.dumps(added))
    return rows


@pytest.mark.parametrize("name", CASES)
def test_they_are_read_as_transformers_reads_them(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install '.[parity]'")
    rows = written(tmp_path, name)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    ours = load_prompt_vocabulary(tmp_path, rows + 8)
    there = ours.published_ids
    assert there is not None and ours.prompts is not None
    for text in TEXTS:
        ids = ours.encode(text)
        assert [int(there[i]) for i in ids] == theirs(text, add_special_tokens=False).input_ids
        assert not {*ids} & {*ours.banned_ids}
    spare = {ours.prompts.ids.pad, ours.prompts.ids.unknown, ours.prompts.ids.help}
    assert not spare & {*theirs.get_added_vocab().values()}
    assert len(theirs) == len([piece for piece in ours.pieces if piece])


def test_a_file_of_ids_alone_changes_no_token_that_is_there(tmp_path: Path) -> None:
    rows = write_vocabulary(tmp_path)
    before = load_prompt_vocabulary(tmp_path, rows + 8)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|start|>": 1}))
    after = load_prompt_vocabulary(tmp_path, rows + 8)
    for text in (*TEXTS, "a<|start|>b"):
        assert after.encode(text) == before.encode(text) and after.prompt(text, 99) == before.prompt(text, 99)
    assert after.banned_ids == before.banned_ids


def test_what_they_add_is_kept_where_it_is_saved_and_nothing_is_where_nothing_is_added(tmp_path: Path) -> None:
    rows = written(tmp_path / "in", "decoder")
    ours = load_prompt_vocabulary(tmp_path / "in", rows + 8)
    ours.save(tmp_path / "tokenizer.model")
    assert load_tokenizer(tmp_path / "tokenizer.model").encode("tool{{") == ours.encode("tool{{")
    assert ours.published_file is not None
    assert json.loads(ours.published_file[1])["added_tokens"][-1]["content"] == "{{"
    written(tmp_path / "none", "none")
    plain = load_prompt_vocabulary(tmp_path / "none", rows + 8)
    assert plain.published_file == ("tokenizer.json", (tmp_path / "none" / "tokenizer.json").read_bytes())


def test_special_ones_without_an_id_have_the_next_row(tmp_path: Path) -> None:
    rows = write_vocabulary(tmp_path, extra_special_tokens=["<tool>", "<img>", "<|stop|>"])
    ours = load_prompt_vocabulary(tmp_path, rows + 8)
    assert ours.published_ids is not None
    place = {int(there): i for i, there in enumerate(ours.published_ids)}
    assert [ours.pieces[place[i]] for i in (305, 306)] == ["<tool>", "<img>"]
    assert {place[305], place[306]} < {*ours.banned_ids} and not {place[305], place[306]} & {*ours.encode("<tool>")}


def test_pieces_have_them_likewise(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(fast_json(ADDED)), encoding="utf8")
    whole = load_tokenizer(tmp_path)
    for name, content in (("tokenizer_config", decoder(ADDED)), ("added_tokens", ADDED)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tokenizer.json").write_text(json.dumps(fast_json({})), encoding="utf8")
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf8")
        found = load_tokenizer(folder)
        assert found.difference(whole) is None and found.encode("{\nhouse") == whole.encode("{\nhouse")
        assert found.encode("{")[0] == FIRST + 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (listed(_310=token("tool")), "tokenizer_config.json .* gives id 310 to 'tool', and the next one is 305; save"),
        (listed(_265=token("ree")), "has 'ree' at id 264, which tokenizer_config.json .*gives id 265; a token has one"),
        (listed(_305=token("<|stop|>")), r"has '<\|stop\|>' at id 2, which .* gives id 305"),
        ({"added_tokens_decoder": {"x": token("tool")}}, "gives id 'x' to 'tool'; ids are whole numbers"),
        ({"added_tokens_decoder": {"305": {**token("tool"), "special": "false"}}}, "special 'false' for 'tool'"),
    ],
)
def test_ids_that_are_not_theirs_are_one_line(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = write_vocabulary(tmp_path, **config)
    with pytest.raises(UserError, match=message) as raised:
        load_prompt_vocabulary(tmp_path, rows + 8)
    assert "\n" not in str(raised.value)
