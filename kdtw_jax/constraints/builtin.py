"""The constraints that come with the package. They count units: tokens or words (`kdtw_jax.constraints.unit`)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.constraints import free_words
from kdtw_jax.constraints.history import History
from kdtw_jax.constraints.record import Constraint
from kdtw_jax.constraints.wording import Wording
from kdtw_jax.errors import UserError
from kdtw_jax.models import Costs

# float32 cannot say 0.7: 0.7 x 10 tokens must still allow 7.
_ROUNDING = 1e-5


def make_share() -> Constraint:
    """At most a share of the units, from 0 (no help) to 1 (no limit), may come from the teacher."""

    def allowed(history: History, budget: jax.Array) -> jax.Array:
        return history.helped_B + 1 <= (budget + _ROUNDING) * (history.length_B + 1)

    def read(number: str) -> float:
        if not 0 <= float(number) <= 100:
            raise UserError(f"a share of the words is 0 to 100%, not {number}%")
        return float(number) / 100

    return Constraint(
        name="share",
        cost=lambda history, asked_B, budget: asked_B.astype(jnp.float32),
        limit=lambda budget, history: budget * history.length_B,
        allowed=allowed,
        spent=lambda history, budget: history.helped_B,
        low=0.0,
        high=0.6,
        wording=Wording(
            templates=(
                "ask the teacher for at most {}% of the words",
                "at most {}% of the words may come from the teacher",
                "use the teacher for up to {}% of the words",
                "let the teacher write no more than {}% of the words",
                "teacher budget: {}% of the words",
                "have up to {}% of the text written by the teacher",
                "you may get {}% of your words from the teacher, not more",
                "the teacher should help with {}% of the text at the most",
                "limit the teacher to {}% of what you write",
                "not over {}% of the output may be the teacher's",
                "{}% of your words may be asked for",
            ),
            held_out=(
                "no more than {}% of your words should be asked of the teacher",
                "the teacher may write up to {}% of the text",
            ),
            write=lambda budget: f"{round(100 * budget, 1):g}",
            read=read,
            fixed={"do not ask the teacher": 0.0, "ask the teacher as often as you like": 1.0},
            free=free_words.share,
        ),
    )


def make_calls() -> Constraint:
    """At most n calls in an output."""
    return Constraint(
        name="calls",
        cost=lambda history, asked_B, budget: asked_B.astype(jnp.float32),
        limit=lambda budget, history: jnp.broadcast_to(budget, history.length_B.shape).astype(jnp.float32),
        allowed=lambda history, budget: history.calls_B + 1 <= budget,
        low=0.0,
        high=10.0,
        wording=Wording(
            templates=(
                "ask the teacher at most {} times",
                "at most {} calls to the teacher",
                "use the teacher no more than {} times",
                "you may call the teacher {} times",
                "not over {} questions to the teacher",
                "the teacher answers {} times at the most",
                "limit yourself to {} calls",
            ),
            held_out=("the teacher may be asked up to {} times",),
            write=_whole,
            read=_count("a number of calls"),
            fixed={},
            free=free_words.calls,
        ),
    )


def make_pause() -> Constraint:
    """After each call at least n units of the student's own."""
    return _forbidden(
        "pause",
        lambda history, budget: history.own_B >= budget,
        low=1.0,
        high=6.0,
        wording=Wording(
            templates=(
                "after each answer of the teacher write {} words yourself",
                "pause for {} words after each call",
                "wait {} words before asking again",
                "between two calls write {} words yourself",
                "{} words of your own after every question",
                "leave the teacher alone for {} words after each answer",
                "ask again only after {} words",
            ),
            held_out=("leave {} words between two questions",),
            write=_whole,
            read=_count("a pause"),
            fixed={},
            free=free_words.pause,
        ),
    )


def make_in_a_row() -> Constraint:
    """Never more than k calls in a row."""
    return _forbidden(
        "in_a_row",
        lambda history, budget: history.in_a_row_B + 1 <= budget,
        low=1.0,
        high=4.0,
        wording=Wording(
            templates=(
                "never ask the teacher more than {} times in a row",
                "at most {} calls in a row",
                "after {} calls in a row write a word of your own",
                "no more than {} questions without a word of yours",
            ),
            held_out=("do not ask over {} times without a word of your own",),
            write=_whole,
            read=_count("calls in a row"),
            fixed={},
            free=free_words.in_a_row,
        ),
    )


def make_first() -> Constraint:
    """Help in the first n units only."""
    return _forbidden(
        "first",
        lambda history, budget: history.length_B < budget,
        low=1.0,
        high=20.0,
        wording=Wording(
            templates=(
                "ask the teacher only within the first {} words",
                "help only in the first {} words",
                "the teacher may help with the first {} words only",
                "after the first {} words do not ask",
            ),
            held_out=("no questions after the first {} words",),
            write=_whole,
            read=_count("a number of words"),
            fixed={},
            free=free_words.first,
        ),
    )


def make_after() -> Constraint:
    """No help in the first n units."""
    return _forbidden(
        "after",
        lambda history, budget: history.length_B >= budget,
        low=0.0,
        high=20.0,
        wording=Wording(
            templates=(
                "do not ask the teacher within the first {} words",
                "help only after the first {} words",
                "the first {} words are yours",
                "begin to ask after {} words",
            ),
            held_out=("write the first {} words alone",),
            write=_whole,
            read=_count("a number of words"),
            fixed={},
            free=free_words.after,
        ),
    )


def make_compute(teacher: Costs) -> Constraint:
    """At most so many GFLOP of the teacher's arithmetic per output; spans prefilled at a call are paid for.

    Two FLOPs per parameter and position (arXiv 2001.08361, section 2.1): the encoder's over the source at the first
    call, the decoder's and the head's over every decoder position processed.
    """
    encoder, decoder = (2e-9 * parameters for parameters in teacher[:2])  # GFLOP per position

    def spent(history: History) -> jax.Array:
        encoded_B = jnp.where(history.positions_B > 0, history.source_B, 0)
        return encoder * encoded_B + decoder * history.positions_B

    def cost(history: History, asked_B: jax.Array, budget: jax.Array) -> jax.Array:
        new_B = decoder * (history.tokens_B + 1 - history.positions_B)
        first_B = encoder * jnp.where(history.positions_B == 0, history.source_B, 0)
        return jnp.where(asked_B, new_B + first_B, 0.0).astype(jnp.float32)

    def allowed(history: History, budget: jax.Array) -> jax.Array:
        one_more_B = cost(history, jnp.ones(history.length_B.shape, bool), budget)
        return spent(history) + one_more_B <= budget * (1 + _ROUNDING)

    return Constraint(
        name="compute",
        cost=cost,
        limit=lambda budget, history: jnp.broadcast_to(budget, history.length_B.shape).astype(jnp.float32),
        allowed=allowed,
        total=lambda history, budget: spent(history),
        low=0.0,
        high=32 * (encoder + decoder),
        wording=Wording(
            templates=(
                "spend at most {} GFLOP of the teacher",
                "teacher compute: at most {} GFLOP",
                "keep the teacher within {} GFLOP",
                "{} GFLOP of the teacher at the most",
            ),
            held_out=("the teacher may compute up to {} GFLOP",),
            write=lambda budget: np.format_float_positional(float(f"{budget:.3g}"), trim="-"),
            read=_amount,
            fixed={},
            free=free_words.compute,
        ),
    )


def make_price() -> Constraint:
    """No limit, but a price of each call in nats of the teacher's log-probability: ask where that much is saved."""
    return Constraint(
        name="price",
        cost=lambda history, asked_B, budget: asked_B.astype(jnp.float32),
        limit=lambda budget, history: history.length_B.astype(jnp.float32),
        allowed=lambda history, budget: jnp.ones(history.length_B.shape, bool),
        price=lambda budget: budget,
        low=0.0,
        high=5.0,
        wording=Wording(
            templates=(
                "a call costs {} nats",
                "each call to the teacher costs {} nats",
                "ask where an answer saves {} nats or more",
                "ask the teacher only if it saves {} nats",
                "the teacher charges {} nats per call",
                "pay {} nats for every call",
            ),
            held_out=("calls have a price of {} nats", "do not ask unless it is worth {} nats"),
            write=lambda budget: f"{budget:.3g}",
            read=_price,
            fixed={},
            free=free_words.price,
        ),
    )


def _forbidden(
    name: str, may: Callable[[History, jax.Array], jax.Array], *, low: float, high: float, wording: Wording
) -> Constraint:
    """A constraint on single steps: each call where `may` says no costs 1, and none is allowed."""
    return Constraint(
        name=name,
        cost=lambda history, asked_B, budget: (asked_B & ~may(history, budget)).astype(jnp.float32),
        limit=lambda budget, history: jnp.zeros(history.length_B.shape, jnp.float32),
        allowed=may,
        low=low,
        high=high,
        wording=wording,
    )


def _price(number: str) -> float:
    if float(number) < 0:
        raise UserError(f"a call costs at least 0 nats, not {number}")
    return float(number)


def _whole(budget: float) -> str:
    return f"{budget:.0f}"


def _count(what: str) -> Callable[[str], float]:
    def read(number: str) -> float:
        if float(number) < 0 or float(number) % 1:
            raise UserError(f"{what} is a whole number of at least 0, not {number}")
        return float(number)

    return read


def _amount(number: str) -> float:
    if float(number) < 0:
        raise UserError(f"compute is at least 0 GFLOP, not {number}")
    return float(number)
