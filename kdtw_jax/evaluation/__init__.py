"""What is said about a model: scores of its texts, and how far it is from its teacher."""

from kdtw_jax.evaluation.differences import differences
from kdtw_jax.metrics.scores import Score, score, score_all
from kdtw_jax.metrics.scoring import Scoring, choose_scoring

__all__ = ["Score", "Scoring", "choose_scoring", "differences", "score", "score_all"]
