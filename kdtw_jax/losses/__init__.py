"""Losses: pure functions of arrays that return `Weighted` sums."""

from kdtw_jax.losses.kl import TopK, token_kl, top_k_with_tail, topk_kl
from kdtw_jax.losses.likelihood import cross_entropy
from kdtw_jax.losses.metric import Weighted, weighted
from kdtw_jax.losses.pcl import PCLConfig, pcl_loss, policy_and_value

__all__ = [
    "PCLConfig",
    "TopK",
    "Weighted",
    "cross_entropy",
    "pcl_loss",
    "policy_and_value",
    "token_kl",
    "top_k_with_tail",
    "topk_kl",
    "weighted",
]
