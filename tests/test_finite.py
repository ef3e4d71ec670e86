"""Weights that are no numbers are named as they are read, and scores that are none are never taken for an output."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import V10, V11, tensors, write_folder

from kdtw_jax import parallel
from kdtw_jax.decoding.sample import choose, inverse_cdf
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.decode import Decoding, decode_split
from kdtw_jax.finite import check_finite, check_written
from kdtw_jax.methods.seqkd import BeamConfig, write_outputs
from kdtw_jax.pretrained.load import open_published, read_published
from kdtw_jax.pretrained.named import find_model, read_student, read_teacher
from kdtw_jax.training.saved import load_model, save_model
from tests.world import BUCKETS, World

KEY = jax.random.key(0)
Q = "decoder.block.1.layer.1.EncDecAttention.q.weight"
NORM = "encoder.final_layer_norm.weight"
BIAS = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


def refusal(folder: Path, dtype: str = "float32") -> str:
    """What is said of a teacher's weights as they are read; the model of a folder is found without reading them."""
    found = find_model(str(folder))
    with pytest.raises(UserError) as raised:
        read_teacher(found, dtype=dtype)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("stored", "name", "place", "value"),
    [
        ("float16", Q, (3, 7), np.inf),
        ("bfloat16", NORM, (15,), -np.inf),
        ("float32", BIAS, (0, 0), np.nan),
        ("float64", "shared.weight", (147, 2), np.inf),
        ("bfloat16", "lm_head.weight", (1, 1), np.nan),
    ],
)
def test_one_number_that_is_none_is_named(
    stored: str, name: str, place: tuple[int, ...], value: float, tmp_path: Path
) -> None:
    weights = {key: x.astype(jnp.dtype(stored)) for key, x in tensors(V11).items()}
    weights[name][place] = value
    folder = write_folder(tmp_path / "model", V11, weights, shards=2)
    said = refusal(folder)
    (shard,) = [file for file in folder.glob("model-*") if name.encode() in file.read_bytes()[:20000]]
    assert said.startswith(f"{shard}: {name} has 1 number that is not finite ({value:g} at {list(place)}); ")
    assert "overflowed in float16" in said
    named = find_model(str(folder))
    with pytest.raises(UserError, match="not finite"):
        read_student(named, dataclasses.replace(named.config, value_heads=True), KEY)


def test_all_numbers_that_are_none_are_counted_and_the_first_is_placed() -> None:
    x = np.zeros((9000, 3), np.float16)
    check_finite("x", x, len(x), "")
    x[8191, 2], x[8192:8500, 1] = -np.inf, np.nan
    with pytest.raises(UserError, match=re.escape("309 numbers that are not finite (the first is -inf at [8191, 2])")):
        check_finite("x", x, len(x), "")


@pytest.mark.parametrize("stored", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_none_is_found_in_any_place(stored: str, value: float) -> None:
    drawn = np.random.default_rng(0)
    for size in (1, 3, 16, 37):
        for place in range(size * 5):
            x = drawn.standard_normal((size, 5)).astype(jnp.dtype(stored))
            check_finite("x", x, size, "")
            x.flat[place] = value
            with pytest.raises(UserError, match="1 number that is not finite"):
                check_finite("x", x, size, "")
    check_finite("x", np.zeros((0, 5), jnp.dtype(stored)), 0, "")


@pytest.mark.parametrize(
    ("stored", "value"), [("float64", 1e300), ("float64", -1e20), ("float32", 3.4e38), ("bfloat16", 3.3e38)]
)
def test_numbers_whose_squares_are_none_are_named_too(stored: str, value: float, tmp_path: Path) -> None:
    """Norms would make zeros of them: the same outputs for all that is read."""
    weights = {key: x.astype(jnp.dtype(stored)) for key, x in tensors(V10).items()}
    weights[Q][3, 7] = value
    folder = write_folder(tmp_path / "model", V10, weights)
    wanted = float(weights[Q][3, 7])
    for dtype in ("float32", "bfloat16"):
        assert f"{Q} has 1 number that is too large ({wanted:g} at [3, 7])" in refusal(folder, dtype)
    weights[Q][3, 7] = 1e19
    read_teacher(find_model(str(write_folder(tmp_path / "model", V10, weights))), dtype="bfloat16")
    weights[Q][3, 7], weights[Q][4, 7] = value, np.nan
    assert "2 numbers that are not finite" in refusal(write_folder(tmp_path / "model", V10, weights))


def test_a_damaged_copy_is_said_to_be_damaged_and_not_another_tensor(tmp_path: Path) -> None:
    weights = tensors(V10)
    for name, value in (("lm_head.weight", np.inf), ("encoder.embed_tokens.weight", np.nan)):
        copy = weights["shared.weight"].copy()
        copy[5, 3] = value
        said = refusal(write_folder(tmp_path / "model", V10, {**weights, name: copy}))
        assert f"{name} has 1 number that is not finite ({value:g} at [5, 3])" in said
    both = weights["shared.weight"].copy()
    both[5, 3] = np.nan
    folder = write_folder(tmp_path / "model", V10, {**weights, "shared.weight": both, "lm_head.weight": both.copy()})
    assert "not finite (nan at [5, 3])" in refusal(folder)


def test_a_saved_model_of_ours_is_looked_through_as_well(tmp_path: Path) -> None:
    world = World()
    params = jax.tree.map(np.array, world.params)
    save_model(tmp_path / "sound", world.config, params, world.tokenizer)
    load_model(tmp_path / "sound")
    params["decoder"]["block_1"]["self_attention"]["q"]["kernel"][2, 3] = np.nan
    save_model(tmp_path / "model", world.config, params, world.tokenizer)
    message = r"params: decoder/block_1/self_attention/q/kernel has 1 number that is not finite \(nan at \[2, 3\]\)"
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "model")
    assert "params: decoder/block_1" in refusal(tmp_path / "model")


@pytest.mark.parametrize("vocabulary", [2, 63, 64, 65, 130, 4000])
def test_no_id_beyond_the_vocabulary_comes_out_whatever_goes_in(vocabulary: int) -> None:
    rng = np.random.default_rng(vocabulary)
    sound = rng.random((4, vocabulary)).astype(np.float32)
    hostile = np.stack([np.full(vocabulary, value, np.float32) for value in (np.nan, 0, -1, np.inf, -np.inf)])
    mixed = np.where(rng.random((6, vocabulary)) < 0.5, np.nan, sound[[0] * 6]).astype(np.float32)
    rows = jnp.asarray(np.concatenate([sound, hostile, mixed]))
    for noise in (0.0, 0.3, float(np.nextafter(np.float32(1), np.float32(0))), 1.0, np.nan):
        drawn = np.asarray(inverse_cdf(rows, jnp.full(len(rows), noise, jnp.float32)))
        assert (drawn >= 0).all() and (drawn < vocabulary).all()
        np.testing.assert_array_equal(drawn[:4], inverse_cdf(rows[:4], jnp.full(4, noise, jnp.float32)))
        assert drawn[4] == 0  # NaN: padding, which nobody may write
    best = np.asarray(choose(rows, None))
    assert (best >= 0).all() and (best < vocabulary).all() and best[4] == 0
    np.testing.assert_array_equal(best[:4], sound.argmax(axis=1))


def overflowing(params: Any) -> Any:
    """Finite weights whose products are not."""
    params = jax.tree.map(np.array, params)
    params["decoder"]["final_norm"]["scale"][:] = 3e38
    return params


@pytest.mark.parametrize("mode", ["greedy", "sample", "beam"])
def test_outputs_of_scores_that_are_none_are_refused(mode: Any) -> None:
    world = World()
    sound = decode_split("t", world.model, world.params, world.data, BUCKETS, world.tokenizer, Decoding(mode))
    assert len(sound.texts) == len(world.data)
    broken = overflowing(world.params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(broken))
    with pytest.raises(UserError, match=r"^t: the model's scores are not finite in \d+ of \d+ outputs") as raised:
        decode_split("t", world.model, broken, world.data, BUCKETS, world.tokenizer, Decoding(mode))
    assert "\n" not in str(raised.value)


def test_a_teacher_whose_scores_are_none_writes_no_targets(tmp_path: Path) -> None:
    world = World()
    teacher = world.model, overflowing(world.params)
    how: dict[str, Any] = {"banned": world.banned, "devices": parallel.select_devices(1)}
    with pytest.raises(UserError, match=r"^beams: the model's scores are not finite"):
        write_outputs("beams", tmp_path / "beams", teacher, world.data, BUCKETS, BeamConfig(2, 0.6), **how)
    assert not list(tmp_path.rglob("*.npz"))


def test_only_padding_before_the_end_is_none() -> None:
    tokens = np.array([[5, 6, 7, 8], [5, 1, 0, 0], [1, 0, 0, 0], [5, 6, 7, 1]], np.int32)
    check_written("t", tokens)
    check_written("t", tokens, np.zeros_like(tokens, bool))
    for row, place in ((0, 0), (0, 3), (1, 0), (3, 2)):
        broken, asked = tokens.copy(), np.zeros_like(tokens, bool)
        broken[row, place] = 0
        with pytest.raises(UserError, match="the model's scores are not finite in 1 of 4"):
            check_written("t", broken)
        with pytest.raises(UserError, match="the student's scores"):
            check_written("t", broken, asked)
        asked[row, place] = True
        with pytest.raises(UserError, match="the teacher's scores"):
            check_written("t", broken, asked)


def test_reading_does_not_change_sound_weights(tmp_path: Path) -> None:
    weights = tensors(V10)
    weights[Q][0, 0], weights[NORM][0] = np.float32(1e19), np.float32(1e-45)  # odd, and numbers
    found = open_published(write_folder(tmp_path / "model", V10, weights))
    params = read_published(found, found.config, KEY)
    assert params["decoder"]["block_1"]["cross_attention"]["q"]["kernel"][0, 0] == np.float32(1e19)
