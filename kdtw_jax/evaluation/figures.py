"""What all figures share: colours of methods and gates, and how a figure is saved.

In the modules beside this one `draw_*` draw on given axes, for notebooks too; `*_figure` write a PNG and leave pyplot
and its backend alone.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from kdtw_jax.decoding.gates import GATES
from kdtw_jax.methods import METHODS
from kdtw_jax.runs.atomic import explained

# Beside Okabe and Ito's, which gates and the methods here have, told apart by colour-blind readers too.
TEACHER_COLOUR = "#000000"


SPARE_COLOURS = ("#332288", "#882255", "#44AA99", "#DDCC77")  # of methods and gates that say none


Rows = Sequence[Mapping[str, Any]]


OVER_SENTENCES = "95% interval over sentences"


_WRITTEN = {"bleu": "BLEU", "chrf": "chrF", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


def written_metric(metric: str) -> str:
    """A metric as the field writes it, "bleu_sampled" as "BLEU, sampled"."""
    name, *more = metric.split("_sampled")
    return _WRITTEN.get(name, name.replace("_", " ")) + (", sampled" if more else "")


def method_colours(names: Sequence[str]) -> dict[str, str]:
    """Each method's own, or the next that is free; methods that are not registered are named by runs of others."""
    spare = itertools.cycle(SPARE_COLOURS)
    own = {name: METHODS[name].color if name in METHODS else "" for name in names}
    own |= {"teacher": TEACHER_COLOUR}
    return {name: own[name] or next(spare) for name in names}


def gate_colours(names: Iterable[str]) -> dict[str, str]:
    """Each gate's own, or the next that is free; gates that are not registered are named by runs of others."""
    spare = itertools.cycle(SPARE_COLOURS)
    own = {name: GATES[name].color if name in GATES else "" for name in names}
    return {name: color or next(spare) for name, color in own.items()}


def save_figure(figure: Figure, path: Path) -> None:
    """A PNG that is either wholly there or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.stem}.{os.getpid()}.png")
    with explained(path):
        try:
            figure.savefig(scratch, dpi=130)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
