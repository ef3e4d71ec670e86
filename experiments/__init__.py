"""Command lines of a clone. Importing this, before anything else, makes training on a CPU faster: see `keep_memory`."""

from kdtw_jax.cli.memory import keep_memory

keep_memory()
