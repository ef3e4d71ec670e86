"""Compiled programs that write a batch of texts, alone or under a rule, and what an account has to do with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.constraints.account import Account
from kdtw_jax.constraints.credit import Purse
from kdtw_jax.constraints.history import History, start_history
from kdtw_jax.constraints.record import Constraint, Rule
from kdtw_jax.constraints.unit import TOKENS, Unit
from kdtw_jax.decoding.enforced import write_under_rule
from kdtw_jax.decoding.help import Helped
from kdtw_jax.decoding.sample import generate
from kdtw_jax.finite import check_written
from kdtw_jax.models import Model

# Own parameters, the teacher's, sources, words of the rule, its numbers, and the purse of an account.
WriteProgram = Callable[[Any, Any, Any, Any, tuple[jax.Array, ...], Purse | None], Helped]


class WritePlan(NamedTuple):
    """How texts are to be written."""

    program: WriteProgram
    rule: Rule
    words_1xR: np.ndarray  # the rule in words
    account: Account | None  # None: each output keeps the rule by itself
    under: str  # which rule, for messages


def program_alone(model: Model, *, banned: tuple[int, ...], max_len: int) -> WriteProgram:
    """A student that has nobody to ask."""

    def write(params: Any, _: Any, source_BxS: jax.Array, *__: Any) -> Helped:
        made = generate(model, params, source_BxS, None, max_len=max_len, banned=banned)
        nobody_BxT = jnp.zeros(made.mask_BxT.shape, bool)
        score_BxT, nothing = nobody_BxT.astype(jnp.float32), start_history(source_BxS)
        return Helped(made.tokens_BxT, nobody_BxT, nobody_BxT, score_BxT, made.mask_BxT, made.finished_B, nothing)

    return jax.jit(write)


def program_under(
    constraints: tuple[Constraint, ...],
    student: Model,
    teacher: Model,
    *,
    alpha: float,
    banned: tuple[int, ...],
    max_len: int,
    guard: bool,
    unit: Unit = TOKENS,
) -> WriteProgram:
    """A student that asks, under rules on these constraints; arguments as for `write_under_rule`."""

    def write(
        params: Any, other: Any, source_BxS: Any, words_BxR: Any, budgets: tuple[jax.Array, ...], purse: Purse | None
    ) -> Helped:
        return write_under_rule(
            (student, params),
            (teacher, other),
            source_BxS,
            words_BxR,
            Rule(constraints, budgets),
            alpha=alpha,
            banned=banned,
            max_len=max_len,
            guard=guard,
            purse=purse,
            unit=unit,
        )

    return jax.jit(write)


def write_rows(plan: WritePlan, params: tuple[Any, Any], source_BxS: np.ndarray, count: int) -> Helped:
    """Outputs of the first `count` rows, on the plan's account if it has one; the others fill up the batch.

    Raises:
      UserError: scores are not finite.
    """
    rows, account = len(source_BxS), plan.account
    words_BxR = np.broadcast_to(plan.words_1xR, (rows, plan.words_1xR.shape[1]))
    reserved = None if account is None else account.reserve(plan.rule)
    settled = None
    try:
        purse = None if reserved is None else Purse(tuple(map(jnp.float32, reserved)), jnp.arange(rows) < count)
        found: Any = jax.device_get(plan.program(*params, source_BxS, words_BxR, plan.rule.budgets, purse))
        check_written(plan.under, found.tokens_BxT, found.asked_BxT)
        settled = History(*(leaf[:count] for leaf in found.history))
    finally:
        if account is not None and reserved is not None:
            account.settle(plan.rule, reserved, settled)
    done: Helped = found
    return done
