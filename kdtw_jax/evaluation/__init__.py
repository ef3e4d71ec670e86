"""What is said about a model: scores of its texts, and how far it is from its teacher."""

from kdtw_jax.evaluation.differences import differences
from kdtw_jax.metrics.scores import METRICS, Metric, Score, register_metric, score, score_all
from kdtw_jax.metrics.scoring import Scoring, choose_scoring

__all__ = [
    "METRICS",
    "Metric",
    "Score",
    "Scoring",
    "choose_scoring",
    "differences",
    "register_metric",
    "score",
    "score_all",
]
