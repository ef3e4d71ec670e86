"""What keeps every model of a run from writing a reference: characters that its vocabulary lacks or has another for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from kdtw_jax.data.tokenizer import UNK_ID, Tokenizer
from kdtw_jax.metrics.scores import sentence_statistics
from kdtw_jax.metrics.scoring import ENGLISH, Scoring
from kdtw_jax.text.normal import normalize

_SHOWN = 3  # ways in which references differ
_LOOKED_AT = 20  # references, for these
_LENGTH = 8  # characters of a difference


class Ceiling(NamedTuple):
    """How near the best possible outputs come to the references."""

    references: int
    unwritable: int  # those of them that no output can equal
    changes: tuple[str, ...]  # the first ways in which these differ, in words
    best: dict[str, float]  # by metric: of outputs that are the references as far as they can be written; empty if all


def find_ceiling(
    tokenizer: Tokenizer,
    references: Sequence[str],
    targets: Sequence[Sequence[int]],
    metrics: Sequence[str],
    scoring: Scoring = ENGLISH,
) -> Ceiling:
    """Finds how near the best possible outputs come to the references.

    Args:
      targets: ids of the references as models are to write them, within the limit of length.
    """
    changes: dict[str, None] = {}
    unwritable = 0
    for reference in references:
        wanted, found = normalize(reference), _written(tokenizer, tokenizer.encode(reference))
        if found != wanted:
            unwritable += 1
            if len(changes) < _SHOWN and unwritable <= _LOOKED_AT:
                changes |= dict.fromkeys(_changes(wanted, found))
    best = {}
    if unwritable:
        outputs = [_written(tokenizer, ids) for ids in targets]
        for metric in metrics:
            judged = sentence_statistics(metric, outputs, references, scoring)
            best[metric] = judged.formula(judged.rows.sum(axis=0))
    return Ceiling(len(references), unwritable, tuple(changes)[:_SHOWN], best)


def _written(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """What a model that wrote these ids would have written; none writes the unknown one."""
    return normalize(tokenizer.decode([int(i) for i in ids if i != UNK_ID]))


def _changes(wanted: str, found: str) -> list[str]:
    matcher = difflib.SequenceMatcher(None, wanted, found, autojunk=False)
    parts = [(wanted[a:b], found[c:d]) for kind, a, b, c, d in matcher.get_opcodes() if kind != "equal"]
    return [f"{_show(one)} is written {_show(other)}" if other else f"{_show(one)} is left out" for one, other in parts]


def _show(text: str) -> str:
    """In quotation marks and not in full; what cannot be seen by its code point."""
    if text.strip() and text.isprintable():
        return f'"{text[:_LENGTH]}{"…" * (len(text) > _LENGTH)}"'
    return " ".join(f"U+{ord(c):04X}" for c in text[:_LENGTH]) or "nothing"
