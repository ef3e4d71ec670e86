"""The numbers of a run over its steps: JSON lines for programs, and trackers for eyes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import SupportsFloat

from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import explained, write_text
from kdtw_jax.runs.trackers import MetricsWriter, make_writers

FILE = "metrics.jsonl"


class Lines:
    """Appends to `folder/metrics.jsonl`.

    Lines past `resume_step`, and a line torn by a kill, are cut.

    Raises:
      UserError: the file is not ours.
    """

    def __init__(self, folder: Path, resume_step: int | None):
        self._path = folder / FILE
        kept = [] if resume_step is None else _lines_up_to(self._path, resume_step)
        write_text(self._path, "".join(kept))
        with explained(self._path):
            self._file = self._path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Each line is on disk at once; what JSON cannot say (NaN, infinities) becomes null."""
        said = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        with explained(self._path):
            self._file.write(json.dumps({"step": step} | said, allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        with explained(self._path):
            self._file.close()


class MetricsLog:
    """Writes to `folder/metrics.jsonl` and to the trackers of `logging_to`, by default to TensorBoard alone.

    `resume_step` is the step of the checkpoint that was restored (None for a run that starts afresh). Lines
    past it are cut, so that an interrupted and resumed run ends with the same lines as an uninterrupted one.
    For that, the caller must write the metrics of steps up to `s` before it saves the checkpoint of step `s`.

    Raises:
      UserError: the folder cannot be written, or its metrics.jsonl is not ours.
    """

    def __init__(self, folder: Path, resume_step: int | None = None):
        folder = Path(folder)
        with ExitStack() as opened:
            self._lines = Lines(folder, resume_step)
            opened.callback(self._lines.close)
            self._trackers: list[MetricsWriter] = []
            for tracker in make_writers(folder, resume_step):
                self._trackers.append(tracker)
                opened.callback(tracker.close)
            self._opened = opened.pop_all()

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Records `values` at `step`; trackers get those that are finite."""
        floats = {name: float(value) for name, value in values.items()}
        self._lines.write(step, floats)
        finite = {name: value for name, value in floats.items() if math.isfinite(value)}
        for tracker in self._trackers:
            tracker.write(step, finite)

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The whole lines of `folder/metrics.jsonl` in order; null reads as NaN. An absent file has no lines."""
    lines = _whole_lines(Path(folder) / FILE)
    return [{name: math.nan if value is None else value for name, value in json.loads(line).items()} for line in lines]


def _lines_up_to(path: Path, step: int) -> list[str]:
    return [line for line in _whole_lines(path) if json.loads(line)["step"] <= step]


def _whole_lines(path: Path) -> list[str]:
    try:
        with explained(path, "read"):
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        # Only the last line can be torn, and a torn line lacks its line feed.
        whole = [line.decode("utf-8") for line in lines if line.endswith(b"\n")]
        for line in whole:
            json.loads(line)["step"]
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} is damaged: it should hold one JSON object with a step a line") from e
    return whole
