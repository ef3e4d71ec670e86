"""Writing a split with help, at many budgets and thresholds, and looking back on what was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.data.batches import Bucket, EncodedSplit, evaluation_batches
from kdtw_jax.data.tokenizer import EOS_ID
from kdtw_jax.decoding.gates import find_gate
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.decoder import Decoder, share_index
from kdtw_jax.evaluation.rows import rows_of_batch
from kdtw_jax.finite import check_written


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
    lengths_N: np.ndarray  # int32, units: words where those are counted, otherwise tokens
    helped_N: np.ndarray  # int32, units with a token of the teacher's
    calls_N: np.ndarray  # int32, answers of the teacher
    positions_N: np.ndarray  # int32, decoder positions that the teacher processed
    excess_N: np.ndarray  # float32, calls (or other costs) beyond what the rule allows; negative: within it

    @property
    def used(self) -> float:
        """The teacher's share of all units, 0 to 1."""
        return float(np.divide(self.helped_N.sum(), max(self.lengths_N.sum(), 1)))

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


def write_split(decoder: Decoder, data: EncodedSplit, buckets: Sequence[Bucket], wanted: DecodeSpec) -> Written:
    """Writes an output for every example, asking as `wanted` says.

    Raises:
      UserError: scores are not finite, or the decoder was made without the wanted gate.
    """
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
    counts_4xN, over = np.zeros((4, len(data)), np.int32), np.zeros(len(data), np.float32)
    for index, batch in enumerate(evaluation_batches(data, buckets)):
        place_B, real_B = rows_of_batch(data, batch.example_B)
        words_BxR = wanted.words_KxR[place_B % len(wanted.words_KxR)]
        key = jax.random.fold_in(jax.random.key(decoder.seed), index)
        noise = jnp.swapaxes(jax.random.uniform(key, (2, *batch.target_BxT.shape)), 0, 1)
        same = (np.broadcast_to(x, (len(noise), *x.shape)) for x in numbers)
        found = jax.device_get(decoder.write(batch.source_BxS, words_BxR, noise, *same))
        check_written(f"{wanted.gate} gate", found[0][real_B], found[1][real_B])
        rows, width = place_B[real_B], batch.target_BxT.shape[1]
        for whole, part in zip((tokens, asked, scores), found, strict=False):
            whole[rows, :width] = part[real_B]
        counts_4xN[:, rows], over[rows] = [count_B[real_B] for count_B in found[3:7]], found[7][real_B]
    texts = [decoder.tokenizer.decode(row.tolist()) for row in tokens]
    positions, lengths, helped, calls = counts_4xN
    return Written(texts, tokens, asked, scores, lengths, helped, calls, positions, over)


def review_split(
    decoder: Decoder, data: EncodedSplit, buckets: Sequence[Bucket], wanted: DecodeSpec, written: Written
) -> Review:
    """Compares student and teacher at the states that `written` visited under the words of `wanted`."""
    kl, cost = np.zeros(written.tokens_NxT.shape, np.float32), np.zeros(len(data), np.float32)
    for batch in evaluation_batches(data, buckets):
        place_B, real_B = rows_of_batch(data, batch.example_B)
        width = batch.target_BxT.shape[1]
        words_BxR = wanted.words_KxR[place_B % len(wanted.words_KxR)]
        tokens_BxT = written.tokens_NxT[place_B, :width]
        kl_BxT, cost_B = jax.device_get(decoder.review(batch.source_BxS, words_BxR, tokens_BxT))
        kl[place_B[real_B], :width], cost[place_B[real_B]] = kl_BxT[real_B], cost_B[real_B]
    return Review(kl, cost)
