"""Say what a run would take (parameters, memory, FLOPs, hours); nothing is loaded or trained."""

from __future__ import annotations

from kdtw_jax.cli.train import help_wanted, read, taken
from kdtw_jax.errors import UserError

HELP = """\
usage: kdtw plan [--tflops TFLOPS] [--utilization SHARE] [options of kdtw train]

Say what the run that kdtw train would make of the same options takes: parameters, memory per device, FLOPs, hours.
Nothing is loaded or trained.

  kdtw plan --preset paper --devices 8 --tflops 989

  --tflops TFLOPS        peak of one accelerator, in TFLOP/s (default: 312)
  --utilization SHARE    share of that peak to expect (default: 0.3)

kdtw train --help has the other options."""


def run(arguments: list[str]) -> None:
    """Runs `kdtw plan`.

    Raises:
      UserError: a speed that is none, and as `kdtw train` does for its options.
    """
    if help_wanted(arguments, HELP):
        return
    tflops, words = taken("--tflops", arguments)
    utilization, words = taken("--utilization", words)
    try:
        speed, share = float(tflops or 312.0), float(utilization or 0.3)
    except ValueError:
        raise UserError(f"--tflops and --utilization must be numbers, got {tflops} and {utilization}") from None
    _, config = read(words)
    from kdtw_jax.pipeline.plan import show_plan

    show_plan(config, speed, share)
