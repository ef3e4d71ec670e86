"""How time and memory grow: `python -m benchmarks.growth`.

A PCL update of the `small` preset's student on replayed rows, and how its time and its memory (what XLA says it needs
beside arguments and results) change with batch, the length, the vocabulary, the width and the number of devices; how
adding to and drawing from the replay buffer do with its size; and what drawing a batch of text takes on the host.
Random weights and tokens.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.common import Line, Run, median_seconds, report
from kdtw_jax import parallel
from kdtw_jax.data.batches import Bucket, EncodedSplit, Ragged, training_batches
from kdtw_jax.losses.kl import TopK
from kdtw_jax.methods.path_terms import coefficients, path_loss
from kdtw_jax.models import Size, T5Config, make_model
from kdtw_jax.pipeline.presets import SMALL
from kdtw_jax.replay import Sample, make_replay
from kdtw_jax.training.collect import empty_row, minibatch_shares
from kdtw_jax.training.context import Chunks
from kdtw_jax.training.scoring import SOURCES, Trajectories
from kdtw_jax.training.state import init_state, make_optimizer, make_update

jax.config.update("jax_num_cpu_devices", 2)  # where there is no accelerator


class Case(NamedTuple):
    """An update's sizes; distributions of `chunk` positions and `vocab_chunk` tokens at a time (0: all)."""

    rows: int = 32
    length: int = 32
    vocabulary: int = 4000
    width: int = 80
    devices: int = 1
    chunk: int = 0
    vocab_chunk: int = 0


@dataclass(frozen=True)
class Args:
    """What to measure."""

    repeats: int = 7
    """rounds; medians are reported"""
    factors: tuple[int, ...] = (1, 2, 4)
    """multiples of each size"""
    results: Path | None = None
    """folder for growth.json"""


def main(args: Args) -> None:
    """Prints the table, and writes growth.json if asked to."""
    started = time.time()
    base, functions, bytes_of = Case(), {}, {}
    cases = {"base": base, "16 positions at a time": base._replace(chunk=16)}
    cases["500 tokens of the vocabulary at a time"] = base._replace(vocab_chunk=500)
    for size in ("rows", "length", "vocabulary", "width"):
        for factor in args.factors[1:]:
            cases[f"{size} x {factor}"] = base._replace(**{size: factor * getattr(base, size)})
    if len(jax.devices()) > 1:
        cases["2 devices"] = base._replace(devices=2)
    for name, case in cases.items():
        functions[name], bytes_of[name] = update(case)
    capacities = [factor * SMALL.of("pcl").capacity for factor in args.factors]
    functions |= {f"buffer, {capacity} rows a source: add and draw": buffer(base, capacity) for capacity in capacities}
    functions["a batch of text, on the host"] = text_batches(base)
    seconds = median_seconds(functions, args.repeats)
    table: list[Line] = [
        {"what": name, "ms": 1e3 * s, "MiB": bytes_of[name] / 2**20 if name in bytes_of else None}
        for name, s in seconds.items()
    ]
    numbers = {"input_share_of_a_step": seconds["a batch of text, on the host"] / seconds["base"]}
    title = f"PCL update, {base.rows} rows of {base.length} + {base.length} tokens, vocabulary {base.vocabulary}"
    report("growth", title, table, {}, numbers, args.results, started)


def rows_of(case: Case) -> Trajectories:
    """Scored paths of random tokens."""
    rng, shape = np.random.default_rng(0), (case.rows, case.length)
    source, tokens = (jnp.asarray(rng.integers(4, case.vocabulary, shape), jnp.int32) for _ in range(2))
    top = jnp.asarray(rng.integers(4, case.vocabulary, (*shape, SMALL.of("pcl").top_k)), jnp.int32)
    kept = TopK(jnp.full(top.shape, -5.0), top)
    return Trajectories(jnp.arange(case.rows), source, tokens, jnp.full(shape, -5.0), kept)


def update(case: Case) -> tuple[Run, int]:
    """An update, and the bytes that it needs on each device."""
    student = dataclasses.replace(T5Config.sized(Size(case.width, 4, 1)), vocab_size=case.vocabulary)
    built, devices = make_model(student), parallel.select_devices(case.devices)
    config, chunks = SMALL.of("pcl"), Chunks(case.chunk, case.vocab_chunk)
    optimizer = make_optimizer(SMALL.training.optimizer, 1000, built.role)
    step = make_update(path_loss(built, config, (), chunks), coefficients(config), optimizer)
    state = parallel.replicate(init_state(built.init(jax.random.key(0)), optimizer, 0), devices)
    sample = parallel.shard(Sample(rows_of(case), jnp.zeros(case.rows, jnp.int32)), devices)
    mapped: Any = parallel.data_parallel(step, devices)
    compiled = mapped.lower(state, sample).compile()
    memory = int(compiled.memory_analysis().temp_size_in_bytes)
    return lambda: mapped(state, sample), memory


def buffer(case: Case, capacity: int) -> Run:
    """Adding a batch of rows to a buffer, and drawing one from it."""
    bucket, rows = Bucket(case.length, case.length, case.rows), rows_of(case)
    replay = make_replay(capacity, minibatch_shares(SMALL.of("pcl"), case.rows), SOURCES)
    add, draw = jax.jit(replay.add, static_argnums=2, donate_argnums=0), jax.jit(replay.sample)
    state = replay.init(empty_row(bucket, SMALL.of("pcl").top_k))
    for source in range(len(SOURCES)):
        state = add(state, rows, source)

    def run() -> Sample:
        nonlocal state
        state = add(state, rows, 0)
        drawn: Sample = draw(state, jax.random.key(0))
        return drawn

    return run


def text_batches(case: Case) -> Run:
    """The next batch of training text, from ids of random lengths."""
    rng = np.random.default_rng(0)
    source, target = (
        Ragged.pack([rng.integers(4, 100, n).tolist() for n in rng.integers(4, case.length, 20_000)]) for _ in range(2)
    )
    split = EncodedSplit(source, target, np.arange(20_000, dtype=np.int32), 0, 0, 0)
    iterator = training_batches(split, (Bucket(case.length, case.length, case.rows),), seed=0)
    return lambda: next(iterator)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
