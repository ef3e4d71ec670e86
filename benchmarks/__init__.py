"""Speed on this machine: `python -m benchmarks.NAME`."""

import experiments  # noqa: F401, before NumPy and JAX are loaded
