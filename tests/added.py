"""Vocabularies with tokens beside their pieces or bytes, as files state them; for tests of added tokens."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from published import PIECES, pieces

from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer, load_vocabulary
from kdtw_jax.models import T5Config, make_model
from kdtw_jax.pretrained.export import export_model

FIRST = PIECES + 100  # above the sentinels
ADDED = {"\n": FIRST, "{": FIRST + 1, "}": FIRST + 2}
HOUSE, TREE = "house", "tree"
KEY = jax.random.key(0)


def token(content: str, **flags: bool) -> dict[str, Any]:
    """As tokenizer_config.json and tokenizer.json have it."""
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "special": False, **flags}


def decoder(tokens: Mapping[str, int], **flags: bool) -> dict[str, Any]:
    usual = {"0": token("<pad>", special=True), "1": token("</s>", special=True), "2": token("<unk>", special=True)}
    return {"added_tokens_decoder": usual | {str(i): token(text, **flags) for text, i in tokens.items()}}


def of_bytes(tokens: Mapping[str, int] = {}, sentinels: int = 125) -> dict[str, Any]:
    """What `transformers` 5 writes of byT5: the sentinels are listed, and counted as none."""
    listed = decoder({f"<extra_id_{i}>": 259 + i for i in range(sentinels)}, special=True)["added_tokens_decoder"]
    return {
        "tokenizer_class": "ByT5Tokenizer", "extra_ids": 0,
        "added_tokens_decoder": listed | {str(i): token(text) for text, i in tokens.items()},
    }  # fmt: skip


def bytes_with(folder: Path, config: dict[str, Any]) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf8")
    return load_vocabulary(folder, of_bytes=True)


def exported(folder: Path, tokenizer: Tokenizer) -> Tokenizer:
    """There and back, through the published layout and through our own."""
    config = T5Config.toy(tokenizer.vocab_size)
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(make_model(config).init, KEY))
    export_model(folder, config, params, tokenizer)
    tokenizer.save(folder / "tokenizer.model")
    found = load_vocabulary(folder, of_bytes=tokenizer.is_bytes)
    assert load_tokenizer(folder / "tokenizer.model") == tokenizer
    return found


def folder_with(folder: Path, **files: Any) -> Path:
    """A vocabulary of 40 pieces and 100 sentinels, and JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(pieces())
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf8")
    return folder


def fast_json(added: Mapping[str, int]) -> dict[str, Any]:
    """What `transformers` 5 saves of the same vocabulary."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    model = pb.ModelProto.FromString(pieces())
    charsmap = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
    sentinels = {f"<extra_id_{i}>": FIRST - 1 - i for i in reversed(range(100))}
    flags = {"normalized": False}
    listed = [{"id": i, **token(text, special=True), **flags} for i, text in enumerate(("<pad>", "</s>", "<unk>"))]
    listed += [{"id": i, **token(text, special=True), **flags} for text, i in sentinels.items()]
    listed += [{"id": i, **token(text), **flags} for text, i in added.items()]
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": listed,
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "post_processor": None, "decoder": space,
        "model": {
            "type": "Unigram", "unk_id": 2, "byte_fallback": False,
            "vocab": [[p.piece, p.score] for p in model.pieces] + [[text, 0.0] for text in sentinels],
        },
    }  # fmt: skip
