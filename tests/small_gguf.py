"""A small published Llama as a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import transformers


def write_gguf(file: Path, folder: Path, how: str, architecture: str = "llama", **stated: Any) -> None:
    """The published small Llama as llama.cpp holds it."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    config, vocabulary = theirs.config, json.loads((folder / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_embedding_length(stated.pop("width", config.hidden_size))
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(stated.pop("layers", config.num_hidden_layers))
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
