"""The `config.json` of a published model, and those of T5 both ways."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

from kdtw_jax.data.added_tokens import CONFIG as TOKENIZER
from kdtw_jax.data.added_tokens import NAMES, RESERVED, AddedToken, read_object, reserved_name, sentinel_number
from kdtw_jax.data.tokenizer import EOS_ID, PAD_ID, Tokenizer
from kdtw_jax.errors import UserError, told_of
from kdtw_jax.models import CausalConfig, T5Config
from kdtw_jax.models.t5.config import FeedForwardKind
from kdtw_jax.pretrained.causal_layout import KINDS as CAUSAL_KINDS
from kdtw_jax.pretrained.causal_layout import read_causal
from kdtw_jax.runs.atomic import read_json

CONFIG = "config.json"
_BYTES = "ByT5Tokenizer"
_TIED = "tie_word_embeddings"
KINDS = ("t5", "mt5")  # FLAN-T5, T5 v1.1 and byT5 say t5
_SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
# What may be left out, and what it then is, in the library that wrote the published files.
_OPTIONAL = {
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
}
_IDS = {"pad_token_id": PAD_ID, "eos_token_id": EOS_ID, "decoder_start_token_id": PAD_ID}


def read_layout(folder: Path) -> T5Config | CausalConfig:
    """Reads the sizes and variant that a `config.json` states, in float32, without heads of our own.

    Decoder-only models are read as `causal_layout.read_causal` says.

    v1.0 (ReLU, head tied, states scaled by d_model**-0.5) and v1.1 (gated GELU; FLAN-T5 and mT5 likewise) are read, and
    any mixture of their parts with `tie_embeddings` standing for tied and scaled. Older files say so with
    `tie_word_embeddings`; newer ones write `scale_decoder_outputs`, and of mT5, which is never scaled, neither.
    What is null is left out.

    Raises:
      UserError: another family, special ids elsewhere, values of other types than they have to be, or a file that is
        damaged or not of a T5 model.
    """
    file = Path(folder) / CONFIG
    stated = _stated(file, f"{folder} is no model in the Hugging Face layout")
    kind = stated.get("model_type")
    if isinstance(kind, str) and kind in CAUSAL_KINDS:
        return read_causal(file, stated)
    if kind not in KINDS:
        known = f"{', '.join(KINDS)} (v1.0, v1.1, FLAN-T5, byT5, mT5), {', '.join(CAUSAL_KINDS)}"
        raise UserError(f"{file} is of model_type {reprlib.repr(kind)}; known are {known}")
    if missing := [name for name in _SIZES if name not in stated]:
        raise UserError(f"{file} does not say {', '.join(missing)}")
    for name, wanted in _IDS.items():
        found = stated.get(name, wanted)
        if isinstance(found, bool | float) or found != wanted:
            shown = reprlib.repr(found)
            raise UserError(f"{file} has {name} {shown}; it has to be {wanted}, a whole number, as in all T5 models")
    tied = _flag(file, stated, _TIED, True)
    form = _feed_forward(file, stated.get("feed_forward_proj", "relu"))
    scaled = _flag(file, stated, "scale_decoder_outputs", tied)
    with told_of(file):
        return T5Config(
            **{name: stated[name] for name in _SIZES},
            **{name: stated.get(name, default) for name, default in _OPTIONAL.items()},
            num_decoder_layers=stated.get("num_decoder_layers", stated["num_layers"]),
            feed_forward=form,
            tie_embeddings=kind == "t5" and scaled,
            value_heads=False,
        )


def head_may_be_shared(folder: Path) -> bool:
    """Whether a head that is not in the file is the embedding: what newer files mean, where older ones lack it."""
    file = Path(folder) / CONFIG
    return _flag(file, _stated(file), _TIED, True)


def of_bytes(folder: Path) -> bool:
    """Whether the vocabulary is byT5's, which is in no file: one of the JSON files names its tokenizer."""
    return any(read_object(Path(folder) / name).get("tokenizer_class") == _BYTES for name in (CONFIG, TOKENIZER))


def _stated(file: Path, otherwise: str = "") -> dict[str, Any]:
    """What a `config.json` says; null there means what nothing means."""
    return {name: value for name, value in read_json(file, otherwise).items() if value is not None}


def _flag(file: Path, stated: dict[str, Any], name: str, default: bool) -> bool:
    value = stated.get(name, default)
    if not isinstance(value, bool):
        raise UserError(f"{file} has {name} {reprlib.repr(value)}; it has to be true or false")
    return value


def _feed_forward(file: Path, stated: Any) -> FeedForwardKind:
    if stated == "relu":
        return "relu"
    if stated == "gated-gelu":
        return "gated-gelu"
    raise UserError(
        f"{file} has feed_forward_proj {reprlib.repr(stated)}; known are 'relu' (v1.0) and 'gated-gelu' (v1.1)"
    )


def write_layout(config: T5Config, tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """Returns the JSON files of a model of ours by name.

    `transformers` reads the same arithmetic from them and generates the same tokens: those that are never to be written
    are suppressed there too.
    """
    sizes = {name: getattr(config, name) for name in (*_SIZES, *_OPTIONAL, "num_decoder_layers")}
    model = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        **sizes,
        "feed_forward_proj": config.feed_forward,
        "tie_word_embeddings": config.tie_embeddings,
        **_IDS,
    }
    generation = {**_IDS, "suppress_tokens": list(tokenizer.banned_ids), "renormalize_logits": True}
    return {CONFIG: model, "generation_config.json": generation, TOKENIZER: _tokenizer_config(tokenizer)}


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """With the added tokens, where they are others than `extra_ids` stands for. An id that no token has is named there:
    some releases count the tokens instead of reading their ids."""
    stated = {"tokenizer_class": _BYTES if tokenizer.is_bytes else "T5Tokenizer", "extra_ids": tokenizer.sentinels}
    if not tokenizer.has_more:
        return stated
    tokens = {i: AddedToken(i, text, special=True) for i, text in enumerate(NAMES)}
    tokens |= {token.id: token for token in tokenizer.added}
    reserved = [i for i, piece in enumerate(tokenizer.pieces[: max(tokens)]) if not piece and i not in tokens]
    tokens |= {i: AddedToken(i, reserved_name(i), special=True) for i in reserved}
    entries = {str(i): {**token._asdict(), "normalized": False} for i, token in sorted(tokens.items())}
    for entry in entries.values():
        del entry["id"]
    sentinels = [token.content for token in tokenizer.added if sentinel_number(token.content) is not None]
    stated |= {RESERVED: reserved} if reserved else {}
    return {**stated, "additional_special_tokens": sentinels, "added_tokens_decoder": entries}
