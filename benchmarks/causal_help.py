"""Time that help saves with a published teacher: `python -m benchmarks.causal_help`.

SmolLM2-135M, and a student of some of its layers that was not trained: a gate that asks at random, for given shares of
the tokens, spends the time that a trained one would. All outputs have one length, and everything is timed in turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.causal import tokens_of
from benchmarks.common import Dtype, Line, Run, median_seconds, report
from kdtw_jax.constraints import make_unit
from kdtw_jax.decoding import generate
from kdtw_jax.decoding.gates import random_gate
from kdtw_jax.decoding.help import generate_with_help
from kdtw_jax.models import Params, cut_teacher, make_model
from kdtw_jax.pretrained.named import find_model, read_teacher
from kdtw_jax.training.saved import SavedModel

BATCHES = (1, 8)
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Args:
    """What to measure."""

    model: str = "smollm2-135m"
    """a name of `kdtw fetch`"""
    layers: int = 6
    """of it that the student has"""
    prompt: int = 32
    """tokens of a prompt"""
    length: int = 64
    """tokens of an output"""
    bought: int = 2
    """tokens that a call buys"""
    dtype: Dtype = "float32"
    repeats: int = 5
    """rounds; medians are reported"""
    results: Path | None = None
    """folder for causal_help.json"""


def main(args: Args) -> None:
    """Prints the table, and writes causal_help.json if asked to."""
    started = time.time()
    saved = read_teacher(find_model(args.model), dtype=args.dtype)
    functions = dict(ways(saved, args))
    used = {f"used, {name}": functions[name]() for name in functions if "alone" not in name}
    seconds = median_seconds(functions, args.repeats)
    table: list[Line] = []
    ratios: dict[str, float] = {}
    for rows in BATCHES:
        teacher = seconds[f"{rows}, teacher alone"]
        for name in (name for name in functions if name.startswith(f"{rows}, ")):
            what = name.partition(", ")[2]
            line: Line = {"rows": rows, "what": what, "ms": 1e3 * seconds[name], "times": teacher / seconds[name]}
            table.append(line | {"share": used.get(f"used, {name}")})
        ratios[f"vs_teacher_alone_at_20pct_b{rows}"] = teacher / seconds[f"{rows}, asking 0.2"]
    title = f"{args.model} and {args.layers} of its layers, {args.length} tokens after {args.prompt}"
    report("causal_help", title, table, ratios, {"tokens_a_call": args.bought}, args.results, started)


def ways(saved: SavedModel, args: Args) -> Iterator[tuple[str, Run]]:
    """Each way to write, by "ROWS, WAY"; with help it returns the teacher's share of the tokens."""
    config, shorten = cut_teacher(saved.model.config, args.layers)
    student, teacher = make_model(config), saved.model
    params = jax.device_put((shorten(saved.params), saved.params))
    how: dict[str, Any] = {"max_len": args.length, "banned": (0, 1)}  # without an end, every output has its full length
    unit = make_unit(str(args.bought), None)

    @jax.jit
    def by_student(params: tuple[Params, Params], source: jax.Array) -> jax.Array:
        return generate(student, params[0], source, None, **how).tokens_BxT

    @jax.jit
    def by_teacher(params: tuple[Params, Params], source: jax.Array) -> jax.Array:
        return generate(teacher, params[1], source, None, **how).tokens_BxT

    @jax.jit
    def with_help(params: tuple[Params, Params], source: jax.Array, noise: jax.Array, share: jax.Array) -> jax.Array:
        pair = (student, params[0]), (teacher, params[1])
        found = generate_with_help(*pair, source, source, noise, None, gate=random_gate(share), unit=unit, **how)
        return jnp.mean(found.asked_BxT)

    for rows in BATCHES:
        source = jnp.asarray(tokens_of(saved, rows, args.prompt)[0])
        noise = jnp.asarray(np.random.default_rng(rows).random((rows, args.length), np.float32))

        def asking(chance: float, source: jax.Array = source, noise: jax.Array = noise) -> float:
            return float(with_help(params, source, noise, jnp.float32(chance)))

        yield f"{rows}, student alone", lambda source=source: by_student(params, source)  # type: ignore[misc]
        yield f"{rows}, teacher alone", lambda source=source: by_teacher(params, source)  # type: ignore[misc]
        for share in SHARES:
            chance = share / (args.bought * (1 - share) + share)  # of a call where none is under way
            yield f"{rows}, asking {share:g}", lambda chance=chance, asking=asking: asking(chance)  # type: ignore[misc]


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
