"""Helpers that are models here, in one compiled program: they read along, so that asking them takes no further work.

The words and writers are those of `kdtw_jax.helpers.writing` without enforced budgets. At every state before a word it
is also known what each helper's next token is worth to a judge, the last of the helpers:

    gain_k(s) = log mu(helper k's token | s) - log mu(the student's token | s),

of which it is made what its word is worth (`kdtw_jax.helpers.measure.word_gains`), and with which an oracle decides.
The oracle sees no further than that token, so it is no upper bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.constraints import Unit
from kdtw_jax.constraints.history import History, advance, start_history
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import EOS, PAD, choose, mask_to_eos
from kdtw_jax.decoding.view import encoder_inputs, gate_features
from kdtw_jax.models import Model
from kdtw_jax.text.words import WordMarks

_LARGEST = 10.0  # nats that one token counts for at the most, either way


class Along(NamedTuple):
    """Outputs, and what was seen of each of their states."""

    tokens_BxT: jax.Array  # int32, end-of-sequence included, 0 after
    writer_BxT: jax.Array  # int32, the number of the helper that wrote each, -1 the student
    mask_BxT: jax.Array  # bool, True up to and including the end
    begins_BxT: jax.Array  # bool, it was decided there who writes on
    features_BxTxF: jax.Array  # float32, as in `kdtw_jax.helpers.steps.Looked`
    gain_BxTxK: jax.Array  # float32, nats
    runs_BxTxK: jax.Array  # bool, had the helper written the word so far, its next token would belong to it


class Decision(NamedTuple):
    """By what it is decided who writes a word: saving_k - nats_k, the largest if above 0."""

    mean_F: Any  # of the features
    scale_F: Any
    weight_FxK: Any
    bias_K: Any
    nats_K: Any  # what a word of each helper costs
    oracle: Any  # bool [], the gain itself in place of what is told of it


AlongProgram = Callable[[Any, Sequence[Any], Any, Any, Decision], Along]


def make_along(
    student: Model, helpers: Sequence[Model], *, marks: WordMarks, banned: tuple[int, ...], max_len: int, unit: Unit
) -> AlongProgram:
    """The program, compiled: (student's parameters, the helpers', source_BxS, words_1xW, decision) to `Along`.

    Args:
      student: who writes; its gate is read where it has one.
      helpers: of the student's vocabulary; the last one is the judge.
      marks: of the vocabulary.
      banned: tokens that nobody writes.
      max_len: tokens of an output at the most, T.
      unit: what the student's gate was trained to count.
    """
    begins_V, blank_V = jnp.asarray(marks.begins_V), jnp.asarray(marks.blank_V)
    has_gate = student.config.gate_width > 0

    def ends(token_X: jax.Array) -> jax.Array:
        return (token_X == EOS) | begins_V[token_X] | blank_V[token_X]

    def write(params: Any, others: Sequence[Any], source_BxS: Any, words_1xW: Any, decision: Decision) -> Along:
        rows = source_BxS.shape[0]
        words_BxW = jnp.broadcast_to(words_1xW, (rows, words_1xW.shape[1]))
        text, rule = encoder_inputs(student.config, words_BxW, source_BxS)
        rule_BxP = student.read_rule(params, student.encode(params, rule)) if has_gate else jnp.zeros(0)
        models = [(student, params, text), *((m, p, source_BxS) for m, p in zip(helpers, others, strict=True))]
        caches = tuple(model.start(p, model.encode(p, read), max_len) for model, p, read in models)

        def step(carry: Any, place: jax.Array) -> tuple[Any, Any]:
            caches, last_B, tokens_BxT, running_B, done_B, history = carry
            said = [
                model.extend(p, cache, last_B[:, None], place)
                for (model, p, _), cache in zip(models, caches, strict=True)
            ]
            caches = tuple(cache for _, cache in said)
            log_prob = [log_policy(decoded.logits_BxTxV[:, 0], banned) for decoded, _ in said]
            token_BxM = jnp.stack([choose(one, None) for one in log_prob], axis=1)  # the student's first
            own_B, token_BxK = token_BxM[:, 0], token_BxM[:, 1:]
            judged_BxM = jnp.take_along_axis(log_prob[-1], token_BxM, axis=1)
            gain_BxK = jnp.clip(judged_BxM[:, 1:] - judged_BxM[:, :1], -_LARGEST, _LARGEST)

            one_step = History(*(leaf[:, None] for leaf in history))
            hidden_Bx1xD = said[0][0].hidden_BxTxD
            view = gate_features(log_prob[0][:, None], hidden_Bx1xD, tokens_BxT[:, None], one_step)
            saving_B = jnp.zeros(rows, jnp.float32)
            if has_gate:
                saving_B = student.apply_gate(params, rule_BxP, view).saving_BxT[:, 0]
            parts = [view.facts_BxTxF[:, 0], saving_B[:, None], hidden_Bx1xD[:, 0].astype(jnp.float32)]
            features_BxF = jnp.concatenate(parts, axis=1)

            scaled_BxF = (features_BxF - decision.mean_F[None, :]) / decision.scale_F[None, :]
            told_BxK = scaled_BxF @ decision.weight_FxK + decision.bias_K[None, :]
            score_BxK = jnp.where(decision.oracle, gain_BxK, told_BxK) - decision.nats_K[None, :]
            best_B = jnp.argmax(score_BxK, axis=1).astype(jnp.int32)

            runs_BxK = blank_V[last_B][:, None] | ~ends(token_BxK)
            goes_on_B = jnp.take_along_axis(runs_BxK, jnp.maximum(running_B, 0)[:, None], axis=1)[:, 0]
            goes_on_B = (running_B >= 0) & goes_on_B
            before_B = ~done_B & ~goes_on_B & (blank_V[last_B] | ends(own_B))
            writer_B = jnp.where(before_B & (jnp.max(score_BxK, axis=1) > 0), best_B, -1)
            writer_B = jnp.where(goes_on_B, running_B, writer_B)
            helped_B = jnp.take_along_axis(token_BxK, jnp.maximum(writer_B, 0)[:, None], axis=1)[:, 0]
            token_B = jnp.where(done_B, PAD, jnp.where(writer_B >= 0, helped_B, own_B))
            tokens_BxT = jax.lax.dynamic_update_index_in_dim(tokens_BxT, token_B, place, axis=1)
            history = advance(history, token_B, writer_B >= 0, ~done_B, unit)
            seen = (jnp.where(done_B, -1, writer_B), before_B, features_BxF, gain_BxK, runs_BxK)
            return (caches, token_B, tokens_BxT, writer_B, done_B | (token_B == EOS), history), seen

        nothing = jnp.zeros(rows, jnp.int32)
        empty_BxT = jnp.zeros((rows, max_len), jnp.int32)
        start = (caches, nothing, empty_BxT, nothing - 1, nothing > 0, start_history(source_BxS))

        def step_or_rest(carry: Any, place: jax.Array) -> tuple[Any, Any]:
            seen = jax.eval_shape(step, carry, place)[1]
            rest = lambda: (carry, (nothing - 1, *(jnp.zeros(x.shape, x.dtype) for x in seen[1:])))  # noqa: E731
            return jax.lax.cond(jnp.all(carry[4]), rest, lambda: step(carry, place))

        end, seen = jax.lax.scan(step_or_rest, start, jnp.arange(max_len))
        writer_BxT, *rest = (jnp.moveaxis(leaf, 0, 1) for leaf in seen)
        return Along(end[2], writer_BxT, mask_to_eos(end[2]), *rest)

    return jax.jit(write)
