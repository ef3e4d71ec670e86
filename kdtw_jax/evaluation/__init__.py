"""What is said about a model: scores of its texts, and how far it is from its teacher."""

from kdtw_jax.evaluation.metrics import Difference, Score, paired_difference, score, score_all

__all__ = ["Difference", "Score", "paired_difference", "score", "score_all"]
