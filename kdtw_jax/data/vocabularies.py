"""The kinds of vocabularies by their files: sentencepiece models, bytes, and the `tokenizer.json` of `transformers`."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import sentencepiece

from kdtw_jax.data.added_tokens import (
    ADDED,
    CONFIG,
    FAST,
    NAMES,
    AddedToken,
    Stated,
    finder,
    kept_tokens,
    place_tokens,
    sentinel_number,
)
from kdtw_jax.data.byt5 import PROTO, ByteProcessor
from kdtw_jax.data.byt5 import SENTINELS as BYTE_SENTINELS
from kdtw_jax.data.cutters import open_cutter
from kdtw_jax.data.fast_tokenizer import FastProcessor
from kdtw_jax.data.prompt_vocabulary import HEADER as PROMPTS
from kdtw_jax.data.prompt_vocabulary import PromptVocabulary, read_saved
from kdtw_jax.data.same_vocabulary import BYTES, CutRules, Likeness, rules_of_json, rules_of_model
from kdtw_jax.data.vocabulary_training import EOS_ID, HELP, PAD_ID, UNK_ID
from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import parse_object
from kdtw_jax.text.normal import normalize, without_surrogates

T5_SENTINELS = 100
NOTHING = Stated((), (), None)
# A saved vocabulary with added tokens is this line, one of JSON that says which, and the bytes of the model.
_HEADER = b"kdtw_jax added tokens\n"
_LONG = 2**20  # of which no text that is compared has as many tokens
Encoder = Callable[[str], list[int]]


class Processor(Protocol):
    """What is needed of a sentencepiece processor."""

    def decode(self, ids: Sequence[int], /) -> str: ...
    def vocab_size(self) -> int: ...
    def id_to_piece(self, index: int, /) -> str: ...


class Vocabulary(NamedTuple):
    """What a file says, and the files beside it."""

    processor: Processor
    encoder: Callable[[Collection[int]], Encoder]  # given the ids that no text may become; what would is unknown
    control: frozenset[int]  # pieces that are never written, pad and unknown aside
    added: tuple[AddedToken, ...]
    help_id: int
    sentinels: int  # above the pieces
    file: bytes  # of the pieces alone
    saved: bytes  # with the added tokens, where they are not the usual ones
    rules: Callable[[], CutRules]

    def likeness(self, banned: frozenset[int], encode: Encoder) -> Likeness:
        """What another vocabulary has to share; ids that are never written, and the encoder, are the tokenizer's."""
        pieces = {i: str(self.processor.id_to_piece(i)) for i in range(self.processor.vocab_size())}
        texts = {i: piece for i, piece in pieces.items() if piece}  # rows beyond the tokens have none
        added = {token.id: token for token in self.added}
        texts |= {i: token.content for i, token in added.items()}
        return Likeness(texts, added, self.help_id, banned & texts.keys(), self.rules(), encode)


def open_vocabulary(proto: bytes, name: str, beside: Stated) -> Vocabulary:
    """Opens what was saved, or a published file with what the files `beside` it say.

    Raises:
      UserError: the file is of another kind, has other ids for pad, EOS and unknown, or its added tokens clash.
    """
    if not proto:
        raise UserError(f"{name} is empty; expected a sentencepiece model")
    if proto.startswith(PROMPTS):
        return _of_prompts(proto, name)
    file, stated = proto, beside
    if proto.startswith(_HEADER):
        try:
            line, file = proto.removeprefix(_HEADER).split(b"\n", 1)
            stated = kept_tokens(parse_object(line))
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{name} is damaged: it does not say which tokens were added; copy or train it again"
            ) from None
    if not file:
        raise UserError(f"{name} is damaged: it ends after its second line; copy or train it again")
    if file == PROTO:
        return _of_bytes(file, name, stated)
    # A sentencepiece model begins with a line feed and the length of its first piece, which is no white space.
    if Path(name).name == FAST or file.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
        return _of_json(file.removeprefix(codecs.BOM_UTF8), name)
    return _of_pieces(file, name, stated)


def _of_pieces(file: bytes, name: str, stated: Stated) -> Vocabulary:
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=file)
    except RuntimeError as error:
        raise UserError(f"{name} is not a sentencepiece model; fetch or copy it again") from error
    ids = (processor.pad_id(), processor.eos_id(), processor.unk_id())
    if ids != (PAD_ID, EOS_ID, UNK_ID):
        raise UserError(f"{name} has ids {ids} for pad, EOS and unknown; expected {(PAD_ID, EOS_ID, UNK_ID)} as in T5")
    pieces = [str(processor.id_to_piece(i)) for i in range(processor.vocab_size())]
    control = {i for i in range(len(pieces)) if processor.is_control(i) and i != EOS_ID}
    own_help = processor.piece_to_id(HELP)
    own = own_help != UNK_ID and processor.is_control(own_help)
    among = _sentinels(pieces)
    usual = 0 if own or among else T5_SENTINELS
    count = usual if usual == 0 or stated.extra_ids is None else stated.extra_ids
    above = [AddedToken(len(pieces) + count - 1 - i, f"<extra_id_{i}>", special=True) for i in range(count)]
    added = place_tokens(name, stated, pieces, above)
    return Vocabulary(
        processor,
        _around(processor.encode, added, normalize if own else str),
        frozenset(control | set(among)),
        added,
        own_help if own else _help(among, added, len(pieces)),
        count,
        file,
        _saved(file, added, above, count, usual),
        lambda: rules_of_model(file),
    )


def _of_bytes(file: bytes, name: str, stated: Stated) -> Vocabulary:
    processor = ByteProcessor()
    first = processor.vocab_size()
    # The published tokenizer takes the character of a byte's number for that byte's token, beyond ASCII too.
    pieces = [*NAMES, *map(chr, range(first - len(NAMES)))]
    count = BYTE_SENTINELS if stated.extra_ids is None else stated.extra_ids
    if not count:  # newer files say 0 and list as many as there are
        listed = {(token.id, token.content) for token in place_tokens(name, stated, pieces, ())}
        count = next(i for i in itertools.count() if (first + i, f"<extra_id_{i}>") not in listed)
    above = [AddedToken(first + i, f"<extra_id_{i}>", special=True) for i in range(count)]
    added = place_tokens(name, stated, pieces, above)
    # A character of ASCII is its byte anyway, unless it takes spaces or is never written.
    plain = {AddedToken(i, piece) for i, piece in enumerate(pieces) if piece.isascii()}
    added = tuple(token for token in added if token not in plain)
    return Vocabulary(
        processor,
        _around(processor.encode, added, str, between_spaces=True),
        frozenset(),
        added,
        _help([], added, first),
        count,
        file,
        _saved(file, added, above, count, BYTE_SENTINELS),
        lambda: BYTES,
    )


def _of_json(file: bytes, name: str) -> Vocabulary:
    processor = FastProcessor(file, name)
    pieces = [processor.id_to_piece(i) for i in range(processor.vocab_size())]
    added = place_tokens(name, Stated(processor.added, (), None), pieces, ())

    def encoder(never: Collection[int]) -> Encoder:
        encode = processor.encoder(never)
        return lambda text: [UNK_ID if i in never else i for i in encode(without_surrogates(text))]

    among = _sentinels(pieces)
    count = sum(token.content.startswith("<extra_id_") for token in added)  # not those with a space, which are pieces
    return Vocabulary(
        processor,
        encoder,
        frozenset(among),
        added,
        _help(among, added, len(pieces)),
        count,
        file,
        file,
        lambda: rules_of_json(processor),
    )


def _of_prompts(proto: bytes, name: str) -> Vocabulary:
    kind, ids, chat, file = read_saved(proto, name)
    found = PromptVocabulary(open_cutter(kind, file, name), ids, chat)
    return Vocabulary(
        found,
        lambda never: lambda text: [UNK_ID if i in never else i for i in found.encode(text)],
        found.control,
        (),
        found.help_id,
        0,
        file,
        proto,
        lambda: CutRules(
            *((), {}, "BPE", b"", ()),
            around=(*chat.around(), chat.end_of_turn()),
            pairing=found.cutter.pairing(),
            prompt=lambda text: found.prompt(text, _LONG)[0],
        ),
    )


def too_few_rows(
    rows: int, ids: int, processor: Processor, added: Sequence[AddedToken], sentinels: int, file: str | None
) -> str:
    """Says in one line why an embedding is too small for a vocabulary: which tokens have no row, by their origin.

    Args:
      rows: of the embedding.
      ids: of the vocabulary.
      sentinels: how many of `added` are sentinels.
      file: what has the pieces, None for bytes.
    """
    pieces, beyond = processor.vocab_size(), [token for token in added if token.id >= rows]
    other = next((token for token in beyond if sentinel_number(token.content) is None), None)
    if rows >= pieces and not beyond:
        return (
            f"the model's vocabulary of {rows} has a row for each token, and none for asking, which needs one of its "
            f"own where there are no sentinels; resize its embedding to {ids} rows or more"
        )
    more = len(added) - sentinels
    were = f" and {more} {'was' if more == 1 else 'were'} added" if more > 0 else ""
    if rows >= pieces and beyond[0] is other:
        remedy = f"{CONFIG} or {ADDED} gives {other.content!r} id {other.id}: resize the embedding, or leave that out"
    elif file is None:
        remedy = f"it needs rows for all bytes, and for as many sentinels as {CONFIG} has as extra_ids"
    else:
        remedy = f"it needs the {file} that it was trained with"
    return (
        f"the model's vocabulary of {rows} is smaller than its tokenizer's ({ids} ids, of which {sentinels} are "
        f"sentinels above the {'pieces' if file else 'bytes'}{were}); {remedy}"
    )


def _around(
    encode: Callable[[str], Sequence[int]],
    added: Sequence[AddedToken],
    prepare: Callable[[str], str],
    between_spaces: bool = False,
) -> Callable[[Collection[int]], Encoder]:
    """Encoders that find added tokens first; what lies between them is cut into pieces."""

    def encoder(never: Collection[int]) -> Encoder:
        parts = finder([token for token in added if token.id not in never], between_spaces=between_spaces)

        def read(text: str) -> list[int]:
            ids: list[int] = []
            for part in parts(without_surrogates(text)):
                found = [part] if isinstance(part, int) else encode(prepare(part))
                ids += [UNK_ID if i in never else int(i) for i in found]  # mT5's sentinels are pieces like any other
            return ids

        return read

    return encoder


def _sentinels(pieces: Sequence[str]) -> list[int]:
    """The ids of sentinels among the pieces, `<extra_id_0>` first, as mT5 has them."""
    numbers = {i: sentinel_number(piece) for i, piece in enumerate(pieces) if "<extra_id_" in piece}
    return sorted((i for i in numbers if numbers[i] is not None), key=lambda i: cast(int, numbers[i]))


def _help(among: Sequence[int], added: Sequence[AddedToken], pieces: int) -> int:
    """The last sentinel; where there are none, the first id that no token has."""
    numbers = {token.id: sentinel_number(token.content) for token in added}
    last = max(((n, i) for i, n in numbers.items() if n is not None), default=(0, -1))[1]
    return among[-1] if among else last if last >= 0 else max([pieces - 1, *numbers]) + 1


def _saved(file: bytes, added: Sequence[AddedToken], above: Sequence[AddedToken], count: int, usual: int) -> bytes:
    tokens = [token for token in added if token not in above]
    if not tokens and count == usual:
        return file
    line = json.dumps({"extra_ids": count, "tokens": tokens})
    return b"".join([_HEADER, line.encode("ascii"), b"\n", file])
