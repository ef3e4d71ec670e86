"""Evidence about students that are told what a call costs: rows of asking.csv and their figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdtw_jax.constraints import Constraint, without_budgets
from kdtw_jax.evaluation.phrasings import Phrasings
from kdtw_jax.evaluation.price_figure import price_figure
from kdtw_jax.evaluation.pricing import evaluate_prices
from kdtw_jax.pipeline.ask_report import COLUMNS, asking_decoder, judged_texts, named_row
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.prepare import Setup
from kdtw_jax.pipeline.stages import BEAM, Row, Trained, asking_rules, judged_with, still_good
from kdtw_jax.runs import RunFolder, print_table, write_csv


def priced(constraints: Sequence[Constraint]) -> list[Constraint]:
    """Those that say the price of a call themselves."""
    return [constraint for constraint in constraints if constraint.price is not None]


def study_prices(
    config: Experiment, setup: Setup, teacher: Trained, student: Trained, seed: int, run: RunFolder
) -> None:
    """Finds out, once, what the asking student of a seed does at each price that it can be told."""
    stage = _stage(config, seed)
    if still_good(run, stage, judged_with(config, *BEAM)):
        return
    rules = asking_rules(config, setup, teacher)
    decoder = asking_decoder(config, setup, teacher, student, rules, seed, greedy=False)
    test = judged_texts(config, setup)
    rows: list[Row] = []
    for constraint in priced(rules.constraints):
        phrasings = Phrasings(constraint, rules.encode, rules.room)
        rows += evaluate_prices(f"prices {seed}", decoder, phrasings, test, setup.buckets)
    run.mark_done(stage, {"rows": rows, "made_with": judged_with(config, *BEAM)})


def price_rows(task: str, config: Experiment, run: RunFolder) -> list[Row]:
    """Rows of asking.csv; `study_prices` has to be called before, for every seed."""
    return [
        named_row(task, config, seed, row) for seed in config.seeds for row in run.info(_stage(config, seed))["rows"]
    ]


def report_prices(config: Experiment, rows: Sequence[Row], run: RunFolder) -> None:
    """Draws prices.png and prints a table, means over seeds; writes asking.csv where no other rules are judged."""
    for folder in [run.path] + ([config.results] if config.results is not None else []):
        if "share" not in without_budgets(config.of("ask").constraints):
            write_csv(folder / "asking.csv", rows, COLUMNS)
        price_figure({f"{config.data}: the student that asks": rows}, folder / "prices.png")
    own = [row for row in rows if row["phrasing"] == "seen"]
    metrics = list(dict.fromkeys(str(row["metric"]) for row in own))
    table: list[Row] = []
    for price in dict.fromkeys(row["asked"] for row in own):
        at = [row for row in own if row["asked"] == price]
        scores = {m: float(np.mean([float(r["value"] or 0) for r in at if r["metric"] == m])) for m in metrics}
        use = {name: 100 * float(np.mean([float(row[name] or 0) for row in at])) for name in ("used", "calls")}
        table.append({"price": price, "used %": use["used"], "calls %": use["calls"], **scores})
    seeds = ", ".join(map(str, config.seeds))
    title = f"{config.data}, told the price of a call in nats; seeds {seeds}; calls: of the tokens"
    print_table(title, table, ["price", "used %", "calls %", *metrics])


def _stage(config: Experiment, seed: int) -> str:
    return f"seed{seed}/ask/{config.eval.split}-prices"
