"""What a GGUF file says of its vocabulary, looked through, and as the file of tokens that it was made of."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdtw_jax.data.chat import Chat
from kdtw_jax.data.prompt_vocabulary import make_vocabulary
from kdtw_jax.data.tokenizer import Tokenizer, open_tokenizer
from kdtw_jax.errors import UserError, told_of
from kdtw_jax.text.normal import without_surrogates

_PREFIX = "tokenizer.ggml."
# sentencepiece's kinds of pieces, which GGUF numbers alike; 0 is none.
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)
_KINDS = range(7)
# Ways to cut texts whose words are whole where they are pieces, and whose texts begin with a token.
_WHOLE = ("llama-bpe", "llama3")
# What llama.cpp takes for sentencepiece's tokens where a file does not say.
_USUAL = {"bos": 1, "eos": 2, "unknown": 0}
_NO_TOKEN = (-1, 2**32 - 1)  # how some files say that there is none
# Where Llama 3 cuts texts before it pairs bytes, as its published tokenizer states it.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Stated(NamedTuple):
    """What is said of a vocabulary; each thing is of its type, and lists are as long as there are tokens."""

    tokens: list[str]
    kinds: list[int]
    scores: list[float]
    merges: list[str] | None
    pre: str  # how texts are cut before bytes are paired
    ids: Mapping[str, int | None]  # of bos, eos, unknown and padding
    add_bos: bool
    add_space: bool
    template: str


def read_gguf_vocabulary(file: Path, stated: Mapping[str, Any], rows: int) -> Tokenizer:
    """The vocabulary of a GGUF file.

    Args:
      file: for messages.
      stated: its metadata.
      rows: of the embedding.

    Raises:
      UserError: there is none, something of it is of another type or clashes, or it is of a kind that is not known.
    """
    model = stated.get(f"{_PREFIX}model")
    if not isinstance(model, str) or model not in ("gpt2", "llama"):
        raise UserError(f"{file} has a vocabulary of the kind {reprlib.repr(model)}; known are gpt2 and llama")
    found = _looked_through(file, stated, model)

    def token(name: str) -> str:
        index = found.ids[name]
        return "" if index is None else found.tokens[index]

    kind, proto = ("json", _byte_pairs(file, found)) if model == "gpt2" else ("pieces", _pieces(found))
    chat = Chat(found.template, token("bos"), token("eos"))
    how: dict[str, Any] = {"eos": found.ids["eos"], "pad": found.ids["padding"], "begins": found.add_bos}
    with told_of(file):
        return open_tokenizer(make_vocabulary(kind, proto, str(file), rows=rows, chat=chat, **how), str(file))


def _looked_through(file: Path, stated: Mapping[str, Any], model: str) -> Stated:
    def said(name: str, otherwise: Any, wanted: str, fits: Any) -> Any:
        key = name if "." in name else f"{_PREFIX}{name}"
        value = stated.get(key, otherwise)
        if not fits(value):
            raise UserError(f"{file} has {key} {reprlib.repr(value)}; it has to be {wanted}")
        return value

    def listed(name: str, wanted: str, fits: Any, otherwise: Any, size: int) -> list[Any]:
        found = said(name, [], "a list", lambda value: isinstance(value, list))
        if not all(map(fits, found)):
            i = next(i for i, one in enumerate(found) if not fits(one))
            raise UserError(f"{file} has {_PREFIX}{name} with {reprlib.repr(found[i])} at {i}; it has to be {wanted}")
        if found and size and len(found) != size:
            raise UserError(f"{file} has {size} tokens and {len(found)} {_PREFIX}{name}; there has to be one for each")
        return found or [otherwise] * size

    tokens = listed("tokens", "a text", _is_text, "", 0)
    if not tokens:
        raise UserError(f"{file} has no vocabulary ({_PREFIX}tokens); use one that has")
    tokens = [text or f"[EMPTY_{i}]" for i, text in enumerate(tokens)]  # as llama.cpp names them
    places: dict[str, int] = {}
    for i, text in enumerate(tokens):
        if places.setdefault(text, i) != i:
            raise UserError(f"{file} has {text!r} at both {places[text]} and {i} of its {_PREFIX}tokens")
    kinds = listed("token_type", "a kind from 0 to 6", lambda kind: _is_whole(kind) and kind in _KINDS, 1, len(tokens))
    merges = listed("merges", "a text", _is_text, "", 0) if f"{_PREFIX}merges" in stated else None
    scores = listed("scores", "a finite number", _is_score, 0.0, len(tokens))
    usual = {name: i for name, i in _USUAL.items() if i < len(tokens)} if model == "llama" else {}

    def place(name: str) -> int | None:
        found = said(
            f"{name}_token_id",
            usual.get(name),
            f"the id of one of its {len(tokens)} tokens",
            lambda i: i is None or (_is_whole(i) and (0 <= i < len(tokens) or i in _NO_TOKEN)),
        )
        return None if found is None or found in _NO_TOKEN else found

    def flag(name: str, otherwise: bool) -> bool:
        return bool(said(name, otherwise, "true or false", lambda value: isinstance(value, bool)))

    pre = said("pre", "default", "a text", lambda value: isinstance(value, str))
    ids = {name: place(name) for name in ("bos", "eos", "unknown", "padding")}
    count = _without_padding(tokens, kinds, ids)
    return Stated(
        tokens[:count],
        [kind or _NORMAL for kind in kinds[:count]],
        scores[:count],
        merges,
        pre,
        ids,
        flag("add_bos_token", model == "llama" or pre in _WHOLE),
        flag("add_space_prefix", True),
        said("tokenizer.chat_template", "", "a text", _is_text),
    )


def _without_padding(tokens: Sequence[str], kinds: Sequence[int], ids: Mapping[str, int | None]) -> int:
    """How many tokens there are before those that only name rows of the embedding, as llama.cpp's converter does."""
    least = max((i for i in ids.values() if i is not None), default=-1) + 1
    count = len(tokens)
    while count > least and tokens[count - 1] == f"[PAD{count - 1}]" and kinds[count - 1] in (_UNKNOWN, _UNUSED):
        count -= 1
    return count


def _byte_pairs(file: Path, found: Stated) -> bytes:
    """A `tokenizer.json` of what is said of a vocabulary of bytes."""
    of_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    cut = {**of_bytes, "use_regex": False}
    numbers = {"type": "Digits", "individual_digits": True}

    def split(pattern: str) -> dict[str, Any]:
        return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}

    qwen = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
    known = {"smollm": [numbers, of_bytes], "gpt-2": [of_bytes], "default": [of_bytes]}
    known |= {"llama-bpe": [split(_LLAMA3), cut], "llama3": [split(_LLAMA3), cut], "qwen2": [split(qwen), cut]}
    if found.pre not in known:
        raise UserError(f"{file} cuts texts in the way {found.pre[:40]!r} ({_PREFIX}pre); known are {', '.join(known)}")
    if found.merges is None:
        raise UserError(f"{file} does not say which bytes are paired ({_PREFIX}merges); use one that does")
    place = {text: i for i, text in enumerate(found.tokens)}
    special = [i for i, kind in enumerate(found.kinds) if kind in (_CONTROL, _UNKNOWN, _USER)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    listed = [{"id": i, "content": found.tokens[i], **flags, "special": found.kinds[i] != _USER} for i in special]
    stated = {
        "version": "1.0",
        "added_tokens": listed,
        "normalizer": {"type": "NFC"} if found.pre == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": known[found.pre]},
        "post_processor": None,
        "decoder": of_bytes,
        "model": {"type": "BPE", "vocab": place, "merges": found.merges, "byte_fallback": False}
        | {"ignore_merges": found.pre in _WHOLE},
    }
    return json.dumps(stated, ensure_ascii=False).encode()


def _pieces(found: Stated) -> bytes:
    """A sentencepiece model of what is said of one."""
    from sentencepiece import sentencepiece_model_pb2

    described: Any = sentencepiece_model_pb2  # whose names no type checker sees
    model, ids = described.ModelProto(), found.ids
    unknown = _USUAL["unknown"] if ids["unknown"] is None else ids["unknown"]
    for i, text in enumerate(found.tokens):
        piece = model.pieces.add()
        piece.piece, piece.score = text, found.scores[i]
        piece.type = _UNKNOWN if i == unknown else found.kinds[i]
    trainer, normal = model.trainer_spec, model.normalizer_spec
    trainer.model_type = described.TrainerSpec.ModelType.Value("BPE")
    trainer.byte_fallback, trainer.unk_id = _BYTE in found.kinds, unknown
    trainer.bos_id, trainer.eos_id, trainer.pad_id = (
        -1 if ids[name] is None else ids[name] for name in ("bos", "eos", "padding")
    )
    normal.name, normal.add_dummy_prefix = "identity", found.add_space
    normal.remove_extra_whitespaces, normal.escape_whitespaces = False, True
    return bytes(model.SerializeToString())


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and without_surrogates(value) == value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_score(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
