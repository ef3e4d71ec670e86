"""A student that may ask and its teacher, of random weights, and their decoder; for tests of asking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax

from kdtw_jax.constraints import make_calls, make_share, words_room
from kdtw_jax.data.batches import Bucket
from kdtw_jax.data.tokenizer import EOS_ID, Tokenizer
from kdtw_jax.decoding import log_policy
from kdtw_jax.evaluation.decoder import Decoder, make_decoder
from kdtw_jax.evaluation.phrasings import make_phrasings
from kdtw_jax.evaluation.rows import spaced_pairs, widen_buckets
from kdtw_jax.evaluation.written import DecodeSpec
from kdtw_jax.models import Model, T5Config, make_model, shift_right
from tests.world import World

SHARE = make_share()
WORLD = World()
BUCKETS = (Bucket(12, 12, 16),)
LENGTH = 12


def network(seed: int, gate_width: int = 0) -> tuple[Model, Any]:
    """Decided policies, and a gate that says now yes, now no. A student reads its rule with the source."""
    sizes = {"dropout_rate": 0.0, "gate_width": gate_width, "rule_in_source": gate_width > 0}
    model = make_model(T5Config.toy(WORLD.tokenizer.vocab_size, **sizes))
    params = jax.tree.map(lambda x: 1.3 * x, model.init(jax.random.key(seed)))
    if gate_width:
        params["gate"]["saving_out"]["kernel"] *= 30.0
        params["gate"]["saving_out"]["bias"] += 1.0
    return model, params


STUDENT, TEACHER = network(0, 8), network(1)
KNOWN = (make_calls(), SHARE)
PHRASINGS = make_phrasings(KNOWN, WORLD.tokenizer.encode, words_room(KNOWN, WORLD.tokenizer.encode, together=2))
DATA = spaced_pairs(WORLD.data, 64)
WIDE = widen_buckets(BUCKETS, DATA)


def decoder(student: tuple[Model, Any] = STUDENT, **changes: Any) -> Decoder:
    settings = {"alpha": 1.0, "sampled_gate": False, "sampled_tokens": False, "seed": 0, **changes}
    return make_decoder(student, TEACHER, WORLD.tokenizer, KNOWN, **settings)


DECODER = decoder()


def want(gate: str, budget: float = 0.2, **changes: Any) -> DecodeSpec:
    return DecodeSpec(gate, PHRASINGS.of(budget, "seen"), budget, **changes)  # type: ignore[arg-type]


def distributions(tokens: jax.Array, source: jax.Array, read: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log pi and log mu at all states of finished rows, from whole passes without caches."""
    found = []
    for (model, params), text in ((STUDENT, read), (TEACHER, source)):
        logits = model.decode(params, model.encode(params, text), shift_right(tokens)).logits_BxTxV
        found.append(log_policy(logits, WORLD.banned))
    return found[0], found[1]


def endless() -> Tokenizer:
    """A vocabulary in which nothing ends."""
    return replace(WORLD.tokenizer, banned_ids=tuple(sorted({*WORLD.tokenizer.banned_ids, EOS_ID})))
