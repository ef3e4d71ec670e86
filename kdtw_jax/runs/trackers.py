"""Where the numbers of a training may go beside its JSON lines: TensorBoard, trackio, Weights & Biases, MLflow.

Their libraries are imported where a writer is made or asked for: some take seconds, and none has to be there.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import explained, write_text

Tracker = Literal["tensorboard", "trackio", "wandb", "mlflow"]
PROJECT = "kdtw_jax"


class MetricsWriter(Protocol):
    """Takes the numbers of a training, step by step."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class Training(NamedTuple):
    """What a writer is made for."""

    folder: Path
    name: str  # among all trainings of the project
    resume_step: int | None  # the step that is gone on from; None for a start


class Board:
    """A TensorBoard event file in `folder/tensorboard`; what earlier ones say of later steps is hidden."""

    def __init__(self, training: Training):
        from tensorboardX import SummaryWriter

        folder = training.folder / "tensorboard"
        purge = 0 if training.resume_step is None else training.resume_step + 1
        with explained(folder):
            self._board = SummaryWriter(str(folder), purge_step=purge)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._board.close()


class Trackio:
    """A run of trackio; one that goes on is found by its name."""

    def __init__(self, training: Training):
        self._library: Any = _library("trackio")
        resume = "never" if training.resume_step is None else "allow"
        self._library.init(project=PROJECT, name=training.name, resume=resume)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._library.log(dict(metrics), step=step)

    def close(self) -> None:
        self._library.finish()


class WandB:
    """A run of Weights & Biases.

    The id of one that goes on is kept in the training's folder. Its server leaves out steps that it has, which are the
    same.
    """

    def __init__(self, training: Training):
        name, known = training.name, _known(training, "wandb")
        folder = str(training.folder)
        self._run: Any = _library("wandb").init(project=PROJECT, name=name, id=known, resume="allow", dir=folder)
        _keep(training, "wandb", self._run.id)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of MLflow, on the server that its own variables name; the id is kept likewise."""

    def __init__(self, training: Training):
        self._library: Any = _library("mlflow")
        self._library.set_experiment(PROJECT)
        run = self._library.start_run(run_id=_known(training, "mlflow"), run_name=training.name)
        _keep(training, "mlflow", run.info.run_id)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._library.log_metrics(dict(metrics), step=step)

    def close(self) -> None:
        self._library.end_run()


_WRITERS: dict[str, Callable[[Training], MetricsWriter]] = {
    "tensorboard": Board,
    "trackio": Trackio,
    "wandb": WandB,
    "mlflow": MLflow,
}
_chosen: ContextVar[tuple[tuple[str, ...], Path | None]] = ContextVar("log_to", default=(("tensorboard",), None))


def check_trackers(log_to: Sequence[str]) -> None:
    """Checks the names of trackers.

    Raises:
      UserError: one is none, or comes twice, or its library is not installed.
    """
    for name in log_to:
        if name not in _WRITERS:
            raise UserError(f"log_to names {name!r}; known are {', '.join(_WRITERS)}")
        if log_to.count(name) > 1:
            raise UserError(f"log_to names {name} twice; once is enough")
        if name != "tensorboard":  # a requirement of this package
            _library(name)


@contextlib.contextmanager
def logging_to(log_to: Sequence[str], run: Path | None = None) -> Iterator[None]:
    """Within it, trainings write to `log_to`, under the names of their folders within that of the run.

    Raises:
      UserError: as `check_trackers` does.
    """
    check_trackers(log_to)
    before = _chosen.set((tuple(log_to), run))
    try:
        yield
    finally:
        _chosen.reset(before)


def make_writers(folder: Path, resume_step: int | None) -> Iterator[MetricsWriter]:
    """Yields the writers that were chosen, one after the other, for the training in a folder.

    Args:
      resume_step: of a training that goes on, None of a new one.
    """
    log_to, run = _chosen.get()
    within = run is not None and folder.is_relative_to(run)
    name = folder.relative_to(run.parent).as_posix() if run is not None and within else folder.name
    for chosen in log_to:
        yield _WRITERS[chosen](Training(folder, name, resume_step))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"--log-to {name} needs the library {name}: pip install {name}") from None


def _keep(training: Training, tracker: str, given: str) -> None:
    write_text(training.folder / f".id-of-{tracker}", given)


def _known(training: Training, tracker: str) -> str | None:
    """The id that a tracker gave to a training that goes on."""
    file = training.folder / f".id-of-{tracker}"
    if training.resume_step is None or not file.exists():
        return None
    with explained(file, "read"):
        return file.read_text(encoding="utf-8").strip() or None
