"""What replies of servers have in common, whoever they are: JSON, and continuations that are what was asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kdtw_jax.data.vocabulary_training import EOS_ID
from kdtw_jax.teachers.resilience import UnfitReply


def check_written(
    rows: Sequence[Sequence[int]], count: int, max_len: int, banned: Sequence[int], vocab_size: int
) -> None:
    """Checks continuations that came from elsewhere.

    Args:
      rows: of tokens.
      count: how many rows there have to be.
      max_len: tokens of a row at the most; fewer only where it ends.
      banned: ids that must not be there.
      vocab_size: ids go up to it.

    Raises:
      UnfitReply: they are not what was asked for.
    """
    if len(rows) != count:
        raise UnfitReply(f"{len(rows)} rows, not {count}")
    never = set(banned)
    for row in rows:
        if len(row) > max_len or EOS_ID in row[:-1] or (len(row) < max_len and row[-1:] != [EOS_ID]):
            raise UnfitReply("a row ends too early or goes on beyond its end")
        if any(not 0 <= token < vocab_size or token in never for token in row):
            raise UnfitReply("a token is banned or beyond the vocabulary")


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a reply's body.

    Raises:
      UnfitReply: it is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnfitReply("it is not JSON") from error
    if not isinstance(value, dict):
        raise UnfitReply("it is no JSON object")
    return value
