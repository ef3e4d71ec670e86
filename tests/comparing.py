"""The metrics that compare any output with its reference: all but those that say which way a sum was solved, and those
that read class material."""

from kdtw_jax.metrics.scores import METRICS

READING = ("right", "calculations", "in_head", "specification", "outline", "reasoning_gym")
COMPARING = tuple(name for name in METRICS if name not in ("long_way", *READING))
