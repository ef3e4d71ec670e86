"""The metrics that compare an output with its reference: all but the one that says which way a sum was solved."""

from kdtw_jax.metrics.scores import METRICS

COMPARING = tuple(name for name in METRICS if name != "long_way")
