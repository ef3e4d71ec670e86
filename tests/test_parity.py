"""The arithmetic of published models: against `transformers` where torch is installed, and what it said once."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import VARIANTS, write_folder
from reference import BEAMS, KEPT, LENGTH, Arrays, batch, golden, run_transformers

from kdtw_jax.decoding import beam_search, generate
from kdtw_jax.pretrained.named import find_model, read_teacher

variants = pytest.mark.parametrize("variant", list(VARIANTS))
torch_missing = importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None
needs_torch = pytest.mark.skipif(torch_missing, reason="needs torch and transformers: pip install '.[parity]'")


@functools.cache
def ours(variant: str) -> Arrays:
    """What this package makes of the tiny published folder of a variant, under the names of the reference."""
    with tempfile.TemporaryDirectory() as scratch:
        model, params, tokenizer = read_teacher(
            find_model(str(write_folder(Path(scratch) / "model", VARIANTS[variant]))), dtype="float32"
        )
    banned = tokenizer.banned_ids
    source_BxS, inputs_BxT = map(jnp.asarray, batch())

    @jax.jit
    def run(params: object) -> dict[str, jax.Array]:
        encoded = model.encode(params, source_BxS)
        found = {
            "states": encoded.states_BxSxD,
            "logits": model.decode(params, encoded, inputs_BxT).logits_BxTxV,
            "greedy": generate(model, params, source_BxS, None, max_len=LENGTH, banned=banned).tokens_BxT,
            "beam": beam_search(
                model, params, source_BxS, beam_size=BEAMS, max_len=LENGTH, length_penalty=0.0, banned=banned
            ).tokens_BxT,
        }
        steps, cache = [], model.start(params, encoded, LENGTH)
        for t in range(LENGTH):
            decoded, cache = model.extend(params, cache, inputs_BxT[:, t : t + 1], jnp.asarray(t))
            steps.append(decoded.logits_BxTxV)
        return {**found, "steps": jnp.concatenate(steps, axis=1)}

    return jax.device_get(run(params))


def agree(ours: Arrays, theirs: Arrays) -> None:
    """Beams are searched without a length penalty, which the two define differently: ((5 + length) / 6) ** p here,
    length ** p there."""
    source_BxS, _ = batch()
    rows = len(theirs["states"])
    seen = source_BxS[:rows] != 0  # states of padding are never looked at
    np.testing.assert_allclose(ours["states"][:rows][seen], theirs["states"][seen], atol=1e-4)
    for name in ("logits", "steps"):
        np.testing.assert_allclose(ours[name][:rows], theirs["logits"], atol=1e-4)
    np.testing.assert_array_equal(ours["greedy"], theirs["greedy"])
    np.testing.assert_array_equal(ours["beam"], theirs["beam"])


@variants
def test_equals_what_transformers_said(variant: str) -> None:
    found = golden(variant)
    assert len(found["states"]) == KEPT
    agree(ours(variant), found)


@pytest.mark.long
@needs_torch
@variants
def test_equals_transformers(variant: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / variant, VARIANTS[variant])
    theirs = run_transformers(folder, find_model(str(folder)).tokenizer.banned_ids)
    agree(ours(variant), theirs)
    for name, kept in golden(variant).items():  # the golden files are of these models
        np.testing.assert_allclose(theirs[name][: len(kept)], kept, atol=1e-4)


def test_outputs_are_worth_comparing() -> None:
    """Some end and some do not, beams are not greedy, and the unbanned argmax is another."""
    for variant in VARIANTS:
        found = ours(variant)
        ended = (found["greedy"] == 1).any(axis=1)
        assert 0 < ended.sum() < len(ended)
        assert (found["beam"] != found["greedy"]).any()
        assert (found["logits"].argmax(-1) >= 40).any()
