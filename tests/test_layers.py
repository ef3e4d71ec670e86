"""Layers that are alike are traced once, and yet have dropout masks of their own."""

from __future__ import annotations

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.models import CausalConfig, T5Config, make_model
from kdtw_jax.models.layers import dropout, seed_of

SIZES = {"num_layers": 3, "dropout_rate": 0.111}  # of no other test, whose traces would be found again
CONFIGS = {"causal": CausalConfig.toy(29, **SIZES), "t5": T5Config.toy(29, num_decoder_layers=3, **SIZES)}


@pytest.mark.parametrize("family", CONFIGS)
def test_alike_layers_are_traced_once_and_drop_apart(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[str] = []
    seeds: list[tuple[int, ...]] = []

    def recorded(x: jax.Array, rate: float, seed_2: jax.Array | None, place: str) -> jax.Array:
        if seed_2 is not None:
            traced.append(place)
            jax.debug.callback(lambda own: seeds.append(tuple(own.tolist())), seed_of(seed_2, place))
        return dropout(x, rate, seed_2, place)

    for name in ("network", "layers"):
        monkeypatch.setattr(importlib.import_module(f"kdtw_jax.models.{family}.{name}"), "dropout", recorded)
    model = make_model(CONFIGS[family])
    params, tokens = model.init(jax.random.key(0)), jnp.ones((2, 5), jnp.int32)

    def logits(key: jax.Array) -> Any:
        keys = jax.random.split(key)
        return model.decode(params, model.encode(params, tokens, keys[0]), tokens, keys[1]).logits_BxTxV

    one, same, other = (jax.jit(logits)(jax.random.key(seed)) for seed in (1, 1, 2))
    jax.effects_barrier()
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-4
    assert 3 * len(set(seeds)) == 2 * len(seeds)  # each place of each layer has its own, and the second run the first's
    assert len(traced) < len(seeds) / 3  # a place is in three layers, and in one trace
