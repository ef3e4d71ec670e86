"""A student that may ask, its teacher, and their compiled programs over whole batches.

One program a shape: what changes from one decoding to the next (the gate, its threshold, the rule in words and as a
number, whether it is enforced) are arrays, and rows of the batch like the rest, which devices share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax import parallel
from kdtw_jax.constraints import TOKENS, Constraint, Terms, Unit, as_rule, excess, start_history
from kdtw_jax.constraints.credit import Credit
from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.decoding.ahead import Ahead, with_teacher
from kdtw_jax.decoding.branch import Writer
from kdtw_jax.decoding.enforced import draft_credit
from kdtw_jax.decoding.gates import GateContext, compared_gates, find_gate, score_by
from kdtw_jax.decoding.help import generate_with_help
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.view import encoder_inputs, gate_features
from kdtw_jax.errors import UserError
from kdtw_jax.losses.masked import kl_divergence
from kdtw_jax.models import Model, Params, shift_right
from kdtw_jax.training.foresight import Foresight, foresight_gate


class Decoder(NamedTuple):
    """A student that may ask, its teacher, and their programs over whole batches; `make_decoder` makes one."""

    student: tuple[Model, Params]
    teacher: tuple[Model, Params]
    tokenizer: Tokenizer
    constraints: tuple[Constraint, ...]  # that the student knows
    gates: tuple[str, ...]  # that its programs have, by number
    sampled_gate: bool  # the learned gate's decisions are drawn with its probability, not by threshold
    seed: int
    write: Callable[..., Any]
    review: Callable[..., Any]
    unit: Unit = TOKENS  # what a call buys and rules count


def share_index(constraints: Sequence[Constraint]) -> int:
    """Finds the share of words among a student's constraints: budgets are judged on it.

    Raises:
      UserError: it is not among them.
    """
    names = [c.name for c in constraints]
    if "share" not in names:
        raise UserError(f"asking is judged on the constraint 'share', which is not among {', '.join(names) or 'none'}")
    return names.index("share")


def make_decoder(
    student: tuple[Model, Params],
    teacher: tuple[Model, Params],
    tokenizer: Tokenizer,
    constraints: Sequence[Constraint],
    *,
    alpha: float,
    sampled_gate: bool,
    sampled_tokens: bool,
    seed: int,
    devices: parallel.Devices | None = None,
    gates: Sequence[str] | None = None,
    foresight: Foresight | None = None,
    unit: Unit = TOKENS,
) -> Decoder:
    """Makes a decoder, which compiles at the first call of a shape.

    Args:
      constraints: all that the student knows.
      alpha: the temperature of the student's gate, nats.
      sampled_gate: the learned gate's decisions are drawn with its probability, not by threshold.
      sampled_tokens: tokens are drawn; otherwise the most probable ones are taken.
      seed: of the gate's and the tokens' noise.
      devices: between which rows are split; None: the first one alone.
      gates: that its programs have; by default those that are compared and do not look ahead.
      foresight: what the gate of that name has learned.
      unit: what a call buys and rules count.

    Raises:
      UserError: the student has no gate.
    """
    if not student[0].config.gate_width:
        raise UserError("the student has no gate to judge: its gate_width is 0")
    banned, gates = tokenizer.banned_ids, compared_gates() if gates is None else tuple(gates)
    entries = [find_gate(name) for name in gates]

    def write(
        params: tuple[Params, Params],
        source_BxS: jax.Array,
        words_BxR: jax.Array,
        noise_Bx2xT: jax.Array,
        which_B: jax.Array,  # int32, of the gates; this and what follows is the same for all rows
        level_B: jax.Array,  # float32
        draw_B: jax.Array,  # bool, the gate's decision is drawn
        budget_BxC: jax.Array,  # float32
        said_BxC: jax.Array,  # bool, the rule is about this constraint
        guard_B: jax.Array,  # bool
    ) -> tuple[jax.Array, ...]:
        which, level, draw, budget_C, said_C = (x[0] for x in (which_B, level_B, draw_B, budget_BxC, said_BxC))
        own, other = (student[0], params[0]), (teacher[0], params[1])
        read_BxX, rule_BxX = encoder_inputs(own[0].config, words_BxR, source_BxS)
        around = Ahead(Writer(*own, own[0].encode(own[1], read_BxX)), banned, unit=unit)
        if any(entry.ahead and entry.oracle for entry in entries):
            around = with_teacher(around, other, source_BxS, noise_Bx2xT.shape[2])
        context = GateContext(*own, own[0].encode(own[1], rule_BxX), alpha, level, around=around)
        if foresight is not None:
            read_BxP = own[0].read_rule(own[1], context.rule)
            context = context._replace(foresight=foresight_gate(foresight, *own, read_BxP))
        rule, length = as_rule(constraints, Terms(budget_BxC, guard_B[:, None] & said_BxC)), noise_Bx2xT.shape[2]
        none = Credit(jnp.zeros(len(source_BxS), jnp.int32))
        credit = jax.lax.cond(
            guard_B[0],
            lambda: draft_credit(own, read_BxX, rule, banned=banned, max_len=length, unit=unit) or none,
            lambda: none,
        )
        helped = generate_with_help(
            own,
            other,
            read_BxX,
            source_BxS,
            jnp.where(draw, noise_Bx2xT[:, 0], level),  # a threshold is noise that is the same everywhere
            noise_Bx2xT[:, 1] if sampled_tokens else None,
            banned=banned,
            max_len=length,
            rule=rule,
            credit=credit,
            gate=score_by([entry.make(context) for entry in entries], which),
            read_along=True,
            unit=unit,
        )
        written, end = (source_BxS, helped.tokens_BxT, helped.asked_BxT, unit), helped.history
        over_CxB = jnp.stack([excess(c, budget_C[i], *written, end) for i, c in enumerate(constraints)])
        over_B = jnp.max(jnp.where(said_C[:, None], over_CxB, -jnp.inf), axis=0)
        counts = (end.positions_B, end.length_B, end.helped_B, end.calls_B)
        return helped.tokens_BxT, helped.asked_BxT, helped.score_BxT, *counts, over_B

    def review(
        params: tuple[Params, Params], source_BxS: jax.Array, words_BxR: jax.Array, tokens_BxT: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        own, other = student[0], teacher[0]
        read_BxX, rule_BxX = encoder_inputs(own.config, words_BxR, source_BxS)
        inputs_BxT = shift_right(tokens_BxT)
        mine = own.decode(params[0], own.encode(params[0], read_BxX), inputs_BxT)
        theirs = other.decode(params[1], other.encode(params[1], source_BxS), inputs_BxT)
        log_pi_BxTxV = log_policy(mine.logits_BxTxV, banned)
        kl_BxT = kl_divergence(log_pi_BxTxV, log_policy(theirs.logits_BxTxV, banned))
        nothing = jax.tree.map(lambda leaf: leaf[:, None], start_history(source_BxS))
        view = gate_features(
            log_pi_BxTxV[:, :1], mine.hidden_BxTxD[:, :1], jnp.zeros_like(tokens_BxT)[:, None], nothing
        )
        odds = own.apply_gate(params[0], own.read_rule(params[0], own.encode(params[0], rule_BxX)), view)
        return jnp.where(tokens_BxT != 0, kl_BxT, 0.0), odds.cost_BxT[:, 0]

    held = parallel.place_params((student[1], teacher[1]), devices or parallel.one_device())
    programs = parallel.map_batch(write, held), parallel.map_batch(review, held)
    return Decoder(student, teacher, tokenizer, tuple(constraints), gates, sampled_gate, seed, *programs, unit)
