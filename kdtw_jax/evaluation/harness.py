"""One program for all ways to share the writing between student and teacher; what tells them apart are arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.data.batches import Batch
from kdtw_jax.decoding.ahead import Ahead
from kdtw_jax.decoding.branch import Writer
from kdtw_jax.decoding.draft import Checked, generate_with_checks
from kdtw_jax.decoding.gate import DecodeState, Gate, stateless
from kdtw_jax.decoding.gates import GATES, GateContext, GateEntry, find_gate, score_by
from kdtw_jax.decoding.help import generate_with_help
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import generate
from kdtw_jax.decoding.strategy import Strategy, Verdict
from kdtw_jax.decoding.view import encoder_inputs
from kdtw_jax.evaluation.decoder import Decoder
from kdtw_jax.evaluation.strategies import Point, every_strategy
from kdtw_jax.models import Model, Params, shift_right
from kdtw_jax.training.deferral import Deferral


class Harness(NamedTuple):
    """Student, teacher and one program for all points; `make_harness` makes it."""

    decoder: Decoder
    deferral: Deferral
    gates: tuple[str, ...]  # that its program has, by number
    judges: Mapping[str, int]  # the number of each strategy's
    write: Callable[..., Checked]
    ask: Callable[..., Checked]  # without checks, each call for a unit
    alone: Mapping[str, Callable[..., jax.Array]]  # each model's own greedy outputs
    reward: Callable[..., jax.Array]  # (teacher's params, source_BxS, tokens_BxT) -> float32 [B]


def make_harness(decoder: Decoder, deferral: Deferral, alpha: float) -> Harness:
    """Makes the harness, which writes greedily.

    What changes from point to point is an argument: there is one trace per shape.

    Args:
      alpha: the temperature of the student's gate, nats.
    """
    (model, _), (other, _) = decoder.student, decoder.teacher
    banned, unit = decoder.tokenizer.banned_ids, decoder.unit
    strategies = every_strategy()
    # Of gates that look ahead, those that are ways to share the writing.
    gates = {name: e for name, e in GATES.items() if not e.oracle and (not e.ahead or name in strategies)}
    judges = list(dict.fromkeys(sharing.judge for sharing in strategies.values()))
    judge_of = {name: judges.index(sharing.judge) for name, sharing in strategies.items()}

    def reads(
        params: tuple[Params, Params],
        deferral: Deferral,
        source_BxS: jax.Array,
        words_BxR: jax.Array,
        noise_BxT: jax.Array,
        gate: jax.Array,
        level: jax.Array,
    ) -> tuple[jax.Array, Gate]:
        """What the student reads, and the gate of a number."""
        read_BxX, rule_BxX = encoder_inputs(model.config, words_BxR, source_BxS)
        rule = model.encode(params[0], rule_BxX)
        around = Ahead(Writer(model, params[0], model.encode(params[0], read_BxX)), banned)
        context = GateContext(model, params[0], rule, alpha, level, deferral.logit, around)
        made_gates = [_by_threshold(entry, context, noise_BxT) for entry in gates.values()]
        return read_BxX, score_by(made_gates, gate, jnp.zeros(len(source_BxS), jnp.int32))

    @jax.jit
    def write(
        params: tuple[Params, Params],
        deferral: Deferral,
        source_BxS: jax.Array,
        words_BxR: jax.Array,
        noise_BxT: jax.Array,
        gate: jax.Array,  # int32 [], of the gates
        drawn: jax.Array,  # bool [], its decisions are
        judge: jax.Array,  # int32 [], of the judges
        numbers: tuple[
            jax.Array, ...
        ],  # level, number, summed, draft length, end checked, tokens_per_call, verify_at_end
    ) -> Checked:
        level, number, summed, draft_length, check_end, tokens_per_call, verify_at_end = numbers
        read_BxX, asking = reads(params, deferral, source_BxS, words_BxR, noise_BxT, gate, level)
        made = [one(number) for one in judges]

        def verdict(log_pi: jax.Array, log_mu: jax.Array, draft_BxN: jax.Array, noise: jax.Array | None) -> Verdict:
            options = [lambda *args, one=one: one(*args, None) for one in made]
            found: Verdict = jax.lax.switch(judge, options, log_pi, log_mu, draft_BxN)
            return found

        strategy = Strategy(
            verdict,
            asking,
            jnp.where(drawn, 0.0, level),
            summed,
            draft_length,
            check_end,
            tokens_per_call,
            verify_at_end,
        )
        return generate_with_checks(
            (model, params[0]),
            (other, params[1]),
            read_BxX,
            source_BxS,
            None,
            strategy,
            banned=banned,
            max_len=noise_BxT.shape[1],
            unit=unit,
        )

    @jax.jit
    def ask(
        params: tuple[Params, Params],
        deferral: Deferral,
        source_BxS: jax.Array,
        words_BxR: jax.Array,
        noise_BxT: jax.Array,
        gate: jax.Array,  # this and what follows is as for `write`
        drawn: jax.Array,
        level: jax.Array,
    ) -> Checked:
        read_BxX, asking = reads(params, deferral, source_BxS, words_BxR, noise_BxT, gate, level)
        helped = generate_with_help(
            (model, params[0]),
            (other, params[1]),
            read_BxX,
            source_BxS,
            None,
            None,
            banned=banned,
            max_len=noise_BxT.shape[1],
            threshold=jnp.where(drawn, 0.0, level),
            gate=asking,
            unit=unit,
        )
        passes_B = jnp.sum(helped.mask_BxT, axis=1) + sum(jax.tree.leaves(helped.memory))
        counts = (helped.history.calls_B, helped.positions_B, passes_B)
        return Checked(helped.tokens_BxT, helped.asked_BxT, helped.mask_BxT, helped.finished_B, *counts)

    def own(model: Model, params: Params, source_BxS: jax.Array, length: int) -> jax.Array:
        return generate(model, params, source_BxS, None, max_len=length, banned=banned).tokens_BxT

    alone = {name: jax.jit(partial(own, m), static_argnums=2) for name, m in (("student", model), ("teacher", other))}

    @jax.jit
    def reward(params: Params, source_BxS: jax.Array, tokens_BxT: jax.Array) -> jax.Array:
        decoded = other.decode(params, other.encode(params, source_BxS), shift_right(tokens_BxT))
        log_mu_BxTxV = log_policy(decoded.logits_BxTxV, banned)
        taken_BxT = jnp.take_along_axis(log_mu_BxTxV, tokens_BxT[..., None], axis=-1)[..., 0]
        return jnp.sum(jnp.where(tokens_BxT != 0, taken_BxT, 0.0), axis=1)

    return Harness(decoder, deferral, tuple(gates), judge_of, write, ask, alone, reward)


def write_batch(harness: Harness, point: Point, batch: Batch, rows_B: np.ndarray, seed: int) -> Checked:
    """Writes the outputs of a batch.

    Args:
      rows_B: of the split, that the batch holds; they take the phrasings of the point's rule in turn.
      seed: of the noise of drawn gates.
    """
    params = {"student": harness.decoder.student[1], "teacher": harness.decoder.teacher[1]}
    if point.alone:
        tokens = harness.alone[point.alone](params[point.alone], batch.source_BxS, batch.target_BxT.shape[1])
        return _by_one(tokens, by_teacher=point.alone == "teacher")
    words_KxR = np.zeros((1, 4), np.int32) if point.words_KxR is None else point.words_KxR
    noise = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), int(rows_B[0])), batch.target_BxT.shape)
    given = (
        (params["student"], params["teacher"]),
        harness.deferral,
        batch.source_BxS,
        words_KxR[rows_B % len(words_KxR)],
        noise,
        np.int32(harness.gates.index(point.gate)),
        np.bool_(find_gate(point.gate).drawn),
    )
    if point.only_asks and not harness.decoder.unit.one_token:
        return harness.ask(*given, np.float32(point.level))
    return harness.write(
        *given,
        np.int32(harness.judges[point.method]),
        (
            np.float32(point.level),
            np.float32(point.number),
            np.bool_(point.summed),
            np.int32(point.draft_length),
            np.bool_(point.check_end),
            np.int32(point.tokens_per_call),
            np.bool_(point.verify_at_end),
        ),
    )


def _by_one(tokens_BxT: jax.Array, *, by_teacher: bool) -> Checked:
    mask_BxT = tokens_BxT != 0
    length_B, nothing_B = mask_BxT.sum(axis=1), jnp.zeros(len(tokens_BxT), jnp.int32)
    counts = (length_B, length_B, nothing_B) if by_teacher else (nothing_B, nothing_B, length_B)
    return Checked(tokens_BxT, mask_BxT & by_teacher, mask_BxT, jnp.any(tokens_BxT == 1, axis=1), *counts)


def _by_threshold(entry: GateEntry, context: GateContext, noise_BxT: jax.Array) -> Gate:
    """A gate that asks where its score is above a level; one whose decisions are drawn, above 0."""
    gate = entry.make(context)
    if not entry.drawn:
        return gate

    def score(state: DecodeState) -> jax.Array:
        place_B = jnp.minimum(state.history.tokens_B, noise_BxT.shape[1] - 1)
        probability_B: jax.Array = gate.score((), state)[0]
        return probability_B - noise_BxT[jnp.arange(len(place_B)), place_B]

    return stateless(score)
