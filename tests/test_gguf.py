"""GGUF files: the folder that they were made of, to rounding, and one line for whatever else they may be."""

from __future__ import annotations

import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_llama import write_model

from benchmarks.llama_cpp import quantise
from kdtw_jax import parallel
from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.models import make_model, split_axis
from kdtw_jax.models.causal.layers import rope_frequencies
from kdtw_jax.pretrained import gguf as reader
from kdtw_jax.pretrained import load
from kdtw_jax.pretrained.gguf import _read_gguf, open_gguf
from kdtw_jax.pretrained.named import find_model, read_teacher

pytest.importorskip("torch")
pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")
small_gguf = pytest.importorskip("small_gguf")
SIZES, write_gguf = small_gguf.SIZES, small_gguf.write_gguf


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
    assert one.tokenizer.fingerprint != other.tokenizer.fingerprint
    assert one.tokenizer.difference(other.tokenizer) is other.tokenizer.difference(one.tokenizer) is None


def test_a_copy_in_eight_bits_is_the_same_model_to_rounding(tmp_path: Path) -> None:
    write_model(tmp_path / "published", **SIZES)
    write_gguf(tmp_path / "model.gguf", tmp_path / "published", "F16")
    copy = quantise(tmp_path / "model.gguf", tmp_path / "copy.gguf")
    one, other = (read_teacher(find_model(str(file)), dtype="float32") for file in (tmp_path / "model.gguf", copy))
    assert one.model.config == other.model.config
    furthest = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one.params, other.params)
    assert 0 < max(jax.tree.leaves(furthest)) < 0.02
    assert all(one.tokenizer.prompt(text, 99) == other.tokenizer.prompt(text, 99) for text in PROMPTS)
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(copy).tensors}
    assert kinds == {"Q8_0", "F32"}


def test_a_quantised_file_goes_to_its_places_tensor_by_tensor_and_is_dequantised_some_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "published", **SIZES, num_hidden_layers=3)
    write_gguf(tmp_path / "model.gguf", tmp_path / "published", "Q8_0")
    found = find_model(str(tmp_path / "model.gguf"))
    assert found.published is not None
    whole = read_teacher(found, dtype="bfloat16").params
    many = 32 * 8  # numbers: some rows of the widest tensor
    monkeypatch.setattr(reader, "_AT_ONCE", many)
    numbers: list[int] = []  # that were dequantised together
    given: list[weakref.ref[np.ndarray]] = []  # what the host was given, and has to let go
    dequantise = gguf.quants.dequantize

    def few(data: np.ndarray, kind: Any) -> np.ndarray:
        assert not [x for x in given if x() is not None], "a tensor is read while the one before is still held"
        rows: np.ndarray = dequantise(data, kind)
        numbers.append(rows.size)
        return rows

    def elsewhere(x: np.ndarray, placement: Any) -> Any:
        assert placement in ("matrix", "vector") and x.dtype == (jnp.bfloat16 if placement == "matrix" else np.float32)
        given.append(weakref.ref(x))
        return x.astype(np.float32)

    monkeypatch.setattr(gguf.quants, "dequantize", few)
    monkeypatch.setattr(load, "_put", elsewhere)
    places: Any = lambda path, shape: "matrix" if len(shape) == 2 else "vector"  # noqa: E731
    params = load.read_published(found.published, found.config, jax.random.key(0), dtype="bfloat16", placement=places)
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b.astype(np.float32)), params, whole))
    assert max(numbers) <= many and sum(numbers) == sum(x.size for x in jax.tree.leaves(whole))
    assert len(given) == len(jax.tree.leaves(whole)) and len(numbers) > 2 * len(given)


def test_a_teacher_of_a_gguf_file_is_spread_as_it_is_read(tmp_path: Path) -> None:
    write_model(tmp_path / "published", **SIZES)
    write_gguf(tmp_path / "model.gguf", tmp_path / "published", "Q8_0")
    devices = parallel.select_devices(4)
    for name in ("model.gguf", "published"):
        found = find_model(str(tmp_path / name))
        axis = partial(split_axis, make_model(found.config).role)
        where = parallel.shardings(devices, 2, axis)
        spread = read_teacher(found, dtype="bfloat16", placement=where).params
        want = parallel.shard_params(read_teacher(found, dtype="bfloat16").params, devices, 2, axis)
        assert jax.tree.all(jax.tree.map(lambda a, b: a.sharding == b.sharding, spread, want))
        assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), spread, want))
        again = parallel.shard_params(spread, devices, 2, axis)
        assert jax.tree.all(jax.tree.map(lambda a, b: a is b, again, spread))  # nothing moves a second time
        split = [x for x in jax.tree.leaves(spread) if x.addressable_data(0).size < x.size]
        assert len(split) > 10


@pytest.mark.parametrize("length", [8192, 512])
def test_stretched_positions_of_a_gguf_file_are_those_of_the_folder(length: int, tmp_path: Path) -> None:
    said = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope = {"rope_theta": 10_000.0, **said, "original_max_position_embeddings": length}
    write_model(tmp_path / "published", **SIZES, head_dim=64, rope_parameters=rope)
    config: Any = find_model(str(tmp_path / "published")).config
    slower = rope_frequencies(replace(config, rope_kind="default"), 0) / rope_frequencies(config)
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


@pytest.fixture(scope="module")
def stated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A file, and its metadata by their names."""
    folder = tmp_path_factory.mktemp("gguf")
    write_model(folder / "published", **SIZES)
    write_gguf(folder / "model.gguf", folder / "published", "F32")
    fields = gguf.GGUFReader(folder / "model.gguf").fields
    return folder / "model.gguf", {name: field.contents() for name, field in fields.items()}


def reads(file: Path, stated: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    """The file with other metadata, most of which the writer would refuse."""

    class Field:
        def __init__(self, value: Any):
            self.contents = lambda: value

    class Reader:
        def __init__(self, file: Path):
            self.tensors = whole(file).tensors
            self.fields = {name: Field(value) for name, value in stated.items()}

    whole = gguf.GGUFReader
    with monkeypatch.context() as patch:
        patch.setattr(gguf, "GGUFReader", Reader)
        return _read_gguf.__wrapped__(file, ()).tokenizer


G = "tokenizer.ggml."
ODD: list[Any] = [True, -7, 2**40, 0.5, float("inf"), "x", [1], ["a", "a"], [0.5], [[1]], "\ud800", ["\ud800"], {}]
PIECES: dict[str, Any] = {
    f"{G}model": "llama",
    f"{G}unknown_token_id": 3,
    f"{G}padding_token_id": 4,
    f"{G}add_bos_token": True,
    f"{G}add_space_prefix": True,
}


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_whatever_a_file_says_is_a_vocabulary_that_works_or_one_line(
    kind: str, stated: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, known = stated
    known = {**known, **(PIECES | {f"{G}scores": [0.0] * len(known[f"{G}tokens"])} if kind == "pieces" else {})}
    assert reads(file, known, monkeypatch).vocab_size == len(known[f"{G}tokens"])
    refusals = []
    for name, value in known.items():
        odd = [*ODD]
        if isinstance(value, list):
            odd += [value[:-1], [*value, value[-1]], [*value[:20], None, *value[21:]], [*value[:20], "", *value[21:]]]
        for other in odd:
            try:
                found = reads(file, {**known, name: other}, monkeypatch)
            except UserError as error:
                refusals.append(str(error))
                continue
            for text in PROMPTS:
                ids, _ = found.prompt(text, 99)
                assert {*ids} <= {*range(found.vocab_size)}
                assert found.decode(found.encode(text)) == text or kind == "pieces" or name == f"{G}tokens"
    assert len(refusals) > 150 and max(map(len, refusals)) < 500 and "\n" not in "".join(refusals)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({f"{G}tokens": 3}, r"has tokenizer.ggml.tokens 3; it has to be a list"),
        ({f"{G}tokens": []}, "has no vocabulary"),
        ({f"{G}token_type": [1]}, r"has \d+ tokens and 1 tokenizer.ggml.token_type; there has to be one for each"),
        ({f"{G}token_type": "x"}, "token_type 'x'; it has to be a list"),
        ({f"{G}merges": None}, "merges None; it has to be a list"),
        ({f"{G}pre": 3}, "tokenizer.ggml.pre 3; it has to be a text"),
        ({f"{G}padding_token_id": "x"}, r"padding_token_id 'x'; it has to be the id of one of its \d+ tokens"),
        ({f"{G}eos_token_id": 999}, "eos_token_id 999; it has to be the id of one of its"),
        ({f"{G}eos_token_id": 2**32 - 1, "tokenizer.chat_template": ""}, "does not say which token ends a text"),
        ({f"{G}scores": ["x"]}, "scores with 'x' at 0; it has to be a finite number"),
        ({f"{G}add_bos_token": "false"}, "add_bos_token 'false'; it has to be true or false"),
        ({"tokenizer.chat_template": 3}, "tokenizer.chat_template 3; it has to be a text"),
        ({"general.architecture": ["llama"]}, "of the architecture"),
        ({f"{G}model": ["gpt2"]}, r"of the kind \['gpt2'\]; known are gpt2 and llama"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": "2",
          "llama.rope.scaling.original_context_length": 9}, "rope_factor is '2'"),
    ],
)  # fmt: skip
def test_odd_metadata_are_named(
    changes: dict[str, Any], said: str, stated: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, known = stated
    with pytest.raises(UserError, match=said) as raised:
        reads(file, {**known, **changes}, monkeypatch)
    assert str(raised.value).count(str(file)) == 1
    assert reads(file, known, monkeypatch).vocab_size > 300


def test_one_text_at_two_ids_is_refused_and_none_has_a_name(
    stated: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, known = stated
    tokens = known[f"{G}tokens"]
    with pytest.raises(UserError, match=rf"has {tokens[9]!r} at both 9 and 20 of its tokenizer.ggml.tokens"):
        reads(file, {**known, f"{G}tokens": [*tokens[:20], tokens[9], *tokens[21:]]}, monkeypatch)
    empty = reads(file, {**known, f"{G}tokens": [*tokens[:5], "", "", *tokens[7:]]}, monkeypatch)
    assert "[EMPTY_6]" in empty.pieces and empty.vocab_size == len(tokens)
    missing = {name: value for name, value in known.items() if name != f"{G}merges"}
    with pytest.raises(UserError, match="does not say which bytes are paired"):
        reads(file, missing, monkeypatch)
