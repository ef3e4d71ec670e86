"""What engines of others have in common: their ids are the checkpoint's, and their vocabulary has to be believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kdtw_jax.data.tokenizer import EOS_ID, Tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.teachers.protocol import Prefix, TeacherUnavailable, TopTokens
from kdtw_jax.teachers.replies import check_written, read_object
from kdtw_jax.teachers.resilience import UnfitReply

# Words, numbers, several scripts, spaces, a line break and signs: what two vocabularies seldom cut alike.
PROBE = 'The 2,048 naïve Bären aßen  über 31.5% of Привет, 東京 — cafés!\n\tif (x_1 != 0) { return f"{y}"; }'
_ROUNDING = 1e-3


class EngineIds:
    """Ids of ours and of an engine."""

    def __init__(self, tokenizer: Tokenizer, rows: int | None):
        """The ids of a decoder-only model's vocabulary.

        Args:
          tokenizer: of ours.
          rows: ids that the engine has, where that is known.

        Raises:
          UserError: it is of another kind of model, or has not as many ids.
        """
        published_V = tokenizer.published_ids
        if published_V is None or tokenizer.prompts is None:
            raise UserError(
                "an engine answers for decoder-only models; name the tokenizer of one (a folder with tokenizer.json, "
                "or a GGUF file)"
            )
        if rows is not None and rows > tokenizer.vocab_size:
            raise UserError(f"the engine's model has {rows} ids, the tokenizer {tokenizer.vocab_size}; name its own")
        self.vocab_size = tokenizer.vocab_size
        self.rows = tokenizer.vocab_size if rows is None else rows
        self._there = published_V
        self._here = {int(there): here for here, there in enumerate(published_V)}
        self.eos = int(published_V[EOS_ID])

    def there(self, ids: Sequence[int]) -> list[int]:
        """The engine's of ours.

        Raises:
          ValueError: the engine has none for one of them.
        """
        found = [int(self._there[i]) for i in ids]
        if beyond := [i for i, there in zip(ids, found, strict=True) if there >= self.rows]:
            raise ValueError(f"the engine has no token for the id {beyond[0]}")
        return found

    def known(self, ids: Sequence[int]) -> list[int]:
        """The engine's of those of ours that it has."""
        return [int(self._there[i]) for i in ids if self._there[i] < self.rows]

    def here(self, there: Any) -> int:
        """Ours of one of the engine's.

        Raises:
          UnfitReply: it is none.
        """
        if type(there) is not int or there not in self._here:
            raise UnfitReply(f"{there!r} is no id of the vocabulary")
        return self._here[there]

    def prompt(self, prefix: Prefix, more: Sequence[int] = ()) -> list[int]:
        """All that stands before a token, with some that follow.

        Raises:
          ValueError: the engine has none for one of the ids.
        """
        return self.there([*prefix.source, *prefix.written, *more])

    def top(self, found: Sequence[tuple[Any, Any]], top_k: int) -> TopTokens:
        """A distribution from the pairs that an engine says.

        Args:
          found: its ids and log-probabilities, in any order, perhaps more than are wanted.
          top_k: how many are wanted.

        Raises:
          UnfitReply: there are fewer, one comes twice, or they are no log-probabilities.
        """
        pairs = [(self.here(there), log_prob(value)) for there, value in found]
        pairs.sort(key=lambda pair: (-pair[1], pair[0]))
        ids_K = np.asarray([i for i, _ in pairs[:top_k]], np.int32)
        log_probs_K = np.asarray([value for _, value in pairs[:top_k]], np.float32)
        if len(ids_K) < top_k or len({i for i, _ in pairs}) < len(pairs):
            raise UnfitReply(f"{len(pairs)} log-probabilities, not {top_k}, or one of them twice")
        if np.exp(log_probs_K, dtype=np.float64).sum() > 1 + _ROUNDING:
            raise UnfitReply("its log-probabilities are of no distribution")
        return TopTokens(ids_K, log_probs_K)


def check_probe(tokenizer: Tokenizer, said: Any, name: str) -> None:
    """Compares how an engine cuts the text `PROBE` with how the vocabulary does.

    Args:
      tokenizer: of ours.
      said: ids of the engine.
      name: of the engine.

    Raises:
      UserError: it cuts it otherwise.
    """
    published_V = tokenizer.published_ids
    wanted = tokenizer.encode(PROBE) if published_V is None else [int(published_V[i]) for i in tokenizer.encode(PROBE)]
    if said != wanted:
        raise UserError(
            f"the model of {name} has another vocabulary than the tokenizer; name the tokenizer of its model"
        )


def check_room(prompts: Sequence[Sequence[int]], further: int, room: int, whose: str) -> None:
    """Checks that rows have room.

    Args:
      prompts: ids of each.
      further: tokens that come after them.
      room: tokens that a row may have.
      whose: says what holds them.

    Raises:
      ValueError: one is longer.
    """
    longest = max(map(len, prompts), default=0) + further
    if longest > room:
        raise ValueError(f"{longest} tokens; {whose} {room}")


def read_model(body: bytes, engine: str, numbers: Callable[[Mapping[str, Any]], tuple[Any, ...]]) -> tuple[Any, ...]:
    """The name of the first model that `/v1/models` lists, and some whole numbers of it.

    Args:
      body: of the reply.
      engine: who should have answered, for the message.
      numbers: which of what is said of the model.

    Raises:
      UnfitReply: it does not say them.
    """
    try:
        model = read_object(body)["data"][0]
        name, found = model["id"], numbers(model)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UnfitReply(f"it does not say its model; is it {engine}'s server?") from error
    if not isinstance(name, str) or any(type(number) is not int or number < 1 for number in found):
        raise UnfitReply(f"it does not say its model; is it {engine}'s server?")
    return (name, *found)


def check_rows(url: str, rows: Sequence[Sequence[int]], max_len: int, banned: Sequence[int], vocab_size: int) -> None:
    """Checks continuations that took several replies, so that none of these is to blame.

    Args:
      url: of the engine.
      rows: of tokens.
      max_len: as they were asked for.
      banned: likewise.
      vocab_size: ids go up to it.

    Raises:
      TeacherUnavailable: they are not what was asked for.
    """
    try:
        check_written(rows, len(rows), max_len, banned, vocab_size)
    except UnfitReply as error:
        raise TeacherUnavailable(f"{url} wrote what was not asked for: {error}") from error


def log_prob(value: Any) -> float:
    """A log-probability in nats, from the `value` that an engine says.

    Raises:
      UnfitReply: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= _ROUNDING:
        raise UnfitReply(f"{value!r} is no log-probability")
    try:
        return min(float(value), 0.0)
    except OverflowError as error:  # JSON knows whole numbers of any size
        raise UnfitReply("a log-probability is beyond all numbers") from error


def ended(row: Sequence[int], max_len: int) -> bool:
    """Whether a continuation of at most `max_len` tokens is whole."""
    return len(row) >= max_len or row[-1:] == [EOS_ID]
