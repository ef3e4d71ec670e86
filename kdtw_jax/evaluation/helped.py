"""Writing a split with help, at many budgets and thresholds, and looking back on what was written.

One program a shape: what changes from one decoding to the next (the gate, its threshold, the rule in words and as a
number, whether it is enforced) are arrays, and rows of the batch like the rest, which devices share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.constraints import Constraint, Terms, as_rule, excess, start_history
from kdtw_jax.data.batches import Bucket, EncodedSplit, assign_buckets, evaluation_batches
from kdtw_jax.data.tokenizer import EOS_ID, Tokenizer
from kdtw_jax.decoding.gates import GateContext, compared_gates, find_gate, score_by
from kdtw_jax.decoding.help import generate_with_help
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.view import encoder_inputs, gate_features
from kdtw_jax.errors import UserError
from kdtw_jax.finite import check_written
from kdtw_jax.losses.masked import kl_divergence
from kdtw_jax.models import Model, Params, shift_right


class DecodeSpec(NamedTuple):
    """How a split is to be written. Rows take the phrasings of the rule in turn."""

    gate: str  # of those compared
    words_KxR: np.ndarray  # int32, the rule in K phrasings, padded with 0
    budget: float | None  # of the share of words, as the rule says it; None: it says nothing of that
    level: float = 0.5  # ask where the score is above it; of a drawn gate the probability
    guard: bool = False  # the rule is enforced
    others: tuple[tuple[int, float], ...] = ()  # what else it says: which constraint of the student's, and its budget


class Written(NamedTuple):
    """What was written for the N examples of a split, in their order; T is the longest bucket's."""

    texts: list[str]
    tokens_NxT: np.ndarray  # int32, end-of-sequence included, 0 after
    asked_NxT: np.ndarray  # bool, the teacher wrote it
    score_NxT: np.ndarray  # float32, what the gate said; 0 after the end
    lengths_N: np.ndarray  # int32, tokens
    calls_N: np.ndarray  # int32, tokens that the teacher wrote
    positions_N: np.ndarray  # int32, decoder positions that the teacher processed
    excess_N: np.ndarray  # float32, calls (or other costs) beyond what the rule allows; negative: within it

    @property
    def used(self) -> float:
        """The teacher's share of all tokens, 0 to 1."""
        return float(np.divide(self.calls_N.sum(), self.lengths_N.sum()))

    @property
    def unfinished(self) -> float:
        """The share of outputs that did not end within the limit, 0 to 1."""
        return unfinished(self.tokens_NxT)


def unfinished(tokens_NxT: np.ndarray) -> float:
    """The share of outputs without an end of sequence, 0 to 1."""
    return 1 - float((tokens_NxT == EOS_ID).any(axis=1).mean())


class Review(NamedTuple):
    """What is known of outputs afterwards."""

    kl_NxT: np.ndarray  # float32, KL(pi || mu) at every state visited, nats
    cost_N: np.ndarray  # float32, V_C before the first token: the calls that the student expected


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


def share_index(constraints: Sequence[Constraint]) -> int:
    """Where the share of words is among a student's constraints: budgets are judged on it.

    Raises UserError where it is not.
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
) -> Decoder:
    """Compiles at the first call of a shape; rows are split between `devices` (None: the first one alone).

    `constraints` are all that the student knows, the share of words among them. `seed` is that of the gate's and the
    tokens' noise. Raises UserError for a student without that constraint or without a gate.
    """
    share_index(constraints)
    if not student[0].config.gate_width:
        raise UserError("the student has no gate to judge: its gate_width is 0")
    banned, gates = tokenizer.banned_ids, compared_gates()
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
        context = GateContext(*own, own[0].encode(own[1], rule_BxX), alpha, level)
        terms = Terms(budget_BxC, guard_B[:, None] & said_BxC)
        helped = generate_with_help(
            own,
            other,
            read_BxX,
            source_BxS,
            jnp.where(draw, noise_Bx2xT[:, 0], level),  # a threshold is noise that is the same everywhere
            noise_Bx2xT[:, 1] if sampled_tokens else None,
            banned=banned,
            max_len=noise_Bx2xT.shape[2],
            rule=as_rule(constraints, terms),
            gate=score_by([entry.make(context) for entry in entries], which),
            read_along=True,
        )
        written = (source_BxS, helped.tokens_BxT, helped.asked_BxT)
        over_CxB = jnp.stack([excess(c, budget_C[i], *written) for i, c in enumerate(constraints)])
        over_B = jnp.max(jnp.where(said_C[:, None], over_CxB, -jnp.inf), axis=0)
        return helped.tokens_BxT, helped.asked_BxT, helped.score_BxT, helped.positions_B, over_B

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
    return Decoder(student, teacher, tokenizer, tuple(constraints), gates, sampled_gate, seed, *programs)


def wide(buckets: Sequence[Bucket], data: EncodedSplit, factor: int = 4) -> tuple[Bucket, ...]:
    """Buckets for evaluation: evenly filled by `data`, up to `factor` times the rows, as there are no gradients."""
    found = []
    for bucket, members in zip(buckets, assign_buckets(data, buckets), strict=True):
        examples = len(members) or bucket.rows
        batches = -(-examples // (factor * bucket.rows))
        found.append(bucket._replace(rows=-(-examples // batches)))
    return tuple(found)


def write_split(decoder: Decoder, data: EncodedSplit, buckets: Sequence[Bucket], wanted: DecodeSpec) -> Written:
    """Writes an output for every example, asking as `wanted` says. Raises UserError where scores are not finite."""
    budget_C, said_C = np.zeros((2, len(decoder.constraints)), np.float32)
    share = () if wanted.budget is None else ((share_index(decoder.constraints), wanted.budget),)
    for index, budget in (*share, *wanted.others):
        budget_C[index], said_C[index] = budget, 1
    draw = find_gate(wanted.gate).drawn or (wanted.gate == "learned" and decoder.sampled_gate)
    if wanted.gate not in decoder.gates:
        raise UserError(f"the decoder was made without the gate {wanted.gate}; it has {', '.join(decoder.gates)}")
    numbers = (
        np.int32(decoder.gates.index(wanted.gate)),
        np.float32(wanted.level),
        np.bool_(draw),
        budget_C,
        said_C > 0,
        np.bool_(wanted.guard),
    )
    length = max(bucket.target for bucket in buckets)
    tokens, asked = np.zeros((len(data), length), np.int32), np.zeros((len(data), length), bool)
    scores = np.zeros((len(data), length), np.float32)
    positions, over = np.zeros(len(data), np.int32), np.zeros(len(data), np.float32)
    for index, batch in enumerate(evaluation_batches(data, buckets)):
        place_B, real_B = places(data, batch.example_B)
        words_BxR = wanted.words_KxR[place_B % len(wanted.words_KxR)]
        key = jax.random.fold_in(jax.random.key(decoder.seed), index)
        noise = jnp.swapaxes(jax.random.uniform(key, (2, *batch.target_BxT.shape)), 0, 1)
        same = (np.broadcast_to(x, (len(noise), *x.shape)) for x in numbers)
        found = jax.device_get(decoder.write(batch.source_BxS, words_BxR, noise, *same))
        check_written(f"{wanted.gate} gate", found[0][real_B], found[1][real_B])
        rows, width = place_B[real_B], batch.target_BxT.shape[1]
        for whole, part in zip((tokens, asked, scores), found, strict=False):
            whole[rows, :width] = part[real_B]
        positions[rows], over[rows] = found[3][real_B], found[4][real_B]
    texts = [decoder.tokenizer.decode(row.tolist()) for row in tokens]
    lengths = (tokens != 0).sum(axis=1).astype(np.int32)
    return Written(texts, tokens, asked, scores, lengths, asked.sum(axis=1).astype(np.int32), positions, over)


def review_split(
    decoder: Decoder, data: EncodedSplit, buckets: Sequence[Bucket], wanted: DecodeSpec, written: Written
) -> Review:
    """Student beside teacher at the states that `written` visited under the words of `wanted`."""
    kl, cost = np.zeros(written.tokens_NxT.shape, np.float32), np.zeros(len(data), np.float32)
    for batch in evaluation_batches(data, buckets):
        place_B, real_B = places(data, batch.example_B)
        width = batch.target_BxT.shape[1]
        words_BxR = wanted.words_KxR[place_B % len(wanted.words_KxR)]
        tokens_BxT = written.tokens_NxT[place_B, :width]
        kl_BxT, cost_B = jax.device_get(decoder.review(batch.source_BxS, words_BxR, tokens_BxT))
        kl[place_B[real_B], :width], cost[place_B[real_B]] = kl_BxT[real_B], cost_B[real_B]
    return Review(kl, cost)


def calibrate(
    decoder: Decoder,
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    wanted: DecodeSpec,
    scores_X: np.ndarray,
    *,
    tolerance: float = 0.003,
    tries: int = 4,
) -> tuple[float, float, np.ndarray]:
    """The level at which a gate's use is `wanted.budget`: (level, use on `data`, scores of the states then visited).

    Asking changes which states are visited, so the quantile of one decoding's scores is only the next guess. Once there
    are levels on both sides of the wanted use, it is the straight line between the nearest two. `scores_X` are those of
    a decoding nearby.
    """
    if wanted.budget is None:
        raise ValueError("there is no budget to meet")
    aim = wanted.budget
    best: tuple[float, float, np.ndarray] | None = None
    over: tuple[float, float] | None = None  # the highest level found that is too low, and its use
    under: tuple[float, float] | None = None  # the lowest level found that is too high, and its use
    for _ in range(tries):
        if over is not None and under is not None:
            level = float(np.interp(aim, (under[1], over[1]), (under[0], over[0])))
        else:
            level = float(np.quantile(scores_X, 1 - aim))
        written = write_split(decoder, data, buckets, wanted._replace(level=level))
        scores_X = written.score_NxT[written.tokens_NxT != 0]
        if best is None or abs(written.used - aim) < abs(best[1] - aim):
            best = level, written.used, scores_X
        if abs(best[1] - aim) <= tolerance:
            break
        if written.used > aim and (over is None or level > over[0]):
            over = level, written.used
        if written.used <= aim and (under is None or level < under[0]):
            under = level, written.used
    if best is None:
        raise ValueError(f"tries={tries}; at least 1 is needed")
    return best


def places(data: EncodedSplit, example_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the split that a batch holds (0 for filler), and which of them are real."""
    real_B = example_B >= 0
    return np.where(real_B, np.searchsorted(data.examples, example_B), 0), real_B
