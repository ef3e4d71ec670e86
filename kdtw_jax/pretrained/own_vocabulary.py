"""A vocabulary of our own beside a decoder-only model in the Hugging Face layout: a `tokenizer.json` that cuts alike.

`spiece.model` is written, too, by which such a folder is read again here; `transformers` takes no notice of it.
"""

from __future__ import annotations

from typing import Any

from kdtw_jax.data.added_tokens import CONFIG, FAST
from kdtw_jax.data.tokenizer import EOS_ID, PAD_ID, PIECES, UNK_ID, Tokenizer
from kdtw_jax.data.vocabulary_training import HELP

_SPACE = "\u2581"
# As `kdtw_jax.text.normal.normalize` has it, in the syntax of that library's regular expressions.
_SPACES = r"[\x{00}-\x{1f}\x{7f}-\x{9f}\x{2581}\s]+"


def is_own(tokenizer: Tokenizer) -> bool:
    """Whether a `tokenizer` was trained here."""
    file = tokenizer.published_file
    return file is not None and file[0] == PIECES and tokenizer.pieces[tokenizer.help_id] == HELP


def own_vocabulary_files(tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """The JSON files of such a vocabulary by name; a text ends with the end of the sequence, as it does here.

    The names of padding, the end and what is unknown are these tokens also in a text, as in all such files; here they
    are text like any other.

    Args:
      tokenizer: one that was trained here.
    """
    from sentencepiece import sentencepiece_model_pb2

    described: Any = sentencepiece_model_pb2  # whose names no type checker sees
    assert tokenizer.published_file is not None
    pieces = described.ModelProto.FromString(tokenizer.published_file[1]).pieces
    control = described.ModelProto.SentencePiece.Type.Value("CONTROL")
    # No text has a space where it is cut, so it has none of the other tokens that are never written.
    names = {i: pieces[i].piece for i in (PAD_ID, EOS_ID, UNK_ID)}
    never = {i for i, piece in enumerate(pieces) if piece.type == control} - names.keys()
    vocabulary = [[piece.piece + " " * (i in never), piece.score] for i, piece in enumerate(pieces)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    normalizers = [
        {"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": _SPACES}, "content": " "},
        {"type": "Strip", "strip_left": True, "strip_right": True},
    ]
    spaces = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True}
    end = {"SpecialToken": {"id": names[EOS_ID], "type_id": 0}}
    file = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **flags, "special": True} for i, text in names.items()],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": spaces,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, end],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}, end],
            "special_tokens": {names[EOS_ID]: {"id": names[EOS_ID], "ids": [EOS_ID], "tokens": [names[EOS_ID]]}},
        },
        "decoder": spaces,
        "model": {"type": "Unigram", "unk_id": UNK_ID, "vocab": vocabulary, "byte_fallback": False},
    }
    stated = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    stated |= {"pad_token": names[PAD_ID], "eos_token": names[EOS_ID], "unk_token": names[UNK_ID]}
    return {FAST: file, CONFIG: stated}
