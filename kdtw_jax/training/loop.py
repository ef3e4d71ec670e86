"""The loop around every training: progress, metrics, checkpoints, resume, and what happens at a NaN."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from kdtw_jax.errors import UserError
from kdtw_jax.flags import flags
from kdtw_jax.losses.metric import Weighted
from kdtw_jax.parallel.hosts import is_writer
from kdtw_jax.ranges import check_ranges
from kdtw_jax.runs.metrics_log import MetricsLog, read_metrics
from kdtw_jax.runs.progress import Progress
from kdtw_jax.training.checkpoint import Checkpoints

Carry = Any


class Diverged(UserError):
    """A loss or gradient that is not finite, at a step on these `examples`; `said` is the message without a cure."""

    def __init__(self, said: str, examples: tuple[int, ...]):
        super().__init__(f"{said}; a lower learning rate is the usual cure")
        self.said, self.examples = said, examples


class Report(NamedTuple):
    """One step as seen by the host. Metrics stay on the device until the next step has been dispatched."""

    metrics: dict[str, Weighted]  # with a leading device axis, already summed over devices; "tokens" is their number
    examples: np.ndarray | jax.Array  # int32 [rows]: ids of the examples in the batch, for the message at a NaN


class Advance(Protocol):
    """One training step. What it needs between steps lives in the carry (arrays) or in its iterator (JSON)."""

    def __call__(self, carry: Carry, step: int) -> tuple[Carry, Report]: ...


class CheckpointableIterator(Protocol):
    """The part of a grain iterator that the loop needs: its place in the data, as JSON."""

    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


@dataclass(frozen=True)
class LoopConfig:
    """When to log and to save, in steps.

    Raises:
      UserError: numbers out of their range, or a checkpoint within a logging interval.
    """

    steps: int = 1000
    log_every: int = field(default=50, metadata=flags())
    checkpoint_every: int = 400

    def __post_init__(self) -> None:
        check_ranges(self, "loop.", steps="[1, inf)", log_every="[1, inf)", checkpoint_every="[1, inf)")
        if self.checkpoint_every % self.log_every:
            # Otherwise a resumed run would average over other intervals than the uninterrupted one.
            raise UserError(
                f"loop.checkpoint_every ({self.checkpoint_every}) must be a multiple of loop.log_every "
                f"({self.log_every})"
            )


class _Averages:
    """Means over a logging interval: totals and weights are added, never means of means."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, float]] = {}
        self.tokens = 0

    def add(self, metrics: Mapping[str, tuple[float, float]]) -> None:
        for name, (total, weight) in metrics.items():
            if name == "tokens":
                self.tokens += int(total)
                continue
            old = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (old[0] + total, old[1] + weight)

    def means(self) -> dict[str, float]:
        return {name: total / weight if weight else 0.0 for name, (total, weight) in self.sums.items()}


def _fetch(report: Report) -> dict[str, tuple[float, float]]:
    host = jax.device_get(
        {
            k: (v.total.addressable_shards[0].data, v.weight.addressable_shards[0].data)
            for k, v in report.metrics.items()
        }
    )
    return {k: (float(np.ravel(t)[0]), float(np.ravel(w)[0])) for k, (t, w) in host.items()}


def run_loop(
    name: str,
    folder: Path,
    config: LoopConfig,
    carry: Carry,
    advance: Advance,
    iterator: CheckpointableIterator,
    *,
    freeze: Callable[[Carry], Any],
    thaw: Callable[[Any], Carry],
    watch: Callable[[Carry], Mapping[str, float]] | None = None,
    stop_after: int | None = None,
) -> Carry:
    """Runs `advance` to `config.steps`, continuing from the newest checkpoint in `folder` if there is one.

    A continued run takes the same steps on the same data as an uninterrupted one, bit for bit; for that, logging
    intervals start anew at a checkpoint. Of several processes all read checkpoints, and the first one writes.

    Args:
      name: in messages and beside the progress bar.
      folder: keeps checkpoints and metrics.
      config: when to log and to save.
      carry: what goes from step to step, at step 0.
      advance: takes one step.
      iterator: whose state is saved with the carry.
      freeze: turns the carry into plain arrays for a checkpoint.
      thaw: puts them back on their devices.
      watch: called at the start and at every checkpoint; what it returns is logged, with the seconds trained so far.
      stop_after: ends early (tests of resuming).

    Raises:
      Diverged: a UserError, at the first step whose loss or gradient is not finite; it names the step, the batch's
        examples and the last good checkpoint.
      UserError: a checkpoint does not fit or cannot be written.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    restored = checkpoints.restore(freeze(carry))
    start = 0
    if restored is not None:
        start, carry = restored.step, thaw(restored.carry)
        iterator.set_state(restored.iterator)
    log = MetricsLog(folder, resume_step=start) if is_writer() else None
    if watch is not None and log is not None:
        before = max((line.get("seconds", 0.0) for line in read_metrics(folder)), default=0.0)
    watched, began = 0.0, time.monotonic()  # seconds, those of watching and when this process began
    averages = _Averages()
    pending: tuple[int, Report] | None = None
    last_saved = start
    clock = time.monotonic()

    def settle(progress: Progress) -> None:
        """Fetches the metrics of the step before last and looks at them, while the device works on the newest."""
        nonlocal pending, averages, clock
        if pending is None:
            return
        step, report = pending
        pending = None
        values = _fetch(report)
        bad = [k for k in ("loss", "grad_norm") if not np.isfinite(values[k][0])]
        if bad:
            good = f"the last good checkpoint is that of step {last_saved} in {checkpoints.folder}"
            none = "there is no checkpoint yet"
            examples = tuple(int(i) for i in np.asarray(report.examples).ravel()[:16] if i >= 0)
            raise Diverged(
                f"{name}: {' and '.join(bad)} not finite at step {step} (examples {', '.join(map(str, examples))}); "
                f"{good if last_saved else none}",
                examples,
            )
        averages.add(values)
        if step % config.log_every == 0 or step == config.steps:
            means = averages.means()
            seconds = max(time.monotonic() - clock, 1e-9)
            rate = averages.tokens / seconds
            if log is not None:
                log.write(step, {**means, "tokens_per_s": rate})
            averages, clock = _Averages(), time.monotonic()
            progress.update(step, loss=means["loss"], tokens_per_s=rate)
        else:
            progress.update(step)

    def look(step: int) -> None:
        """Watches, outside of the time that is counted."""
        nonlocal watched, clock
        if watch is None or log is None:
            return
        now = time.monotonic()
        log.write(step, {**watch(carry), "seconds": round(before + now - began - watched, 3)})
        spent = time.monotonic() - now
        watched, clock = watched + spent, clock + spent

    end = config.steps if stop_after is None else min(config.steps, stop_after)
    try:
        with Progress(name, total=config.steps, start=start) as progress:
            if start == 0:
                look(0)
            for step in range(start, end):
                carry, report = advance(carry, step)
                settle(progress)
                pending = (step + 1, report)
                if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                    settle(progress)  # a checkpoint is only written of a state known to be finite
                    look(step + 1)
                    checkpoints.save(step + 1, freeze(carry), iterator.get_state())
                    last_saved = step + 1
            settle(progress)
    finally:
        if log is not None:
            log.close()
        checkpoints.close()
    return carry
