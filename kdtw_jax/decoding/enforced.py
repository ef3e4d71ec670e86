"""Writing under a rule in words, which is enforced or left to the student's gate."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.credit import Credit, Purse
from kdtw_jax.constraints.record import Rule
from kdtw_jax.constraints.unit import TOKENS, Unit
from kdtw_jax.decoding.gate import own_gate
from kdtw_jax.decoding.help import Helped, generate_with_help
from kdtw_jax.decoding.sample import generate
from kdtw_jax.decoding.view import encoder_inputs
from kdtw_jax.models import Model, Params

_TRUSTED = 0.9  # of a draft's length: help makes some outputs shorter, and an end that is withheld costs quality


def write_under_rule(
    student: tuple[Model, Params],
    teacher: tuple[Model, Params],
    source_BxS: jax.Array,
    words_BxR: jax.Array,
    rule: Rule,
    *,
    alpha: float,
    banned: tuple[int, ...],
    max_len: int,
    guard: bool = True,
    purse: Purse | None = None,
    unit: Unit = TOKENS,
) -> Helped:
    """Greedy outputs of a student that asks as its own gate says.

    Args:
      student: who writes and decides.
      teacher: whom it asks.
      source_BxS: what both read.
      words_BxR: the rule in words, padded with 0.
      rule: the same in numbers.
      alpha: the temperature of the student's gate, nats.
      banned: tokens that are never written.
      max_len: tokens of an output at the most.
      guard: the rule is enforced.
      purse: then: outputs keep it together. None: each by itself.
      unit: what the rule counts, and what a call buys.
    """
    model, params = student
    read_BxX, rule_BxX = encoder_inputs(model.config, words_BxR, source_BxS)
    credit = None
    if guard:
        credit = (
            draft_credit(student, read_BxX, rule, banned=banned, max_len=max_len, unit=unit)
            if purse is None
            else Credit(jnp.zeros(len(source_BxS), jnp.int32), purse)
        )
    return generate_with_help(
        student,
        teacher,
        read_BxX,
        source_BxS,
        None,
        None,
        banned=banned,
        max_len=max_len,
        rule=rule if guard else None,
        credit=credit,
        gate=own_gate(model, params, model.encode(params, rule_BxX), alpha),
        unit=unit,
    )


def draft_credit(
    student: tuple[Model, Params],
    source_BxS: jax.Array,
    rule: Rule,
    *,
    banned: tuple[int, ...],
    max_len: int,
    unit: Unit = TOKENS,
) -> Credit | None:
    """How far outputs may ask ahead, by what the student writes without help: nine tenths of its length.

    A draft that does not end, such as one that repeats itself, is trusted with nothing. None where no constraint of
    the rule can be kept at the end: then nothing is drafted.

    Args:
      student: who writes.
      source_BxS: what it reads.
      rule: that will be enforced.
      banned: tokens that are never written.
      max_len: tokens of an output at the most.
      unit: what the rule counts.
    """
    if all(constraint.spent is None for constraint in rule.constraints):
        return None
    draft = generate(*student, source_BxS, None, max_len=max_len, banned=banned)
    count_B = jnp.sum(draft.mask_BxT, axis=1) if unit.marks is None else unit.count(draft.tokens_BxT)
    return Credit(trusted_length(count_B, draft.finished_B))


def trusted_length(count_B: jax.Array, finished_B: jax.Array) -> jax.Array:
    """The length that outputs are trusted to reach by their drafts, int32 [B], in units.

    Args:
      count_B: int32, units of the drafts.
      finished_B: bool, the draft has come to its end.
    """
    return jnp.where(finished_B, jnp.floor(_TRUSTED * count_B + 1e-3).astype(jnp.int32), 0)
