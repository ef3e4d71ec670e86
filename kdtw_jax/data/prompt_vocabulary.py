"""Vocabularies of decoder-only models: a `tokenizer.json` of byte pairs, or what a GGUF file says of one.

Everywhere else in the package id 0 is padding, 1 the end and 2 what is unknown. Here they are wherever a checkpoint has
them, and so the ids change places with those that stand there: a *permutation* of a few ids, which the rows of the
embedding follow when weights are read, and back when they are written. Padding, what is unknown and the token that asks
for help are tokens that the vocabulary keeps spare, or rows beyond it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from kdtw_jax.data.chat import Chat
from kdtw_jax.data.cutters import CUTTERS, Cutter, open_cutter
from kdtw_jax.data.vocabulary_training import EOS_ID, PAD_ID, UNK_ID, UNKNOWN_TEXT
from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import parse_object
from kdtw_jax.text.normal import without_surrogates

HEADER = b"kdtw_jax prompt vocabulary\n"
_ANEW = "fetch or write it again"


class Ids(NamedTuple):
    """Where a checkpoint has what every vocabulary has here; beyond its tokens are rows of its embedding."""

    pad: int
    eos: int
    unknown: int
    help: int
    total: int  # of all ids


class PromptVocabulary:
    """A vocabulary whose texts are prompts and what follows.

    `published_V` has the checkpoint's id of each id here.
    """

    def __init__(self, cutter: Cutter, ids: Ids, chat: Chat):
        self.cutter, self.ids, self.chat = cutter, ids, chat
        published_V = np.arange(ids.total)
        for here, there in ((PAD_ID, ids.pad), (EOS_ID, ids.eos), (UNK_ID, ids.unknown)):
            place = int(np.flatnonzero(published_V == there)[0])
            published_V[[here, place]] = published_V[[place, here]]
        self.published_V = published_V
        self._here = np.argsort(published_V)
        self.help_id = int(self._here[ids.help])
        self._before, self._after = chat.around()
        self._named = {*cutter.special} - {cutter.unknown}

    def vocab_size(self) -> int:
        return self.ids.total

    def id_to_piece(self, index: int) -> str:
        return self._pieces[index]

    @cached_property
    def _pieces(self) -> list[str]:
        known = self.cutter.pieces + [""] * (self.ids.total - len(self.cutter.pieces))
        return [known[i] for i in self.published_V]

    @property
    def control(self) -> frozenset[int]:
        """Ids that are read and never written: special tokens but for the end, and ids without a token."""
        there = {*self.cutter.special, *range(len(self.cutter.pieces), self.ids.total)}
        there |= {i for i, piece in enumerate(self.cutter.pieces) if not piece}
        return frozenset(int(self._here[i]) for i in there - {self.ids.eos})

    def decode(self, ids: Sequence[int]) -> str:
        parts, run = "", list[int]()
        for i in [*ids, None]:
            if i is None or i == UNK_ID:
                parts, run = parts + (self.cutter.decode(run) if run else ""), []
                parts += "" if i is None else UNKNOWN_TEXT
            else:
                run.append(int(self.published_V[i]))
        return parts

    def encode(self, text: str) -> list[int]:
        """A text in which the names of special tokens are text like any other."""
        return self._moved(self.cutter.plain(without_surrogates(text)))

    def prompt(self, text: str, limit: int) -> tuple[list[int], int]:
        """A text with what stands around it, and how many ids were left out of its end to keep to the limit.

        Raises:
          UserError: nothing of a text is left within it.
        """
        head, tail = self._ends
        whole = self._told(self._before + text + self._after)
        unknown = self.cutter.special.get(-1 if self.cutter.unknown is None else self.cutter.unknown)
        # As one text, unless words of the user's became special tokens, or it is too long.
        if (
            len(whole) <= limit
            and not (unknown and unknown in text)
            and self._special(whole) == self._special([*head, *tail])
        ):
            return self._moved(whole), 0
        room = limit - len(head) - len(tail)
        if room < 1:
            around = len(head) + len(tail)
            raise UserError(
                f"what stands around a prompt is {around} tokens; text.max_source has to be more, not {limit}"
            )
        inner = self.encode(text)
        return [*self._moved(head), *inner[:room], *self._moved(tail)], max(len(inner) - room, 0)

    @property
    def head(self) -> tuple[int, ...]:
        """The ids of what stands before a text."""
        return tuple(self._moved(self._ends[0]))

    @cached_property
    def _ends(self) -> tuple[list[int], list[int]]:
        return self._told(self._before), self._told(self._after)

    def _told(self, text: str) -> list[int]:
        """The checkpoint's ids of a text with special tokens by their names."""
        return self.cutter.told(without_surrogates(text))

    def _special(self, there: Sequence[int]) -> list[int]:
        return [i for i in there if i in self._named]

    def _moved(self, there: Sequence[int]) -> list[int]:
        return [int(self._here[i]) for i in there]


def choose_ids(
    cutter: Cutter, rows: int, *, eos: int, pad: int | None = None, taken: Sequence[int] = (), name: str = ""
) -> Ids:
    """Chooses padding, what is unknown and help among what a vocabulary keeps spare.

    Spare are rows of the embedding without a token, then tokens named as reserved or unused, then other special ones;
    where these do not suffice there are further rows, which a checkpoint then has to get.

    Args:
      cutter: of the vocabulary.
      rows: of the checkpoint's embedding.
      eos: what ends an answer.
      pad: the checkpoint's own padding, where that is no other token's as well: some name the unknown one or the end,
        and some files of the same model nothing.
      taken: ids that mean something: the beginning, and what templates say.
      name: of the file, for messages.

    Raises:
      UserError: there are fewer rows than tokens.
    """
    tokens = len(cutter.pieces)
    if rows < tokens:
        raise UserError(
            f"the model's vocabulary of {rows} is smaller than its tokenizer's ({tokens} tokens of {name}); it needs "
            "the tokenizer that it was trained with"
        )
    used = {eos, *taken}
    pad = None if pad == cutter.unknown else pad
    named = [i for i, text in cutter.special.items() if any(word in text for word in ("reserved", "unused"))]
    spare = [*range(tokens, rows), *named, *cutter.special, *range(rows, rows + 3)]
    chosen: list[int] = []
    wanted = (pad if pad not in used else None, cutter.unknown if cutter.unknown not in used else None, None)
    for own in wanted:
        free = (i for i in spare if i not in used and i not in wanted)
        found = own if own is not None and own not in used else next(free)
        used.add(found)
        chosen.append(found)
    return Ids(chosen[0], eos, chosen[1], chosen[2], max(rows, *(i + 1 for i in chosen)))


def make_vocabulary(
    kind: str,
    file: bytes,
    name: str,
    *,
    rows: int,
    chat: Chat,
    eos: int | None,
    pad: int | None,
    begins: bool | None = None,
) -> bytes:
    """A vocabulary as a run keeps it, of the file of its tokens.

    What ends an answer is what a chat template writes after it, where there is one.

    Args:
      kind: of `CUTTERS`.
      file: of the tokens.
      name: of that, for messages.
      rows: of the checkpoint's embedding.
      chat: how the model is prompted.
      eos: the end of a text.
      pad: padding, where the checkpoint says it.
      begins: whether texts begin with `chat.bos`, if the checkpoint says it.

    Raises:
      UserError: as the cutter and `choose_ids` do, the template fails, or nothing ends a text.
    """
    cutter = open_cutter(kind, file, name)
    chat = chat._replace(begin=cutter.begins if begins is None else begins)
    end = chat.end_of_turn()
    eos = next((i for i, text in cutter.special.items() if text and end.startswith(text)), eos)
    if eos is None or not 0 <= eos < len(cutter.pieces):
        raise UserError(f"{name} does not say which token ends a text")
    told = "".join(chat.around()) + end
    taken = [i for i, text in cutter.special.items() if text and (text == chat.bos or text in told)]
    return saved(kind, choose_ids(cutter, rows, eos=eos, pad=pad, taken=taken, name=name), chat, file)


def saved(kind: str, ids: Ids, chat: Chat, file: bytes) -> bytes:
    """What a run keeps of a vocabulary: a line of JSON and the file of its tokens."""
    line = json.dumps({"kind": kind, "ids": ids._asdict(), "chat": chat._asdict()})
    return b"".join([HEADER, line.encode("ascii"), b"\n", file])


def read_saved(proto: bytes, name: str) -> tuple[str, Ids, Chat, bytes]:
    """The inverse of `saved`.

    Raises:
      UserError: it was not written so.
    """
    try:
        line, file = proto.removeprefix(HEADER).split(b"\n", 1)
        stated = parse_object(line)
        ids, chat = Ids(**stated["ids"]), Chat(**stated["chat"])
        whole = all(type(i) is int and 0 <= i < 2**27 for i in ids) and max(ids[:4]) < ids.total
        texts = [*map(type, chat)] == [str, str, str, bool]
        if not (whole and texts and len(set(ids[:4])) == 4 and stated["kind"] in CUTTERS):
            raise ValueError("values of other types")
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{name} is damaged: it does not say which tokens are which; {_ANEW}") from None
    return stated["kind"], ids, chat, file
