"""Published decoder-only models in safetensors: read, they say what the published library says, and written
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
from kdtw_jax.pretrained.causal_layout import write_causal
from kdtw_jax.pretrained.export import export_model
from kdtw_jax.pretrained.named import find_config, find_model, read_student, read_teacher, student_config
from kdtw_jax.training.saved import load_model, save_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

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
        *(({"rope_parameters": {"rope_type": odd}}, "has rope_type .*; known are default") for odd in ([], {}, 3)),
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


def test_parts_that_no_published_kind_has_together_are_refused() -> None:
    mixed = replace(CausalConfig.toy(400), qkv_bias=True, norm_offset=True)
    with pytest.raises(UserError, match="no published kind of model has these parts together"):
        write_causal(mixed)
