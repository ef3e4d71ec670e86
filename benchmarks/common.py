"""What the benchmarks share: interleaved timing, and the record of a result."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from kdtw_jax.errors import UserError
from kdtw_jax.models import T5Config
from kdtw_jax.pipeline.presets import SMALL
from kdtw_jax.runs import Progress, print_table, provenance, write_json

Run = Callable[[], Any]
Line = dict[str, str | int | float | None]
Dtype = Literal["float32", "bfloat16"]


def pair(t5: Sequence[str], dtype: Dtype, vocabulary: int) -> dict[str, T5Config]:
    """A student and a teacher without dropout: the `small` preset's, or T5 v1.1 of two published sizes.

    Raises UserError for another number of sizes, and as `T5Config.named` does.
    """
    if len(t5) not in (0, 2):
        raise UserError(f"--t5 takes two sizes, the student's and the teacher's, got {len(t5)}")
    chosen: list[Any] = [T5Config.named(name, version="v1.1") for name in t5] or [SMALL.student, SMALL.teacher]
    same: dict[str, Any] = {"vocab_size": vocabulary, "dropout_rate": 0.0, "dtype": dtype}
    return {name: dataclasses.replace(c, **same) for name, c in zip(("student", "teacher"), chosen, strict=True)}


def median_seconds(functions: Mapping[str, Run], repeats: int) -> dict[str, float]:
    """Median wall-clock of each function. After one call of each that compiles, they are called in turn, `repeats`
    rounds of it: whatever else the machine does meets all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    with Progress("rounds", total=repeats + 1) as bar:
        for done in range(repeats + 1):
            for name, function in functions.items():
                started = time.perf_counter()
                jax.block_until_ready(function())
                if done:
                    times[name].append(time.perf_counter() - started)
            bar.update(done + 1)
    return {name: float(np.median(values)) for name, values in times.items()}


def matrix_product(dtype: Dtype, size: int) -> tuple[Run, float]:
    """A square matrix product, what this machine is measured by, and its FLOPs."""
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    multiply = jax.jit(lambda x: x @ x)
    return lambda: multiply(matrix), 2.0 * size**3


def report(
    name: str,
    title: str,
    table: Sequence[Line],
    ratios: Mapping[str, float],
    numbers: Mapping[str, Any],
    results: Path | None,
    started: float,
    **more: Any,
) -> None:
    """Prints table and ratios (each above 1 where this project is faster), and writes `NAME.json` if asked to."""
    columns = list(dict.fromkeys(column for line in table for column in line))
    print_table(title, [{column: line.get(column) for column in columns} for line in table], columns)
    for label, value in {**ratios, **numbers}.items():
        print(f"{label}: {value:.3g}" if isinstance(value, float) else f"{label}: {value}")
    if results is not None:
        record = provenance(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]], 0, started)
        content = {"ratios": dict(ratios), "numbers": dict(numbers), "table": list(table), **more, **record}
        write_json(results / f"{name}.json", content)


def torch_versions() -> dict[str, str]:
    """Of the packages compared with."""
    found = {}
    for package in ("torch", "transformers", "trl", "ctranslate2"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def need(*packages: str) -> None:
    """Raises UserError where one of the packages compared with is missing."""
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} not installed: pip install '.[benchmarks]'")
