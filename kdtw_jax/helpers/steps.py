"""Compiled steps of a student whose next token is decided outside: what it would write, and what help is worth."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.constraints import Unit
from kdtw_jax.constraints.history import History, advance, start_history
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import PAD, choose
from kdtw_jax.decoding.view import encoder_inputs, gate_features
from kdtw_jax.models import Cache, Facts, Model, Params


class Looked(NamedTuple):
    """What the student says of the next place of each row."""

    token_B: jax.Array  # int32, what it would write
    apart_B: jax.Array  # int32, likewise if the word before is over: a new word, punctuation, white space, or the end
    saving_B: jax.Array  # float32, nats that it expects its teacher's answer to save; 0 of one that has no gate
    price_BxR: jax.Array  # float32, nats, what a call costs under each rule that was read; 0 likewise
    features_BxF: jax.Array  # float32: `Facts`, the saving, the decoder state


class StepRows(NamedTuple):
    """Rows under way; T: room."""

    place: jax.Array  # [] int32, tokens so far, the same in all rows
    cache: Cache
    history: History
    tokens_BxT: jax.Array  # int32
    rules: tuple[Any, ...]  # what the gate has read of each rule


class Steps(NamedTuple):
    """Two programs; each is compiled once for a number of rows, a length of sources and one of rules."""

    begin: Callable[[Params, Any, Any], tuple[Looked, StepRows]]  # (params, source_BxS, words_RxW)
    # (params, rows, token_B, helped_B, active_B): writes these tokens and looks at the next place
    go_on: Callable[[Params, StepRows, Any, Any, Any], tuple[Looked, StepRows]]


def feature_count(model: Model) -> int:
    """How many features `Looked` has of a `model`, F."""
    return len(Facts._fields) + 1 + model.config.d_model


@lru_cache(maxsize=4)
def make_steps(model: Model, *, banned: tuple[int, ...], max_len: int, unit: Unit, apart: tuple[int, ...]) -> Steps:
    """The programs of a student; once more they are the same ones, already compiled.

    Args:
      model: the student.
      banned: tokens that it does not write.
      max_len: tokens of an output at the most, T.
      unit: what its gate was trained to count.
      apart: tokens that do not go on with a word's letters and digits.
    """
    apart_V = np.zeros(model.config.vocab_size, bool)
    apart_V[list(apart)] = True
    has_gate = model.config.gate_width > 0

    def look(params: Params, rows: StepRows) -> tuple[Looked, StepRows]:
        before = jnp.maximum(rows.place - 1, 0)
        last_Bx1 = jax.lax.dynamic_slice_in_dim(rows.tokens_BxT, before, 1, axis=1)
        last_Bx1 = jnp.where(rows.place > 0, last_Bx1, PAD)
        decoded, cache = model.extend(params, rows.cache, last_Bx1, rows.place)
        log_pi_BxV = log_policy(decoded.logits_BxTxV[:, 0], banned)
        history = History(*(leaf[:, None] for leaf in rows.history))
        view = gate_features(log_pi_BxV[:, None], decoded.hidden_BxTxD, rows.tokens_BxT[:, None], history)
        saving_B = jnp.zeros(len(last_Bx1), jnp.float32)
        prices = [saving_B for _ in rows.rules]
        if has_gate:
            said = [model.apply_gate(params, rule_BxP, view) for rule_BxP in rows.rules]
            saving_B = said[0].saving_BxT[:, 0]
            prices = [jnp.exp(one.log_price_BxT[:, 0]) for one in said]
        hidden_BxD = decoded.hidden_BxTxD[:, 0].astype(jnp.float32)
        features_BxF = jnp.concatenate([view.facts_BxTxF[:, 0], saving_B[:, None], hidden_BxD], axis=1)
        apart_B = choose(jnp.where(apart_V[None, :], log_pi_BxV, -jnp.inf), None)
        looked = Looked(choose(log_pi_BxV, None), apart_B, saving_B, jnp.stack(prices, axis=1), features_BxF)
        return looked, rows._replace(cache=cache)

    def begin(params: Params, source_BxS: jax.Array, words_RxW: jax.Array) -> tuple[Looked, StepRows]:
        count = source_BxS.shape[0]
        texts = [
            encoder_inputs(model.config, jnp.broadcast_to(words_W[None, :], (count, len(words_W))), source_BxS)
            for words_W in words_RxW
        ]
        read = model.encode(params, texts[0][0])
        rules = tuple(model.read_rule(params, model.encode(params, text)) for _, text in texts) if has_gate else (0,)
        cache = model.start(params, read, max_len)
        tokens_BxT = jnp.full((count, max_len), PAD, jnp.int32)
        start = StepRows(jnp.zeros((), jnp.int32), cache, start_history(source_BxS), tokens_BxT, rules)
        return look(params, start)

    def go_on(
        params: Params, rows: StepRows, token_B: jax.Array, helped_B: jax.Array, active_B: jax.Array
    ) -> tuple[Looked, StepRows]:
        token_B = jnp.where(active_B, token_B, PAD)
        written = rows._replace(
            place=rows.place + 1,
            tokens_BxT=jax.lax.dynamic_update_index_in_dim(rows.tokens_BxT, token_B, rows.place, axis=1),
            history=advance(rows.history, token_B, helped_B, active_B, unit),
        )
        return look(params, written)

    return Steps(jax.jit(begin), jax.jit(go_on, donate_argnums=1))
