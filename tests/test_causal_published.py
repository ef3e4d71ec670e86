"""Published decoder-only models, in safetensors and GGUF: read, they say what the published library says, and written
again they are what they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_llama import write_model

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.decoding import generate
from kdtw_jax.errors import UserError
from kdtw_jax.models import CausalConfig, Params, make_model, shift_right
from kdtw_jax.models.causal.layers import rope_frequencies
from kdtw_jax.pretrained.causal_layout import write_causal
from kdtw_jax.pretrained.export import export_model
from kdtw_jax.pretrained.gguf import open_gguf
from kdtw_jax.pretrained.named import find_config, find_model, read_student, read_teacher, student_config
from kdtw_jax.training.saved import load_model, save_model
from tests.world import World

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

PROMPTS = ["the red house", "a tree", "Ünïcode, 1234 trees and  two\nspaces"]
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "qwen2": {"seed": 1},
    "gemma3_text": {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
}
LENGTH = 12


def written(tokenizer: Tokenizer, config: CausalConfig, params: Params) -> list[list[int]]:
    """Greedy outputs for the prompts, by the checkpoint's ids."""
    rows = [tokenizer.prompt(text, 99)[0] for text in PROMPTS]
    source = jnp.asarray([row + [0] * (99 - len(row)) for row in rows])
    how: dict[str, Any] = {"max_len": LENGTH, "banned": tokenizer.banned_ids}
    found = jax.jit(lambda params: generate(make_model(config), params, source, None, **how))(params)
    there = tokenizer.published_ids
    assert there is not None
    return [[int(there[i]) for i in row if i] for row in np.asarray(found.tokens_BxT)]


def written_there(folder: Path) -> list[list[int]]:
    """Likewise of the published library, which reads template and generation config from the folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    # By its own file: the class that the library has for a kind of models would cut numbers in its way.
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    found = []
    for text in PROMPTS:
        said = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False, tokenize=True)
        with torch.no_grad():
            out = model.generate(torch.tensor([ids]), max_new_tokens=LENGTH, do_sample=False)[0, len(ids) :].tolist()
        found.append([i for n, i in enumerate(out) if model.generation_config.eos_token_id not in out[:n]])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_read_and_an_exported_one_writes_the_same_there_and_here(kind: str, tmp_path: Path) -> None:
    theirs = write_model(tmp_path / "published", kind, **KINDS[kind])
    found = find_model(str(tmp_path / "published"))
    assert replace(find_config(str(tmp_path / "published")), vocab_size=found.config.vocab_size) == found.config
    saved = read_teacher(found, dtype="float32")
    config, tokenizer = saved.model.config, saved.tokenizer
    assert isinstance(config, CausalConfig) and tokenizer.published_ids is not None

    ids, _ = tokenizer.prompt(PROMPTS[0], 99)
    target = jnp.asarray([tokenizer.encode(PROMPTS[2])])
    encoded = saved.model.encode(saved.params, jnp.asarray([ids]))
    logits = saved.model.decode(saved.params, encoded, shift_right(target)).logits_BxTxV[0]
    whole = tokenizer.published_ids[[*ids, *target[0].tolist()]]
    with torch.no_grad():
        want = theirs(input_ids=torch.tensor(whole)[None]).logits[0, len(ids) - 1 : -1].numpy()
    there = np.argsort(tokenizer.published_ids)[: want.shape[1]]
    np.testing.assert_allclose(logits[:, there], want, atol=1e-4, rtol=1e-4)

    mine = written(tokenizer, config, saved.params)
    export_model(tmp_path / "exported", config, saved.params, tokenizer)
    again = read_teacher(find_model(str(tmp_path / "exported")), dtype="float32")
    assert mine == written(again.tokenizer, config, again.params) == written_there(tmp_path / "exported")
    assert len({tuple(row) for row in mine}) > 1
    assert again.model.config == config and again.tokenizer.difference(tokenizer) is None


def write_gguf(file: Path, folder: Path, how: str, architecture: str = "llama", **stated: Any) -> None:
    """The published small Llama as llama.cpp holds it."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    config, vocabulary = theirs.config, json.loads((folder / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    tokens = sorted(vocabulary["model"]["vocab"], key=vocabulary["model"]["vocab"].get)
    special = {token["id"] for token in vocabulary["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(stated.pop("pre", "gpt-2"))
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i in special else 1 for i in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["model"]["merges"]])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    writer.add_chat_template(json.loads((folder / "tokenizer_config.json").read_text())["chat_template"])
    if "slower" in stated:
        writer.add_tensor("rope_freqs.weight", np.asarray(stated.pop("slower"), np.float32))
    kind = gguf.GGMLQuantizationType[how]
    for name, tensor in theirs.state_dict().items():
        x = tensor.numpy()
        short = name.removeprefix("model.").removesuffix(".weight")
        if short.startswith("layers."):
            _, layer, part = short.split(".", 2)
            if part.endswith(("q_proj", "k_proj")):
                heads = config.num_attention_heads if part.endswith("q_proj") else config.num_key_value_heads
                x = x.reshape(heads, 2, len(x) // heads // 2, -1).swapaxes(1, 2).reshape(x.shape)
            short = f"blk.{layer}." + {v: k for k, v in PARTS.items()}[part]
        elif name == "lm_head.weight":
            continue
        else:
            short = {"embed_tokens": "token_embd", "norm": "output_norm"}[short]
        held = gguf.quants.quantize(np.ascontiguousarray(x), kind) if x.ndim == 2 else x
        writer.add_tensor(f"{short}.weight", held, raw_dtype=kind if x.ndim == 2 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


PARTS = {
    **{f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"},
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    **{f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")},
}
SIZES = {"hidden_size": 32, "intermediate_size": 64}  # quantised by blocks of 32


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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mamba"}, "is of model_type 'mamba'; known are t5, mt5 .*, llama, mistral, qwen2"),
        ({"attention_bias": True}, "has attention_bias True; models with that are not known here"),
        ({"hidden_act": "relu"}, "has hidden_act 'relu'; known are silu, gelu_pytorch_tanh"),
        (
            {"rope_parameters": {"rope_type": "dynamic"}},
            "has rope_type 'dynamic'; known are default, linear, llama3, yarn",
        ),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2}}, "does not say low_freq_factor of rope_type llama3"),
        ({"rope_parameters": "llama3"}, "has rope_scaling 'llama3'; it has to be an object"),
        ({"model_type": "qwen2", "num_hidden_layers": "2"}, "num_layers is '2'; it has to be a whole number"),
        ({"num_key_value_heads": 3}, "num_kv_heads is 3; it has to be a divisor of num_heads, 4"),
        (
            {"intermediate_size": 22},
            r"do not fit its config.json: model.layers.0.mlp.down_proj.weight is \(24, 20\), by",
        ),
        ({"num_hidden_layers": 3}, r"missing model.layers.2.input_layernorm.weight"),
        ({"num_hidden_layers": 1}, r"unknown model.layers.1.input_layernorm.weight"),
        ({"vocab_size": 9}, r"embed_tokens.weight is \(\d+, 24\), by config.json \(9, 24\)"),
        ({"hidden_size": "24"}, "d_model is '24'; it has to be a whole number"),
        ({"hidden_size": None}, "does not say hidden_size"),
    ],
)
def test_what_does_not_fit_a_folder_is_said_in_a_line(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_model(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stated, **changes}))
    with pytest.raises(UserError, match=said) as raised:
        find_model(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_student_begins_as_a_published_model_and_is_saved_as_one_of_ours(tmp_path: Path) -> None:
    write_model(tmp_path / "published")
    found = find_model(str(tmp_path / "published"))
    config = student_config(found.config, CausalConfig.toy(gate_width=4, dropout_rate=0.1))
    params = read_student(found, config, jax.random.key(0))
    assert params["gate"] and not np.any(params["value"]["kernel"])
    save_model(tmp_path / "ours", config, params, found.tokenizer)
    again = load_model(tmp_path / "ours", expect=config)
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params, params)) and again.tokenizer == found.tokenizer


def test_a_model_with_a_vocabulary_of_our_own_has_no_published_layout(tmp_path: Path) -> None:
    world = World()
    config = CausalConfig.toy(world.tokenizer.vocab_size)
    params = jax.device_get(make_model(config).init(jax.random.key(0)))
    with pytest.raises(UserError, match="with a vocabulary of our own has no Hugging Face layout"):
        export_model(tmp_path / "out", config, params, world.tokenizer)
    assert not (tmp_path / "out").exists()
    mixed = replace(CausalConfig.toy(400), qkv_bias=True, norm_offset=True)
    with pytest.raises(UserError, match="no published kind of model has these parts together"):
        write_causal(mixed)
