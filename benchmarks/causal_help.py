"""Time that help saves with a published teacher: `python -m benchmarks.causal_help`.

SmolLM2-135M, and students that were not trained: some of its layers, and a narrow model of the same vocabulary. A gate
that asks at random, for given shares of the tokens, stands for a trained one, whose calls may lie closer together. All
outputs have one length, and everything is timed in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
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
from kdtw_jax.models import Model, Params, Size, cut_teacher, make_model
from kdtw_jax.models.causal import CAUSAL
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
    """of it that the first student has, and layers of the second"""
    width: int = 128
    """of the second student"""
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
    used = {name: functions[name]() for name in functions if "asking" in name}
    seconds = median_seconds(functions, args.repeats)
    table: list[Line] = []
    ratios: dict[str, float] = {}
    for name, found in seconds.items():
        rows, student, way = name.split(", ")
        times = seconds[f"{rows}, teacher, alone"] / found
        line: Line = {"rows": int(rows), "model": student, "way": way, "ms": 1e3 * found, "times": times}
        table.append(line | {"share": used.get(name)})
        if way == "asking 0.2":
            ratios[f"vs_teacher_alone_at_20pct_b{rows}, {student}"] = times
    title = f"{args.model} and students, {args.length} tokens after {args.prompt}"
    report("causal_help", title, table, ratios, {"tokens_a_call": args.bought}, args.results, started)


def ways(saved: SavedModel, args: Args) -> Iterator[tuple[str, Run]]:
    """Each way to write, by "ROWS, MODEL, WAY"; with help it returns the teacher's share of the tokens."""
    config, shorten = cut_teacher(saved.model.config, args.layers)
    heads = max(args.width // 64, 1)
    narrow = replace(CAUSAL.sized(Size(args.width, heads, args.layers)), vocab_size=config.vocab_size)
    teacher = saved.model, jax.device_put(saved.params)
    students = {
        f"{args.layers} of its layers": (make_model(config), jax.device_put(shorten(saved.params))),
        f"{args.width} wide": (make_model(narrow), make_model(narrow).init(jax.random.key(0))),
    }
    how: dict[str, Any] = {"max_len": args.length, "banned": (0, 1)}  # without an end, every output has its full length
    unit = make_unit(str(args.bought), None)

    def alone(network: tuple[Model, Params], source: jax.Array) -> Run:
        write = jax.jit(lambda params, source: generate(network[0], params, source, None, **how).tokens_BxT)
        return lambda: write(network[1], source)

    def helped(student: tuple[Model, Params]) -> Callable[[jax.Array, jax.Array, float], float]:
        @jax.jit
        def write(params: tuple[Params, Params], source: jax.Array, noise: jax.Array, chance: jax.Array) -> jax.Array:
            pair = (student[0], params[0]), (teacher[0], params[1])
            found = generate_with_help(*pair, source, source, noise, None, gate=random_gate(chance), unit=unit, **how)
            return jnp.mean(found.asked_BxT)

        return lambda source, noise, chance: float(write((student[1], teacher[1]), source, noise, jnp.float32(chance)))

    for rows in BATCHES:
        source = jnp.asarray(tokens_of(saved, rows, args.prompt)[0])
        noise = jnp.asarray(np.random.default_rng(rows).random((rows, args.length), np.float32))
        yield f"{rows}, teacher, alone", alone(teacher, source)
        for name, student in students.items():
            yield f"{rows}, {name}, alone", alone(student, source)
            asking = helped(student)
            for share in SHARES:
                chance = share / (args.bought * (1 - share) + share)  # of a call where none is under way
                yield f"{rows}, {name}, asking {share:g}", partial(asking, source, noise, chance)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
