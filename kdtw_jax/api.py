"""Training from Python: a task in, a student that can be called out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from kdtw_jax.data.prompts import OWN, REST
from kdtw_jax.data.task import Task
from kdtw_jax.errors import UserError
from kdtw_jax.methods import find
from kdtw_jax.pipeline.begin import begin
from kdtw_jax.pipeline.config_file import configure, write_config
from kdtw_jax.pipeline.experiment import default_folder
from kdtw_jax.pipeline.labelled import with_labels
from kdtw_jax.pipeline.prepare import prepare
from kdtw_jax.pipeline.presets import TRANSLATION
from kdtw_jax.pipeline.stages import train_students, train_teacher
from kdtw_jax.runs import keep_compiled
from kdtw_jax.runs.folder import REPEAT
from kdtw_jax.student import Student, load


def train(
    task: Task | str,
    method: str = "ask",
    *,
    teacher: str | Path | None = None,
    student: str | Path | None = None,
    preset: str = "quickstart",
    seed: int = 0,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Student:
    """Trains one student, and its teacher where none is named; the same call goes on with an interrupted run.

    Args:
      task: of `Task.from_pairs`, or the name of a data set, as in "cldr" or "debian/en-de".
      method: one of `METHODS`.
      teacher: a model instead of a trained one: a folder (of a run's model, or in the Hugging Face layout) or hf:NAME.
      student: likewise what the student starts from, instead of a warm-up.
      preset: starting values of all other options: sizes, lengths of texts, steps.
      seed: of initialisation, batches and samples.
      out: the run's folder; by default runs/translation-TASK-PRESET.
      settings: other options by section, as in a YAML file: `{"training": {"loop": {"steps": 500}}}`.

    Returns:
      The student, ready to be called.

    Raises:
      UserError: an unknown method, preset or option, text or models that do not fit, a loss that is not finite, or a
        folder that cannot be written or holds another run.
    """
    find(method)
    if preset not in TRANSLATION:
        raise UserError(f"preset must be one of {', '.join(TRANSLATION)}, got {preset!r}")
    own, name = (task, task.name) if isinstance(task, Task) else (None, task)
    config = configure(TRANSLATION[preset], {**(settings or {}), "data": name, "methods": [method], "seeds": [seed]})
    named: dict[str, Any] = {"teacher_model": teacher and str(teacher), "student_model": student and str(student)}
    config = dataclasses.replace(config, out=None if out is None else Path(out), **named)
    if own is not None and len(own.prompts) and config.prompts != REST:
        config = dataclasses.replace(config, prompts=OWN)
    keep_compiled()
    folder, asked = config.out or default_folder("translation", config), config.learns_from_beams(method)
    with begin(folder, "translation", config, own) as (run, given):
        setup = with_labels(config, prepare(config, run, Console(stderr=True), given), run)
        if own is None:  # a task of the user's own is no file's to repeat
            write_config(run.path / REPEAT, "translation", config, TRANSLATION[preset])
        trained = (
            train_teacher(config, setup, run)
            if config.has_teacher and (asked or find(method).uses_teacher or config.student_from_teacher)
            else None
        )
        train_students(config, setup, trained, seed, run)
    return load(folder, method, seed)
