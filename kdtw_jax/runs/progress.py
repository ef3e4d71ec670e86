"""How a long loop is going: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import math
import sys
import threading
import time
from types import TracebackType
from typing import SupportsFloat

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from kdtw_jax.parallel.hosts import is_writer

BAR_SECONDS = 0.25
LINE_SECONDS = 10.0


class Progress:
    """Shows step, loss, tokens/s and time left on standard error: a bar on a terminal, beside which threads have lines.

        with Progress("teacher", total=steps, start=step) as bar:
            bar.update(step, loss=loss, tokens_per_s=speed)

    `step` is the number of steps done so far; `start` is where a resumed run begins, so that the time left is
    judged by this process's own speed. Values are only converted to floats when they are shown (4 times a
    second on a terminal, once in 10 s elsewhere): an unfinished device array is not waited for in between.
    """

    def __init__(self, label: str, *, total: int, start: int = 0):
        self._label = label
        self._total = total
        self._start = start
        self._step = start
        self._shown_step: int | None = None
        self._values: dict[str, SupportsFloat] = {}
        self._bar: RichProgress | None = None
        self._seconds = LINE_SECONDS if is_writer() else math.inf  # one process speaks for all
        if sys.stderr.isatty() and is_writer() and threading.current_thread() is threading.main_thread():
            self._seconds = BAR_SECONDS
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=Console(stderr=True),
                auto_refresh=False,
            )
            self._task = self._bar.add_task(label, total=total, completed=start, numbers="")

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        self._last = self._began - (self._seconds if is_writer() else 0.0)  # the first update is shown at once
        if self._bar is not None:
            self._bar.start()
        return self

    def update(self, step: int, **values: SupportsFloat) -> None:
        """Says that `step` steps are done; `values` (loss=, tokens_per_s=, ...) replace older ones."""
        self._step = step
        self._values.update(values)
        now = time.monotonic()
        if now - self._last >= self._seconds:
            self._last = now
            self._show(now)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # After an exception the device values may be unusable; the last shown state then stands.
            if kind is None and self._step != self._shown_step and is_writer():
                self._show(time.monotonic())
        finally:
            if self._bar is not None:
                self._bar.stop()

    def _show(self, now: float) -> None:
        self._shown_step = self._step
        numbers = "  ".join(_format(name, float(value)) for name, value in self._values.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=self._step, numbers=numbers, refresh=True)
            return
        done = self._step - self._start
        left = (now - self._began) / done * (self._total - self._step) if done > 0 else math.nan
        line = f"{self._label} {self._step}/{self._total}  {numbers}  {format_seconds(left)} left"
        print(line, file=sys.stderr, flush=True)


def format_seconds(seconds: float) -> str:
    """Writes `seconds` as `1:02:03` or `02:03`; `-:--` for an unknown time."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"


def _format(name: str, value: float) -> str:
    if name.endswith("_per_s"):
        return f"{value:,.0f} {name.removesuffix('_per_s').replace('_', ' ')}/s"
    return f"{name} {value:.4g}"
