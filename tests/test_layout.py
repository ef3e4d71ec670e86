"""What a config.json may say: each value of its type or null, and everything else in one line that names it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from published import MT5, V10, V11

from kdtw_jax.errors import UserError
from kdtw_jax.models import T5Config, make_model
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.pretrained.layout import head_may_be_shared, read_layout
from kdtw_jax.pretrained.named import find_model
from kdtw_jax.pretrained.names import slots
from kdtw_jax.pretrained.tensors import INDEX, find_tensors
from kdtw_jax.runs import open_run
from kdtw_jax.runs.atomic import read_json
from kdtw_jax.training.saved import read_model_config

DEFAULTS = {
    "dropout_rate": 0.1, "layer_norm_epsilon": 1e-6, "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128, "num_decoder_layers": 3, "pad_token_id": 0, "eos_token_id": 1,
    "decoder_start_token_id": 0, "tie_word_embeddings": True, "feed_forward_proj": "relu",
    "scale_decoder_outputs": True,
}  # fmt: skip
SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")


def stating(folder: Path, text: str | bytes | dict[str, Any], name: str = "config.json") -> Path:
    folder.mkdir(exist_ok=True)
    text = json.dumps(text) if isinstance(text, dict) else text
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


@pytest.mark.parametrize("name", list(DEFAULTS))
def test_null_is_the_default(name: str, tmp_path: Path) -> None:
    for config in ({**kind, "relative_attention_max_distance": 100} for kind in (V10, V11, MT5)):
        without = {key: value for key, value in config.items() if key != name}
        silent = read_layout(stating(tmp_path / "silent", without))
        folder = stating(tmp_path / "null", {**config, name: None})
        assert read_layout(folder) == silent
        assert head_may_be_shared(folder) == head_may_be_shared(tmp_path / "silent")
    config = {**V10, "relative_attention_max_distance": 128}
    stated = {**config, "feed_forward_proj": "relu", name: DEFAULTS[name]}
    assert read_layout(stating(tmp_path / "null", {**config, name: None})) == read_layout(
        stating(tmp_path / "all", stated)
    )


WHOLE = ["'512'", "512.0", "[512]", "true", "0", "-1", "NaN", "1e999", "1" + 30 * "0", "{}"]
NUMBER = ["'1e-06'", "[0.1]", "true", "NaN", "Infinity", "-1", "1e999", "{}", "1.5"]
FLAG = ["'false'", "0", "1", "[]", "1.0", "'true'"]
WRONG = {
    **dict.fromkeys((*SIZES, "num_decoder_layers", "relative_attention_num_buckets"), WHOLE),
    "relative_attention_max_distance": WHOLE,
    **dict.fromkeys(("dropout_rate", "layer_norm_epsilon"), NUMBER),
    **dict.fromkeys(("tie_word_embeddings", "scale_decoder_outputs"), FLAG),
    **{name: ["'0'", "[0]", "false", "true", "0.0", "1.0", "7"] for name in ("pad_token_id", "eos_token_id")},
    "decoder_start_token_id": ["'0'", "[0]", "false", "0.0", "NaN"],
    "feed_forward_proj": ["['relu']", "3", "true", "{}", "''"],
    "model_type": ["['t5']", "5", "{}", "''"],
}


@pytest.mark.parametrize("name", list(WRONG))
def test_values_of_other_types_are_named_with_their_key_and_file(name: str, tmp_path: Path) -> None:
    text = json.dumps({**V10, name: "HERE"})
    for wrong in WRONG[name]:
        folder = stating(tmp_path, text.replace('"HERE"', wrong.replace("'", '"')))
        with pytest.raises(UserError) as raised:
            read_layout(folder)
        said = str(raised.value)
        assert str(folder / "config.json") in said and name in said and "\n" not in said, wrong
        assert "has to be" in said or "known are" in said, said
        assert len(said) < 250 + len(str(folder)), said


def test_a_key_that_has_to_be_there_is_missed_where_it_is_null(tmp_path: Path) -> None:
    for name in SIZES:
        with pytest.raises(UserError, match=f"does not say {name}$"):
            read_layout(stating(tmp_path, {**V10, name: None}))
    said = f"{tmp_path}/config.json: model config: layer_norm_epsilon is '1e-06'; it has to be a number above 0 and"
    with pytest.raises(UserError, match=said):
        read_layout(stating(tmp_path, {**V10, "layer_norm_epsilon": "1e-06"}))


def test_zero_as_a_whole_number_is_a_number(tmp_path: Path) -> None:
    assert read_layout(stating(tmp_path, {**V10, "dropout_rate": 0})).dropout_rate == 0


def test_the_largest_sizes_are_still_numbers() -> None:
    large = {"vocab_size": 2**27, "d_model": 2**20, "d_kv": 2**20, "d_ff": 2**24, "num_heads": 2**12}
    assert slots(T5Config.toy(**large))  # nothing is made of them but shapes
    for name in (*large, "num_layers", "num_decoder_layers"):
        with pytest.raises(UserError, match=rf"{name} is 1000.*000; it has to be a whole number of at least 1 and at"):
            T5Config.toy(**{name: 10**40})


FIELDS = [field.name for field in dataclasses.fields(T5Config)]


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_a_model_refuses_other_types(name: str, tmp_path: Path) -> None:
    """Whoever makes it, from a file of ours or without one."""
    for wrong in ("9", None, [1], {}, 1.5, -1, float("nan"), float("inf"), b"x", 10**30, "x" * 900, object()):
        with pytest.raises(UserError, match=f"model config: {name} is ") as raised:
            T5Config.toy(**{name: wrong})
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 250
    plain = {"model": {**T5Config.toy().to_dict(), name: "9"}}
    with pytest.raises(UserError, match=rf"^{tmp_path}/config.json: model config: {name} is '9'; it has to be"):
        read_model_config(stating(tmp_path, plain))


DAMAGED = {
    "": "not JSON from line 1 on",
    '{\n"model": ]': "not JSON from line 2 on",
    "[1, 2]": "no JSON object",
    '"model"': "no JSON object",
    "null": "no JSON object",
    "[" * 100_000: "nested too deeply",
    '{"model": ' + "[" * 100_000 + "]" * 100_000 + "}": "nested too deeply",
    '{"model": ' + "1" * 5000 + "}": "thousands of digits",
    b'{"model": "\xff"}': "not JSON in UTF-8",
    '{"model": 1}'.encode("utf-16"): "not JSON in UTF-8",
    b"\0" * 100: "not JSON",
}


@pytest.mark.parametrize("content", list(DAMAGED), ids=[str(i) for i in range(len(DAMAGED))])
def test_damaged_files_are_one_line_wherever_they_are_read(content: str | bytes, tmp_path: Path) -> None:
    folder = stating(tmp_path, content)
    stating(tmp_path, content, INDEX)
    readers = (read_layout, read_model_config, head_may_be_shared, restore, find_tensors, lambda x: find_model(str(x)))
    for reader in (*readers, lambda x: open_run(x, {"a": 1})):
        with pytest.raises(UserError, match=rf"\.json is damaged: .*{DAMAGED[content]}") as raised:
            reader(folder)
        assert "\n" not in str(raised.value)


def test_a_mark_before_the_text_is_no_damage(tmp_path: Path) -> None:
    stating(tmp_path, b"\xef\xbb\xbf" + json.dumps(V10).encode())
    assert read_layout(tmp_path).d_model == V10["d_model"]


@pytest.mark.parametrize("content", [{"model": None}, {"model": [1]}, {"model": "t5"}, {"tokenizer": "x"}])
def test_a_file_without_sizes_is_none_of_ours(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json is damaged: it has no sizes under 'model'"):
        read_model_config(stating(tmp_path, content))
    with pytest.raises(UserError, match=r"is not a run's folder: its config\.json does not say task, teacher_seed"):
        restore(tmp_path)


def test_what_cannot_be_read_is_said_and_what_is_not_there_as_well(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*config\.json: Is a directory"):
        read_json(tmp_path / "config.json", "no")
    for nowhere in (tmp_path / "x.json", Path(__file__) / "config.json"):
        with pytest.raises(UserError, match=f"^no model: there is no {nowhere}$"):
            read_json(nowhere, "no model")


def test_sound_configs_are_read_as_ever(tmp_path: Path) -> None:
    for config in (V10, V11, MT5):
        found = read_layout(stating(tmp_path, config))
        assert make_model(found).config == found
        assert found.tie_embeddings == (config is V10)
