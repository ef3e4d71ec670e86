"""Speed of training on this machine: `python -m benchmarks.train`.

Measures, interleaved in one process so that all see the same machine: a matrix product (the machine's own peak), a
train step of teacher and student as shares of it, rollout and teacher-scoring rates, and how many student updates a
teacher pass pays for. Random weights and tokens: speed does not depend on them, except that rollouts here run to full
length.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.presets import SMALL
from kdtw_jax.data.batches import Batch
from kdtw_jax.decoding import generate
from kdtw_jax.losses.metric import Weighted
from kdtw_jax.models import Model, T5Config, make_model, shift_right
from kdtw_jax.replay import Sample
from kdtw_jax.runs import print_table, provenance, write_json
from kdtw_jax.train import parallel
from kdtw_jax.train.distil import Collector, coefficients, minibatch_shares, path_loss
from kdtw_jax.train.fit import likelihood_loss
from kdtw_jax.train.scoring import score
from kdtw_jax.train.state import Coefficient, Whole, init_state, make_optimizer, make_update

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


def step_flops(config: T5Config, rows: int, source: int, target: int) -> float:
    """Multiply-adds of the matrix products of a training step, times two: forward, and twice that backward."""
    inner = config.num_heads * config.d_kv
    projections = 4 * config.d_model * inner
    feed_forward = (3 if config.feed_forward == "gated-gelu" else 2) * config.d_model * config.d_ff
    encoder = config.num_layers * (source * (projections + feed_forward) + 2 * source**2 * inner)
    cross = target * projections / 2 + source * projections / 2 + 2 * source * target * inner
    decoder = config.num_decoder_layers * (target * (projections + feed_forward) + 2 * target**2 * inner + cross)
    return 6.0 * rows * (encoder + decoder + target * config.d_model * config.vocab_size)


def median_seconds(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median wall-clock of each function, called in turn `repeats` times after one call that compiles."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            jax.block_until_ready(function())
            times[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in times.items()}


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
    matrix = jnp.ones((2048, 2048))
    multiply = jax.jit(lambda x: x @ x)

    functions: dict[str, Callable[[], Any]] = {"peak": lambda: multiply(matrix)}
    for name, fit in (("teacher", SMALL.teacher_fit), ("student", SMALL.mle)):
        functions[f"{name} step"] = stepper(
            likelihood_loss(models[name], fit, (), None), {"nll": 1.0}, params[name], (batch, Whole(())), devices
        )
    config = SMALL.pcl
    rows = score(models["teacher"], params["teacher"], *map(jnp.asarray, batch), top_k=config.top_k, banned=BANNED)
    sample = Sample(rows, jnp.zeros(args.rows, jnp.int32))
    functions["pcl update"] = stepper(
        path_loss(models["student"], config, BANNED), coefficients(config), params["student"], sample, devices
    )
    teacher = (models["teacher"], params["teacher"])
    collect = Collector(models["student"], teacher, config, BANNED, devices)
    replicated = parallel.replicate(params["student"], devices)
    key_data = jax.random.key_data(jax.random.key(0, impl="rbg"))
    functions["collect"] = lambda: [
        collect(replicated, batch, key_data, 0),
        *(collect.scored(batch) for _ in range(config.truth_batches - 1)),
    ]
    noise = jax.random.uniform(jax.random.key(1), target.shape)
    functions["rollout"] = roll_out(models["student"], params["student"], source, noise)
    functions["teacher pass"] = forward(models["teacher"], params["teacher"], batch)

    seconds = median_seconds(functions, args.repeats)
    peak = 2 * 2048**3 / seconds["peak"]
    table: list[dict[str, str | int | float | None]] = [
        {"what": "matrix product 2048", "ms": 1e3 * seconds["peak"], "GFLOP/s": peak / 1e9}
    ]
    shares = {}
    for name in ("teacher", "student"):
        rate = step_flops(configs[name], args.rows, args.length, args.length) / seconds[f"{name} step"]
        shares[name] = rate / peak
        table.append(
            {
                "what": f"{name} step",
                "ms": 1e3 * seconds[f"{name} step"],
                "GFLOP/s": rate / 1e9,
                "share of peak": rate / peak,
            }
        )
    table.append({"what": "pcl update (replayed rows)", "ms": 1e3 * seconds["pcl update"]})
    table.append({"what": "collect (rollouts, teacher samples, scoring)", "ms": 1e3 * seconds["collect"]})
    table.append({"what": "teacher pass (one batch, forward)", "ms": 1e3 * seconds["teacher pass"]})

    student_rows, teacher_rows = args.rows, collect.teacher_count(args.rows)
    scored = (
        student_rows + config.truth_batches * args.rows + teacher_rows
    ) / args.rows  # teacher passes of `rows` rows a collection
    per_pass = config.updates_per_rollout / scored
    with_replay = seconds["pcl update"] + seconds["collect"] / config.updates_per_rollout
    without = seconds["pcl update"] + seconds["collect"]
    print_table(
        f"{args.rows} rows of {args.length} + {args.length} tokens", table, ["what", "ms", "GFLOP/s", "share of peak"]
    )
    numbers = {
        "rollout_tokens_per_s": args.rows * args.length / seconds["rollout"],
        "teacher_step_peak_share": shares["teacher"],
        "student_step_peak_share": shares["student"],
        "updates_per_teacher_pass": per_pass,
        "gkd_updates_per_teacher_pass": 1.0,
        "ms_per_update_with_replay": 1e3 * with_replay,
        "ms_per_update_without_replay": 1e3 * without,
        "minibatch_rows": float(sum(minibatch_shares(config, args.rows))),
    }
    for name, value in numbers.items():
        print(f"{name}: {value:.3g}")
    if args.results is not None:
        record = provenance(["python", "-m", "benchmarks.train", *sys.argv[1:]], 0, started)
        write_json(
            args.results / "train.json",
            {"ratios": {"peak_share": shares["teacher"]}, "numbers": numbers, "table": table, **record},
        )


def stepper(
    loss: Any, weights: Mapping[str, Coefficient], params: Any, rows: Any, devices: parallel.Devices
) -> Callable[[], Any]:
    """A whole update (gradient, clipping, Adam), as the trainers run it."""
    optimizer = make_optimizer(SMALL.mle.optimizer, 1000)
    update = parallel.data_parallel(make_update(loss, weights, optimizer), devices)
    state = parallel.replicate(init_state(params, optimizer, 0), devices)
    sharded = parallel.shard(rows, devices)

    def run() -> tuple[Any, dict[str, Weighted]]:
        result: tuple[Any, dict[str, Weighted]] = update(state, sharded)
        return result

    return run


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
