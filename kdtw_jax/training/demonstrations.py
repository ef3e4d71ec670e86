"""What the teacher writes for prompts: while a student is trained, or ahead of it."""

from __future__ import annotations

from typing import Any, Literal

import jax

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch
from kdtw_jax.decoding.sample import generate
from kdtw_jax.errors import UserError
from kdtw_jax.models import Model
from kdtw_jax.training.context import TrainContext
from kdtw_jax.training.readings import Kept
from kdtw_jax.training.state import Params

Demonstrations = Literal["sampled", "greedy", "beam"]
# What a batch of prompts has for targets: nothing where the data has none ("open"), or what the teacher wrote ahead;
# "none": no prompts are taken.
PromptTargets = Literal["none", "open", "greedy", "beam"]


def prompt_targets(how: str) -> PromptTargets:
    """Says what prompts have for targets where the teacher demonstrates so; samples are drawn while one trains."""
    return "greedy" if how == "greedy" else "beam" if how == "beam" else "open"


def check_read_ahead(top_k: int, how: str) -> None:
    """Checks that `top_k` tokens are asked for only of outputs that the teacher can read ahead.

    Raises:
      UserError: they are not.
    """
    if top_k and how in ("reference", "sampled"):
        raise UserError(f"the teacher does not read {how} outputs ahead, so top_k must be 0")


def check_answered(context: TrainContext, how: str, kept: Kept | None = None) -> None:
    """Checks that the teacher's outputs are there, where they are to be written ahead, and what it makes of them.

    Raises:
      UserError: they are not.
    """
    prompts = context.prompts
    if prompt_targets(how) != "open" and (prompts is None or not prompts.targets.lengths.all()):
        raise UserError(
            f"{context.name} learns from what the teacher wrote ahead ({how}); give TrainContext prompts whose targets "
            "are that, or let it sample"
        )
    if kept is not None and (context.readings is None or context.readings.kept != kept):
        raise UserError(f"{context.name} learns from what the teacher read ahead; give TrainContext readings of {kept}")


class Demonstrator:
    """Gives prompts the teacher's outputs for targets: fresh samples, or those that they have, written ahead."""

    def __init__(
        self,
        how: str,
        teacher: Model,
        placed: parallel.PlacedParams,
        banned: tuple[int, ...],
        *,
        temperature: float = 1.0,
    ):
        """`how` is one of `Demonstrations`; the teacher's parameters are `placed`; samples are at a `temperature`."""
        self.fresh = prompt_targets(how) == "open"

        def write(params: Params, source_BxS: jax.Array, noise_BxT: jax.Array) -> jax.Array:
            limits: dict[str, Any] = {"max_len": noise_BxT.shape[-1], "banned": banned, "temperature": temperature}
            return generate(teacher, params, source_BxS, noise_BxT, **limits).tokens_BxT

        self._write = parallel.map_batch(write, placed)

    def __call__(self, prompts: Batch, key: jax.Array) -> Batch:
        """Samples are as long as the batch's targets at the most; the noise is drawn for the whole batch."""
        if not self.fresh:
            return prompts
        noise_BxT = jax.random.uniform(key, prompts.target_BxT.shape)
        return prompts._replace(target_BxT=self._write(prompts.source_BxS, noise_BxT))
