"""A teacher elsewhere in a run: opened, asked what it is, refused where it cannot give what students learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit
from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.methods import find
from kdtw_jax.methods.seqkd import BeamTargets
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.teacher_cache import How, reads_rows_elsewhere, wanted
from kdtw_jax.teachers.ahead import Means, asked_for, read_batch, read_elsewhere, write_elsewhere
from kdtw_jax.teachers.answering import AnsweringTeacher
from kdtw_jax.teachers.named import check_extra, open_teacher
from kdtw_jax.teachers.patient import PatientTeacher, waited
from kdtw_jax.teachers.protocol import Teacher
from kdtw_jax.training.beforehand import Share
from kdtw_jax.training.readings import Kept, Readings
from kdtw_jax.training.scoring import Trajectories

_TIMEOUT_S = 120.0  # of a request, which is of a batch
_SEVERAL = "http://", "https://"  # of which threads may ask at once; engines have threads of their own


class Remote:
    """A teacher at an address, as a run has it: patient, and with a thread for what it does beside the training.

    Attributes:
      address: where it is.
      means: by what it is asked.
      rows: of its vocabulary.
      banned: ids that it never writes, of its own numbers of rows.
      answers: it, asked for tokens while a student writes; the `Answering` of a training.
    """

    def __init__(self, address: str, teacher: Teacher, tokenizer: Tokenizer, under_way: int):
        """Of an open `teacher`.

        Args:
          address: where it is.
          teacher: closed by `close`.
          tokenizer: of the run.
          under_way: batches that are asked about at once.
        """
        self.address, self.tokenizer = address, tokenizer
        self.means = Means(teacher, under_way)
        self.rows = rows = teacher.about.vocab_size  # beyond the tokens padding, which models may have more or less of
        self.banned = (*(i for i in tokenizer.banned_ids if i < rows), *range(tokenizer.vocab_size, rows))
        self.answers = AnsweringTeacher(teacher, self.banned)
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="labels")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="rows")

    @property
    def facts(self) -> dict[str, Any]:
        """Its name and a hash of it, as labels state them; of an engine that does not say what it computes, its name
        and vocabulary stand for that."""
        about = self.means.teacher.about
        named = hashlib.blake2b(f"{about.name} {about.vocabulary}".encode(), digest_size=8).hexdigest()
        return {"name": about.name, "hash": about.model or named, "parameters": None}

    def start(self, work: Callable[[], None]) -> Future[None]:
        """Has `work` done beside what goes on here."""
        return self._beside.submit(work)

    def read(self, rows: Batch, kept: Kept) -> Callable[[], Trajectories]:
        """Has it read rows while a student is trained; it is the `Reader` of a training.

        One batch after the other is read, so that the teacher has the same requests in the same order each time.

        Args:
          rows: whose targets are read.
          kept: of its distributions.
        """
        return self._reading.submit(read_batch, self.means.teacher, rows, kept, self.banned).result

    def close(self) -> None:
        """Ends what is done beside, after the requests that are under way."""
        self.means.teacher.close()
        for pool in (self._beside, self._reading):
            pool.shutdown(cancel_futures=True)


@contextmanager
def elsewhere(config: Experiment, tokenizer: Tokenizer) -> Iterator[Remote]:
    """Opens the teacher of a run at its address, waiting for it if need be.

    Args:
      config: names it, and says how long it is waited for.
      tokenizer: of the run.

    Raises:
      UserError: it has another vocabulary, a package is missing, or there are several hosts.
      Unreachable: it does not answer.
    """
    address = str(config.teacher_model)
    check_extra()
    from kdtw_jax.teachers.resilience import Patience

    if config.hosts.count > 1:
        raise UserError("several hosts do not share a teacher at an address; have one run kdtw label, and take labels")
    patience = Patience(_TIMEOUT_S)
    found = waited(lambda: open_teacher(address, tokenizer=tokenizer, patience=patience), config.teacher_wait)
    teacher = PatientTeacher(found, config.teacher_wait)
    remote = Remote(address, teacher, tokenizer, config.teacher_requests if address.startswith(_SEVERAL) else 1)
    try:
        yield remote
    finally:
        remote.close()


def check_elsewhere(config: Experiment, remote: Remote, methods: Iterable[str]) -> None:
    """Checks that a teacher can give by the protocol what methods want of it, ahead and while a student is trained.

    Args:
      config: of the run.
      remote: the teacher.
      methods: of students that are yet to learn.

    Raises:
      UserError: it cannot; in one line that names what, and what would do.
    """
    chosen = list(methods)
    if config.teacher_cache is None:
        check_ahead(config, remote, [one for method in chosen for one in wanted(config, method)])
    for method in filter(lambda name: reads_rows_elsewhere(config, name), chosen):
        kept = find(method).rows_kept(config.of(method))
        if kept is not None and kept.top_k:
            asked_for(remote.means.teacher.about, kept, remote.banned)


def check_ahead(config: Experiment, remote: Remote, wants: Iterable[tuple[How, Kept | None]]) -> None:
    """Checks that a teacher can write and read ahead what is wanted of it.

    Args:
      config: of the run.
      remote: the teacher.
      wants: how it is to write, and what is kept of its distributions.

    Raises:
      UserError: it cannot; in one line that names what, and what would do.
    """
    for how, kept in wants:
        if how == "beam" and config.beam_size > 1:
            raise UserError(
                f"the teacher at {remote.address} writes greedily, and beam outputs of size {config.beam_size} are "
                "wanted: set demonstrations: greedy of the method, or --beam-size 1, or run kdtw label where it is"
            )
        if kept is not None and kept.top_k:
            asked_for(remote.means.teacher.about, kept, remote.banned)


class Elsewhere:
    """The `Writer` whose weights are at an address."""

    def __init__(self, remote: Remote, buckets: Sequence[Bucket]):
        """Of a teacher, and the `buckets` of the run."""
        self._remote, self._buckets = remote, buckets

    @property
    def facts(self) -> dict[str, Any]:
        """As `Remote.facts`."""
        return self._remote.facts

    def write(self, name: str, folder: Path, split: EncodedSplit, how: How, share: Share) -> BeamTargets:
        """Has it write outputs, greedily, of a share of a split; arguments as for `Writer`.

        Args:
          name: beside the progress bar.
          folder: keeps what is written.
          split: the sources.
          how: "beam" of one beam is greedy, too.
          share: of the split.
        """
        more: dict[str, Any] = {"banned": self._remote.banned, "share": share}
        return write_elsewhere(name, folder, self._remote.means, split, self._buckets, **more)

    def read(self, name: str, folder: Path, outputs: list[EncodedSplit], kept: Kept, share: Share) -> Readings:
        """Has it read them; arguments as for `Writer`.

        Args:
          name: beside the progress bar.
          folder: keeps what is read.
          outputs: what it wrote.
          kept: of its distributions.
          share: of the splits.
        """
        more: dict[str, Any] = {"banned": self._remote.banned, "share": share}
        return read_elsewhere(name, folder, self._remote.means, outputs, self._buckets, kept, **more)
