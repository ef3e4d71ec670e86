"""Gates that look ahead: they ask where the output that follows an answer is worth more than the one without.

Both outputs are written to their ends at every state of every output (`kdtw_jax.decoding.branch`), so these are for
judging some hundreds of sentences. Where student and teacher would write the same token, and a call buys no more than
that, there is nothing to gain, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.unit import TOKENS, Unit
from kdtw_jax.decoding.branch import States, Writer, branch, look_ahead
from kdtw_jax.decoding.gate import DecodeState, Gate, stateless
from kdtw_jax.decoding.sample import EOS, PAD, choose, generate
from kdtw_jax.decoding.utility import Utility, ngram_f
from kdtw_jax.models import Model, Params

Found = TypeVar("Found")  # a tree of arrays
_ROWS = 16  # that look ahead together


class Ahead(NamedTuple):
    """Who writes and reads what follows."""

    student: Writer
    banned: tuple[int, ...]
    teacher: Writer | None = None  # for oracles only, as is what follows
    reference_BxT: jax.Array | None = None  # int32, the teacher's own outputs
    unit: Unit = TOKENS  # what a call buys


def with_teacher(ahead: Ahead, teacher: tuple[Model, Params], teacher_source_BxS: jax.Array, max_len: int) -> Ahead:
    """Has the teacher read its sources and write its own outputs, for oracles.

    Args:
      teacher_source_BxS: what the teacher reads.
    """
    (model, params), text_BxS = teacher, teacher_source_BxS
    written = generate(model, params, text_BxS, None, max_len=max_len, banned=ahead.banned)
    writer = Writer(model, params, model.encode(params, text_BxS))
    return ahead._replace(teacher=writer, reference_BxT=written.tokens_BxT)


def oracle_ahead(around: Ahead, utility: Utility) -> Gate:
    """Asks where what follows is worth more by `utility`, the student writing it alone, as greedy tokens. The teacher
    has to read along; its reading is not part of what asking costs."""

    teacher, reference_BxT = around.teacher, around.reference_BxT

    def score(state: DecodeState) -> jax.Array:
        if state.teacher_log_policy_BxV is None or teacher is None or reference_BxT is None:
            raise ValueError("an oracle needs a teacher that reads along")
        own_B, other_B = (choose(x, None) for x in (state.log_policy_BxV, state.teacher_log_policy_BxV))
        states = _states(state)

        def worth(row_X: jax.Array) -> jax.Array:
            return look_ahead(
                around.student.take(row_X),
                teacher.take(row_X),
                states.take(row_X),
                own_B[row_X],
                other_B[row_X],
                utility,
                reference_BxT[row_X],
                banned=around.banned,
                unit=around.unit,
            )

        return for_rows(_apart(own_B, other_B, around.unit) & ~_ended(state), worth)

    return stateless(score)


def worth_everywhere(
    student: Writer,
    teacher: Writer,
    tokens_BxT: jax.Array,
    own_BxT: jax.Array,
    other_BxT: jax.Array,
    utility: Utility,
    reference_BxT: jax.Array,
    *,
    banned: tuple[int, ...],
    rows: int = 128,
    unit: Unit = TOKENS,
) -> jax.Array:
    """What asking is worth in every state of outputs, the student writing what follows alone; float32 [B, T].

    Args:
      tokens_BxT: int32, the outputs.
      own_BxT: int32, what the student would write in each state.
      other_BxT: int32, what the teacher would.
      utility: of whole outputs.
      reference_BxT: int32, the teacher's own outputs.
      banned: tokens that are never written.
      rows: states that are looked at together.
      unit: what a call buys.
    """
    length = tokens_BxT.shape[1]
    own_X, other_X = own_BxT.reshape(-1), other_BxT.reshape(-1)

    def worth(state_X: jax.Array) -> jax.Array:
        row_X = state_X // length
        return look_ahead(
            student.take(row_X),
            teacher.take(row_X),
            States(tokens_BxT[row_X], state_X % length),
            own_X[state_X],
            other_X[state_X],
            utility,
            reference_BxT[row_X],
            banned=banned,
            unit=unit,
        )

    wanted_X = _apart(own_X, other_X, unit) & (tokens_BxT.reshape(-1) != PAD)
    return for_rows(wanted_X, worth, rows).reshape(tokens_BxT.shape)


def _apart(own_B: jax.Array, other_B: jax.Array, unit: Unit) -> jax.Array:
    """Where an answer may be another than what the student writes: of several tokens the first says little."""
    return own_B != other_B if unit.one_token else jnp.ones(own_B.shape, bool)


def drafts_gate(around: Ahead, expected: Gate, floor: float) -> Gate:
    """Asks where a mistake is expected and would matter: the student's own forecast of what an answer saves here, times
    how far its two most probable tokens lead apart.

    From each of the two the student writes a draft to its end; apart is 1 - F of the n-grams of both outputs. No
    teacher is needed and no label. A memory of int32 [B] counts the positions that the student processes for them.

    Args:
      expected: the forecast, nats.
      floor: of it; below there are no drafts, and nobody asks.
    """

    def score(memory: Any, state: DecodeState) -> tuple[jax.Array, Any]:
        expected_B = expected.score((), state)[0]
        first_B = choose(state.log_policy_BxV, None)
        first_BxV = jnp.arange(state.log_policy_BxV.shape[-1])[None, :] == first_B[:, None]
        second_B, states = choose(jnp.where(first_BxV, -jnp.inf, state.log_policy_BxV), None), _states(state)

        def compare(row_X: jax.Array) -> tuple[jax.Array, jax.Array]:
            writer, those = around.student.take(row_X), states.take(row_X)
            drafts = branch(writer, those, first_B[row_X], second_B[row_X], banned=around.banned)
            written_X = sum(jnp.sum(draft.tokens_BxT != 0, axis=1) - those.place_B for draft in drafts)
            return 1.0 - ngram_f(*(draft.tokens_BxT for draft in drafts)), jnp.asarray(written_X, jnp.int32)

        apart_B, spent_B = for_rows((expected_B > floor) & ~_ended(state), compare)
        return expected_B * apart_B, jax.tree.map(lambda count_B: count_B + spent_B, memory)

    return Gate(score)


def _states(state: DecodeState) -> States:
    """Of rows that have ended it is the last one, which counts for nothing."""
    return States(state.tokens_BxT, jnp.minimum(state.history.tokens_B, state.tokens_BxT.shape[1] - 1))


def _ended(state: DecodeState) -> jax.Array:
    return jnp.any(state.tokens_BxT == EOS, axis=1)


def for_rows(wanted_B: jax.Array, compute: Callable[[jax.Array], Found], rows: int = _ROWS) -> Found:
    """What `compute` says of the wanted rows, arrays of B rows; 0 of the others.

    Args:
      wanted_B: bool.
      compute: of the numbers of `rows` rows, int32.
      rows: how many are computed together, until none is left.
    """
    total, count = len(wanted_B), jnp.sum(wanted_B)
    rows = min(rows, total)
    order_X = jnp.pad(jnp.argsort(~wanted_B, stable=True), (0, -total % rows))
    nothing = jax.tree.map(lambda x: jnp.zeros((total, *x.shape[1:]), x.dtype), jax.eval_shape(compute, order_X[:rows]))

    def step(now: tuple[jax.Array, Found]) -> tuple[jax.Array, Found]:
        start, found = now
        row_X = jax.lax.dynamic_slice_in_dim(order_X, start, rows)
        # What is no wanted row goes past the end, and so nowhere.
        place_X = jnp.where(start + jnp.arange(rows) < count, row_X, total)
        return start + rows, jax.tree.map(lambda a, b: a.at[place_X].set(b, mode="drop"), found, compute(row_X))

    found: Found = jax.lax.while_loop(lambda now: now[0] < count, step, (jnp.zeros((), jnp.int32), nothing))[1]
    return found
