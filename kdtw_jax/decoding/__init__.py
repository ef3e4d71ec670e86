"""From a model to tokens: greedy decoding, sampling, beam search."""

from kdtw_jax.decoding.beam import beam_search
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import Generation, generate

__all__ = ["Generation", "beam_search", "generate", "log_policy"]
