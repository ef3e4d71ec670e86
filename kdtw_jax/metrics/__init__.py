"""Scores of texts against references, with bootstrap intervals."""
