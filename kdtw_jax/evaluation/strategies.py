"""Ways to share the writing between student and teacher, by name, and the settings at which they are compared.

One of your own is an entry more: `register_strategy(Sharing(...))`, before a harness is made; or installed with a
package of yours that names it under the entry points of `kdtw_jax.strategies`, which the command line reads. Its points
are then written, timed, tabled and drawn beside the others. Every gate that is compared (`kdtw_jax.decoding.gates`) is
a way, too: asking wherever its score is above a threshold, without a check.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import numpy as np

from kdtw_jax.decoding.baselines import big_little, speculative, speculative_cascade, within
from kdtw_jax.decoding.gates import GATES, GateEntry
from kdtw_jax.decoding.strategy import Judge
from kdtw_jax.registry import Registry

BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)


class Point(NamedTuple):
    """One way to write: a setting of the strategy that `method` names. `number` is what that one's judge takes."""

    method: str
    setting: str
    alone: Literal["", "student", "teacher"] = ""  # one of the two writes everything: nothing below counts
    gate: str = "silent"
    level: float = float("inf")
    number: float = float("inf")
    summed: bool = False
    draft_length: int = 1 << 20
    check_end: bool = False
    tokens_per_call: int = 1
    verify_at_end: bool = False
    words_KxR: np.ndarray | None = None  # int32, a rule that the student reads, in K phrasings

    @property
    def only_asks(self) -> bool:
        """Whether a gate decides on each token alone, and nothing that stands is checked."""
        usual = Point(self.method, self.setting)
        checks = (self.number, self.summed, self.draft_length, self.check_end, self.verify_at_end)
        plain = (usual.number, usual.summed, usual.draft_length, usual.check_end, usual.verify_at_end)
        return self.gate != usual.gate and checks == plain and self.tokens_per_call == 1


class Settings(NamedTuple):
    """What points may be made of."""

    levels: Mapping[str, Mapping[str, float]]  # by gate and budget: thresholds that met it on validation data
    words: Callable[[float], np.ndarray]  # int32 [K, R], a budget in the words that the student was trained on


class Sharing(NamedTuple):
    """A way to share the writing.

    points(settings): at which it is compared.
    judge(number): what the teacher lets stand, given a point's number, a float32 [] that is traced.
    style: colour and marker in figures, "" and "": by chance.
    """

    name: str
    points: Callable[[Settings], Sequence[Point]]
    judge: Callable[[jax.Array], Judge] = within
    style: tuple[str, str] = ("", "")


def register_strategy(sharing: Sharing) -> Sharing:
    """Adds a way to share the writing.

    Raises:
      UserError: another way has its name.
    """
    return STRATEGIES.add(sharing.name, sharing)


def every_strategy() -> dict[str, Sharing]:
    """All ways, by name: those registered and those of gates."""
    return {**STRATEGIES, **{entry.name: _of_gate(entry) for entry in GATES.values() if _asks_by_threshold(entry)}}


def _asks_by_threshold(entry: GateEntry) -> bool:
    return entry.compared and not entry.ahead and entry.name != "learned"  # which asks by a rule in words: "asking"


def _of_gate(entry: GateEntry) -> Sharing:
    """Plain asking by a gate. Of an oracle there are no points: the teacher reads along, which no harness does."""
    if entry.oracle:
        return Sharing(entry.name, lambda settings: [], style=entry.style)
    points = partial(drawn_points, entry.name) if entry.drawn else partial(threshold_points, entry.name)
    return Sharing(entry.name, points, style=entry.style)


def drawn_points(gate: str, settings: Settings) -> list[Point]:
    """A gate that asks with a probability, which is the budget."""
    return [Point(gate, f"{budget:g}", gate=gate, level=budget) for budget in BUDGETS]


def threshold_points(gate: str, settings: Settings) -> list[Point]:
    """A gate at thresholds that met these budgets on validation data."""
    return [Point(gate, budget, gate=gate, level=level) for budget, level in settings.levels[gate].items()]


def _asking(settings: Settings) -> list[Point]:
    """The learned gate, by the rule in words."""
    said = ((budget, settings.words(budget)) for budget in BUDGETS)
    return [Point("asking", f"{budget:g}", gate="learned", level=0.5, words_KxR=words) for budget, words in said]


def _speculative(settings: Settings) -> list[Point]:
    lengths = (1, 2, 3, 4, 6, 8)
    return [Point("speculative", f"draft {length}", draft_length=length, check_end=True) for length in lengths]


def _lossy(settings: Settings) -> list[Point]:
    return [
        Point(
            "speculative_lossy",
            f"draft {length}, {tolerance:g} nats",
            number=tolerance,
            draft_length=length,
            check_end=True,
        )
        for length, tolerance in itertools.product((8, 16, 32), (0.5, 1.0, 2.0, 3.0, 5.0))
    ]


def _cascade(rule: Literal["chow", "diff", "opt"], alphas: Sequence[float], marker: str) -> Sharing:
    name = f"cascade_{rule}"

    def points(settings: Settings) -> list[Point]:
        return [Point(name, f"alpha {a:g}", number=a, draft_length=8, check_end=True) for a in alphas]

    return Sharing(name, points, lambda number: speculative_cascade(rule, number, 1).judge, ("#009E73", marker))


def _bild(settings: Settings) -> list[Point]:
    return [
        Point(
            "bild",
            f"fallback {fallback:g}, rollback {rollback:g}",
            gate="max_prob",
            level=1 - fallback,
            number=rollback,
            draft_length=10,
        )
        for fallback, rollback in itertools.product((0.3, 0.5, 0.7), (1.0, 3.0, 6.0))
    ]


def _verified(settings: Settings) -> list[Point]:
    found = []
    for level, tolerance in itertools.product((1.0, 2.0, 4.0, 8.0), (0.5, 2.0)):
        setting = f"price {level:g}, {tolerance:g} nats"
        found.append(Point("verified_asking", setting, gate="forecast", level=level, number=tolerance, summed=True))
    # A price of 0 asks for a check of every output.
    return found + _verified_at_end("verified_asking", (0.0, 1.0, 2.0, 4.0, 8.0), (0.5, 1.0, 2.0), 1)


def _verified_at_end(
    name: str, levels: Sequence[float], tolerances: Sequence[float], tokens_per_call: int
) -> list[Point]:
    found = []
    for level, tolerance in itertools.product(levels, tolerances):
        setting = f"verified at the end, price {level:g}, {tolerance:g} nats" + (
            f", {tokens_per_call} words" if tokens_per_call > 1 else ""
        )
        point = Point(name, setting, gate="forecast", level=level, number=tolerance, summed=True)
        found.append(point._replace(tokens_per_call=tokens_per_call, verify_at_end=True))
    return found


def _long_help(settings: Settings) -> list[Point]:
    return [
        Point(
            "long_help",
            f"price {level:g}, {tokens_per_call} words",
            gate="forecast",
            level=level,
            tokens_per_call=tokens_per_call,
        )
        for level, tokens_per_call in itertools.product((0.5, 1.0, 2.0), (2, 4, 8))
    ]


def _drafts(settings: Settings) -> list[Point]:
    """Levels are nats times how far drafts are apart, 0 to 1."""
    return [Point("drafts", f"level {level:g}", gate="drafts", level=level) for level in (0.01, 0.03, 0.1, 0.3)]


_BUILTIN = (
    Sharing("student_only", lambda settings: [Point("student_only", "greedy", alone="student")]),
    Sharing("teacher_only", lambda settings: [Point("teacher_only", "greedy", alone="teacher")]),
    Sharing("speculative", _speculative, lambda number: speculative(1).judge, ("#0072B2", "o")),
    Sharing("speculative_lossy", _lossy, style=("#0072B2", "s")),
    _cascade("chow", (0.1, 0.3, 0.5, 0.7), "o"),
    _cascade("diff", (-0.1, 0.0, 0.1, 0.3), "s"),
    _cascade("opt", (0.1, 0.2, 0.3, 0.6), "^"),
    Sharing("bild", _bild, lambda number: big_little(0.5, number).judge, ("#56B4E9", "^")),
    Sharing("verified_asking", _verified, style=("#CC79A7", "D")),
    Sharing(
        "verified_long_help",
        lambda settings: _verified_at_end("verified_long_help", (0.0, 1.0, 2.0, 4.0), (0.5, 2.0), 4),
        style=("#D55E00", "D"),
    ),
    Sharing("long_help", _long_help, style=("#D55E00", "x")),
    Sharing("co_llm", partial(threshold_points, "co_llm"), style=("#E69F00", "^")),
    Sharing("drafts", _drafts, style=("#882255", "P")),
    Sharing("asking", _asking, style=("#CC79A7", "o")),
)
STRATEGIES = Registry(
    {sharing.name: sharing for sharing in _BUILTIN},
    kind="strategy",
    group="kdtw_jax.strategies",
    how="kdtw_jax.evaluation.strategies.register_strategy(Sharing(...))",
    expected=Sharing,
    register=lambda name, sharing: register_strategy(sharing),
)
