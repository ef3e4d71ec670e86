"""Which requests a teacher can never answer, found out before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdtw_jax.data.vocabulary_training import PAD_ID
from kdtw_jax.teachers.protocol import Prefix, TeacherAbout

ENGINE_ROWS = {"llama.cpp": 16, "vllm": 32}  # prompts of a request to engines of others


def check_next(about: TeacherAbout, prefixes: Sequence[Prefix], top_k: int) -> None:
    """Checks a request for the next token.

    Args:
      about: whom it is for.
      prefixes: what stands before the tokens.
      top_k: how many log-probabilities are wanted, at least 1.

    Raises:
      ValueError: it can never be answered.
    """
    for prefix in prefixes:
        check_prefix(about, prefix)
    _check_number("top_k", top_k, 1, about.max_top_k)


def check_score(about: TeacherAbout, prefixes: Sequence[Prefix], tokens: Sequence[Sequence[int]], top_k: int) -> None:
    """Checks a request for scores.

    Args:
      about: whom it is for.
      prefixes: what stands before the tokens.
      tokens: a row for each prefix.
      top_k: how many log-probabilities are wanted for each place, from 0 on.

    Raises:
      ValueError: it can never be answered.
    """
    if len(prefixes) != len(tokens):
        raise ValueError(f"there are {len(prefixes)} prefixes and {len(tokens)} rows of tokens; give one for each")
    for prefix, row in zip(prefixes, tokens, strict=True):
        check_prefix(about, prefix)
        _check_ids("tokens", row, about.vocab_size)
    _check_number("top_k", top_k, 0, about.max_top_k)


def check_generate(about: TeacherAbout, prefixes: Sequence[Prefix], max_len: int, banned: Sequence[int]) -> None:
    """Checks a request for continuations.

    Args:
      about: whom it is for.
      prefixes: what stands before them.
      max_len: tokens that are written at the most, at least 1.
      banned: ids that are never written.

    Raises:
      ValueError: it can never be answered.
    """
    for prefix in prefixes:
        check_prefix(about, prefix)
    _check_number("max_len", max_len, 1, 2**20)
    _check_ids("banned", banned, about.vocab_size)
    if len(set(banned)) >= about.vocab_size:
        raise ValueError("every token of the vocabulary is banned; leave at least one")


def check_prefix(about: TeacherAbout, prefix: Prefix) -> None:
    """Checks one prefix.

    Raises:
      ValueError: it has an id beyond the vocabulary, no source, or padding within its source.
    """
    if not prefix.source:
        raise ValueError("a source is empty; give the ids that an encoder reads, or of a prompt, at least one")
    _check_ids("source", prefix.source, about.vocab_size)
    _check_ids("written", prefix.written, about.vocab_size)
    if PAD_ID in prefix.source:
        raise ValueError(f"a source has the id {PAD_ID}, which is padding; leave it out")
    if not isinstance(prefix.session, str):
        raise ValueError(f"a session is a text, not {type(prefix.session).__name__}")


def _check_number(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r}; it has to be a whole number from {least} to {most}")


def _check_ids(name: str, ids: Sequence[Any], vocab_size: int) -> None:
    if {*map(type, ids)} == {int} and min(ids) >= 0 and max(ids) < vocab_size:  # which is fast: rows are long
        return
    for i in ids:
        # `numpy` integers are let be: rows are often cut from arrays.
        if isinstance(i, bool) or not hasattr(i, "__index__") or not 0 <= i < vocab_size:
            raise ValueError(f"{name} has the id {i!r}; ids go from 0 to {vocab_size - 1}")
