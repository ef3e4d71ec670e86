"""How a run is begun or gone on with: its folder and what it names are looked at before its text is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kdtw_jax.data.task import Task
from kdtw_jax.errors import UserError
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.elsewhere import check_elsewhere, elsewhere
from kdtw_jax.pipeline.prepare import Given, look_up
from kdtw_jax.runs import RunFolder, open_run
from kdtw_jax.runs.atomic import parse_json
from kdtw_jax.runs.folder import CONFIG, REPEAT, check_run


@contextmanager
def begin(folder: Path, task: str, config: Experiment, own: Task | None = None) -> Iterator[tuple[RunFolder, Given]]:
    """The run's folder, opened, and what the configuration names; a folder is made last, once all else is there.

    Args:
      task: what the folder calls it.
      own: a task of the user's own, whose text is taken.

    Raises:
      UserError: as `open_run` does, before any text is read where the folder is there already, and as `look_up` and
        `check_elsewhere` do.
      Unreachable: the teacher is at an address, students are yet to learn from it, and it does not answer.
    """
    identity = {"task": task, **config.identity()}
    try:
        check_run(folder, identity)
    except UserError:
        _explain_seed(folder, identity)
        raise
    given = look_up(config, own)
    with ExitStack() as stack:
        if config.teacher_elsewhere and (learning := students_to_come(folder, config)):
            assert given.tokenizer is not None
            remote = stack.enter_context(elsewhere(config, given.tokenizer))
            check_elsewhere(config, remote, learning)
            if given.cache is not None:
                given.cache.check_teacher(remote.address, remote.facts["hash"])
            given = given._replace(remote=remote)
        yield stack.enter_context(open_run(folder, identity)), given


def students_to_come(folder: Path, config: Experiment) -> list[str]:
    """The methods of which a run in a `folder` has not all students yet."""
    stages = folder / "stages"
    return [
        m for m in config.methods if not all((stages / f"seed{seed}" / f"{m}.json").exists() for seed in config.seeds)
    ]


def _explain_seed(folder: Path, identity: dict[str, Any]) -> None:
    """Says what to do where a run is another one by the seed of its teacher alone."""
    try:
        old = parse_json(folder / CONFIG)
    except (OSError, ValueError):
        return
    began, now = old.get("teacher_seed"), identity["teacher_seed"]
    if began != now and old | {"teacher_seed": now} == json.loads(json.dumps(identity)):
        raise UserError(
            f"the teacher in {folder} was trained with the seed {began}, which stands first: "
            f"say --seeds {began} {now} to add students of the seed {now}, or choose another --out"
        ) from None


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
