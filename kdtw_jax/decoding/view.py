"""What a student that may ask reads and sees: the rule before its source, and the facts of a state for its gate."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdtw_jax.constraints.history import History
from kdtw_jax.decoding.sample import choose
from kdtw_jax.losses.masked import entropy
from kdtw_jax.models import Encoded, Facts, GateInputs, Model, ModelConfig, Params

_FAR = 20.0  # nats beyond which differences of log-probability say nothing more


def instructed(rule_BxR: jax.Array, source_BxS: jax.Array, after: Sequence[int] = ()) -> jax.Array:
    """The rule in words and the source as one text, then padding: int32 [B, R + S].

    Args:
      rule_BxR: int32, padded with 0 at its ends.
      source_BxS: likewise.
      after: tokens that sources begin with and that the rule stands behind, as what a chat template puts before a
        user's words. Where a source begins with only some of them, as its first piece was joined to the last, the rule
        stands behind those.
    """
    rule, source = rule_BxR.shape[1], source_BxS.shape[1]
    head_H = jnp.asarray(tuple(after)[:source], jnp.int32)
    same_BxH = source_BxS[:, : len(head_H)] == head_H[None, :]
    before_Bx1 = jnp.sum(jnp.cumprod(same_BxH, axis=1, dtype=jnp.int32), axis=1, keepdims=True)
    place_1xX = jnp.arange(rule + source)[None, :]
    in_rule_BxX = place_1xX - before_Bx1
    words_Bx1 = jnp.sum(rule_BxR != 0, axis=1, keepdims=True)
    in_source_BxX = jnp.where(in_rule_BxX < 0, place_1xX, place_1xX - words_Bx1)
    from_rule = jnp.take_along_axis(rule_BxR, jnp.clip(in_rule_BxX, 0, rule - 1), axis=1)
    from_source = jnp.take_along_axis(source_BxS, jnp.clip(in_source_BxX, 0, source - 1), axis=1)
    rest = jnp.where(in_source_BxX < source, from_source, 0)
    return jnp.where((in_rule_BxX >= 0) & (in_rule_BxX < words_Bx1), from_rule, rest).astype(jnp.int32)


def encoder_inputs(config: ModelConfig, rule_BxR: jax.Array, source_BxS: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the student reads to write from, and what its gate reads the rule in (int32, one row each).

    The rule says who writes, not what: whatever the price of asking, the optimum's tokens have the teacher's own
    distribution (`kdtw_jax.losses.help`). So by default tokens do not see it, and a student that is told not to ask
    writes as it would without rules. With `rule_in_source` both read the rule and the source as one text, in which the
    rule stands behind the tokens `rule_after`.
    """
    if config.rule_in_source:
        both_BxX = instructed(rule_BxR, source_BxS, config.rule_after)
        return both_BxX, both_BxX
    return source_BxS, rule_BxR


def gate_features(
    log_policy_BxTxV: jax.Array, hidden_BxTxD: jax.Array, past_BxTxN: jax.Array, history: History
) -> GateInputs:
    """The facts that the gate is given of each state: how sure the student is, what has happened so far.

    Args:
      log_policy_BxTxV: of the student's own token, help left out.
      past_BxTxN: int32, the tokens written before each state, in any order, 0 where there are fewer.
      history: leaves [B, T].

    Repeats of the token it is about to write are among the facts: greedy students loop, and there an answer saves most.
    """
    rows, length, vocabulary = log_policy_BxTxV.shape
    flat_XxV = log_policy_BxTxV.reshape(-1, vocabulary)
    first_X = choose(flat_XxV, None)
    second_X = choose(jnp.where(jnp.arange(vocabulary)[None, :] == first_X[:, None], -jnp.inf, flat_XxV), None)
    best_X, next_X = (jnp.take_along_axis(flat_XxV, x[:, None], axis=1)[:, 0] for x in (first_X, second_X))
    first_BxT, best_BxT = first_X.reshape(rows, length), best_X.reshape(rows, length)
    lead_BxT = jnp.minimum(best_X - next_X, _FAR).reshape(rows, length)
    repeats_BxT = jnp.sum(past_BxTxN == first_BxT[:, :, None], axis=-1)
    counts = (history.length_B, history.calls_B, history.helped_B, history.tokens_B, history.source_B)
    written, calls, helped, tokens, source = (x.astype(jnp.float32) for x in counts)
    facts = Facts(
        entropy=entropy(log_policy_BxTxV) / 3,
        surprise=-jnp.maximum(best_BxT, -_FAR) / 3,
        lead=lead_BxT / 4,
        repeats=jnp.minimum(repeats_BxT, 4) / 2,
        written=written / 32,
        source=source / 32,
        left=(source - tokens) / 16,
        alone=jnp.log1p(jnp.minimum(history.own_B, 100).astype(jnp.float32)) / 3,
        in_a_row=jnp.minimum(history.in_a_row_B, 4) / 2,
        calls=jnp.log1p(calls) / 2,
        share=helped / (written + 1),
    )
    choices_BxTx2 = jnp.stack([first_X, second_X], axis=-1).reshape(rows, length, 2)
    return GateInputs(hidden_BxTxD, choices_BxTx2, jnp.stack([x.astype(jnp.float32) for x in facts], axis=-1))


def prefixes_and_history(tokens_BxT: jax.Array, before: History) -> tuple[jax.Array, History]:
    """What `gate_features` is to know of all states of finished paths: the tokens before each, BxTxT, and what has
    happened.

    `before` is what `constraints.histories` says of the paths: leaves [T + 1, B].
    """
    length = tokens_BxT.shape[1]
    earlier_TxT = jnp.arange(length)[None, :] < jnp.arange(length)[:, None]
    past_BxTxT = jnp.where(earlier_TxT[None], tokens_BxT[:, None, :], 0)
    return past_BxTxT, History(*(leaf[:-1].T for leaf in before))


def with_fixed_rule(model: Model, words: Sequence[int]) -> Model:
    """`model` as it is under one rule for all sources: `words`, the rule's tokens, stand in each of them."""

    def encode(params: Params, source_BxS: jax.Array, dropout_key: jax.Array | None = None) -> Encoded:
        rule_BxR = jnp.broadcast_to(jnp.asarray(words, jnp.int32)[None, :], (source_BxS.shape[0], len(words)))
        return model.encode(params, encoder_inputs(model.config, rule_BxR, source_BxS)[0], dropout_key)

    return model._replace(encode=encode)
