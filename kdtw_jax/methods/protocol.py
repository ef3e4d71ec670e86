"""What a method of training is: one entry that says all that a run, its plan, its tables and figures need of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from kdtw_jax.errors import UserError
from kdtw_jax.models import ModelConfig, Params
from kdtw_jax.training.context import StudentTraining, TrainContext
from kdtw_jax.training.demonstrations import PromptTargets
from kdtw_jax.training.readings import Kept


class Cost(NamedTuple):
    """What a step takes beside the student's own update (a forward and a backward pass over the batch)."""

    student: float = 0.0  # further forward passes of the student over a batch, on average over steps
    teacher: float = 0.0  # forward passes of the teacher likewise
    further_steps: int = 0  # beyond those of `StudentTraining`
    copies: int = 0  # of the student's parameters that are kept beside it
    helped: float = 0.0  # batches written with help that the teacher reads beside those above, on average over steps
    writings: float = 0.0  # times that the student writes rows of a batch with help, likewise
    at_rest: float = 0.0  # batches that it writes with help, and the teacher reads, at each further step


@dataclass(frozen=True)
class Method:
    """A way to train a student.

    `config` is its settings: a frozen dataclass whose fields all have defaults. `train(context, params, config)` trains
    `context.student` from `params` for `context.training`, going on from what `context.folder` holds, and returns the
    trained parameters (numpy). The other functions take `config`, too.

    Raises:
      UserError: a name or settings that cannot be a section of the command line.
    """

    name: str
    describe: str
    """one line, for the help of the command line"""
    config: type[Any]
    train: Callable[[TrainContext, Params, Any], Params]
    cost: Callable[[Any], Cost] = lambda config: Cost()
    uses_teacher: bool = True
    """whether the teacher is there while the student is trained"""
    targets: Literal["data", "beam"] = "data"
    """what `context.data` has for targets: the data's, or the teacher's beam outputs"""
    prompts: Callable[[Any, bool], PromptTargets] = lambda config, given: "none"
    """what `context.prompts` has for targets, where prompts are given beside the pairs and where not; "open": the
    data's, where it has any; "greedy" and "beam": what the teacher wrote, of pairs, too; "none": they are not taken"""
    readings: Callable[[Any], Kept | None] = lambda config: None
    """what `context.readings` are to keep of the teacher's distributions; None: they are not needed"""
    without_teacher: Callable[[Any, bool], Mapping[str, Any] | None] = lambda config, given: None
    """the settings that would have to be others for a student to be trained with no teacher there, on what one wrote
    and read ahead: {} where it is so; None: the teacher is always needed, as `uses_teacher` says. Prompts are given
    beside the pairs or not"""
    elsewhere: Callable[[Any, bool], Mapping[str, Any] | None] = lambda config, given: None
    """likewise the settings by which a teacher elsewhere would do, which `context.reader` asks to read rows and
    `context.answers` for tokens while a student is trained, and which has written ahead greedily: {} where it does;
    None: it never does"""
    rows_kept: Callable[[Any], Kept | None] = lambda config: None
    """what is kept of its distributions at such rows"""
    student: Callable[[ModelConfig, Any], ModelConfig] = lambda size, config: size
    """the student that it trains, where that has further parts"""
    start: Callable[[Any], str] = lambda config: ""
    """the method of the same run whose finished student it goes on from; "": from the start of all students"""
    check: Callable[[Any, StudentTraining, ModelConfig], None] = lambda config, training, teacher: None
    """raises UserError where these settings do not fit the training or the teacher"""
    unseen: Callable[[Any], bool] = lambda config: False
    """whether it needs `context.unseen`"""
    top_k: str = ""
    """the field of `config`, by dotted name, that says how many tokens of the teacher's distributions are kept"""
    further_rows: int = 0
    """rows of a minibatch beside those of the batch, over all devices"""
    flags: tuple[str, ...] = ()
    """the fields of `config` that are flags of the command line; by default all whose metadata do not say otherwise"""
    color: str = ""
    """in figures; by default one that is free"""
    curve: str = "kl"
    """the term of its metrics whose curve is drawn, in nats per token"""

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name != self.name.lower():
            raise UserError(f"a method's name must be lower-case letters, digits and _, got {self.name!r}")
        known = dataclasses.is_dataclass(self.config) and dataclasses.fields(self.config)
        missing = dataclasses.MISSING
        if known is False or any(f.default is missing and f.default_factory is missing for f in known):
            raise UserError(f"the settings of the method {self.name} must be a dataclass whose fields have defaults")
