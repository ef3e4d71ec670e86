"""Speed of distillation on this machine: `python -m benchmarks.train`.

Measures, interleaved in one process so that all see the same machine: a PCL update, rollout and teacher-scoring rates,
and how many student updates a teacher pass pays for. Plain training steps: `benchmarks.train_step`. Random weights and
tokens: speed does not depend on them, except that rollouts here run to full length.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.common import Line, Run, median_seconds, report
from benchmarks.train_step import stepper
from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch
from kdtw_jax.decoding import generate
from kdtw_jax.methods.path_terms import coefficients, path_loss
from kdtw_jax.models import Model, make_model, shift_right
from kdtw_jax.pipeline.presets import SMALL
from kdtw_jax.replay import Sample
from kdtw_jax.training.collect import Collector, minibatch_shares
from kdtw_jax.training.scoring import STUDENT, TEACHER, score_paths

BANNED = (0, 2, 3)


@dataclass(frozen=True)
class Args:
    """What to measure."""

    rows: int = 64
    """rows of a batch"""
    length: int = 32
    """tokens of a source and of a target"""
    repeats: int = 7
    """rounds; medians are reported"""
    results: Path | None = None
    """folder for train.json"""


def main(args: Args) -> None:
    """Prints the table, and writes train.json if asked to."""
    started = time.time()
    devices = parallel.select_devices(1)
    size = SMALL.text.vocab_size
    configs = {
        name: dataclasses.replace(c, vocab_size=size)
        for name, c in (("teacher", SMALL.teacher), ("student", SMALL.student))
    }
    models = {name: make_model(config) for name, config in configs.items()}
    params = {name: models[name].init(jax.random.key(0)) for name in models}
    rng = np.random.default_rng(0)
    source, target = (rng.integers(4, size, (args.rows, args.length)).astype(np.int32) for _ in range(2))
    batch = Batch(np.arange(args.rows, dtype=np.int32), source, target)
    functions: dict[str, Run] = {}
    config = SMALL.of("pcl")
    rows = score_paths(
        models["teacher"], params["teacher"], *map(jnp.asarray, batch), top_k=config.top_k, banned=BANNED
    )
    sample = Sample(rows, jnp.zeros(args.rows, jnp.int32))
    functions["pcl update"] = stepper(
        path_loss(models["student"], config, BANNED),
        coefficients(config),
        (models["student"], params["student"]),
        sample,
        devices,
    )
    teacher = (models["teacher"], params["teacher"])
    collect = Collector(models["student"], teacher, config, BANNED, devices)
    replicated = parallel.replicate(params["student"], devices)
    key_data = jax.random.key_data(jax.random.key(0, impl="rbg"))
    functions["collect"] = lambda: [
        collect(replicated, batch, key_data, 0),
        *(collect.scored(batch) for _ in range(config.reference_batches - 1)),
    ]
    noise = jax.random.uniform(jax.random.key(1), target.shape)
    functions["rollout"] = roll_out(models["student"], params["student"], source, noise)
    functions["teacher pass"] = forward(models["teacher"], params["teacher"], batch)

    seconds = median_seconds(functions, args.repeats)
    what = {
        "pcl update": "pcl update (replayed rows)",
        "collect": "collect (rollouts, teacher samples, scoring)",
        "rollout": "rollouts alone",
        "teacher pass": "teacher pass (one batch, forward)",
    }
    table: list[Line] = [{"what": words, "ms": 1e3 * seconds[name]} for name, words in what.items()]
    answered = sum(len(collect.some(batch, writer, 0).example_B) for writer in (STUDENT, TEACHER))
    # teacher passes of `rows` rows a collection
    scored = config.reference_batches + answered / args.rows
    per_pass = config.updates_per_rollout / scored
    with_replay = seconds["pcl update"] + seconds["collect"] / config.updates_per_rollout
    without = seconds["pcl update"] + seconds["collect"]
    numbers = {
        "rollout_tokens_per_s": args.rows * args.length / seconds["rollout"],
        "updates_per_teacher_pass": per_pass,
        "gkd_updates_per_teacher_pass": 1.0,
        "ms_per_update_with_replay": 1e3 * with_replay,
        "ms_per_update_without_replay": 1e3 * without,
        "minibatch_rows": float(sum(minibatch_shares(config, args.rows))),
    }
    title = f"{args.rows} rows of {args.length} + {args.length} tokens"
    report("train", title, table, {}, numbers, args.results, started)


def roll_out(model: Model, params: Any, source: np.ndarray, noise: jax.Array) -> Callable[[], jax.Array]:
    """Sampled rollouts; the end of sequence is banned, so that every row has its full length."""
    limits: dict[str, Any] = {"max_len": noise.shape[1], "banned": (1, *BANNED)}

    @jax.jit
    def run(params: Any) -> jax.Array:
        tokens: jax.Array = generate(model, params, jnp.asarray(source), noise, **limits).tokens_BxT
        return tokens

    return lambda: run(params)


def forward(model: Model, params: Any, batch: Batch) -> Callable[[], jax.Array]:
    """Teacher-forced logits of a batch."""
    source, inputs = jnp.asarray(batch.source_BxS), shift_right(jnp.asarray(batch.target_BxT))

    @jax.jit
    def run(params: Any) -> jax.Array:
        logits: jax.Array = model.decode(params, model.encode(params, source), inputs).logits_BxTxV
        return logits

    return lambda: run(params)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
