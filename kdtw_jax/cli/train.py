"""Train a teacher and students, and compare them on a test split."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from kdtw_jax.cli.extensions import load_extensions
from kdtw_jax.errors import UserError

if TYPE_CHECKING:
    from kdtw_jax.pipeline.config import Experiment

HELP = """\
usage: kdtw train [--preset NAME] [--data DATA] [--methods METHOD ...] ...

Train a teacher, then students of several methods and seeds, and compare them on a test split. The same command
continues an interrupted run; more seeds and methods join what is there.

  kdtw train --task classroom --preset quickstart   word problems, about 8 minutes on 2 cores
  kdtw train --preset small --data debian/en-de   Debian's package descriptions, 3 seeds
  kdtw train --data files --text.files.train-source a.en --text.files.train-target a.de

  --task NAME        translation (default), summarization, classroom or ways: which presets there are
  --preset NAME      quickstart, tiny, small, wide, smollm, base, paper or ways: where all other options start
  --data DATA        cldr, debian/en-LANG, debian/summarize, classroom/NAME, ways, tfds:NAME, or files
  --methods ...      how students are trained, some of
                     mle      likelihood of the references
                     word_kd  and the teacher's distributions
                     seqkd    likelihood of the teacher's beam outputs
                     gkd      divergence of distributions, in part on the student's own outputs
                     minillm  policy gradient of the reverse KL
                     tb       trajectory balance
                     pcl      path consistency
                     ask      path consistency of a student that learns to ask its teacher
  --prompts FILE     further sources without targets (one a line, or JSON), or own: the teacher answers them
  --seeds ...        a student of each method for each of these numbers
  --family NAME      what kind of models are trained, by default t5; your own is registered first
  --teacher-model, --student-model   a folder or hf:NAME, instead of training one
  --teacher-cache FOLDER   labels of a teacher (kdtw label), instead of one that is there
  --out FOLDER       the run's folder, by default runs/TASK-DATA-PRESET
  --results FOLDER   also write the tables and their provenance there
  --constraint MODULE:FUNCTION   a rule of your own, for --ask.constraints; may be repeated
  --config FILE      options from a YAML file; every run writes its own, run.yaml
  --help SECTION     the rest: general, text, teacher, student, teacher-fit, warmup, training, hosts, METHOD, or all"""
_TITLE = re.compile(r"^ (?:(\S+) )?options *$")  # of a section, where help is written to no terminal


def run(arguments: list[str]) -> None:
    """Runs `kdtw train`.

    Raises:
      UserError: as `run_experiment` does, and as `read` does.
    """
    if help_wanted(arguments, HELP):
        return
    task, config = read(arguments)
    from kdtw_jax.pipeline.experiment import run_experiment

    run_experiment(task, config)


def help_wanted(arguments: list[str], screen: str) -> bool:
    """Prints the help that is asked for, if any: one screen, a section, or all."""
    for place, word in enumerate(arguments):
        if word in ("-h", "--help"):
            rest = arguments[place + 1 : place + 2]
            print(section(rest[0], arguments[:place]) if rest and not rest[0].startswith("-") else screen)
            return True
    return False


def read(arguments: list[str]) -> tuple[str, Experiment]:
    """The task and configuration that flags and a file state.

    Raises:
      UserError: an unknown task or preset, flags that contradict a file, and as `parse` and `configure` do.
    """
    task, words = taken("--task", arguments)
    file, words = taken("--config", words)
    constraints, words = all_taken("--constraint", words)
    from kdtw_jax.pipeline.config import parse, values_of
    from kdtw_jax.pipeline.config_file import configure, read_config
    from kdtw_jax.pipeline.presets import TASKS

    load_extensions(constraints)
    said = {} if file is None else read_config(Path(file))
    stated = said.pop("task", None)
    if task and stated not in (None, task):
        raise UserError(f"--task and the task {stated} of {file} contradict each other; keep one of them")
    task = task or stated or "translation"
    if not isinstance(task, str) or task not in TASKS:
        raise UserError(f"unknown task {task!r}; known are {', '.join(TASKS)}")
    presets = dict(TASKS[task])
    if file is not None:
        name = said.pop("preset", next(iter(presets)))
        if not isinstance(name, str) or name not in presets:
            raise UserError(f"{file}: unknown preset {name!r}; known are {', '.join(presets)}")
        if taken("--preset", words)[0] not in (None, name):
            raise UserError(f"--preset and the preset {name} of {file} contradict each other; keep one of them")
        family = values_of("--family", words)[:1]
        if family and said.setdefault("family", family[0]) != family[0]:
            raise UserError(
                f"--family and the family {said['family']} of {file} contradict each other; keep one of them"
            )
        presets = {name: configure(presets[name], said)}
    return task, parse(presets, "All options.", words)


def section(name: str, words: list[str]) -> str:
    """The help on the options of one section, or on "all".

    Args:
      words: flags before `--help`, which say of which preset and methods it is.

    Raises:
      UserError: there is no such section.
    """
    from kdtw_jax.methods import METHODS

    load_extensions()
    method = name.replace("-", "_")
    chosen = ["--methods", *METHODS] if name == "all" else ["--methods", method] if method in METHODS else []
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        read([*taken("--methods", words)[1], *chosen, "--help"])
    if name == "all":
        return said.getvalue()
    blocks: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in said.getvalue().splitlines():
        if found := _TITLE.match(line):
            lines = blocks.setdefault(found[1] or "general", [])
        lines.append(line.rstrip())
    own = [block for title, block in blocks.items() if title in (name, method) or title.startswith(f"{name}.")]
    if not own:
        sections = sorted({title.partition(".")[0] for title in blocks} | set(METHODS))
        raise UserError(f"there is no section {name!r} of options; there are {', '.join(sections)}, and all")
    return "\n".join(line for block in own for line in block).strip("\n")


def taken(flag: str, words: list[str]) -> tuple[str | None, list[str]]:
    """The value of a flag, if it is among the words, and the others.

    Raises:
      UserError: no value follows it.
    """
    for place, word in enumerate(words):
        if word == flag:
            if place + 1 == len(words):
                raise UserError(f"{flag} needs a value")
            return words[place + 1], words[:place] + words[place + 2 :]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2], words[:place] + words[place + 1 :]
    return None, words


def all_taken(flag: str, words: list[str]) -> tuple[list[str], list[str]]:
    """The values of a flag that may be repeated, and the other words."""
    found: list[str] = []
    while True:
        value, words = taken(flag, words)
        if value is None:
            return found, words
        found.append(value)
