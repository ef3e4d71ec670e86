"""What a teacher at an address writes ahead for a run: labels in its folder, made while the students warm up."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from kdtw_jax.data.batches import EncodedSplit
from kdtw_jax.pipeline.begin import students_to_come
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.elsewhere import Elsewhere
from kdtw_jax.pipeline.label import Wanted, claim, make_labels
from kdtw_jax.pipeline.prepare import Setup
from kdtw_jax.pipeline.teacher_cache import How, TeacherCache, wanted
from kdtw_jax.pipeline.writer import Sources
from kdtw_jax.runs import RunFolder
from kdtw_jax.training.readings import Kept, Readings

FOLDER = "teacher/labels"  # of a run


@dataclass(frozen=True)
class OwnLabels(TeacherCache):
    """Labels that are being made: who takes them waits until all are there."""

    address: str
    made: Future[None]

    def facts(self) -> dict[str, Any]:
        """What a record of a run says of them; they move with it."""
        return {"address": self.address, "teacher": self.teacher, "sets": [one.folder.name for one in self.sets]}

    def outputs(self, config: Experiment, sources: EncodedSplit, how: How, kept: Kept | None = None) -> EncodedSplit:
        """As of `TeacherCache`.

        Args:
          config: of the run.
          sources: pairs and prompts.
          how: the teacher wrote.
          kept: of its distributions.

        Raises:
          Unreachable: the teacher did not make them.
        """
        self.made.result()
        return super().outputs(config, sources, how, kept)

    def readings(self, config: Experiment, outputs: EncodedSplit, how: How, kept: Kept) -> Readings:
        """As of `TeacherCache`.

        Args:
          config: of the run.
          outputs: of the same `how` and `kept`.
          how: the teacher wrote.
          kept: of its distributions.

        Raises:
          Unreachable: the teacher did not make them.
        """
        self.made.result()
        return super().readings(config, outputs, how, kept)


def with_labels(config: Experiment, setup: Setup, run: RunFolder) -> Setup:
    """Has the teacher at an address begin to write what the students of a run are yet to learn from.

    It goes on beside what follows, in a thread that touches no device. Sets of a run are as those of `kdtw label`, and
    another start goes on with them.

    Args:
      config: of the run.
      setup: returned as it is where no such teacher is asked.
      run: whose folder keeps them.

    Raises:
      UserError: the folder has labels of another teacher.
    """
    remote = setup.remote
    learn_ahead = any(wanted(config, method) for method in students_to_come(run.path, config))
    if remote is None or setup.cache is not None or not learn_ahead:  # without them, prompts may not be there either
        return setup
    splits = [setup.train, *([] if setup.prompts is None else [setup.prompts])]
    sources = Sources(splits, setup.buckets, setup.tokenizer, setup.devices)
    wants, writer, folder = _wants(config), Elsewhere(remote, setup.buckets), run.path / FOLDER
    sets = tuple(claim(config, folder, want, sources, writer) for want in wants)

    def work() -> None:
        for want in wants:
            make_labels(config, folder, want, sources, writer)

    return setup._replace(cache=OwnLabels(folder, sets, remote.address, remote.start(work)))


def _wants(config: Experiment) -> list[Wanted]:
    """The sets that the methods take, done ones too: of the same outputs and temperature only that of the largest k."""
    found: dict[tuple[How, float], int] = {}
    for method in config.methods:
        for how, kept in wanted(config, method):
            key = how, kept.alpha if kept else 1.0
            found[key] = max(found.get(key, 0), kept.top_k if kept else 0)
    read = {how for (how, _), top_k in found.items() if top_k}  # outputs alone are had of a set that has more
    sets = ((how, Kept(top_k, alpha)) for (how, alpha), top_k in found.items() if top_k or how not in read)
    return [Wanted(how, kept) for how, kept in sets]
