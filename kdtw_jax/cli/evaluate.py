"""Judge the models of a finished run anew: on another split, on more or fewer pairs, by other metrics.

    kdtw evaluate runs/quickstart --split validation
    kdtw evaluate runs/mine --split test --limit 0 --results results/mine

Nothing is trained. Tables, figures and provenance in the run's folder are those of the newest evaluation; what was
computed before with the same settings is found again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from kdtw_jax.cli.extensions import load_extensions
from kdtw_jax.errors import UserError
from kdtw_jax.flags import optional
from kdtw_jax.pipeline.begin import check_text_is_named
from kdtw_jax.pipeline.eval_config import EvalConfig
from kdtw_jax.pipeline.experiment import run_experiment
from kdtw_jax.pipeline.restore import restore

_Changes: Any = optional(EvalConfig)


@dataclass(frozen=True)
class Evaluate:
    """Options of `kdtw evaluate`."""

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run"""
    eval: tyro.conf.OmitArgPrefixes[_Changes]
    """what is left out of these stays as it was the last time"""
    results: Path | None = None
    """also write the tables and their provenance into this folder"""
    constraint: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """MODULE:FUNCTION that makes a rule of your own, which the run was trained with; may be repeated"""


def run(arguments: list[str]) -> None:
    """Runs `kdtw evaluate`.

    Raises:
      UserError: the folder has no run that is finished, the run's text lives in a program, and as an evaluation does.
    """
    options = tyro.cli(Evaluate, prog="kdtw evaluate", description=__doc__, args=arguments)
    load_extensions(options.constraint)
    task, config = restore(options.run)
    check_text_is_named(options.run)
    missing = [
        stage
        for stage in ("teacher", *(f"seed{seed}/{method}" for seed in config.seeds for method in config.methods))
        if not (options.run / "stages" / f"{stage}.json").exists()
        and not (stage == "teacher" and not config.trains_teacher)
    ]
    if missing:
        raise UserError(f"{options.run} is not finished: {', '.join(missing)} missing; go on with the command it began")
    said = {name: value for name, value in vars(options.eval).items() if value is not None}
    run_experiment(task, replace(config, results=options.results, eval=replace(config.eval, **said)))
