"""Have a teacher write and read ahead what students learn from, into a folder that goes to other machines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kdtw_jax.cli.train import all_taken, help_wanted, read, taken
from kdtw_jax.errors import UserError

if TYPE_CHECKING:
    from kdtw_jax.pipeline.config import Experiment
    from kdtw_jax.pipeline.teacher_cache import How
    from kdtw_jax.training.beforehand import Share
    from kdtw_jax.training.readings import Kept

HELP = """\
usage: kdtw label --teacher MODEL --out FOLDER [--shard I/N] [options of kdtw train]

Have a teacher write outputs for the training sources of a data set (and for prompts), and keep its likeliest tokens at
each of their places. Students then learn from the folder, wherever it is carried, and need no teacher:
kdtw train ... --teacher-cache FOLDER. The same command goes on with an interrupted one.

  kdtw label --preset small --teacher runs/mine --top-k 64 --out labels
  kdtw label --preset small --teacher runs/mine --shard $SLURM_ARRAY_TASK_ID/16 --out labels
  kdtw train --preset small --methods seqkd word_kd --teacher-cache labels

  --teacher MODEL        a run, whose teacher it is, a model's folder, hf:NAME, or the address of one that is served
                         (then with --text.tokenizer, its vocabulary)
  --out FOLDER           for labels of this teacher; sets with other settings below go beside each other
  --demonstrations HOW   greedy (default), or beam, with --beam-size of kdtw train
  --top-k K              likeliest tokens kept of each place, the rest of the mass being implied; 0: none, outputs
                         alone, which seqkd needs (default: 64)
  --temperature T        these are of the teacher's distribution at this temperature, as alpha of a method has it
                         (default: 1)
  --shard I/N            make the I-th of N shards, 1/N to N/N, in any order and at once (default: 1/1)
  --texts FILE           prompts of your own instead of --data, one a line, or JSON; may be repeated

kdtw train --help has the other options: give those that decide about texts (--data, --prompts, --text...) as the
training will."""
_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})")


def run(arguments: list[str]) -> None:
    """Runs `kdtw label`.

    Raises:
      UserError: options that cannot be, and as `label` and `kdtw train` do for theirs.
    """
    if help_wanted(arguments, HELP):
        return
    asked = read_label(arguments)
    from kdtw_jax.data.pair import Pair
    from kdtw_jax.data.prompts import read_prompts
    from kdtw_jax.data.record import Task
    from kdtw_jax.pipeline.label import Wanted, label

    own, files = None, asked.config.text.files
    if asked.texts:
        lines = [line for name in asked.texts for line in read_prompts(Path(name), files.source_key)]
        pairs = [Pair(source=line, target="", group="") for line in dict.fromkeys(lines)]
        own = Task("texts", {"train": pairs}, ("chrf",), files.instruction, {})
    label(asked.config, asked.folder, Wanted(asked.how, asked.kept, asked.share), own)


class Asked(NamedTuple):
    """What the arguments of `kdtw label` say."""

    config: Experiment
    folder: Path
    how: How
    kept: Kept
    share: Share
    texts: list[str]


def read_label(arguments: list[str]) -> Asked:
    """Reads the arguments.

    Raises:
      UserError: options that cannot be, and as `kdtw train` does for its own.
    """
    how, words = taken("--demonstrations", arguments)
    top_k, words = taken("--top-k", words)
    temperature, words = taken("--temperature", words)
    shard, words = taken("--shard", words)
    teacher, words = taken("--teacher", words)
    texts, words = all_taken("--texts", words)
    _, config = read([*words, *(["--teacher-model", teacher_of(teacher)] if teacher is not None else [])])
    if config.out is None:
        raise UserError("say where the labels go: --out FOLDER")
    if texts and config.prompts != "none":
        raise UserError("--texts are all that is labelled: leave --prompts out, or name that file as --texts, too")
    if how not in (None, "greedy", "beam"):
        raise UserError(f"--demonstrations must be greedy or beam, got {how!r}")
    from kdtw_jax.training.readings import Kept

    kept = Kept(_whole(top_k or "64"), _positive(temperature or "1"))
    return Asked(config, config.out, "beam" if how == "beam" else "greedy", kept, share_of(shard or "1/1"), texts)


def teacher_of(name: str) -> str:
    """The model that is meant by the `name` of a run: its teacher."""
    own = Path(name) / "teacher" / "model"
    return str(own) if (own / "config.json").is_file() else name


def share_of(said: str) -> Share:
    """Reads "3/16".

    Raises:
      UserError: it is no such pair of numbers, or there is no such shard.
    """
    from kdtw_jax.training.beforehand import Share

    found = _SHARD.fullmatch(said)
    number, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise UserError(f"--shard must be I/N with I from 1 to N, as in 3/16, got {said!r}")
    return Share(number, of)


def _whole(said: str) -> int:
    if not said.isdecimal():
        raise UserError(f"--top-k must be a whole number, at least 0, got {said!r}")
    return int(said)


def _positive(said: str) -> float:
    try:
        found = float(said)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise UserError(f"--temperature must be a number above 0, got {said!r}")
    return found
