"""Decoder-only models: Llama, SmolLM2, Qwen, Gemma."""

from kdtw_jax.models.causal.config import FLAGS, CausalConfig
from kdtw_jax.models.causal.costs import causal_costs
from kdtw_jax.models.causal.model import make_network, shallower
from kdtw_jax.models.interface import Family

CAUSAL = Family("causal", CausalConfig, make_network, causal_costs, CausalConfig.sized, FLAGS, shallower)
