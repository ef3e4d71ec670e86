"""Decoder-only models: the published ones' arithmetic, however a text is cut into prompt and rest, and fed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.models import CausalConfig, make_model, shift_right
from kdtw_jax.pretrained.causal_layout import read_causal
from kdtw_jax.pretrained.names import slots

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

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


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_the_published_library_says_cached_or_not(kind: str) -> None:
    theirs, config, params = published(kind)
    source, target = texts()
    model = make_model(config)
    encoded = model.encode(params, source)
    inputs = shift_right(target)
    found = model.decode(params, encoded, inputs).logits_BxTxV
    for row, length in enumerate(LENGTHS):
        ids = torch.tensor([[*source[row, :length], *target[row]]], dtype=torch.long)
        with torch.no_grad():
            want = theirs(input_ids=ids).logits[0, length - 1 : -1].numpy()
        np.testing.assert_allclose(found[row], want, atol=1e-4, rtol=1e-4)
    cache = model.start(params, encoded, T)
    pieces = []
    for first, last in ((0, 1), (1, 4), (4, T)):
        position = jnp.full(ROWS, first) if first == 1 else jnp.asarray(first)
        decoded, cache = model.extend(params, cache, inputs[:, first:last], position)
        pieces.append(decoded.logits_BxTxV)
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), found, atol=1e-4, rtol=1e-4)
