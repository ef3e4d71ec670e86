"""Published models opened: whole or not at all, in little more memory than they need, with nothing banned forgotten."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import BYT5, MT5, PIECES, ROWS, V10, V11, VARIANTS, tensors, write_folder
from safetensors.numpy import save_file

from kdtw_jax.data.tokenizer import UNK_ID, load_tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.models import T5Config, make_model, shift_right
from kdtw_jax.pretrained.hub import fetch
from kdtw_jax.pretrained.load import open_published, read_published
from kdtw_jax.pretrained.named import find_model, read_student, read_teacher, student_config
from kdtw_jax.pretrained.names import slots
from kdtw_jax.pretrained.tensors import Held, same_tensor
from kdtw_jax.training.saved import load_model, save_model

KEY = jax.random.key(0)
Weights = dict[str, np.ndarray]


def leaves(params: Any) -> dict[str, np.ndarray]:
    found = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x) for path, x in found}


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_weight_has_its_place(variant: str, tmp_path: Path) -> None:
    config, weights = VARIANTS[variant], tensors(VARIANTS[variant])
    found = open_published(write_folder(tmp_path / "model", config))
    params = read_published(found, found.config, KEY)
    like = jax.eval_shape(make_model(found.config).init, KEY)
    assert jax.tree.structure(params) == jax.tree.structure(like)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, like)
    ours, places = leaves(params), slots(found.config)
    assert places.keys() == weights.keys()
    for name, slot in places.items():
        x = ours["/".join(slot.path)]
        np.testing.assert_array_equal(x.T if slot.transposed else x, weights[name])
    sizes = {"vocab_size": ROWS, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 3, "num_decoder_layers": 2}
    assert {name: getattr(found.config, name) for name in sizes} == sizes
    assert found.config.tie_embeddings == (variant == "v1.0")


def test_shards_are_one_model(tmp_path: Path) -> None:
    whole, parts = (write_folder(tmp_path / str(n), V11, shards=n) for n in (1, 3))
    one, other = opened(whole), opened(parts)
    assert len(list(parts.glob("model-*.safetensors"))) == 3
    assert one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float64"])
def test_stored_dtypes_are_converted(stored: str, tmp_path: Path) -> None:
    weights = {name: x.astype(jnp.dtype(stored)) for name, x in tensors(V10).items()}
    found = open_published(write_folder(tmp_path / "model", V10, weights))
    ours = leaves(read_published(found, found.config, KEY))
    assert {str(x.dtype) for x in ours.values()} == {"float32"}
    np.testing.assert_array_equal(ours["shared/embedding"], weights["shared.weight"].astype(np.float32))


def test_a_teacher_in_bfloat16_is_the_float32_one_in_bfloat16_arithmetic(tmp_path: Path) -> None:
    found = find_model(str(write_folder(tmp_path / "model", V10)))
    half = read_teacher(found, dtype="bfloat16")
    assert found.published is not None
    whole = read_published(found.published, half.model.config, KEY)
    assert {str(x.dtype) for k, x in leaves(half.params).items() if "kernel" in k} == {"bfloat16"}
    assert {str(x.dtype) for k, x in leaves(half.params).items() if "scale" in k or "bias" in k} == {"float32"}
    tokens = jax.random.randint(jax.random.key(1), (3, 9), 2, PIECES)

    def logits(params: Any) -> jax.Array:
        return half.model.decode(params, half.model.encode(params, tokens), shift_right(tokens)).logits_BxTxV

    np.testing.assert_array_equal(jax.jit(logits)(half.params), jax.jit(logits)(whole))


def test_loading_takes_little_more_memory_than_the_model(tmp_path: Path) -> None:
    big = {**V11, "d_ff": 16384, "num_layers": 6}  # 24 matrices of half a megabyte in bfloat16
    found = open_published(write_folder(tmp_path / "model", big))
    slots(found.config)  # what JAX keeps of the shapes is not counted
    tracemalloc.start()
    params = read_published(found, found.config, KEY, dtype="bfloat16")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sizes = [x.nbytes for x in jax.tree.leaves(params)]
    assert peak < sum(sizes) + 5 * max(sizes)  # as stored and, twice as long, as float32
    assert 5 * max(sizes) < sum(sizes) / 2


def test_tensors_go_where_they_are_wanted(tmp_path: Path) -> None:
    found = open_published(write_folder(tmp_path / "model", V10))
    device = jax.local_devices()[2]
    config = dataclasses.replace(found.config, value_heads=True)
    assert {x.device for x in jax.tree.leaves(read_published(found, config, KEY, placement=device))} == {device}


def opened(folder: Path) -> dict[str, np.ndarray]:
    found = open_published(folder)
    return leaves(read_published(found, found.config, KEY))


def without(name: str) -> Callable[[Weights], Weights]:
    return lambda weights: {k: x for k, x in weights.items() if k != name}


Q = "decoder.block.1.layer.1.EncDecAttention.q.weight"
WI = "encoder.block.0.layer.1.DenseReluDense.wi.weight"


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (V10, without(Q), f"missing {Q}$"),
        (V10, lambda w: {**w, "pooler.weight": w[Q]}, "unknown pooler.weight$"),
        (V10, lambda w: {**w, Q: w[Q][:-1].copy()}, rf"{Q} is \(17, 16\), by config.json \(18, 16\)$"),
        ({**V10, "vocab_size": 150}, lambda w: w, r"shared.weight is \(148, 16\), by config.json \(150, 16\)"),
        ({**V10, "feed_forward_proj": "gated-gelu"}, lambda w: w, "v1.0 weights: feed_forward_proj has to be 'relu'"),
        ({**V11, "feed_forward_proj": "relu"}, lambda w: w, "has to be 'gated-gelu'"),
        (V11, without("lm_head.weight"), "missing lm_head.weight; a model without a head .* tie_word_embeddings true"),
        ({**V10, "num_layers": 2}, lambda w: w, "unknown encoder.block.2.* and 5 more"),
        (V10, lambda w: {**w, Q: w[Q].astype(np.int8)}, "is I8; known are F64, F32, F16, BF16"),
        ({**V11, "tie_word_embeddings": True}, lambda w: w, "lm_head.weight is not .*tie_word_embeddings false"),
        (V10, lambda w: {**w, "encoder.embed_tokens.weight": -w["shared.weight"]}, "not of a T5 model"),
        ({**V10, "model_type": "umt5"}, lambda w: w, "model_type 'umt5'; known are t5, mt5"),
        ({**V10, "feed_forward_proj": "gated-silu"}, lambda w: w, "feed_forward_proj 'gated-silu'; known are"),
        ({**V10, "pad_token_id": 3}, lambda w: w, "pad_token_id 3; it has to be 0"),
        ({k: v for k, v in V10.items() if k != "d_kv"}, lambda w: w, "does not say d_kv"),
        ({**V10, "num_heads": 0}, lambda w: w, "num_heads is 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    config: dict[str, Any], change: Callable[[Weights], Weights], message: str, tmp_path: Path
) -> None:
    original = V11 if "lm_head" in message or (config["feed_forward_proj"] == "relu" and "gated" in message) else V10
    folder = write_folder(tmp_path / "model", config, change(tensors(original)))
    with pytest.raises(UserError, match=message) as raised:
        opened(folder)
    assert "\n" not in str(raised.value)


def test_repeated_and_unused_tensors_are_no_mismatch(tmp_path: Path) -> None:
    weights = tensors(V10)
    shared = weights["shared.weight"]
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    more = {"encoder.embed_tokens.weight": shared, "lm_head.weight": shared.copy(), unused: np.zeros((8, 3), "f4")}
    plain = write_folder(tmp_path / "plain", V10, weights)
    full = write_folder(tmp_path / "full", V10, {**weights, **more})
    renamed = {("decoder.embed_tokens.weight" if k == "shared.weight" else k): x for k, x in weights.items()}
    named = write_folder(tmp_path / "named", V10, renamed)
    one, *others = map(opened, (plain, full, named))
    for other in others:
        assert one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("name", ["lm_head.weight", "encoder.embed_tokens.weight"])
def test_a_copy_may_be_coarser_and_lack_padding(name: str, tmp_path: Path) -> None:
    weights = tensors(V10)
    plain = opened(write_folder(tmp_path / "plain", V10, weights))
    copy = weights["shared.weight"][: PIECES + 100].astype(np.float16)
    full = {**weights, name: copy}
    found = opened(write_folder(tmp_path / "full", V10, full))
    assert found.keys() == plain.keys() and all(np.array_equal(found[k], plain[k]) for k in plain)
    copy[PIECES, 3] *= 1.1
    with pytest.raises(UserError, match=f"{name} is not shared.weight"):
        opened(write_folder(tmp_path / "full", V10, full))


@pytest.mark.parametrize("one", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("other", ["float64", "float32", "float16", "bfloat16"])
def test_tensors_are_the_same_up_to_what_their_types_can_say(one: str, other: str, tmp_path: Path) -> None:
    x = np.random.RandomState(0).standard_normal((9, 4))
    x[0] = (1e-6, -3e-8, 0, 1000.3)  # below what float16 holds exactly
    wrong = x.copy()
    wrong[7, 2] *= 1.02
    stored = {"a": x.astype(jnp.dtype(one)), "b": x.astype(jnp.dtype(other)), "wrong": wrong.astype(jnp.dtype(other))}
    save_file(
        {**stored, "less": stored["b"][:7].copy(), "narrow": stored["b"][:, :3].copy()}, tmp_path / "x.safetensors"
    )
    held = {name: Held(tmp_path / "x.safetensors", name, x.shape) for name in ("a", "b", "wrong")}
    held |= {"less": held["a"]._replace(name="less", shape=(7, 4)), "narrow": Held(held["a"].file, "narrow", (9, 3))}
    found = {name: (same_tensor(held["a"], held[name]), same_tensor(held[name], held["a"])) for name in held}
    yes, no = (True, True), (False, False)
    assert found == {"a": yes, "b": yes, "less": yes, "wrong": no, "narrow": no}


def test_a_copy_of_other_sizes_is_said_to_be_one(tmp_path: Path) -> None:
    weights = tensors(V10)
    shared = weights["shared.weight"]
    for copy in (shared[: PIECES + 99], shared[:, :8], shared[0], shared[..., None]):
        folder = write_folder(tmp_path / "model", V10, {**weights, "lm_head.weight": copy.copy()})
        with pytest.raises(UserError, match=r"lm_head.weight is \(.*\), by config.json \(148, 16\)$"):
            open_published(folder)
    large = {**weights, "shared.weight": shared * 1e6, "lm_head.weight": shared * 1e6}
    with np.errstate(over="ignore"):
        large["lm_head.weight"] = large["lm_head.weight"].astype(np.float16)
    with pytest.raises(UserError, match=r"lm_head.weight has .* not finite .*overflowed in float16"):
        opened(write_folder(tmp_path / "model", V10, large))


def test_files_of_newer_writers_mean_the_same(tmp_path: Path) -> None:
    """Newer releases of the library write tie_word_embeddings true always, and whether states are scaled apart."""
    v11 = {**V11, "tie_word_embeddings": True, "scale_decoder_outputs": False}
    assert not open_published(write_folder(tmp_path / "v1.1", v11, tensors(V11))).config.tie_embeddings
    assert open_published(write_folder(tmp_path / "v1.0", {**V10, "scale_decoder_outputs": True})).config.tie_embeddings
    mt5 = {**MT5, "tie_word_embeddings": True}
    headless = {k: x for k, x in tensors(MT5).items() if k != "lm_head.weight"}
    found = open_published(write_folder(tmp_path / "mt5", mt5, headless))
    assert not found.config.tie_embeddings  # never scaled; a head that is not there is the embedding
    ours = leaves(read_published(found, found.config, KEY))
    np.testing.assert_array_equal(ours["lm_head/kernel"].T, ours["shared/embedding"])


def test_damaged_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", V10, shards=2)
    first = folder / "model-00001-of-00002.safetensors"
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    with pytest.raises(UserError, match="damaged or no safetensors file"):
        open_published(folder)
    first.unlink()
    with pytest.raises(UserError, match=r"cannot read .*00001-of-00002"):
        open_published(folder)
    first.write_bytes(content)
    index = folder / "model.safetensors.index.json"
    where = json.loads(index.read_text())["weight_map"]
    for wrong, message in (
        ({**where, Q: "../elsewhere.safetensors"}, "no index of shards"),
        ({**where, "x": first.name}, "has no x"),
        ({k: v for k, v in where.items() if k != Q}, "no shard"),
    ):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(UserError, match=message):
            open_published(folder)
    folder = write_folder(tmp_path / "model", V10)
    (folder / "spiece.model").unlink()
    with pytest.raises(UserError, match=r"has no spiece\.model"):
        open_published(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model.bin, which could run any code .*save_pretrained") as raised:
        open_published(folder)
    assert "\n" not in str(raised.value)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="has no weights"):
        open_published(folder)


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused(tmp_path: Path) -> None:
    small = {**V10, "vocab_size": PIECES + 99}
    folder = write_folder(tmp_path / "model", small)
    with pytest.raises(UserError, match=r"vocabulary of 139 is smaller than its tokenizer's \(140 ids, of which 100"):
        open_published(folder)


@pytest.mark.parametrize("variant", ["v1.0", "mt5"])
def test_sentinels_and_padding_are_never_written(variant: str, tmp_path: Path) -> None:
    tokenizer = open_published(write_folder(tmp_path / "model", VARIANTS[variant])).tokenizer
    assert tokenizer.banned_ids == (0, UNK_ID, *range(PIECES, ROWS))
    assert tokenizer.help_id == PIECES  # <extra_id_99>, in either place the last and lowest
    assert tokenizer.sentinels == (100 if variant == "v1.0" else 0)
    text = "house <extra_id_99> tree <extra_id_1>"
    ids = tokenizer.encode_target(text)
    assert UNK_ID in ids and not {*ids} & {*range(PIECES, ROWS)}
    assert {*tokenizer.encode(text)} & {*range(PIECES, ROWS)} == {PIECES + 98}  # read by its name, help excepted
    assert tokenizer.decode([*ids, ROWS - 1, tokenizer.help_id]) == tokenizer.decode(ids)
    assert tokenizer.padded_to(ROWS) == tokenizer != load_tokenizer(tmp_path / "model" / "spiece.model")
    assert len(tokenizer.pieces) == ROWS


@pytest.mark.parametrize("named_in", ["config.json", "tokenizer_config.json"])
def test_a_model_of_bytes_needs_no_sentencepiece_model(named_in: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", BYT5)
    assert not (folder / "spiece.model").exists()
    if named_in != "config.json":
        (folder / "config.json").write_text(json.dumps({k: v for k, v in BYT5.items() if k != "tokenizer_class"}))
        with pytest.raises(UserError, match=r"has no spiece\.model"):
            open_published(folder)
        (folder / named_in).write_text(json.dumps({"tokenizer_class": BYT5["tokenizer_class"]}))
    tokenizer = open_published(folder).tokenizer
    assert tokenizer == load_tokenizer("byt5")
    assert tokenizer.vocab_size == 384 and tokenizer.help_id == 383
    assert tokenizer.banned_ids == (0, UNK_ID, *range(259, 384))


def test_a_student_starts_from_a_published_model_with_fresh_heads(tmp_path: Path) -> None:
    found = find_model(str(write_folder(tmp_path / "model", V11)))
    like = T5Config.toy(9, dropout_rate=0.3, gate_width=4)
    config = student_config(found.config, like)
    assert (config.d_model, config.vocab_size, config.dropout_rate, config.gate_width) == (16, ROWS, 0.3, 4)
    params = read_student(found, config, KEY)
    like_params = jax.eval_shape(make_model(config).init, KEY)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, like_params)
    assert not np.any(params["value"]["kernel"]) and np.any(params["gate"]["pointer"])
    # Saved by this project it is found again, in its own layout, padding still banned.
    save_model(tmp_path / "ours", config, params, found.tokenizer)
    again = find_model(str(tmp_path / "ours"))
    assert (again.config, again.tokenizer, again.published) == (config, found.tokenizer, None)
    assert load_model(tmp_path / "ours", tokenizer=found.tokenizer).tokenizer.banned_ids == found.tokenizer.banned_ids
    bare = read_student(again, student_config(again.config, dataclasses.replace(like, gate_width=0)), KEY)
    assert bare.keys() == params.keys() - {"gate"}
    np.testing.assert_array_equal(bare["shared"]["embedding"], params["shared"]["embedding"])


def test_a_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    found = find_model(str(write_folder(tmp_path / "model", V11)))
    params = jax.tree.map(np.asarray, make_model(found.config).init(KEY))
    save_model(tmp_path / "ours", found.config, params, found.tokenizer)
    find_model(str(tmp_path / "ours"))
    (folder := tmp_path / "other").mkdir()
    (folder / "spiece.model").write_bytes((tmp_path / "model" / "spiece.model").read_bytes())
    (folder / "added_tokens.json").write_text('{"{": 140}')
    load_tokenizer(folder).save(tmp_path / "ours" / "tokenizer.model")
    for read in (lambda: find_model(str(tmp_path / "ours")), lambda: load_model(tmp_path / "ours")):
        with pytest.raises(
            UserError, match=r"tokenizer\.model is not the vocabulary that the model was saved"
        ) as raised:
            read()
        assert "\n" not in str(raised.value)


def cached(cache: Path, name: str, config: dict[str, Any]) -> None:
    """What a fetch leaves in the hub's cache."""
    repository = cache / f"models--{name.replace('/', '--')}"
    write_folder(repository / "snapshots" / "abc123", config)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")


def test_models_of_the_hub_come_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub.constants", reason="needs huggingface_hub: pip install '.[parity]'")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    cached(tmp_path, "someone/tiny-t5", V10)
    assert find_model("hf:someone/tiny-t5", offline=True).config.vocab_size == ROWS
    assert fetch("hf:someone/tiny-t5@main", offline=True).name == "abc123"
    with pytest.raises(UserError, match="hf:someone/other is not in the local cache and --offline was given"):
        fetch("hf:someone/other", offline=True)
    with pytest.raises(UserError, match="no name of a model; it has to be like hf:google/flan-t5-small"):
        fetch("hf:a/b/c", offline=True)


def test_names_of_the_hub_need_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="needs the library huggingface_hub"):
        fetch("hf:google/flan-t5-small")


def test_saved_models_say_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a saved model .*Hugging Face layout"):
        find_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is damaged: not JSON"):
        find_model(str(tmp_path))
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="model_type 'bert'"):
        find_model(str(tmp_path))
