"""What a run leaves behind: its folder, metrics, progress, tables and provenance."""

from kdtw_jax.runs.atomic import write_json, write_text
from kdtw_jax.runs.compiled import keep_compiled, unoptimised
from kdtw_jax.runs.folder import RunFolder, open_run
from kdtw_jax.runs.metrics_log import MetricsLog, read_metrics
from kdtw_jax.runs.progress import Progress
from kdtw_jax.runs.provenance import describe, provenance
from kdtw_jax.runs.tables import print_table, read_csv, write_csv

__all__ = [
    "MetricsLog",
    "Progress",
    "RunFolder",
    "describe",
    "keep_compiled",
    "open_run",
    "print_table",
    "provenance",
    "read_csv",
    "read_metrics",
    "unoptimised",
    "write_csv",
    "write_json",
    "write_text",
]
