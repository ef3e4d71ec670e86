"""What planning ahead could give a student: outputs of its own likeliest tokens, chosen by what they lead to.

At every place one of the tokens that the student finds likeliest is taken: by the teacher's word about that token
alone, or by a utility of the whole output that would follow, the student writing the rest. No loss of paths can find
what even such a choice does not: where the teacher's word about the token alone gives all there is, a student lacks
distributions, not plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.data.batches import Bucket, EncodedSplit, evaluation_batches
from kdtw_jax.decoding.branch import States, Writer, outcome, write_rest
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import EOS, PAD, generate
from kdtw_jax.decoding.utility import UTILITIES, find_utility
from kdtw_jax.evaluation.rows import rows_of_batch, widen_buckets
from kdtw_jax.models import Model, Params, shift_right

STUDENT, TOKEN, TEACHER = "student", "token", "teacher"
Pair = tuple[Model, Params]


class Planned(NamedTuple):
    """Outputs of the N examples of a split, in their order."""

    tokens_NxT: np.ndarray  # int32, end-of-sequence included, 0 after
    log_mu_N: np.ndarray  # float32, the teacher's log-probability of each, nats

    @property
    def lengths_N(self) -> np.ndarray:
        """int64 [N], tokens."""
        return (self.tokens_NxT != PAD).sum(axis=1)


def choices() -> tuple[str, ...]:
    """By what tokens may be chosen: `plan_split` takes these."""
    return (STUDENT, TOKEN, *UTILITIES, TEACHER)


def write_by_choice(
    student: Writer, teacher: Writer, by: str, reference_BxT: jax.Array, *, banned: tuple[int, ...], width: int
) -> jax.Array:
    """Greedy outputs, int32 [B, T], whose tokens are among the student's `width` likeliest at every place.

    Args:
      student: whose tokens they are, and who writes on from them.
      teacher: whose word counts.
      by: "token", the teacher's log-probability of the token, or the name of a utility of the output that follows.
      reference_BxT: int32, what the teacher writes by itself.
      banned: tokens that are never written.
      width: tokens to choose from.

    Raises:
      UserError: no utility has that name.
    """
    rows, length = reference_BxT.shape
    row_X = jnp.repeat(jnp.arange(rows), width)
    utility = None if by == TOKEN else find_utility(by)

    def policy(writer: Writer, tokens_BxT: jax.Array, place: jax.Array) -> jax.Array:
        states = writer.model.decode(writer.params, writer.read, shift_right(tokens_BxT)).hidden_BxTxD
        here_Bx1xD = jax.lax.dynamic_slice_in_dim(states, place, 1, axis=1)
        return log_policy(writer.model.unembed(writer.params, here_Bx1xD)[:, 0], banned)

    def scores(tokens_BxT: jax.Array, place: jax.Array, ids_BxW: jax.Array) -> jax.Array:
        if utility is None:
            return jnp.take_along_axis(policy(teacher, tokens_BxT, place), ids_BxW, axis=-1)
        states, writer = States(tokens_BxT[row_X], jnp.full(rows * width, place)), student.take(row_X)
        nobody_X = jnp.zeros(rows * width, bool)
        rest = write_rest(writer, states, ids_BxW.reshape(-1), nobody_X, banned=banned)
        return utility(outcome(writer, teacher.take(row_X), rest, reference_BxT[row_X], banned)).reshape(rows, width)

    def step(now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        place, tokens_BxT = now
        _, ids_BxW = jax.lax.top_k(policy(student, tokens_BxT, place), width)
        best_B = jnp.argmax(scores(tokens_BxT, place, ids_BxW), axis=-1)
        token_B = jnp.take_along_axis(ids_BxW, best_B[:, None], axis=-1)[:, 0]
        token_B = jnp.where(jnp.any(tokens_BxT == EOS, axis=1), PAD, token_B)
        return place + 1, jax.lax.dynamic_update_index_in_dim(tokens_BxT, token_B, place, axis=1)

    def going(now: tuple[jax.Array, jax.Array]) -> jax.Array:
        return (now[0] < length) & ~jnp.all(jnp.any(now[1] == EOS, axis=1))

    written_BxT: jax.Array = jax.lax.while_loop(
        going, step, (jnp.zeros((), jnp.int32), jnp.zeros((rows, length), jnp.int32))
    )[1]
    return written_BxT


def plan_split(
    student: Pair,
    teacher: Pair,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    by: str,
    *,
    banned: tuple[int, ...],
    width: int = 4,
    tick: Callable[[int], None] = lambda rows: None,
) -> Planned:
    """Writes an output for every example.

    Args:
      student: the model and its parameters.
      teacher: likewise.
      data: the split.
      buckets: lengths and rows of batches.
      by: one of `choices()`; "student" and "teacher" write by themselves, greedily.
      banned: tokens that are never written.
      width: tokens of the student's to choose from.
      tick: is told how many rows have just been written.

    Raises:
      UserError: no choice has that name.
    """
    longest = max(bucket.target for bucket in buckets)

    def write(own: Params, other: Params, source_BxS: jax.Array) -> tuple[jax.Array, jax.Array]:
        mine, theirs = (
            Writer(model, params, model.encode(params, source_BxS))
            for model, params in ((student[0], own), (teacher[0], other))
        )

        def alone(writer: Writer) -> jax.Array:
            length = {"max_len": longest, "banned": banned}
            return generate(writer.model, writer.params, source_BxS, None, **length).tokens_BxT  # type: ignore[arg-type]

        if by == STUDENT:
            written_BxT = alone(mine)
        elif by == TEACHER:
            written_BxT = alone(theirs)
        else:
            written_BxT = write_by_choice(mine, theirs, by, alone(theirs), banned=banned, width=width)
        logits_BxTxV = theirs.model.decode(other, theirs.read, shift_right(written_BxT)).logits_BxTxV
        taken_BxT = jnp.take_along_axis(log_policy(logits_BxTxV, banned), written_BxT[..., None], axis=-1)[..., 0]
        return written_BxT, jnp.sum(jnp.where(written_BxT != PAD, taken_BxT, 0.0), axis=1)

    program = jax.jit(write)
    tokens, log_mu = np.zeros((len(data), longest), np.int32), np.zeros(len(data), np.float32)
    for batch in evaluation_batches(data, widen_buckets(buckets, data, factor=1)):
        place_B, real_B = rows_of_batch(data, batch.example_B)
        tokens_BxT, log_mu_B = jax.device_get(program(student[1], teacher[1], batch.source_BxS))
        tokens[place_B[real_B]], log_mu[place_B[real_B]] = tokens_BxT[real_B], log_mu_B[real_B]
        tick(int(real_B.sum()))
    return Planned(tokens, log_mu)
