"""How a run is begun or gone on with: its folder and what it names are looked at before its text is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdtw_jax.data.task import Task
from kdtw_jax.errors import UserError
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.prepare import Given, look_up
from kdtw_jax.runs import RunFolder, open_run
from kdtw_jax.runs.folder import REPEAT, check_run


@contextmanager
def begin(folder: Path, task: str, config: Experiment, own: Task | None = None) -> Iterator[tuple[RunFolder, Given]]:
    """The run's folder, opened, and what the configuration names; a folder is made last, once all else is there.

    Args:
      task: what the folder calls it.
      own: a task of the user's own, whose text is taken.

    Raises:
      UserError: as `open_run` does, before any text is read where the folder is there already, and as `look_up` does.
    """
    identity = {"task": task, **config.identity()}
    check_run(folder, identity)
    given = look_up(config, own)
    with open_run(folder, identity) as run:
        yield run, given


def check_text_is_named(folder: Path) -> None:
    """Checks that commands can find the text of a run that has begun to train students by its name.

    Raises:
      UserError: it lived in a program, as a task of the user's own does.
    """
    if not (folder / REPEAT).exists() and any((folder / "stages").glob("seed*/*.json")):
        raise UserError(
            f"the text of {folder} was given in Python (it has no {REPEAT}), where no command finds it; there, "
            f"kdtw_jax.evaluate(kdtw_jax.load({str(folder)!r}), task) judges its students"
        )
