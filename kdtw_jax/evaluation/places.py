"""Where a student asks: how often by how far it is from its teacher, by what is written there, by how far along."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kdtw_jax.marks import SPACE

_POSITIONS = ((1, 2), (3, 5), (6, 10), (11, 20), (21, None))


class Group(NamedTuple):
    """Some of the states visited, and the share of them in which the teacher was asked."""

    kind: str
    group: str
    states: int
    help_rate: float | None  # None where there are no states


def by_decile(kl_X: np.ndarray, asked_X: np.ndarray) -> list[Group]:
    """Tenths of the states in order of KL, the first being where student and teacher agree most."""
    order = np.argsort(kl_X, kind="stable")
    return [_group("kl_decile", str(i + 1), asked_X[part]) for i, part in enumerate(np.array_split(order, 10))]


def by_class(tokens_X: np.ndarray, asked_X: np.ndarray, classes: Mapping[str, np.ndarray]) -> list[Group]:
    """Classes of the token written there, whoever wrote it; `classes` as `piece_classes` gives them."""
    return [_group("token", name, asked_X[member_V[tokens_X]]) for name, member_V in classes.items()]


def by_position(tokens_NxT: np.ndarray, asked_NxT: np.ndarray) -> list[Group]:
    """How many tokens in, counted from 1."""
    at_T = np.arange(1, tokens_NxT.shape[1] + 1)
    groups = []
    for first, last in _POSITIONS:
        inside_T = (at_T >= first) & (at_T <= (last or np.inf))
        name = f"{first}-{last}" if last else f">{first - 1}"
        groups.append(_group("position", name, asked_NxT[(tokens_NxT != 0) & inside_T[None, :]]))
    return groups


def piece_classes(pieces: Sequence[str], training_tokens_X: np.ndarray, eos: int = 1) -> dict[str, np.ndarray]:
    """Classes of tokens, bool [V] each. They overlap: a digit may begin a word.

    "rare": the rarest pieces, as many as make up a quarter of all tokens in the training targets, and those never seen
    there. The end of sequence is in a class of its own.
    """
    bare = [piece.replace(SPACE, "") for piece in pieces]
    begins_V = np.array([piece.startswith(SPACE) for piece in pieces])
    digit_V = np.array([any(c.isdigit() for c in text) for text in bare])
    mark_V = np.array([bool(text) and all(unicodedata.category(c)[0] in "PS" for c in text) for text in bare])
    end_V = np.arange(len(pieces)) == eos
    counts_V = np.bincount(training_tokens_X[training_tokens_X != eos], minlength=len(pieces))[: len(pieces)]
    order = np.argsort(counts_V, kind="stable")
    rare_V = np.zeros(len(pieces), bool)
    rare_V[order] = np.cumsum(counts_V[order]) <= counts_V.sum() / 4
    return {
        "first piece of a word": begins_V & ~end_V,
        "later piece": ~begins_V & ~mark_V & ~end_V,
        "digit": digit_V & ~end_V,
        "punctuation": mark_V & ~end_V,
        "rare": rare_V & ~end_V,
        "end of sequence": end_V,
    }


def _group(kind: str, name: str, asked_X: np.ndarray) -> Group:
    return Group(kind, name, len(asked_X), float(asked_X.mean()) if len(asked_X) else None)
