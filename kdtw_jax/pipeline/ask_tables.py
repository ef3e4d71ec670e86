"""What was found about students that may ask, as tables on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kdtw_jax.evaluation.cells import Found
from kdtw_jax.evaluation.tradeoff import quality_at
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.stages import Row
from kdtw_jax.runs import print_table


def show_asking(config: Experiment, rows: Sequence[Row], metric: str) -> None:
    """Prints one line per budget: means over seeds, and what each rival would have made of as much help."""
    chosen = [r for r in rows if r["metric"] == metric and r["phrasing"] == "seen" and r["budget_seen"]]

    def curve(gate: str, guard: int, name: str, seed: int) -> np.ndarray:
        own = [r for r in chosen if (r["gate"], r["guard"], r["seed"]) == (gate, guard, seed)]
        return np.array([r[name] for r in sorted(own, key=lambda r: float(r["asked"] or 0))], float)

    def mean(gate: str, guard: int, name: str) -> np.ndarray:
        found: np.ndarray = np.mean([curve(gate, guard, name, seed) for seed in config.seeds], axis=0)
        return found

    def equal(rival: str) -> np.ndarray:
        """A rival's quality at the use of the learned gate, each seed by itself."""
        parts = [
            quality_at(curve(rival, 0, "used", s), curve(rival, 0, "value", s), curve("learned", 0, "used", s))
            for s in config.seeds
        ]
        found: np.ndarray = np.mean(parts, axis=0)
        return found

    budget = {"asked %": 100 * mean("learned", 0, "asked"), "used %": 100 * mean("learned", 0, "used")}
    ends = {"unfinished %": 100 * mean("learned", 0, "unfinished")}
    quality = {metric: mean("learned", 0, "value")}
    cost = {"calls": mean("learned", 0, "calls"), "positions": mean("learned", 0, "positions")}
    guarded = {"kept: used %": 100 * mean("learned", 1, "used"), f"kept: {metric}": mean("learned", 1, "value")}
    guarded["kept: unfinished %"] = 100 * mean("learned", 1, "unfinished")
    rivals = {
        gate.replace("_", " "): equal(gate) for gate in dict.fromkeys(str(r["gate"]) for r in rows) if gate != "learned"
    }
    seeds = f"mean of seeds {', '.join(map(str, config.seeds))}" if len(config.seeds) > 1 else f"seed {config.seeds[0]}"
    _table(f"{config.data}, asking, {seeds}; kept: the rule enforced", {**budget, **quality, **cost, **ends, **guarded})
    _table(f"{metric} of other gates at the same use", {**budget, **ends, "learned": quality[metric], **rivals})


def show_rules(by_seed: Sequence[Sequence[Found]]) -> None:
    """Prints one line per rule beside that on the share of words: means over seeds."""
    lines: list[Row] = []
    for kept in zip(*by_seed, strict=True):
        mean = {name: float(np.mean([k[name] for k in kept])) for name in ("used", "excess_calls_mean")}
        over = 100 * sum(k["outputs_over"] for k in kept) / sum(k["outputs"] for k in kept)
        line = {"rule": kept[0]["rule"], "phrasing": kept[0]["phrasing"], "enforced": kept[0]["guard"]}
        numbers = {"used %": 100 * mean["used"], "beyond it": mean["excess_calls_mean"], "outputs over %": over}
        lines.append({**line, **numbers, "unfinished %": 100 * float(np.mean([k["unfinished"] for k in kept]))})
    if lines:
        print_table("further rules; beyond it: costs of an output less what is allowed", lines, list(lines[0]))


def show_ahead(by_seed: Sequence[Found]) -> None:
    """Prints for every oracle that looks ahead, by gate, what the best states hold of all that help can give."""
    for oracle in by_seed[0] if by_seed else ():
        parts = [f[oracle]["held"] for f in by_seed if f[oracle]["held"]]
        shares = list(next(iter(parts[0].values()))) if parts else []
        lines: list[Row] = [
            {"by": gate, **{f"{100 * float(s):g}%": 100 * float(np.mean([p[gate][s] for p in parts])) for s in shares}}
            for gate in (parts[0] if parts else ())
        ]
        if lines:
            helps = 100 * float(np.mean([f[oracle]["helps"] for f in by_seed]))
            title = f"{oracle}: an answer helps in {helps:.1f}% of the states; % of all help in the best of them"
            print_table(title, lines, list(lines[0]))


def _table(title: str, columns: Mapping[str, np.ndarray]) -> None:
    lines = [
        {name: float(x) if np.isfinite(x) else None for name, x in zip(columns, line, strict=True)}
        for line in zip(*columns.values(), strict=True)
    ]
    print_table(title, lines, list(columns))
