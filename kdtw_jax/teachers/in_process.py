"""A model in this process as a teacher, which keeps for each session what it has read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.data.vocabulary_training import EOS_ID, PAD_ID
from kdtw_jax.models import Cache
from kdtw_jax.teachers.protocol import Prefix, RowScores, TeacherAbout, TeacherUnavailable, TopTokens
from kdtw_jax.teachers.reading import Rows, make_programs
from kdtw_jax.teachers.requests import check_generate, check_next, check_score
from kdtw_jax.training.identity import model_hash
from kdtw_jax.training.saved import SavedModel

_ROWS = 8  # that are read together at the most
_FEW = 2  # inputs, likewise where the rest has been read
_SHORTEST = 16  # source or room; lengths are powers of two, so that there are few programs to compile


class _Line(NamedTuple):
    """What was read of one output."""

    source: tuple[int, ...]
    inputs: tuple[int, ...]  # of the decoder; the cache holds these
    room: int  # of the cache
    cache: Cache  # of one row
    bytes: int


class _Group(NamedTuple):
    """Rows that are read together, and from where on."""

    members: list[int]  # rows of the request; the last one again fills the group up
    inputs: list[tuple[int, ...]]  # of each row, all of them
    read_B: list[int]  # of these, how many the cache holds
    rows: Rows
    room: int

    @property
    def asked(self) -> list[int]:
        """Which rows of the request these are."""
        return list(dict.fromkeys(self.members))


class InProcessTeacher:
    """A `Teacher` that is a model here.

    A session's prefix need not be the last one and something more: what agrees is used, the rest is read anew. Answers
    are the same without a session, up to rounding; only the work differs (`positions`).

    Attributes:
      positions: decoder inputs and source tokens that it has processed so far, padding left out.
      kept_bytes: of what sessions keep now.
    """

    def __init__(self, saved: SavedModel, name: str = "teacher", *, cache_bytes: int = 2**30):
        """A teacher of a saved model.

        Args:
          saved: the model, its parameters anywhere.
          name: for messages.
          cache_bytes: that sessions may keep; the one that was used longest ago goes first.
        """
        self._about = TeacherAbout(
            name=name,
            vocabulary=vocabulary_hash(saved.tokenizer),
            vocab_size=saved.model.config.vocab_size,
            reads_rows=True,
            max_top_k=saved.model.config.vocab_size,
            model=model_hash(saved.model, saved.params),
        )
        self._programs = make_programs(saved.model)
        self._params = jax.device_put(saved.params)
        self._sessions: OrderedDict[str, _Line] = OrderedDict()
        self._cache_bytes = cache_bytes
        self.kept_bytes = 0
        self._closed = False
        self.positions = 0

    @property
    def about(self) -> TeacherAbout:
        """What it is."""
        return self._about

    def next_token(self, prefixes: Sequence[Prefix], top_k: int = 8) -> list[TopTokens]:
        """The distributions of the next tokens, `top_k` log-probabilities of each, in nats."""
        self._open()
        check_next(self.about, prefixes, top_k)
        scores = self._score(prefixes, [(PAD_ID,)] * len(prefixes), top_k)
        return [TopTokens(row.top_ids_TxK[0], row.top_log_probs_TxK[0]) for row in scores]

    def score(self, prefixes: Sequence[Prefix], tokens: Sequence[Sequence[int]], top_k: int = 0) -> list[RowScores]:
        """Log-probabilities of the tokens after each prefix, and of the `top_k` most probable ones, in nats."""
        self._open()
        check_score(self.about, prefixes, tokens, top_k)
        return self._score(prefixes, [tuple(map(int, row)) for row in tokens], top_k)

    def generate(self, prefixes: Sequence[Prefix], max_len: int, banned: Sequence[int] = ()) -> list[list[int]]:
        """Greedy continuations of at most `max_len` tokens, none of them `banned`."""
        self._open()
        check_generate(self.about, prefixes, max_len, banned)
        banned_V = np.zeros(self.about.vocab_size, bool)
        banned_V[list(banned)] = True
        found: list[list[int]] = [[] for _ in prefixes]
        for group in self._groups(prefixes, [_inputs(prefix.written) for prefix in prefixes], max_len):
            group = self._catch_up(prefixes, group)
            last = [len(inputs) - 1 for inputs in group.inputs]
            written_BxT, rows = self._programs.write(
                self._params,
                group.rows,
                np.asarray([inputs[-1] for inputs in group.inputs], np.int32),
                np.asarray(last, np.int32),
                banned_V,
                np.int32(max_len),
                max_len=_power(max_len),
            )
            tokens_BxT = np.asarray(written_BxT)[:, :max_len]
            for row, index in enumerate(group.asked):
                written = _to_the_end(tokens_BxT[row].tolist())
                found[index] = written
                self.positions += len(written)
                self._keep(prefixes[index], (*group.inputs[row], *written[:-1]), group.room, rows[row])
        return found

    def close(self) -> None:
        """Gives the memory back."""
        self._closed = True
        self._sessions.clear()
        self._params, self.kept_bytes = None, 0

    def _open(self) -> None:
        if self._closed:
            raise TeacherUnavailable(f"the teacher {self.about.name} is closed")

    def _score(self, prefixes: Sequence[Prefix], tokens: Sequence[tuple[int, ...]], top_k: int) -> list[RowScores]:
        none = np.zeros((0, top_k))
        nothing = RowScores(np.zeros(0, np.float32), none.astype(np.int32), none.astype(np.float32))
        found = [nothing for _ in prefixes]
        wanted = [i for i, row in enumerate(tokens) if row]
        some = [prefixes[i] for i in wanted]
        inputs = [_inputs((*prefixes[i].written, *tokens[i][:-1])) for i in wanted]
        most = min(_power(max(top_k, 1), 1), self.about.vocab_size)
        for group in self._groups(some, inputs, 0):
            rows = [tokens[wanted[i]] for i in group.members]
            width = _power(max(map(len, rows)), 1)
            # The first answer that is wanted is that after what was written before.
            first = [len(group.inputs[row]) - len(asked) for row, asked in enumerate(rows)]
            behind = min(min(read, at) for read, at in zip(group.read_B, first, strict=True))
            span = min(_power(max(map(len, group.inputs)) - behind, _FEW), group.room)
            # Nothing may be fed beyond the cache: what is near its end begins earlier.
            begin = [max(min(read, at, group.room - span), 0) for read, at in zip(group.read_B, first, strict=True)]
            said = self._programs.read(
                self._params,
                group.rows,
                _rows([inputs[at : at + span] for inputs, at in zip(group.inputs, begin, strict=True)], span),
                np.asarray(begin, np.int32),
                np.asarray(first, np.int32) - np.asarray(begin, np.int32),
                _rows(rows, width),
                top_k=most,
            )
            arrays = [np.asarray(x) for x in said[:3]]
            for row, index in enumerate(group.asked):
                log_prob_W, ids_WxK, top_WxK = (x[row, : len(rows[row])] for x in arrays)
                found[wanted[index]] = RowScores(log_prob_W, ids_WxK[:, :top_k], top_WxK[:, :top_k])
                self.positions += len(group.inputs[row]) - begin[row]
                self._keep(some[index], group.inputs[row], group.room, said.rows[row])
        return found

    def _catch_up(self, prefixes: Sequence[Prefix], group: _Group) -> _Group:
        """Reads all inputs of a group's rows but the last one, which is not read again by what follows."""
        missing = [len(inputs) - 1 - read for inputs, read in zip(group.inputs, group.read_B, strict=True)]
        if max(missing) <= 0:
            return group
        span = min(_power(max(missing), _FEW), group.room)
        begin = [
            max(min(read, len(inputs) - 1, group.room - span), 0)
            for inputs, read in zip(group.inputs, group.read_B, strict=True)
        ]
        zeros = np.zeros(len(begin), np.int32)
        said = self._programs.read(
            self._params,
            group.rows,
            _rows([inputs[:-1][at : at + span] for inputs, at in zip(group.inputs, begin, strict=True)], span),
            np.asarray(begin, np.int32),
            zeros,
            zeros[:, None],
            top_k=1,
        )
        count = len(group.asked)
        self.positions += sum(len(inputs) - 1 - at for inputs, at in zip(group.inputs[:count], begin, strict=False))
        return group._replace(rows=said.rows)

    def _groups(self, prefixes: Sequence[Prefix], inputs: Sequence[tuple[int, ...]], further: int) -> Iterator[_Group]:
        """Rows of one shape together, those that are new with their sources read; `further`: inputs that follow.

        A group is filled up to a power of two with its last row.
        """
        lines = [self._line(prefix, len(given) + further) for prefix, given in zip(prefixes, inputs, strict=True)]
        shapes: dict[tuple[int, int], list[int]] = {}
        for i, (prefix, line) in enumerate(zip(prefixes, lines, strict=True)):
            room = _power(len(inputs[i]) + further) if line is None else line.room
            shapes.setdefault((_power(len(prefix.source)), room), []).append(i)
        for (length, room), members in shapes.items():
            for start in range(0, len(members), _ROWS):
                index = members[start : start + _ROWS]
                index += index[-1:] * (_power(len(index), 1) - len(index))
                new = [i for i in dict.fromkeys(index) if lines[i] is None]
                begun: dict[int, Cache] = {}
                if new:
                    filled = new + new[-1:] * (_power(len(new), 1) - len(new))
                    source_BxS = _rows([prefixes[i].source for i in filled], length)
                    begun = dict(zip(filled, self._programs.begin(self._params, source_BxS, room=room), strict=True))
                    self.positions += sum(len(prefixes[i].source) for i in new)
                rows, read_B = [], []
                for i in index:
                    line = lines[i]
                    rows.append(begun[i] if line is None else line.cache)
                    read_B.append(0 if line is None else _agreeing(line.inputs, inputs[i]))
                yield _Group(index, [inputs[i] for i in index], read_B, tuple(rows), room)

    def _line(self, prefix: Prefix, room: int) -> _Line | None:
        """What was read in the prefix's session, if it is of use."""
        line = self._sessions.get(prefix.session) if prefix.session else None
        if line is None or line.source != tuple(prefix.source) or line.room < room:
            return None
        self._sessions.move_to_end(prefix.session)
        return line

    def _keep(self, prefix: Prefix, inputs: tuple[int, ...], room: int, cache: Cache) -> None:
        if not prefix.session:
            return
        if old := self._sessions.pop(prefix.session, None):
            self.kept_bytes -= old.bytes
        size = sum(x.nbytes for x in jax.tree.leaves(cache))
        self._sessions[prefix.session] = _Line(tuple(prefix.source), inputs, room, cache, size)
        self.kept_bytes += size
        while self.kept_bytes > self._cache_bytes:
            self.kept_bytes -= self._sessions.popitem(last=False)[1].bytes


def _inputs(written: Sequence[int]) -> tuple[int, ...]:
    """What the decoder reads before it writes on: the start token, which is padding, comes first."""
    return (PAD_ID, *map(int, written))


def _agreeing(one: Sequence[int], other: Sequence[int]) -> int:
    same = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        same += 1
    return same


def _to_the_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS_ID) + 1] if EOS_ID in tokens else tokens


def _rows(rows: Sequence[Sequence[int]], length: int) -> np.ndarray:
    filled_BxL = np.zeros((len(rows), length), np.int32)
    for i, row in enumerate(rows):
        filled_BxL[i, : len(row)] = row
    return filled_BxL


def _power(least: int, start: int = _SHORTEST) -> int:
    """The first of `start`, twice that, and so on, that is not below `least`."""
    while start < least:
        start *= 2
    return start
