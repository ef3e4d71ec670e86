"""Decoding with help for evaluation: the teacher reads along at every token, so gates may be oracles.

What is written, and what is counted, is what `kdtw_jax.decoding.generate_with_help` says for the lazy teacher. In a
batch in which some row asks at nearly every step, reading along one token a step costs a fraction of catching up a span
a step, and a hundred decodings of a test split are to take minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints import History, Rule, advance, start_history
from kdtw_jax.decoding.help import Helped, Moment
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import EOS, PAD, choose, mask_to_eos
from kdtw_jax.models import Cache, Model, Params

Score = Callable[[Moment, jax.Array], jax.Array]  # (moment, the teacher's log_mu_BxV) -> float32 [B]


class _State(NamedTuple):
    step: jax.Array  # [] int32
    token_Bx1: jax.Array  # int32, the next input of both
    finished_B: jax.Array  # bool
    tokens_BxT: jax.Array  # int32
    asked_BxT: jax.Array  # bool
    score_BxT: jax.Array  # float32
    history: History
    student: Cache
    teacher: Cache


def generate_alongside(
    student: tuple[Model, Params],
    teacher: tuple[Model, Params],
    source_BxS: jax.Array,
    teacher_source_BxS: jax.Array,
    gate_noise_BxT: jax.Array,
    token_noise_BxT: jax.Array | None,
    score: Score,
    rule: Rule,
    *,
    banned: tuple[int, ...],
) -> Helped:
    """As `generate_with_help`, with T of the noise for its `max_len`: asks where the score exceeds `gate_noise_BxT`.

    Positions processed are those of the lazy teacher.
    """
    rows, max_len = gate_noise_BxT.shape

    def unfinished(state: _State) -> jax.Array:
        return (state.step < max_len) & ~jnp.all(state.finished_B)

    def step(state: _State) -> _State:
        log_BxV, caches, hidden_BxD = {}, {}, {}
        for who, (model, params) in {"student": student, "teacher": teacher}.items():
            decoded, caches[who] = model.extend(params, getattr(state, who), state.token_Bx1, state.step)
            log_BxV[who] = log_policy(decoded.logits_BxTxV[:, 0], banned)
            hidden_BxD[who] = decoded.hidden_BxTxD[:, 0]
        moment = Moment(log_BxV["student"], hidden_BxD["student"], state.tokens_BxT, state.history)
        active_B = ~state.finished_B
        score_B = jnp.where(active_B, score(moment, log_BxV["teacher"]), 0.0)
        asked_B = active_B & (score_B > _column(gate_noise_BxT, state.step)) & rule.allowed(state.history)
        written_BxV = jnp.where(asked_B[:, None], log_BxV["teacher"], log_BxV["student"])
        noise_B = None if token_noise_BxT is None else _column(token_noise_BxT, state.step)
        token_B = jnp.where(active_B, choose(written_BxV, noise_B), PAD)
        return _State(
            step=state.step + 1,
            token_Bx1=token_B[:, None],
            finished_B=state.finished_B | (token_B == EOS),
            tokens_BxT=_put(state.tokens_BxT, token_B, state.step),
            asked_BxT=_put(state.asked_BxT, asked_B, state.step),
            score_BxT=_put(state.score_BxT, score_B, state.step),
            history=advance(state.history, token_B, asked_B, active_B),
            **caches,
        )

    def start(network: tuple[Model, Params], read_BxS: jax.Array) -> Any:
        model, params = network
        return model.start(params, model.encode(params, read_BxS), max_len)

    end = jax.lax.while_loop(
        unfinished,
        step,
        _State(
            step=jnp.zeros((), jnp.int32),
            token_Bx1=jnp.full((rows, 1), PAD, jnp.int32),
            finished_B=jnp.zeros(rows, bool),
            tokens_BxT=jnp.full((rows, max_len), PAD, jnp.int32),
            asked_BxT=jnp.zeros((rows, max_len), bool),
            score_BxT=jnp.zeros((rows, max_len), jnp.float32),
            history=start_history(teacher_source_BxS),
            student=start(student, source_BxS),
            teacher=start(teacher, teacher_source_BxS),
        ),
    )
    return Helped(
        tokens_BxT=end.tokens_BxT,
        asked_BxT=end.asked_BxT,
        score_BxT=end.score_BxT,
        mask_BxT=mask_to_eos(end.tokens_BxT),
        finished_B=end.finished_B,
        positions_B=end.history.positions_B,
    )


def _column(x_BxT: jax.Array, step: jax.Array) -> jax.Array:
    column_B: jax.Array = jax.lax.dynamic_index_in_dim(x_BxT, step, axis=1, keepdims=False)
    return column_B


def _put(x_BxT: jax.Array, new_B: jax.Array, step: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(x_BxT, new_B, step, axis=1)
