"""Train a student for each of several prices of a call, beside a gate on a student that was distilled without help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdtw_jax.cli.train import help_wanted, read
from kdtw_jax.errors import UserError

if TYPE_CHECKING:
    from kdtw_jax.pipeline.config import Experiment

HELP = """\
usage: kdtw prices [--prices NATS ...] [options of kdtw train]

What do students plan as help gets dear? For each price of a call, in nats of the teacher's log-probability, a student
learns what to write and where to ask together. Beside them, the same gate learns on a student that was distilled
without help. The same command continues an interrupted sweep; further prices join what is there.

  kdtw prices --task ways --teacher-model ways:hasty                    seven prices, three seeds
  kdtw prices --task ways --preset tiny --teacher-model ways:hasty --prices 1 3   some minutes, to see that it runs

  --prices ...       what a call costs, by default 0.5 1 1.5 2 2.5 3 4
  --out FOLDER       holds a run for each price, one without help and one of the gate alone, and their table:
                     asking.csv, prices.png and asking-provenance.json
  --results FOLDER   also write these there
  all other options are those of kdtw train, whose --methods are pcl and ask here"""


def run(arguments: list[str]) -> None:
    """Runs `kdtw prices`.

    Raises:
      UserError: as `read_sweep` and `run_sweep` do.
    """
    if help_wanted(arguments, HELP):
        return
    task, config, prices = read_sweep(arguments)
    from kdtw_jax.pipeline.price_sweep import run_sweep

    run_sweep(task, config, prices)


def read_sweep(arguments: list[str]) -> tuple[str, Experiment, tuple[float, ...]]:
    """The task, the configuration and the prices that flags state.

    Raises:
      UserError: prices that are no numbers, methods or rules of one's own, and as `read` does.
    """
    from kdtw_jax.pipeline.config import values_of
    from kdtw_jax.pipeline.price_sweep import PRICES

    if values_of("--methods", arguments):
        raise UserError("kdtw prices trains pcl and ask; leave --methods out")
    if values_of("--ask.constraints", arguments):
        raise UserError("the rules of kdtw prices are the prices; leave --ask.constraints out")
    said, words = values_of("--prices", arguments), list(arguments)
    try:
        prices = tuple(map(float, said)) or PRICES
    except ValueError:
        raise UserError(f"--prices takes numbers, in nats, got {' '.join(said)!r:.80}") from None
    for place in reversed([i for i, word in enumerate(words) if word.partition("=")[0] == "--prices"]):
        del words[place : place + 1 + (len(said) if words[place] == "--prices" else 0)]
    return *read([*words, "--methods", "pcl", "ask"]), prices
