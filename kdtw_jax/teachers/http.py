"""A teacher behind `kdtw serve-teacher`, over HTTP."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from kdtw_jax.teachers import wire
from kdtw_jax.teachers.protocol import Prefix, RowScores, TeacherAbout, TopTokens
from kdtw_jax.teachers.replies import check_written, read_object
from kdtw_jax.teachers.requests import check_generate, check_next, check_score
from kdtw_jax.teachers.resilience import Endpoint, UnfitReply

T = TypeVar("T")
PROTOCOL = 1  # of messages; another one is another language


class HttpTeacher:
    """A `Teacher` that answers over HTTP; several threads may ask at once, and the server puts them together.

    A request that was sent again after a failure is answered and counted once: it has a name by which the server knows
    it, and only whole answers are taken.

    Attributes:
      answered: prefixes that were answered so far.
    """

    def __init__(self, endpoint: Endpoint):
        """Asks the server behind `endpoint` what its teacher is.

        Raises:
          TeacherUnavailable: it does not say.
        """
        self._endpoint = endpoint
        self._about, self._rows = endpoint.ask("GET", "/about", _read_about)
        self.answered = 0
        self._lock = threading.Lock()

    @property
    def about(self) -> TeacherAbout:
        """What it was when the connection was made; answers of another one are not taken."""
        return self._about

    def next_token(self, prefixes: Sequence[Prefix], top_k: int = 8) -> list[TopTokens]:
        """The distributions of the next tokens, `top_k` log-probabilities of each, in nats."""
        check_next(self.about, prefixes, top_k)

        def read(answers: Any, rows: Sequence[int]) -> list[TopTokens]:
            return wire.unpack_top(answers, len(rows), top_k, self.about.vocab_size)

        return self._ask("next_token", prefixes, lambda rows: {"top_k": top_k}, read)

    def score(self, prefixes: Sequence[Prefix], tokens: Sequence[Sequence[int]], top_k: int = 0) -> list[RowScores]:
        """Log-probabilities of the tokens after each prefix, and of the `top_k` most probable ones, in nats."""
        check_score(self.about, prefixes, tokens, top_k)

        def more(rows: Sequence[int]) -> dict[str, Any]:
            return {"tokens": [wire.pack_ids(tokens[i]) for i in rows], "top_k": top_k}

        def read(answers: Any, rows: Sequence[int]) -> list[RowScores]:
            return wire.unpack_scores(answers, [len(tokens[i]) for i in rows], top_k, self.about.vocab_size)

        return self._ask("score", prefixes, more, read)

    def generate(self, prefixes: Sequence[Prefix], max_len: int, banned: Sequence[int] = ()) -> list[list[int]]:
        """Greedy continuations of at most `max_len` tokens, none of them `banned`."""
        check_generate(self.about, prefixes, max_len, banned)
        most = {"max_len": max_len, "banned": wire.pack_ids(sorted(set(banned)))}

        def read(answers: Any, rows: Sequence[int]) -> list[list[int]]:
            found = [list(row) for row in wire.unpack_rows(answers, len(rows), max_len)]
            check_written(found, len(rows), max_len, banned, self.about.vocab_size)
            return found

        return self._ask("generate", prefixes, lambda rows: most, read)

    def close(self) -> None:
        """Closes the connections."""
        self._endpoint.close()

    def _ask(
        self,
        what: str,
        prefixes: Sequence[Prefix],
        more: Callable[[Sequence[int]], dict[str, Any]],
        read: Callable[[Any, Sequence[int]], list[T]],
    ) -> list[T]:
        """As many rows at a time as the server takes."""
        found: list[T] = []
        for rows in _parts(len(prefixes), self._rows):
            asked = [Prefix(*prefixes[i]) for i in rows]
            message = {"id": uuid.uuid4().hex, "prefixes": wire.pack_prefixes(asked), **more(rows)}

            def checked(body: bytes, rows: Sequence[int] = rows) -> list[T]:
                try:
                    reply = wire.unpack(body)
                    for name in ("vocabulary", "model"):
                        if reply.get(name) != getattr(self.about, name):
                            raise wire.Malformed(f"it is of another {name}: another teacher answers there now")
                    return read(reply.get("answers"), rows)
                except wire.Malformed as error:
                    raise UnfitReply(str(error)) from error

            headers = {"content-type": wire.MEDIA_TYPE}
            path = f"/v1/{what}"
            found += self._endpoint.ask("POST", path, checked, content=wire.pack(message), headers=headers)
            with self._lock:
                self.answered += len(rows)
        return found


def _read_about(body: bytes) -> tuple[TeacherAbout, int]:
    said = read_object(body)
    kinds = {"name": str, "vocabulary": str, "vocab_size": int, "reads_rows": bool, "max_top_k": int, "model": str}
    kinds |= {"rows": int}
    if said.get("protocol") != PROTOCOL:
        raise UnfitReply(f"it speaks the protocol {said.get('protocol')!r}, not {PROTOCOL}; is it kdtw serve-teacher?")
    for name, kind in kinds.items():
        if type(said.get(name)) is not kind or (kind is int and said[name] < 1):
            raise UnfitReply(f"it does not say its {name}")
    rows = said["rows"]
    return TeacherAbout(**{name: said[name] for name in kinds if name != "rows"}), rows


def _parts(count: int, most: int) -> Iterator[range]:
    return (range(start, min(start + most, count)) for start in range(0, count, most))
