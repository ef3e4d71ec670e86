"""What is said about a model: scores of its texts, and how far it is from its teacher."""

from kdtw_jax.evaluation.differences import differences
from kdtw_jax.evaluation.metrics import Score, score, score_all

__all__ = ["Score", "differences", "score", "score_all"]
