"""Students for several prices of a call, beside a gate on a student that was distilled without help.

What a student plans may depend on what help costs: with a call for the hard token another way may be the better one. A
gate on a finished student leads to another way only by asking for the token that takes it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.price_figure import price_figure
from kdtw_jax.pipeline.ask_report import COLUMNS
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.experiment import default_folder, run_experiment
from kdtw_jax.pipeline.prepare import check_place
from kdtw_jax.pipeline.stages import Row
from kdtw_jax.runs import provenance, read_csv, write_csv, write_json
from kdtw_jax.runs.atomic import read_json
from kdtw_jax.runs.folder import CONFIG
from kdtw_jax.runs.provenance import typed

PRICES = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
RECORD = "asking-provenance.json"  # `provenance.json` in a folder of results may be that of ways to train
SWEEP_COLUMNS = (*COLUMNS, "student")
_DECIMAL = re.compile(r"\d+(?:\.\d+)?")
TOGETHER, APART = "together", "apart"  # student and gate learn together, or the gate on a student that has learned


def parts(task: str, config: Experiment, prices: Sequence[float]) -> dict[str, Experiment]:
    """The runs that a sweep consists of, by their folders within its own, in their order.

    The student that is distilled without help is that of `pcl`; all others start where it started, or, of the gate
    alone, where it ended.

    Args:
      task: names the folder where `config.out` does not.
      config: what all runs have in common; its `ask` says how students learn to ask.
      prices: in nats.

    Raises:
      UserError: prices that are none or come twice.
    """
    written = [f"{price:g}" for price in prices]  # as folders and rules have them
    if not prices or len(set(written)) < len(written) or not all(map(_DECIMAL.fullmatch, written)):
        raise UserError(
            "--prices must be distinct numbers of at least 0, at least one, of at most six digits and no smaller than "
            f"0.0001 unless 0, got {', '.join(map(str, prices)) or 'none'}"
        )
    usual = default_folder(task, config)
    out = config.out or usual.with_name(f"{usual.name}-prices")
    common = replace(config, results=None)
    alone = replace(common, methods=("pcl",), out=out / "without_help")
    teacher = config.teacher_model or str(out / "without_help" / "teacher" / "model")

    def asking(name: str, start: str, **changes: Any) -> Experiment:
        settings = replace(config.of("ask"), **{"start": "", "gate_alone": False, **changes})
        chosen = replace(common.with_settings(ask=settings), methods=("ask",), out=out / name)
        return replace(chosen, teacher_model=teacher, student_model=start)

    models = out / "without_help" / "seed{seed}"
    start = config.student_model or str(models / "warmup" / "model")
    found = {"without_help": alone}
    for price in prices:
        found[f"price_{price:g}"] = asking(f"price_{price:g}", start, constraints=(f"price={price:g}",))
    found["gate_alone"] = asking("gate_alone", str(models / "pcl" / "model"), constraints=("price",), gate_alone=True)
    return found


def run_sweep(task: str, config: Experiment, prices: Sequence[float]) -> list[Row]:
    """Trains and judges the students of a sweep; what is done is not done again.

    Writes asking.csv (`student`: who learned how), prices.png and the record into the sweep's folder and
    `config.results`. Returns the rows of asking.csv.

    Raises:
      UserError: the folder is a run's, that for results cannot be written, and as `parts` and `run_experiment` do.
    """
    started = time.time()
    runs = parts(task, config, prices)
    out = next(iter(runs.values())).out
    assert out is not None
    if (out.parent / CONFIG).exists():
        raise UserError(f"{out.parent} holds a run, and a sweep needs a folder of its own: choose another --out")
    if config.results is not None:
        check_place(config.results)
    rows: list[Row] = []
    stages: dict[str, Any] = {}
    for name, one in runs.items():
        run_experiment(task, one)
        assert one.out is not None
        found = read_json(one.out / "provenance.json", f"{name} has no record")
        stages |= {f"{name}/{stage}": info for stage, info in found["stages"].items()}
        if name != "without_help":
            how = APART if name == "gate_alone" else TOGETHER
            rows += [{**row, "student": how} for row in read_csv(one.out / "asking.csv")]
    hours = sum(info["seconds"] for info in stages.values()) / 3600
    record = provenance(typed(), config.seeds, started, hours=round(hours, 4), stages=stages, prices=list(prices))
    for place in [out.parent] + ([config.results] if config.results is not None else []):
        _write(place, rows, record)
    return rows


def _write(folder: Path, rows: Sequence[Row], record: dict[str, Any]) -> None:
    write_csv(folder / "asking.csv", rows, SWEEP_COLUMNS)
    said = {
        "a student for each price, its gate learned with it": TOGETHER,
        "one student distilled without help, its gate learned later": APART,
    }
    drawn = {name: [row for row in rows if row["student"] == how] for name, how in said.items()}
    price_figure(drawn, folder / "prices.png")
    write_json(folder / RECORD, record)
