"""Whether two vocabularies are one, whichever files they come from: the same tokens by id, found alike in texts."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kdtw_jax.data.added_tokens import SPECIALS, AddedToken
from kdtw_jax.data.fast_tokenizer import FastProcessor

_SPACE = "\u2581"
_OF_WHITE_SPACE = ("Strip", "Replace")  # normalisers that published files may do without


class CutRules(NamedTuple):
    """What decides, beside the tokens, how a text is cut."""

    scores: tuple[float, ...]  # of the pieces
    kinds: Mapping[int, str]  # of pieces that are not chosen by their scores
    model: str
    charsmap: bytes  # of sentencepiece's normalisation
    more: tuple[str, ...]  # what is done beside that
    around: tuple[str, ...] = ()  # what stands around a prompt


class Likeness(NamedTuple):
    """All that makes a vocabulary what it is."""

    texts: Mapping[int, str]
    added: Mapping[int, AddedToken]
    help_id: int
    banned: frozenset[int]
    rules: CutRules
    encode: Callable[[str], list[int]]


BYTES = CutRules((), {}, "bytes", b"", ())


def rules_of_model(file: bytes) -> CutRules:
    """Of a sentencepiece model."""
    from sentencepiece import sentencepiece_model_pb2

    described: Any = sentencepiece_model_pb2  # whose names no type checker sees
    model = described.ModelProto.FromString(file)
    kind, usual = described.ModelProto.SentencePiece.Type, ("NORMAL", "UNKNOWN", "CONTROL")
    kinds = {i: kind.Name(piece.type) for i, piece in enumerate(model.pieces)}
    return CutRules(
        tuple(piece.score for piece in model.pieces),
        {i: name for i, name in kinds.items() if name not in usual},
        described.TrainerSpec.ModelType.Name(model.trainer_spec.model_type),
        model.normalizer_spec.precompiled_charsmap,
        (),
    )


def rules_of_json(processor: FastProcessor) -> CutRules:
    """Of a tokenizer.json."""
    scores = tuple(map(processor.get_score, range(processor.vocab_size())))
    steps = [step for step in processor.normalizers if step.get("type") != "Precompiled"]
    more = [json.dumps(step, sort_keys=True) for step in steps if not _is_of_white_space(step)]
    return CutRules(scores, {}, "UNIGRAM", processor.charsmap, tuple(more))


def difference(there: Likeness, here: Likeness) -> str | None:
    """The first thing in which the two differ, in words; None where there is none."""
    for i in sorted({*there.texts, *here.texts}):
        if there.texts.get(i) != here.texts.get(i):
            return f"id {i} is {_named(there.texts.get(i))} there and {_named(here.texts.get(i))} here"
    for i in sorted({*there.added, *here.added}):
        if there.added.get(i) != here.added.get(i):
            return f"{there.texts[i]!r} is {_flags(there.added.get(i))} there and {_flags(here.added.get(i))} here"
    if there.help_id != here.help_id or there.banned != here.banned:
        return "other ids are kept from being written"
    mine, other = there.rules, here.rules
    if (mine.model, mine.kinds) != (other.model, other.kinds):
        return "pieces are chosen in another way"
    decided = {*range(SPECIALS), *there.added}  # whatever their scores
    for i, (score, its) in enumerate(zip(mine.scores, other.scores, strict=False)):
        if i not in decided and np.float32(score) != np.float32(its):
            return f"{there.texts[i]!r} has score {score:g} there and {its:g} here"
    if (mine.charsmap, mine.more) != (other.charsmap, other.more):
        return "texts are normalised in another way"
    if mine.around != other.around:
        return f"a prompt is {reprlib.repr(mine.around)} there and {reprlib.repr(other.around)} here"
    for text in sample_texts(there):
        if there.encode(text) != here.encode(text):
            return f"{text!r} is {there.encode(text)} there and {here.encode(text)} here"
    return None


def sample_texts(likeness: Likeness) -> list[str]:
    """Makes texts of the tokens of a vocabulary, `likeness`, in which white space and added tokens stand about."""
    known = (text[1:] for i, text in likeness.texts.items() if i >= SPECIALS and i not in likeness.added)
    word = next((text for text in known if len(text) > 1 and text.isalpha()), "a")
    beside = [f"{word}{token.content}{word} {token.content} {word}" for token in likeness.added.values()]
    return [f"  {word}  {word} {word}{word} ", f"{word}\t{word}\n{word}", f"{word}'s 12345, {word}!\n\n\u00e9", *beside]


def _is_of_white_space(step: Mapping[str, object]) -> bool:
    return step.get("type") in _OF_WHITE_SPACE and step.get("content", "") in ("", " ", _SPACE)


def _named(text: str | None) -> str:
    return "no token" if text is None else repr(text)


def _flags(token: AddedToken | None) -> str:
    if token is None:
        return "a piece"
    flags = [name for name in AddedToken._fields[2:] if getattr(token, name)]
    return f"an added token ({', '.join(flags) or 'without flags'})"
