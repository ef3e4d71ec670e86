"""The `config.json` of published decoder-only models, both ways: Llama, Mistral, Qwen 2 and 3, Gemma 1 to 3."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdtw_jax.errors import UserError, told_of
from kdtw_jax.models import CausalConfig

_GEMMA = {"norm_offset": True, "embedding_scale": True, "activation": "gelu"}
# What each kind has that Llama has not.
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "gemma": _GEMMA,
    "gemma2": {**_GEMMA, "outer_norms": True},
    "gemma3_text": {**_GEMMA, "outer_norms": True, "qk_norm": True},
}
_CLASSES = {
    **{kind: f"{kind.capitalize()}ForCausalLM" for kind in KINDS},
    "gemma3_text": "Gemma3ForCausalLM",
}
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
}
_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu"}
_PATTERN = {"gemma2": 2, "gemma3_text": 6}  # every such layer sees everything, where a file does not say
_STRETCH = {"factor": "rope_factor"}
_LENGTH = {**_STRETCH, "original_max_position_embeddings": "rope_length"}
# What is said of each kind of stretched positions, and what it is called here.
_SAID: dict[str, dict[str, str]] = {
    "linear": _STRETCH,
    "llama3": {**_LENGTH, "low_freq_factor": "rope_low", "high_freq_factor": "rope_high"},
    "yarn": {**_LENGTH, "beta_slow": "rope_low", "beta_fast": "rope_high"},
}
_USUAL = {"beta_slow": 1.0, "beta_fast": 32.0}
_SLIDING, _FULL = "sliding_attention", "full_attention"


def read_causal(file: Path, stated: Mapping[str, Any]) -> CausalConfig:
    """Reads the sizes and variant that a `config.json` states, in float32, without heads of our own.

    Args:
      file: for messages.
      stated: what it says, without nulls.

    Raises:
      UserError: something is missing, of another type, or beyond what `CausalConfig` can say.
    """
    kind = str(stated["model_type"])
    if missing := [name for name in _SIZES if name not in stated]:
        raise UserError(f"{file} does not say {', '.join(missing)}")
    for name in ("attention_bias", "mlp_bias", "use_bidirectional_attention"):
        if stated.get(name, False) not in (False, []):
            raise UserError(f"{file} has {name} {reprlib.repr(stated[name])}; models with that are not known here")
    gemma = kind.startswith("gemma")
    said = stated.get("hidden_activation", stated.get("hidden_act", "gelu_pytorch_tanh" if gemma else "silu"))
    if kind == "gemma" and said == "gelu":
        said = "gelu_pytorch_tanh"  # as the first files named it
    if not isinstance(said, str) or said not in _ACTIVATIONS:
        raise UserError(f"{file} has hidden_act {reprlib.repr(said)}; known are {', '.join(_ACTIVATIONS)}")
    heads, width = stated["num_attention_heads"], stated["hidden_size"]
    whole = all(isinstance(x, int) and x > 0 for x in (heads, width))
    with told_of(file):
        return CausalConfig(
            **{ours: stated[name] for name, ours in _SIZES.items()},
            **{**KINDS[kind], "activation": _ACTIVATIONS[said]},
            num_kv_heads=stated.get("num_key_value_heads", heads),
            head_dim=stated.get("head_dim", 256 if gemma else width // heads if whole else 0),
            norm_epsilon=stated.get("rms_norm_eps", 1e-6),
            tie_embeddings=stated.get("tie_word_embeddings", gemma),
            query_scale=stated.get("query_pre_attn_scalar", 256) if kind in ("gemma2", "gemma3_text") else 0.0,
            score_cap=stated.get("attn_logit_softcapping", 0.0),
            logit_cap=stated.get("final_logit_softcapping", 0.0),
            **_windows(file, kind, stated),
            **_rope(file, kind, stated),
            value_heads=False,
        )


def _windows(file: Path, kind: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Which layers see only so far back."""
    window, layers = stated.get("sliding_window", 0), stated["num_hidden_layers"]
    kinds = stated.get("layer_types")
    if type(layers) is not int:
        return {}  # which the config refuses
    if kinds is None:
        if not window or (kind.startswith("qwen") and not stated.get("use_sliding_window", False)):
            return {}
        if kind.startswith("qwen"):
            first = stated.get("max_window_layers", layers)
            kinds = [_FULL if i < first else _SLIDING for i in range(layers)]
        else:
            every = stated.get("sliding_window_pattern", _PATTERN.get(kind, 0))
            return {"sliding_window": window, "full_every": every}
    if not isinstance(kinds, list) or not set(map(str, kinds)) <= {_FULL, _SLIDING}:
        raise UserError(f"{file} has layer_types {reprlib.repr(kinds)}; known are {_FULL} and {_SLIDING}")
    if _SLIDING not in kinds:
        return {}
    for every in (0, *range(2, len(kinds) + 1)):
        if kinds == [_FULL if every and (i + 1) % every == 0 else _SLIDING for i in range(len(kinds))]:
            return {"sliding_window": window, "full_every": every}
    raise UserError(f"{file} has layer_types in another order than every so many of them {_FULL}")


def _rope(file: Path, kind: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary positions, as older files say it (rope_theta, rope_scaling) and newer ones (rope_parameters)."""
    old, new = stated.get("rope_scaling", {}), stated.get("rope_parameters", {})
    found: dict[str, Any] = {}
    theta, local = 10_000.0, {}
    if kind == "gemma3_text" and isinstance(new, dict):
        local, new, theta = new.get(_SLIDING, {}), new.get(_FULL, {}), 1_000_000.0
    for said in (old, new, local):
        if not isinstance(said, dict):
            raise UserError(f"{file} has rope_scaling {reprlib.repr(said)}; it has to be an object")
    if kind == "gemma3_text":
        found["rope_local_theta"] = local.get("rope_theta", stated.get("rope_local_base_freq", 10_000.0))
    scaling = {"rope_theta": stated.get("rope_theta", theta), **old, **new}
    found["rope_theta"] = scaling["rope_theta"]
    how = scaling.get("rope_type", scaling.get("type", "default"))
    if how == "default":
        return found
    if not isinstance(how, str) or how not in _SAID:
        raise UserError(f"{file} has rope_type {reprlib.repr(how)}; known are default, {', '.join(_SAID)}")
    usual = {"original_max_position_embeddings": stated.get("max_position_embeddings"), **_USUAL, **scaling}
    wanted = {name: usual.get(name) for name in _SAID[how]}
    if missing := [name for name, value in wanted.items() if value is None]:
        raise UserError(f"{file} does not say {missing[0]} of rope_type {how}")
    if how == "yarn" and isinstance(factor := wanted["factor"], int | float):
        found["rope_scale"] = scaling.get("attention_factor", 0.1 * math.log(max(factor, 1.0)) + 1.0)
    return {**found, "rope_kind": how, **{_SAID[how][name]: value for name, value in wanted.items()}}


def write_causal(config: CausalConfig) -> dict[str, Any]:
    """What a `config.json` says of a model of ours, but for its tokens.

    Raises:
      UserError: no published kind of model has its combination of parts.
    """
    parts = {name: getattr(config, name) for name in ("qkv_bias", "qk_norm", "norm_offset", "outer_norms")}
    parts |= {"embedding_scale": config.embedding_scale, "activation": config.activation}
    plain = {**dict.fromkeys(parts, False), "activation": "silu"}
    windows = bool(config.sliding_window)
    kinds = [kind for kind, more in KINDS.items() if {**plain, **more} == parts and (kind != "llama" or not windows)]
    if not kinds:
        raise UserError(f"no published kind of model has these parts together: {parts}; export a model of one kind")
    kind = kinds[0]
    stated: dict[str, Any] = {published: getattr(config, ours) for published, ours in _SIZES.items()}
    stated |= {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": int(config.rope_length * config.rope_factor),
        "rope_theta": config.rope_theta,
    }
    stated["hidden_activation" if kind.startswith("gemma") else "hidden_act"] = next(
        published for published, ours in _ACTIVATIONS.items() if ours == config.activation
    )
    if config.rope_kind != "default":
        said = {published: getattr(config, ours) for published, ours in _SAID[config.rope_kind].items()}
        more = {"attention_factor": config.rope_scale} if config.rope_kind == "yarn" else {}
        stated["rope_scaling"] = {"rope_type": config.rope_kind, **said, **more}
    if windows:
        stated["sliding_window"] = config.sliding_window
        if kind != "mistral":
            stated["layer_types"] = [_SLIDING if config.window(i) else _FULL for i in range(config.num_layers)]
        if kind.startswith("qwen"):
            stated |= {"use_sliding_window": True, "max_window_layers": 0}
    if kind in ("gemma2", "gemma3_text"):
        stated["query_pre_attn_scalar"] = config.query_scale or config.head_dim
        stated["attn_logit_softcapping"] = config.score_cap or None
        stated["final_logit_softcapping"] = config.logit_cap or None
    if kind == "gemma3_text":
        stated["rope_local_base_freq"] = config.rope_local_theta or config.rope_theta
    return stated
