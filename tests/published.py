"""Tiny folders in the Hugging Face layout with random weights, made without torch: what every published variant has."""

from __future__ import annotations

import functools
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from safetensors.numpy import save_file

PIECES = 40
WORDS = [stem + ending for stem in ("hou", "tre", "riv", "sto", "clou") for ending in ("se", "e", "er", "ne", "d")]
TEXTS = [" ".join(WORDS[(i * i + j * 37) % len(WORDS)] for j in range(3 + i % 7)) for i in range(300)]
SENTINELS = 100
ROWS = 148  # of the embedding: 40 pieces, 100 sentinels, 8 that are padding

# d_kv * num_heads is not d_model, the stacks are of different depth (some releases of `transformers` can generate only
# where the decoder is the smaller), and positions reach the last bucket.
_COMMON: dict[str, Any] = {
    "model_type": "t5", "is_encoder_decoder": True, "vocab_size": ROWS, "d_model": 16, "d_kv": 6, "d_ff": 24,
    "num_layers": 3, "num_decoder_layers": 2, "num_heads": 3, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12, "dropout_rate": 0.1, "layer_norm_epsilon": 1e-6,
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
}  # fmt: skip
V10 = {**_COMMON, "feed_forward_proj": "relu", "tie_word_embeddings": True}
V11 = {**_COMMON, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}  # FLAN-T5 as well
MT5 = {**V11, "model_type": "mt5"}
BYT5 = {**V11, "vocab_size": 384, "tokenizer_class": "ByT5Tokenizer"}
VARIANTS = {"v1.0": V10, "v1.1": V11, "mt5": MT5}


def tensors(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Random weights under their published names. `RandomState` draws the same numbers in every release of numpy."""
    d, inner, ff = config["d_model"], config["d_kv"] * config["num_heads"], config["d_ff"]
    shapes: dict[str, tuple[int, ...]] = {"shared.weight": (config["vocab_size"], d)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], d)
    for stack, layers in (("encoder", config["num_layers"]), ("decoder", config["num_decoder_layers"])):
        shapes[f"{stack}.final_layer_norm.weight"] = (d,)
        shapes[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (
            config["relative_attention_num_buckets"],
            config["num_heads"],
        )
        parts = ["SelfAttention", "DenseReluDense"] if stack == "encoder" else ["SelfAttention", "EncDecAttention"]
        parts += ["DenseReluDense"] if stack == "decoder" else []
        wi = ["wi_0", "wi_1"] if config["feed_forward_proj"] == "gated-gelu" else ["wi"]
        for i in range(layers):
            for j, part in enumerate(parts):
                at = f"{stack}.block.{i}.layer.{j}"
                shapes[f"{at}.layer_norm.weight"] = (d,)
                if part == "DenseReluDense":
                    shapes |= {f"{at}.{part}.{name}.weight": (ff, d) for name in wi}
                    shapes[f"{at}.{part}.wo.weight"] = (d, ff)
                else:
                    shapes |= {f"{at}.{part}.{name}.weight": (inner, d) for name in "qkv"}
                    shapes[f"{at}.{part}.o.weight"] = (d, inner)
    drawn = np.random.RandomState(len(config["model_type"]))
    weights = {}
    for name, shape in sorted(shapes.items()):
        x = drawn.standard_normal(shape)
        x = 1 + 0.2 * x if name.endswith("norm.weight") else x if "bias" in name else x * 0.4
        x = x / 2 if name.endswith(("q.weight", "k.weight")) else x  # sharp attention would magnify the last bits
        weights[name] = x.astype(np.float32)
    weights["shared.weight" if config["tie_word_embeddings"] else "lm_head.weight"][1] *= 3  # some outputs shall end
    return weights


@functools.cache
def pieces(sentinels: bool = False) -> bytes:
    """A sentencepiece model with T5's ids; with the sentinels among its pieces, last to first, as in mT5's."""
    buffer = io.BytesIO()
    symbols = [f"\u2581<extra_id_{i}>" for i in range(SENTINELS)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=buffer, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
        vocab_size=PIECES,
    )  # fmt: skip
    if not sentinels:
        return buffer.getvalue()
    from sentencepiece import sentencepiece_model_pb2 as pb

    model = pb.ModelProto.FromString(buffer.getvalue())
    for symbol in reversed(symbols):
        model.pieces.add(piece=symbol, score=0.0, type=pb.ModelProto.SentencePiece.USER_DEFINED)
    return bytes(model.SerializeToString())


def write_folder(
    folder: Path, config: dict[str, Any], weights: dict[str, np.ndarray] | None = None, shards: int = 1
) -> Path:
    """A whole folder, over an older one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = tensors(config) if weights is None else weights
    (folder / "config.json").write_text(json.dumps(config), encoding="utf8")
    if "tokenizer_class" not in config:
        (folder / "spiece.model").write_bytes(pieces(config["model_type"] == "mt5"))
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    where = {}
    for i in range(shards):
        part = dict(list(weights.items())[i::shards])
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf8")
    return folder
