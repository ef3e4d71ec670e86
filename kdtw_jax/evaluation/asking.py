"""The decodings that a student that may ask is judged on, and everything that is found in them.

One student (one seed) is one plain dictionary, which a run keeps and reports put together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kdtw_jax.data.batches import Bucket, EncodedSplit
from kdtw_jax.decoding.gates import find_gate
from kdtw_jax.evaluation.ahead import ahead_cells, ticks_ahead
from kdtw_jax.evaluation.calibration import calibrate
from kdtw_jax.evaluation.cells import EvalCell, Found, Texts, harm, measure, table_row
from kdtw_jax.evaluation.decoder import Decoder
from kdtw_jax.evaluation.look_back import look_back
from kdtw_jax.evaluation.obedience import obedience_of, rule_excess
from kdtw_jax.evaluation.phrasings import PhrasedRule, Phrasings, further_rules
from kdtw_jax.evaluation.rows import widen_buckets
from kdtw_jax.evaluation.written import DecodeSpec, write_split
from kdtw_jax.methods.ask_config import SEEN
from kdtw_jax.runs.progress import Progress


def evaluate_asking(
    name: str,
    decoder: Decoder,
    phrasings: Phrasings,
    test: Texts,
    validation: EncodedSplit,
    training_tokens_X: np.ndarray,
    buckets: Sequence[Bucket],
    *,
    held_out: Sequence[float],
    twin: Sequence[str] | None,
    resamples: int = 1000,
    ahead: Decoder | None = None,
) -> Found:
    """Everything about one student.

    Args:
      validation: what the thresholds of rival gates are set on.
      training_tokens_X: all tokens of the training targets, for what is rare.
      held_out: budgets never trained.
      twin: outputs of the student trained likewise without help, for the same examples.
      ahead: of the same student and teacher with gates that look ahead; None: those are not judged.
    """
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    rows = widen_buckets(buckets, test.data)
    drawn = [gate for gate in decoder.gates if find_gate(gate).drawn]
    rivals = [gate for gate in decoder.gates if gate not in ("learned", *drawn)]
    seen = [budget for budget in SEEN if budget not in held_out]
    shown = [budget for budget in seen if budget > 0]
    further = further_rules(decoder.constraints, phrasings)
    total = 4 * (len(seen) + len(held_out)) + 2 * len(further) + 2 + len(shown) * (len(drawn) + 2 * len(rivals))
    drafting = [] if ahead is None else [gate for gate in ahead.gates if not find_gate(gate).oracle]
    total += 2 * len(drafting) * len(shown) + (0 if ahead is None else ticks_ahead(ahead, decoder))
    with Progress(f"{name}, decoding", total=total) as bar:
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            bar.update(done)

        learned = _learned_cells(decoder, phrasings, test.data, rows, seen, held_out, tick)
        kept = [_keep_rule(decoder, test.data, rows, said, guard, tick) for said in further for guard in (False, True)]
        clock.lap("learned")
        alone = DecodeSpec("random", phrasings.of(0.0, "seen"), 0.0, level=0.0)
        silent = EvalCell("random", False, "seen", True, 0.0, alone, write_split(decoder, test.data, rows, alone))
        tick()
        levels = _calibrated_levels(decoder, phrasings, validation, rows, rivals, shown, tick)
        clock.lap("calibration")
        # Of a drawn gate the level is the part of the tokens that it asks for: so that of a word one is, or none.
        tokens = np.count_nonzero(silent.written.tokens_NxT) / max(int(silent.written.lengths_N.sum()), 1)
        parts = shown if decoder.unit.marks is None else [float(1 - (1 - share) ** (1 / tokens)) for share in shown]
        levels = {**dict.fromkeys(drawn, parts), **levels}
        others = _cells_of_other_gates(decoder, phrasings, test.data, rows, shown, levels, silent, tick)
        clock.lap("rivals")
        looking: list[EvalCell] = []
        held: dict[str, Found] = {}
        if ahead is not None:
            own = _calibrated_levels(ahead, phrasings, validation, rows, drafting, shown, tick)
            others += _cells_of_other_gates(ahead, phrasings, test.data, rows, shown, own, silent, tick)
            levels = {**levels, **own}
            looking, held = ahead_cells(ahead, decoder, phrasings, test.data, rows, silent, tick)
            clock.lap("looking ahead")
        masked = DecodeSpec("learned", phrasings.said(["do not ask the teacher"]), 0.0, guard=True)
        forbidden = write_split(decoder, test.data, rows, masked)
        tick()
    cells = learned + others + looking
    measured = measure(cells, silent, test, resamples)
    clock.lap("scores")
    counted = {"unit": decoder.unit.name, "account": "output", "rule": phrasings.constraint.name}
    found = {
        "rows": [
            {**table_row(cell, metric, m), **counted}
            for cell, ms in zip(cells, measured.scores, strict=True)
            for metric, m in ms
        ],
        "levels": {gate: dict(zip(map(str, shown), levels[gate], strict=True)) for gate in (*rivals, *drafting)},
        "obedience": [obedience_of(cell) for cell in cells if cell.gate == "learned"],
        "rules": kept,
        "equal_use": measured.equal_use,
        "draws": measured.draws,
        "alone": measured.alone,
        "no_harm": None if twin is None else harm(forbidden.texts, twin, test, resamples),
    }
    clock.lap("comparison")
    plain = [c for c in learned if not c.guard and c.phrasing == "seen" and c.budget_seen]
    if held:
        found["ahead"] = held
    found |= look_back(decoder, test, rows, plain, training_tokens_X)
    clock.lap("looking back")
    return {**found, "seconds": {k: round(v, 1) for k, v in seconds.items()}}


class _Clock:
    """Seconds of wall-clock by part."""

    def __init__(self, seconds: dict[str, float]):
        self._seconds, self._last = seconds, time.monotonic()

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self._seconds[part], self._last = now - self._last, now


def _learned_cells(
    decoder: Decoder,
    phrasings: Phrasings,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    seen: Sequence[float],
    held_out: Sequence[float],
    tick: Callable[[], None],
) -> list[EvalCell]:
    cells = []
    for guard in (False, True):
        for phrasing in ("seen", "unseen"):
            for budget in (*seen, *held_out):
                wanted = DecodeSpec("learned", phrasings.of(budget, phrasing), budget, guard=guard)
                written = write_split(decoder, data, buckets, wanted)
                cells.append(EvalCell("learned", guard, phrasing, budget in seen, budget, wanted, written))
                tick()
    return cells


def _keep_rule(
    decoder: Decoder,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    said: PhrasedRule,
    guard: bool,
    tick: Callable[[], None],
) -> Found:
    wanted = DecodeSpec("learned", said.words_KxR, said.share, guard=guard, others=said.others)
    written = write_split(decoder, data, buckets, wanted)
    tick()
    return {"rule": said.rule, "phrasing": said.phrasing, "guard": int(guard), **rule_excess(written)}


def _calibrated_levels(
    decoder: Decoder,
    phrasings: Phrasings,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    gates: Sequence[str],
    budgets: Sequence[float],
    tick: Callable[[], None],
) -> dict[str, list[float]]:
    """For each gate the levels at which its use on `data` is each budget, the student having read that budget."""
    levels: dict[str, list[float]] = {}
    for gate in gates:
        wanted = DecodeSpec(gate, phrasings.of(budgets[0], "seen"), budgets[0], level=np.inf)
        written = write_split(decoder, data, buckets, wanted)  # nobody asks: the scores to start from
        scores_X, levels[gate] = written.score_NxT[written.tokens_NxT != 0], []
        for budget in budgets:
            wanted = DecodeSpec(gate, phrasings.of(budget, "seen"), budget)
            level, _, scores_X = calibrate(decoder, data, buckets, wanted, scores_X)
            levels[gate].append(level)
            tick()
    return levels


def _cells_of_other_gates(
    decoder: Decoder,
    phrasings: Phrasings,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    budgets: Sequence[float],
    levels: Mapping[str, Sequence[float]],
    silent: EvalCell,
    tick: Callable[[], None],
) -> list[EvalCell]:
    """The rival gates at every budget, on the student that has read the same words. At 0 they are all one."""
    cells = []
    for gate, chosen in levels.items():
        cells.append(silent._replace(gate=gate))
        for budget, level in zip(budgets, chosen, strict=True):
            wanted = DecodeSpec(gate, phrasings.of(budget, "seen"), budget, level)
            written = write_split(decoder, data, buckets, wanted)
            cells.append(EvalCell(wanted.gate, False, "seen", True, budget, wanted, written))
            tick()
    return cells
