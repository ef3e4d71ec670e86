"""Decoder-only models: the published ones' arithmetic, however a text is cut into prompt and rest, and fed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity import needs_torch

from kdtw_jax.decoding import beam_search, generate
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.errors import UserError
from kdtw_jax.models import CausalConfig, costs, count_params, make_model, shift_right
from kdtw_jax.models.causal import layers
from kdtw_jax.models.causal.layers import Part, fused_attention, rope_frequencies, seen
from kdtw_jax.pretrained.causal_layout import read_causal
from kdtw_jax.pretrained.names import slots

V, ROWS, S, T = 40, 5, 9, 7
LENGTHS = np.asarray([9, 1, 5, 8, 2])
TOY = {"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 4, "num_attention_heads": 4}
TOY |= {"num_key_value_heads": 2, "vocab_size": V, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
GEMMA = {"head_dim": 8, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
LONG = {"original_max_position_embeddings": 8, "factor": 4.0}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False, "head_dim": 10},
    "llama linear": {"rope_scaling": {"rope_type": "linear", "factor": 3.0}},
    "llama llama3": {"rope_scaling": {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LONG}},
    "mistral": {"sliding_window": 3},
    "qwen2": {"rope_scaling": {"rope_type": "yarn", **LONG}},
    "qwen3": {"head_dim": 8, "tie_word_embeddings": True},
    "gemma": {**GEMMA},
    "gemma2": {**GEMMA, "sliding_window": 3, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {**GEMMA, "sliding_window": 3, "layer_types": 3 * ["sliding_attention"] + ["full_attention"]},
}


def published(kind: str) -> tuple[Any, CausalConfig, Any]:
    """A random model of the library, and ours of its config.json and weights."""
    import torch
    import transformers

    name = kind.split()[0]
    stated = transformers.AutoConfig.for_model(name, **{**TOY, **KINDS[kind]})
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(stated, attn_implementation="eager").eval()
    with torch.no_grad():
        for tensor in theirs.parameters():  # norms and biases, too, that nothing is one or zero
            tensor.copy_(tensor + 0.3 * torch.randn(tensor.shape))
    config = read_causal(Path("config.json"), {k: v for k, v in stated.to_dict().items() if v is not None})
    weights = theirs.state_dict()
    params: dict[str, Any] = {}
    for full, slot in slots(config).items():
        inner = params
        for part in slot.path[:-1]:
            inner = inner.setdefault(part, {})
        x = weights.pop(full).numpy()
        assert x.shape == slot.shape
        inner[slot.path[-1]] = jnp.asarray(x.T if slot.transposed else x)
    assert not set(weights) - {"lm_head.weight"}
    return theirs, config, params


def texts() -> tuple[np.ndarray, np.ndarray]:
    """Prompts of unequal length, padded behind, and what follows."""
    rng = np.random.default_rng(1)
    source = rng.integers(3, V, (ROWS, S)) * (np.arange(S) < LENGTHS[:, None])
    return source.astype(np.int32), rng.integers(3, V, (ROWS, T)).astype(np.int32)


@needs_torch
@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_the_published_library_says_cached_or_not(kind: str) -> None:
    theirs, config, params = published(kind)
    import torch

    source, target = texts()
    model = make_model(config)
    encoded = jax.jit(model.encode)(params, source)
    inputs = shift_right(jnp.asarray(target))
    found = jax.jit(model.decode)(params, encoded, inputs).logits_BxTxV
    for row, length in enumerate(LENGTHS):
        ids = torch.tensor([[*source[row, :length], *target[row]]], dtype=torch.long)
        with torch.no_grad():
            want = theirs(input_ids=ids).logits[0, length - 1 : -1].numpy()
        np.testing.assert_allclose(found[row], want, atol=1e-4, rtol=1e-4)
    cache, extend = model.start(params, encoded, T), jax.jit(model.extend)
    pieces = []
    for first, last in ((0, 1), (1, 4), (4, T)):
        position = jnp.full(ROWS, first) if first == 1 else jnp.asarray(first)
        decoded, cache = extend(params, cache, inputs[:, first:last], position)
        pieces.append(decoded.logits_BxTxV)
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), found, atol=1e-4, rtol=1e-4)


MODEL = make_model(CausalConfig.toy(V, dropout_rate=0.0, sliding_window=3, full_every=2, gate_width=4))
PARAMS = MODEL.init(jax.random.key(0))
LOUD = jax.tree.map(lambda x: 2.0 * x, PARAMS)  # nobody is sure of the same token everywhere


@jax.jit
def read(source: jax.Array, inputs: jax.Array) -> jax.Array:
    return MODEL.decode(LOUD, MODEL.encode(LOUD, source), inputs).logits_BxTxV


def test_what_stands_behind_a_prompt_changes_nothing() -> None:
    source, target = texts()
    inputs = shift_right(jnp.asarray(target))
    wide = np.pad(source, ((0, 0), (0, 3)))
    one, other, nothing = (read(s, inputs) for s in (source, wide, 0 * source))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.isfinite(nothing).all()


def test_a_row_may_go_back_and_beams_change_places() -> None:
    source, target = texts()
    inputs = shift_right(jnp.asarray(target))
    whole, extend = read(source, inputs), jax.jit(MODEL.extend)
    cache = MODEL.start(LOUD, MODEL.encode(LOUD, source), T + 2)
    _, cache = extend(LOUD, cache, jnp.full((ROWS, T), 7, jnp.int32), jnp.zeros(ROWS, jnp.int32))
    back_B = jnp.asarray([0, 1, 2, 0, 0])
    # Rows go on from different places: before these they are fed what is right.
    _, cache = extend(LOUD, cache, inputs[:, :2], jnp.asarray(0))
    picked = jnp.take_along_axis(inputs, back_B[:, None] + jnp.arange(3)[None], axis=1)
    found, _ = extend(LOUD, cache, picked, back_B)
    want = jnp.take_along_axis(whole, (back_B[:, None] + jnp.arange(3)[None])[..., None], axis=1)
    np.testing.assert_allclose(found.logits_BxTxV, want, atol=1e-4)

    limits: dict[str, Any] = {"max_len": T, "banned": (0, 1, 2)}  # nothing ends, so that beams change places
    greedy = jax.jit(lambda: generate(MODEL, LOUD, jnp.asarray(source), None, **limits))()
    beams = jax.jit(lambda: beam_search(MODEL, LOUD, jnp.asarray(source), beam_size=4, length_penalty=0.0, **limits))()
    for written in (greedy, beams):
        policy = log_policy(read(source, shift_right(written.tokens_BxT)), (0, 1, 2))
        taken = jnp.take_along_axis(policy, written.tokens_BxT[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(taken, written.log_prob_BxT, rtol=1e-4, atol=1e-4)
    assert np.any((beams.log_prob_BxT - greedy.log_prob_BxT).sum(axis=1) > 0.1)


def test_a_long_prompt_is_read_some_queries_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    source = jnp.asarray(np.random.default_rng(0).integers(3, V, (2, 37)).astype(np.int32)).at[1, 30:].set(0)

    @jax.jit
    def of(params: Any) -> Any:
        prompt = MODEL.encode(params, source)
        return prompt.states_BxSxD, prompt.keys_values

    def slope(params: Any) -> Any:
        return jax.jit(jax.grad(lambda p: sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(of(p)))))(params)

    want, want_slope = of(LOUD), slope(LOUD)
    monkeypatch.setattr(layers, "QUERIES", 8)
    jax.clear_caches()
    for found, wanted in ((of(LOUD), want), (slope(LOUD), want_slope)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-3), found, wanted)


def test_memory_grows_with_a_prompts_length_and_not_with_its_square() -> None:
    model = make_model(CausalConfig.toy(V, num_layers=1))
    params = jax.eval_shape(model.init, jax.random.key(0))

    def needs(length: int) -> int:
        source = jax.ShapeDtypeStruct((1, length), jnp.int32)
        return int(jax.jit(model.encode).lower(params, source).compile().memory_analysis().temp_size_in_bytes)

    assert needs(8192) < 5 * needs(2048)


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("prompt", [True, False])
def test_fused_attention_sees_what_the_other_sees(prompt: bool, window: int) -> None:
    config = MODEL.config
    keys = jax.random.split(jax.random.key(3), 6)
    draw = lambda i, heads, length: jax.random.normal(keys[i], (2, heads, length, config.head_dim))  # noqa: E731
    where = jnp.arange(8)[None]
    parts = [Part((draw(0, 2, 8), draw(1, 2, 8)), where)]
    queries, position = draw(4, 4, 8), jnp.broadcast_to(where, (2, 8))
    if not prompt:
        position = position + jnp.asarray([3, 7])[:, None]
        parts = [parts[0]._replace(position_BxS=jnp.where(where < position[:, :1], where, 2**30))]
        parts.append(Part((draw(2, 2, 8), draw(3, 2, 8)), position))
    fused = fused_attention(config, window, queries, position, parts, implementation="xla")
    module = layers.Attention(config, window)
    grouped = queries.reshape(2, 2, 2, 8, config.head_dim)
    mixed = module.apply({}, grouped, position, parts, None, method=lambda self, *a: layers.Attention._mix(self, *a))
    np.testing.assert_allclose(fused, mixed.transpose(0, 3, 1, 2, 4).reshape(2, 8, -1), atol=1e-5)
    assert seen(3, jnp.asarray([[5]]), jnp.asarray([[2, 3, 5, 6]])).tolist() == [[[False, True, True, False]]]


def test_what_it_costs_is_what_it_is() -> None:
    config = CausalConfig.toy(V, qkv_bias=True)
    params = make_model(replace(config, value_heads=False)).init(jax.random.key(0))
    takes = costs(config)
    matrices = [x for x in jax.tree.leaves(params) if x.ndim == 2]
    assert takes.target_parameters == count_params(matrices) and takes.target_parameters > takes.source_parameters
    cache = MODEL.start(PARAMS, MODEL.encode(PARAMS, texts()[0]), T)
    held = sum(x.nbytes for pair in (*cache.own, *cache.prompt.keys_values) for x in pair)
    assert held == ROWS * costs(MODEL.config).cache_bytes(S, T)


@needs_torch
def test_arithmetic_in_bfloat16_is_near() -> None:
    _, config, params = published("qwen3")
    source, target = texts()
    both = []
    for dtype in ("float32", "bfloat16"):
        model = make_model(replace(config, dtype=dtype))
        inputs = shift_right(jnp.asarray(target))
        decoded = jax.jit(lambda p, m=model, x=inputs: m.decode(p, m.encode(p, source), x))(params)
        assert decoded.logits_BxTxV.dtype == jnp.float32
        both.append(np.asarray(log_policy(decoded.logits_BxTxV, ())))
    assert 1e-4 < np.abs(both[0] - both[1]).mean() < 0.1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head_dim": 5}, "head_dim is 5; it has to be an even number of at least 2"),
        ({"num_kv_heads": 3}, "num_kv_heads is 3; it has to be a divisor of num_heads, 4"),
        ({"rope_kind": "yarn", "rope_theta": 1.0}, "rope_theta is 1.0; it has to be a number above 1 where"),
        ({"rope_theta": 0.0}, "rope_theta is 0.0; it has to be a number above 0 and below 1e"),
        ({"rope_kind": "dynamic"}, "rope_kind is 'dynamic'; it has to be 'default' or 'linear' or 'llama3' or 'yarn'"),
        ({"rope_kind": "yarn", "rope_low": 4.0}, "rope_high is 4.0; it has to be another number than rope_low"),
        ({"fused_attention": True}, "fused_attention with dtype 'float32' and head_dim 6; cuDNN's needs 'bfloat16'"),
        ({"dropout_rate": 1.0}, "dropout_rate is 1.0; it has to be a number of at least 0 and below 1"),
    ],
)
def test_a_config_that_no_model_can_have_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        CausalConfig.toy(**changes)


def test_positions_turn_slower_the_further_apart_the_pairs_are() -> None:
    config = CausalConfig.toy(rope_kind="llama3", rope_factor=8.0, rope_length=64.0, head_dim=32)
    plain, stretched = rope_frequencies(replace(config, rope_kind="default"), 0), rope_frequencies(config)
    ratio = plain / stretched
    assert ratio[0] == 1 and ratio[-1] == pytest.approx(8.0) and np.all(np.diff(ratio) >= -1e-6)
