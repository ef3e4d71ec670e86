"""Speed of a training step: `python -m benchmarks.train_step`.

A likelihood step (gradient, clipping, Adam) of the `small` preset's models and of a 256-wide one, or of published sizes
(`--t5`): its share of this machine's own matrix-product peak, and against the same step of the same T5 by
`transformers` in PyTorch, all of it interleaved in one process. Random weights and tokens: speed does not depend on
them. `--profile` says where the time of a step goes, operation by operation.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from benchmarks.common import Dtype, Line, Run, matrix_product, median_seconds, need, report, torch_versions
from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch
from kdtw_jax.losses.metric import Weighted
from kdtw_jax.methods.mle import likelihood_loss
from kdtw_jax.models import Model, Params, Size, T5Config, make_model
from kdtw_jax.pipeline.presets import SMALL
from kdtw_jax.runs import print_table
from kdtw_jax.training.state import Coefficient, OptimizerConfig, init_state, make_optimizer, make_update


@dataclass(frozen=True)
class Args:
    """What to measure."""

    rows: int = 64
    """rows of a batch"""
    length: int = 32
    """tokens of a source and of a target"""
    vocabulary: int = 4000
    t5: tuple[str, ...] = ()
    """published sizes of T5 v1.1, such as base, in place of the small preset's"""
    fused_attention: bool = False
    """cuDNN's, in bfloat16 on an NVIDIA GPU"""
    dtype: Dtype = "float32"
    """of the arithmetic, and of the matrix product that is the peak; PyTorch's by autocast"""
    peak: int = 2048
    """rows of that product; an accelerator needs more of them to come near its peak, such as 8192"""
    repeats: int = 9
    """rounds; medians are reported"""
    torch: bool = True
    """compare with transformers in PyTorch (pip install '.[benchmarks]')"""
    profile: bool = False
    """also trace a step of the last model and name the operations that take most of its time"""
    results: Path | None = None
    """folder for train_step.json"""


def sizes(args: Args) -> dict[str, T5Config]:
    """The models that are measured, without dropout and without heads of our own, so that all do the same work."""
    found: dict[str, Any] = {
        "student, 80 wide": SMALL.student,
        "teacher, 192 wide": SMALL.teacher,
        "256 wide": T5Config.sized(Size(256, 4, 4)),
    }
    published = {f"T5 v1.1 {size}": T5Config.named(size, version="v1.1") for size in args.t5}
    plain: dict[str, Any] = {"vocab_size": args.vocabulary, "dropout_rate": 0.0, "value_heads": False}
    plain |= {"dtype": args.dtype, "fused_attention": args.fused_attention}
    return {name: dataclasses.replace(config, **plain) for name, config in (published or found).items()}


def step_flops(config: T5Config, rows: int, source: int, target: int) -> float:
    """Multiply-adds of the matrix products of a training step, times two: forward, and twice that backward."""
    inner = config.num_heads * config.d_kv
    projections = 4 * config.d_model * inner
    feed_forward = (3 if config.feed_forward == "gated-gelu" else 2) * config.d_model * config.d_ff
    encoder = config.num_layers * (source * (projections + feed_forward) + 2 * source**2 * inner)
    cross = target * projections / 2 + source * projections / 2 + 2 * source * target * inner
    decoder = config.num_decoder_layers * (target * (projections + feed_forward) + 2 * target**2 * inner + cross)
    return 6.0 * rows * (encoder + decoder + target * config.d_model * config.vocab_size)


def stepper(
    loss: Any,
    weights: Mapping[str, Coefficient],
    student: tuple[Model, Params],
    rows: Any,
    devices: parallel.Devices,
    optimizer_config: OptimizerConfig = SMALL.training.optimizer,
) -> Run:
    """A whole update (gradient, clipping, Adam), as the trainers run it: the state is given up and taken again."""
    optimizer = make_optimizer(optimizer_config, 1000, student[0].role)
    update = parallel.data_parallel(make_update(loss, weights, optimizer), devices, donate=(0,))
    state = parallel.replicate(init_state(student[1], optimizer, 0), devices)
    sharded = parallel.shard(rows, devices)

    def run() -> dict[str, Weighted]:
        nonlocal state
        metrics: dict[str, Weighted]
        state, metrics = update(state, sharded)
        return metrics

    return run


def likelihood_step(config: T5Config, batch: Batch, devices: parallel.Devices) -> Run:
    """Ours."""
    built = make_model(config)
    loss = likelihood_loss(built, SMALL.of("mle"))
    return stepper(loss, {"nll": 1.0}, (built, built.init(jax.random.key(0))), batch, devices)


def torch_step(config: T5Config, batch: Batch) -> Run:
    """The same by `transformers`: cross-entropy, gradient, clipping by the global norm, fused AdamW."""
    import torch

    from benchmarks.other import torch_device, torch_t5

    device = torch_device()
    network = torch_t5(config).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    rows = (torch.from_numpy(np.asarray(x, np.int64)).to(device) for x in (batch.source_BxS, batch.target_BxT))
    source, target = rows

    def run() -> float:
        with torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            loss = network(input_ids=source, attention_mask=torch.ones_like(source), labels=target).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return run


def main(args: Args) -> None:
    """Prints the table, and writes train_step.json if asked to."""
    started = time.time()
    if args.torch:
        need("torch", "transformers")
    devices = parallel.select_devices(1)
    rng = np.random.default_rng(0)
    shape = (args.rows, args.length)
    source, target = (rng.integers(4, args.vocabulary, shape).astype(np.int32) for _ in range(2))
    batch = Batch(np.arange(args.rows, dtype=np.int32), source, target)
    configs = sizes(args)
    multiply, flops = matrix_product(args.dtype, args.peak)
    functions: dict[str, Run] = {"peak": multiply}
    for name, config in configs.items():
        functions[name] = likelihood_step(config, batch, devices)
        if args.torch:
            functions[f"{name}, torch"] = torch_step(config, batch)
    seconds = median_seconds(functions, args.repeats)
    peak = flops / seconds["peak"]
    table: list[Line] = [{"what": f"matrix product {args.peak}", "ms": 1e3 * seconds["peak"], "GFLOP/s": peak / 1e9}]
    shares, against = {}, {}
    for name, config in configs.items():
        rate = step_flops(config, args.rows, args.length, args.length) / seconds[name]
        shares[name] = rate / peak
        line: Line = {"what": name, "ms": 1e3 * seconds[name], "GFLOP/s": rate / 1e9, "share of peak": rate / peak}
        if args.torch:
            against[name] = seconds[f"{name}, torch"] / seconds[name]
            line |= {"torch, ms": 1e3 * seconds[f"{name}, torch"], "times faster": against[name]}
        table.append(line)
    last = list(configs)[-1]
    ratios = {"peak_share": shares[last], **({"vs_torch": against[last]} if args.torch else {})}
    numbers = {f"peak_share, {name}": share for name, share in shares.items()}
    numbers |= {f"vs_torch, {name}": ratio for name, ratio in against.items()}
    title = f"likelihood step, {args.rows} rows of {args.length} + {args.length} tokens, vocabulary {args.vocabulary}"
    more: dict[str, Any] = {"compared_with": torch_versions()} if args.torch else {}
    if args.profile:
        more["operations"] = profile(functions[last])
        print_table(f"where the time of a step goes, {last}", more["operations"], ["operation", "share"])
    report("train_step", title, table, ratios, numbers, args.results, started, **more)


def profile(step: Run, most: int = 15) -> list[Line]:
    """The operations of a step by time, from a trace of XLA's own: shares of the sum over all threads or streams."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(3):
                jax.block_until_ready(step())
        (trace,) = Path(folder).rglob("*.xplane.pb")
        planes = list(jax.profiler.ProfileData.from_file(str(trace)).planes)
        lines = [(plane.name, line) for plane in planes for line in plane.lines]
        streams = [line for plane, line in lines if plane.startswith("/device:") and "Stream" in line.name]
        threads = [line for _, line in lines if re.search("XLA|Eigen", line.name)]
        spent: dict[str, float] = {}
        for event in (event for line in streams or threads for event in line.events):
            kind = re.sub(r"([._]\d+)+$", "", event.name)
            spent[kind] = spent.get(kind, 0.0) + event.duration_ns
    whole = sum(spent.values())
    first = sorted(spent, key=lambda name: -spent[name])[:most]
    return [{"operation": name, "share": spent[name] / whole} for name in first]


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
