"""What help can give at all, by the outputs that follow: oracles that look ahead, and how much lies in how few states.

The worth D of an answer is measured in every state that a student visits alone. All that help can give is the sum of D
where it is above 0; as a rule a small part of the states holds most of it, and a gate is good that finds these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kdtw_jax.data.batches import Bucket, EncodedSplit
from kdtw_jax.decoding.gates import find_gate, is_oracle
from kdtw_jax.evaluation.cells import EvalCell, Found
from kdtw_jax.evaluation.decoder import Decoder
from kdtw_jax.evaluation.look_back import SHOWN
from kdtw_jax.evaluation.phrasings import Phrasings
from kdtw_jax.evaluation.written import DecodeSpec, write_split

PARTS = (0.1, 0.25, 0.5, 1.0)  # of the states in which an answer helps: there an oracle that looks ahead asks
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3)  # of all states


def ahead_cells(
    decoder: Decoder,
    beside: Decoder,
    phrasings: Phrasings,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    silent: EvalCell,
    tick: Callable[[], None],
) -> tuple[list[EvalCell], dict[str, Found]]:
    """The oracles that look ahead, as cells of the table; and by oracle what the best states hold, by every gate.

    Args:
      decoder: with gates that look ahead.
      beside: with the others.
      silent: the student that never asks, which is where all gates begin.
      tick: is called `ticks_ahead(decoder, beside)` times.
    """
    # Nobody asks; but a student that is told never to sees no state in which asking is probable.
    alone = DecodeSpec("", phrasings.of(SHOWN, "seen"), SHOWN, level=np.inf)
    scores = {}
    for one, gate in _scored(decoder, beside):
        written = write_split(one, data, buckets, alone._replace(gate=gate))
        scores[gate] = written.score_NxT[written.tokens_NxT != 0]
        tick()
    cells, held = [], {}
    for gate in filter(is_oracle, decoder.gates):
        wanted = alone._replace(gate=gate)
        written = write_split(decoder, data, buckets, wanted)
        cells.append(silent._replace(gate=gate))
        tick()
        worth_X = written.score_NxT[written.tokens_NxT != 0]
        held[gate] = concentration(worth_X, {**scores, gate: worth_X})
        for part in PARTS:
            asking = wanted._replace(level=level_of_part(worth_X, part))
            cells.append(EvalCell(gate, False, "seen", True, part, asking, write_split(decoder, data, buckets, asking)))
            tick()
    return cells, held


def ticks_ahead(decoder: Decoder, beside: Decoder) -> int:
    """How many decodings `ahead_cells` makes."""
    return len(_scored(decoder, beside)) + sum(map(is_oracle, decoder.gates)) * (1 + len(PARTS))


def _scored(decoder: Decoder, beside: Decoder) -> list[tuple[Decoder, str]]:
    """Gates that order states, and the decoder that has them: all but those drawn and those whose worth is the aim."""
    own = [(decoder, gate) for gate in decoder.gates if not is_oracle(gate)]
    return [*((beside, gate) for gate in beside.gates if not find_gate(gate).drawn), *own]


def level_of_part(worth_X: np.ndarray, part: float) -> float:
    """The level above which this part lies of all worths that are above 0; all of them are above 0.0."""
    some_X = worth_X[worth_X > 0]
    return max(float(np.quantile(some_X, 1 - part, method="lower")), 0.0) if part < 1 and len(some_X) else 0.0


def concentration(worth_X: np.ndarray, scores: Mapping[str, np.ndarray]) -> Found:
    """How much of all that help can give is in the best states, best by each of several scores.

    Args:
      worth_X: of an answer, in each of X states.
      scores: by gate, of the same states.

    Returns:
      The share of states where an answer helps and where it does harm, and by gate and share of the states the part of
      all that help can give that these hold, 1 being all of it; without anything to gain, nothing of the last.
    """
    total = float(np.maximum(worth_X, 0.0).sum())
    held: dict[str, dict[str, float]] = {}
    for gate, score_X in scores.items() if total > 0 else ():
        sum_X = np.cumsum(worth_X[np.argsort(-score_X, kind="stable")])
        held[gate] = {f"{share:g}": float(sum_X[max(round(share * len(sum_X)), 1) - 1]) / total for share in SHARES}
    helps, harms = float((worth_X > 0).mean()), float((worth_X < 0).mean())
    return {"states": len(worth_X), "helps": helps, "harms": harms, "held": held}
