"""Decoding with help of a teacher elsewhere: as `generate_with_help`, with a question between two halves of each token.

The halves are programs on the devices (`help.look` and `help.conclude`), the question is asked by the host: of all rows
that ask at a token together. So no program waits for a network, and who answers may compute on the same devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.decoding.help import Helping, HelpState, Looked, conclude, look, start_help
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.models import Params

PyTree = Any


class Said(NamedTuple):
    """What a teacher says of the next token of each row; of rows that are not asked about, anything."""

    ids_BxK: np.ndarray  # int32
    log_probs_BxK: np.ndarray  # float32, nats; -inf: nothing is said


class Answer(Protocol):
    """Asks a teacher for the next tokens of a batch that is being written."""

    def __call__(self, tokens_BxT: np.ndarray, heard_B: np.ndarray) -> Said:
        """Waits for what it says after the T `tokens_BxT` that were written, int32, in the rows that are `heard_B`."""
        ...


Answers = Callable[[np.ndarray], Answer]  # of sources, int32 [B, S], padded with 0: of a batch that will be written


class Begun(NamedTuple):
    """What rows are, before the first token."""

    kept: PyTree  # what is read once and needed at every token, leaves [B, ...]
    read_BxX: jax.Array  # int32, what the student reads to write from
    max_len: int  # tokens at the most


class HelpedElsewhere:
    """Writes batches with the help of a teacher elsewhere, on all devices; what a row is does not depend on the others.

    Where K tokens of a place are said and not the whole vocabulary, the teacher's policy is that of these, normalised:
    its most probable token is the same, and those beyond are never drawn.
    """

    def __init__(
        self,
        begin: Callable[..., Begun],
        helping: Callable[..., Helping],
        devices: parallel.Devices,
    ):
        """Makes the programs, which compile at their first call.

        Args:
          begin: a function of the student's parameters and of rows, the first of which is what the teacher reads.
          helping: a function of the parameters, of what `begin` has kept, and of the rows: how they are written.
          devices: between which rows are split.
        """

        def first(params: Params, *rows: jax.Array) -> tuple[PyTree, HelpState]:
            kept, read_BxX, max_len = begin(params, *rows)
            context = helping(params, kept, *rows)
            model = context.student[0]
            cache = model.start(params, model.encode(params, read_BxX), max_len)
            return kept, start_help(context, cache, (), rows[0], max_len)

        def ask(params: Params, kept: PyTree, state: HelpState, *rows: jax.Array) -> Any:
            after, looked = look(helping(params, kept, *rows), state)
            return after, looked, looked.heard_B

        def write(
            params: Params, kept: PyTree, state: HelpState, looked: Looked, said: Said | None, *rows: jax.Array
        ) -> tuple[HelpState, jax.Array]:
            context = helping(params, kept, *rows)
            log_mu_BxV = looked.log_pi_BxV if said is None else _policy(said, looked, context.banned)
            after = conclude(context, state, looked, log_mu_BxV)
            return after, jnp.all(after.finished_B)

        self._devices = devices
        self._first = parallel.data_parallel(first, devices)
        self._ask, self._write = (parallel.data_parallel(half, devices, donate=(2,)) for half in (ask, write))

    def __call__(self, params: Params, rows: tuple[Any, ...], answers: Answers) -> tuple[jax.Array, jax.Array]:
        """Continues every row until its end-of-sequence token or the most tokens, whichever is first.

        Args:
          params: the student's, a copy on each device.
          rows: arrays [B, ...], the first of which is what the teacher reads.
          answers: who is asked.

        Returns:
          The tokens, int32 [B, T], and those that the teacher wrote, bool [B, T].
        """
        devices = self._devices
        count, padded = parallel.pad_rows(rows, len(devices))
        on = parallel.shard(padded, devices)
        kept, state = self._first(params, *on)
        answer, length = answers(np.asarray(rows[0])), state.tokens_BxT.shape[-1]
        for step in range(length):
            state, looked, heard = self._ask(params, kept, state, *on)
            heard_B = _whole(heard)[:count]
            said = None
            if heard_B.any():  # rows that were repeated hear what the last one does
                found = answer(_whole(state.tokens_BxT)[:count, :step], heard_B)
                said = parallel.shard(parallel.pad_rows(found, len(devices))[1], devices)
            state, over = self._write(params, kept, state, looked, said, *on)
            if np.asarray(over).all():
                break
        written: tuple[jax.Array, jax.Array] = parallel.unshard((state.tokens_BxT, state.asked_BxT), devices)
        return written[0][:count], written[1][:count]


def _policy(said: Said, looked: Looked, banned: tuple[int, ...]) -> jax.Array:
    """The policy of a teacher in rows where it is heard, of the tokens that it says; the student's in the others."""
    row_Bx1 = jnp.arange(len(looked.log_pi_BxV))[:, None]
    nothing_BxV = jnp.full_like(looked.log_pi_BxV, -jnp.inf)
    logits_BxV = nothing_BxV.at[row_Bx1, said.ids_BxK].max(said.log_probs_BxK)
    heard_Bx1 = looked.heard_B[:, None]
    return log_policy(jnp.where(heard_Bx1, logits_BxV, looked.log_pi_BxV), banned)


def _whole(parts: jax.Array) -> np.ndarray:
    """Rows on devices as one array on the host."""
    found = np.asarray(parts)
    return found.reshape(-1, *found.shape[2:])
