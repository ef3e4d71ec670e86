"""GGUF files: the folder that they were made of, to rounding, and one line for whatever else they may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small_llama import write_model

from kdtw_jax.errors import UserError
from kdtw_jax.models.causal.layers import rope_frequencies
from kdtw_jax.pretrained.gguf import open_gguf
from kdtw_jax.pretrained.named import find_model, read_teacher

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf")

from small_gguf import SIZES, write_gguf

PROMPTS = ["the red house", "a tree", "Ünïcode, 1234 trees and  two\nspaces"]


@pytest.mark.parametrize(("how", "off"), [("F32", 1e-6), ("F16", 2e-3), ("Q8_0", 0.02), ("Q4_0", 0.3)])
def test_a_gguf_file_is_the_folder_it_was_made_of_to_rounding(how: str, off: float, tmp_path: Path) -> None:
    write_model(tmp_path / "published", **SIZES)
    write_gguf(tmp_path / "model.gguf", tmp_path / "published", how)
    one, other = (
        read_teacher(find_model(str(tmp_path / name)), dtype="float32") for name in ("published", "model.gguf")
    )
    assert one.model.config == replace(other.model.config, norm_epsilon=one.model.config.norm_epsilon)  # type: ignore
    furthest = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one.params, other.params)
    assert max(jax.tree.leaves(furthest)) < off
    assert jax.tree.all(jax.tree.map(np.allclose, one.params, other.params)) == (how == "F32")
    for text in PROMPTS:
        assert one.tokenizer.prompt(text, 99) == other.tokenizer.prompt(text, 99)


@pytest.mark.parametrize("length", [8192, 512])
def test_stretched_positions_of_a_gguf_file_are_those_of_the_folder(length: int, tmp_path: Path) -> None:
    said = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope = {"rope_theta": 10_000.0, **said, "original_max_position_embeddings": length}
    write_model(tmp_path / "published", **SIZES, head_dim=64, rope_parameters=rope)
    config: Any = find_model(str(tmp_path / "published")).config
    slower = rope_frequencies(replace(config, rope_kind="default"), 0) / rope_frequencies(config, 0)
    assert slower[0] == 1 and np.isclose(slower[-1], 8)
    write_gguf(tmp_path / "model.gguf", tmp_path / "published", "F32", slower=slower)
    other = find_model(str(tmp_path / "model.gguf")).config
    assert replace(other, norm_epsilon=config.norm_epsilon) == config  # type: ignore[type-var]
    for i, wrong in enumerate((slower[:-1], slower[::-1], 1 / slower, np.ones(32), slower * np.nan)):
        write_gguf(tmp_path / f"{i}.gguf", tmp_path / "published", "F32", slower=wrong)
        with pytest.raises(UserError, match=r"stretched in a way that is not known \(rope_freqs"):
            find_model(str(tmp_path / f"{i}.gguf"))


def test_what_a_gguf_file_cannot_be_is_said_in_a_line(tmp_path: Path) -> None:
    write_model(tmp_path / "published", **SIZES)
    for name, changes, said in (
        ("a", {"architecture": "mamba"}, r"architecture 'mamba'; known are llama, qwen2"),
        ("b", {"pre": "strange"}, r"cuts texts in the way 'strange' \(tokenizer.ggml.pre\); known are smollm"),
    ):
        write_gguf(tmp_path / f"{name}.gguf", tmp_path / "published", "F32", **changes)
        with pytest.raises(UserError, match=said):
            find_model(str(tmp_path / f"{name}.gguf"))
    whole = (tmp_path / "b.gguf").read_bytes()
    for name, content in (
        ("c", b""),
        ("d", b"GGUF"),
        ("e", b"no file of that kind" * 99),
        ("f", whole[: len(whole) // 2]),
    ):
        (tmp_path / f"{name}.gguf").write_bytes(content)
        with pytest.raises(UserError, match=r"is damaged or no GGUF file|does not say"):
            open_gguf(tmp_path / f"{name}.gguf")


def test_a_file_that_takes_the_place_of_another_is_read_anew(tmp_path: Path) -> None:
    write_model(tmp_path / "published", **SIZES)
    file = tmp_path / "model.gguf"
    write_gguf(file, tmp_path / "published", "F32")
    first = open_gguf(file)
    assert open_gguf(file) is first
    write_model(tmp_path / "published", **{**SIZES, "num_hidden_layers": 3})
    write_gguf(tmp_path / "other.gguf", tmp_path / "published", "F32")
    (tmp_path / "other.gguf").replace(file)
    assert (first.config.num_layers, open_gguf(file).config.num_layers) == (2, 3)
    assert find_model(str(file)).config.num_layers == 3


def test_tensors_that_are_misshapen_or_missing_are_said_to_be_so_by_the_file(tmp_path: Path) -> None:
    write_model(tmp_path / "published", **SIZES)
    for name, changes, said in (
        (
            "a",
            {"width": 16},
            r"do not fit its metadata: .*embed_tokens.weight is \(\d+, 32\), by its metadata \(\d+, 16\)",
        ),
        ("b", {"layers": 3}, "do not fit its metadata: missing model.layers.2.input_layernorm.weight"),
    ):
        write_gguf(tmp_path / f"{name}.gguf", tmp_path / "published", "F32", **changes)
        with pytest.raises(UserError, match=said) as raised:
            find_model(str(tmp_path / f"{name}.gguf"))
        assert "config.json" not in str(raised.value) and "\n" not in str(raised.value)
