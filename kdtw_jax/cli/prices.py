"""Train a student for each of several prices of a call, beside a gate on a student that was distilled without help."""

from __future__ import annotations

from kdtw_jax.cli.train import help_wanted, read
from kdtw_jax.errors import UserError

HELP = """\
usage: kdtw prices [--prices NATS ...] [options of kdtw train]

What do students plan as help gets dear? For each price of a call, in nats of the teacher's log-probability, a student
learns what to write and where to ask together. Beside them, the same gate learns on a student that was distilled
without help. The same command continues an interrupted sweep; further prices join what is there.

  kdtw prices --task ways --teacher-model ways:hasty                    seven prices, three seeds
  kdtw prices --task ways --preset tiny --teacher-model ways:hasty --prices 1 3   some minutes, to see that it runs

  --prices ...       what a call costs, by default 0.5 1 1.5 2 2.5 3 4
  --out FOLDER       holds a run for each price, one without help and one of the gate alone, and their table:
                     asking.csv, prices.png and prices.json
  --results FOLDER   also write these there
  all other options are those of kdtw train, whose --methods are pcl and ask here"""


def run(arguments: list[str]) -> None:
    """Runs `kdtw prices`.

    Raises:
      UserError: no prices, methods of one's own, and as `read` and `run_sweep` do.
    """
    if help_wanted(arguments, HELP):
        return
    from kdtw_jax.pipeline.config import values_of
    from kdtw_jax.pipeline.price_sweep import PRICES, run_sweep

    if values_of("--methods", arguments):
        raise UserError("kdtw prices trains pcl and ask; leave --methods out")
    said = values_of("--prices", arguments)
    try:
        prices = tuple(map(float, said)) or PRICES
    except ValueError:
        raise UserError(f"--prices takes numbers, in nats, got {' '.join(said)!r:.80}") from None
    words, names = list(arguments), [w for w in arguments if w == "--prices" or w.startswith("--prices=")]
    if names:
        place = words.index(names[-1])
        del words[place : place + 1 + (len(said) if names[-1] == "--prices" else 0)]
    task, config = read([*words, "--methods", "pcl", "ask"])
    run_sweep(task, config, prices)
