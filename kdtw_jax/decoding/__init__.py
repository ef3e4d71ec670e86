"""From a model to tokens: greedy decoding, sampling, beam search, and decoding with help."""

from kdtw_jax.decoding.beam import beam_search
from kdtw_jax.decoding.help import Helped, generate_with_help
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import Generation, generate

__all__ = ["Generation", "Helped", "beam_search", "generate", "generate_with_help", "log_policy"]
