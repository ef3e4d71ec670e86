"""Sizes of the published models, what a config refuses, and dropout by itself."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.models import T5Config, count_params, make_model
from kdtw_jax.models.layers import dropout

PLAIN = T5Config.toy(32)
GATED = T5Config.toy(32, feed_forward="gated-gelu", tie_embeddings=False, num_layers=1)


def test_dropout_masks_are_fair_and_independent() -> None:
    ones, n, rate = jnp.ones((64, 32, 48)), 64 * 32 * 48, 0.1
    seeds = [jax.random.bits(jax.random.key(k), (2,), jnp.uint32) for k in range(2)]
    masks = [dropout(ones, rate, seed, place) for seed in seeds for place in ("a", "b")]
    dropped = np.stack([np.asarray(mask == 0.0, np.float64).reshape(-1) for mask in masks])
    assert set(np.unique(np.asarray(masks[0])).round(5)) == {0.0, np.float32(1 / 0.9).round(5)}
    error = 4.5 * np.sqrt(rate * (1 - rate) / n)
    np.testing.assert_allclose(dropped.mean(axis=1), rate, atol=error)
    centred = dropped - rate
    for shift in (
        0,
        1,
        7,
        48,
        32 * 48,
    ):  # between masks, and of each with its own neighbours along every axis
        products = centred @ np.roll(centred, shift, axis=1).T / n
        if shift == 0:
            np.fill_diagonal(products, 0.0)
        np.testing.assert_allclose(products, 0.0, atol=4.5 * rate * (1 - rate) / np.sqrt(n))


@pytest.mark.parametrize(
    ("name", "version", "count"),
    [
        ("small", "v1.0", 60_506_624),
        ("base", "v1.0", 222_903_552),
        ("small", "v1.1", 76_961_152),
        ("base", "v1.1", 247_577_856),
        ("tiny", "v1.0", 15_570_688),
    ],
)
def test_named_sizes_have_the_published_parameters(name: str, version: Any, count: int) -> None:
    config = dataclasses.replace(T5Config.named(name, version=version), value_heads=False)
    assert count_params(jax.eval_shape(make_model(config).init, jax.random.key(0))) == count


def test_config_round_trip_and_refusals() -> None:
    assert T5Config.from_dict(GATED.to_dict()) == GATED
    for name in ("tiny", "mini", "small", "base", "large", "xl", "xxl"):
        for version in ("v1.0", "v1.1"):
            assert T5Config.named(name, version=version).vocab_size == 32128
    bad: list[dict[str, Any]] = [
        {"d_model": 0},
        {"num_heads": -2},
        {"vocab_size": True},
        {"dropout_rate": 1.0},
        {"layer_norm_epsilon": 0.0},
        {"relative_attention_num_buckets": 7},
        {"relative_attention_max_distance": 4},
        {"feed_forward": "swish"},
        {"dtype": "float16"},
        {"colour": 1},
    ]
    for change in bad:
        with pytest.raises(UserError):
            T5Config.from_dict({**PLAIN.to_dict(), **change})
    for change, wanted in (
        ({"num_layers": 1001}, "a whole number of at least 1 and at most 1000"),
        ({"relative_attention_num_buckets": 7}, "an even number of at least 4 and at most 1048576"),
        ({"relative_attention_num_buckets": 2}, "an even number of at least 4 and at most 1048576"),
        ({"relative_attention_max_distance": 4}, "above half the number of buckets"),
        ({"remat": 1}, "True or False"),
        ({"dtype": "float16"}, "'float32' or 'bfloat16'"),
        ({"dropout_rate": False}, "a number of at least 0 and below 1"),
        ({"layer_norm_epsilon": 0}, "a number above 0 and below 1"),
    ):
        ((name, value),) = change.items()
        with pytest.raises(UserError) as raised:
            T5Config.from_dict({**PLAIN.to_dict(), **change})
        assert str(raised.value) == f"model config: {name} is {value!r}; it has to be {wanted}"
    with pytest.raises(UserError, match="missing"):
        T5Config.from_dict({"vocab_size": 8})
    with pytest.raises(UserError, match="known are tiny"):
        T5Config.named("huge")
    with pytest.raises(UserError, match=r"v1\.0"):
        T5Config.named("small", version="v2")  # type: ignore[arg-type]
