"""What every training of a student is given, whatever its method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kdtw_jax import parallel
from kdtw_jax.data.batches import Bucket, EncodedSplit
from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.models import Model, Role
from kdtw_jax.ranges import check_ranges
from kdtw_jax.training.loop import LoopConfig
from kdtw_jax.training.readings import Answering, Reader, Readings
from kdtw_jax.training.state import OptimizerConfig, Params


class Chunks(NamedTuple):
    """How much of the distributions over the vocabulary a step holds at once; 0: all of it, faster with memory."""

    chunk: int = 0  # positions
    vocab_chunk: int = 0  # tokens of the vocabulary


WHOLE = Chunks()


@dataclass(frozen=True)
class StudentTraining:
    """For how long and by which optimiser, the same for all students, and in which parts a step is computed."""

    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    chunk: int | None = None
    """positions whose distributions over the vocabulary are held at once; 0: all, faster with memory; by default 16 of
    methods that hold those of two models side by side (gkd, minillm), and all elsewhere"""
    vocab_chunk: int = 0
    """tokens of the vocabulary of which they are held at once; 0: all, faster with memory"""

    def __post_init__(self) -> None:
        check_ranges(self, chunk="[0, inf)", vocab_chunk="[0, inf)")

    def chunks(self, usual: Chunks = WHOLE) -> Chunks:
        """Returns what a step holds at once, the `usual` number of positions where none is set."""
        return Chunks(usual.chunk if self.chunk is None else self.chunk, self.vocab_chunk)


@dataclass(frozen=True, kw_only=True)
class TrainContext:
    """A student's place in a run: everything that a training needs beside its start and its method's settings."""

    name: str
    """in messages and beside the progress bar"""
    folder: Path
    """keeps checkpoints and metrics; a training goes on from what is there"""
    student: Model
    teacher: tuple[Model, Params] | None = None
    """None where nothing is asked of one"""
    data: EncodedSplit
    buckets: Sequence[Bucket]
    devices: parallel.Devices
    training: StudentTraining
    seed: int
    banned: tuple[int, ...] = ()
    """ids that are never written"""
    learning: tuple[Role, ...] = ()
    """the roles whose parameters learn while all others rest; () for all of them"""
    tokenizer: Tokenizer | None = None
    """for methods that read more than the data"""
    prompts: EncodedSplit | None = None
    """what a teacher answers or the student rolls out on, pairs among it, where that is more than `data` (`Streams`)"""
    readings: Readings | None = None
    """what the teacher made of the targets of `prompts`, where it wrote and read them ahead"""
    reader: Reader | None = None
    """a teacher elsewhere, in place of one that is here, where rows are to be read while the student is trained"""
    answers: Answering | None = None
    """the same one, where a student asks it while it writes"""
    unseen: EncodedSplit | None = None
    """pairs that no model was trained on, where the method asks for them"""
    watch: Callable[[Params], Mapping[str, float]] | None = None
    """called at every checkpoint with the parameters, on their host; what it returns is logged"""
    stop_after: int | None = None
    """ends early (tests of resuming)"""

    def watching(self, params: Callable[[Any], Params]) -> Callable[[Any], Mapping[str, float]] | None:
        """Returns `watch` of what a loop carries, given where it has its `params`."""
        watch = self.watch
        return None if watch is None else lambda carry: watch(params(carry))

    def needed_teacher(self) -> tuple[Model, Params]:
        """Returns the teacher.

        Raises:
          UserError: there is none.
        """
        if self.teacher is None:
            raise UserError(f"{self.name} learns from a teacher; give TrainContext one: teacher=(model, params)")
        return self.teacher
