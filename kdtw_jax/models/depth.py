"""A model with some of the layers of another: the start of a student made from its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdtw_jax.errors import UserError
from kdtw_jax.models.interface import Params


def spread(layers: int, keep: int) -> list[int]:
    """Which of so many `layers` to `keep`: the first, the last, and what lies evenly between them; of one, the first.

    DistilBERT (arXiv 1910.01108, section 3) keeps every second layer.
    """
    return [round(i * (layers - 1) / max(keep - 1, 1)) for i in range(keep)]


def check_depth(keep: int, layers: int) -> None:
    """Checks that so many layers can be kept.

    Raises:
      UserError: there are not as many.
    """
    if not 1 <= keep <= layers:
        raise UserError(f"the teacher has {layers} layers; the student can have 1 to {layers} of them, not {keep}")


def kept(params: Mapping[str, Any], prefix: str, layers: Sequence[int]) -> Params:
    """Parameters with these layers alone, numbered anew; those of layer 3 stand under `prefix` and 3."""
    rest = {name: part for name, part in params.items() if not name.startswith(prefix)}
    return {**rest, **{f"{prefix}{i}": params[f"{prefix}{layer}"] for i, layer in enumerate(layers)}}


def kept_by_kind(layers: Sequence[object], keep: Sequence[object]) -> list[int]:
    """Which layers to keep, in their order, where they are of several kinds: as near as can be to `spread`.

    Args:
      layers: the kind of each.
      keep: the kind that each of the kept ones has to be of.

    Raises:
      UserError: they do not come in that order.
    """
    # The least way that the kept ones up to this are moved, and which they are, by the last of them.
    best: dict[int, tuple[int, list[int]]] = {-1: (0, [])}
    for wanted, kind in zip(spread(len(layers), len(keep)), keep, strict=True):
        longer = {}
        for i in (i for i, one in enumerate(layers) if one == kind):
            before = [way for last, way in best.items() if last < i]
            if before:
                moved, chosen = min(before)
                longer[i] = (moved + abs(i - wanted), [*chosen, i])
        best = longer
    if not best:
        raise UserError(f"the teacher's layers are of several kinds; no {len(keep)} of them are in a student's order")
    return min(best.values())[1]
