"""What a run would take, said before anything is loaded or trained: parameters, memory per device, FLOPs, hours."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import NamedTuple

import jax

from kdtw_jax.data.batches import Bucket, make_buckets
from kdtw_jax.data.tokenizer import load_tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.methods import find
from kdtw_jax.models import NUMBER_BYTES, ModelConfig, costs, count_params, cut_teacher, make_model, parameter_shapes
from kdtw_jax.models.lora import LEARNING, LoRAConfig, with_adapters
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.questions import elsewhere_lines
from kdtw_jax.pipeline.teacher_cache import check_without_teacher, needs_teacher, open_cache, wanted
from kdtw_jax.pretrained.named import find_config, student_config
from kdtw_jax.runs import print_table
from kdtw_jax.training.labels import bytes_per_token
from kdtw_jax.training.state import part_of

GIB = 2**30


class Stage(NamedTuple):
    """One training of the run, with a step on the longest bucket. States are exact, what says so is estimated."""

    name: str
    times: int  # it is trained
    steps: int
    states: float  # bytes per device: parameters, gradients, two Adam moments, and the target's copy if one is kept
    teacher: float  # bytes per device: the frozen teacher
    working: float  # bytes per device, estimated: activations, the logits and their gradient, and caches of decoding
    flops: float  # per step, all devices, estimated: two per parameter and position, three times that for a gradient


class Sizes(NamedTuple):
    """The models of a run, with its vocabulary."""

    teacher: ModelConfig
    student: ModelConfig


def sizes(config: Experiment) -> Sizes:
    """The models of a run, before any is loaded.

    They are those of `config.json` where models are named, otherwise those of the configuration; a vocabulary yet to be
    trained counts in full.

    Raises:
      UserError: as `find_config` does.
    """
    here = None if config.teacher_elsewhere else config.teacher_model
    names = [here, *dict.fromkeys(config.named_students().values())]
    given = [find_config(name, offline=config.offline) for name in names if name]
    known = [model.vocab_size for model in given]
    if config.text.tokenizer is not None:
        known.append(load_tokenizer(config.text.tokenizer).vocab_size)
    rows = max(known, default=config.text.vocab_size)  # the smaller model is padded
    teacher: ModelConfig
    student: ModelConfig
    teacher, student = (dataclasses.replace(c, vocab_size=rows) for c in (config.teacher, config.student))
    if here is not None:
        teacher = dataclasses.replace(given[0], dtype=config.teacher.dtype, vocab_size=rows)
    if config.student_model is not None:
        student = dataclasses.replace(student_config(given[-1], config.student), vocab_size=rows)
    if config.student_from_teacher:
        student = student_config(cut_teacher(teacher, config.student_from_teacher)[0], config.student)
    return Sizes(teacher, student)


def plan(config: Experiment, models: Sizes, devices: int = 1) -> list[Stage]:
    """The trainings that `config` would run, in their order, on so many `devices`."""
    text, (teacher, student) = config.text, models
    bucket = make_buckets(text.max_source, text.max_target, text.batch_tokens, text.buckets, multiple_of=devices)[-1]
    frozen = parameters(teacher) * NUMBER_BYTES[teacher.dtype if config.teacher_model is not None else "float32"]
    seeds = len(config.seeds)
    own, other = forward_flops(student, bucket), forward_flops(teacher, bucket)
    found = []
    if config.trains_teacher:
        steps = config.teacher_fit.loop.steps
        found.append(Stage("teacher", 1, steps, states(teacher), 0, working(teacher, bucket, devices), 3 * other))
    if config.warms_up:
        steps = config.warmup.loop.steps
        found.append(Stage("warmup", seeds, steps, states(student), 0, working(student, bucket, devices), 3 * own))
    for method in map(find, config.methods):
        model, cost = method.student(student, config.of(method.name)), method.cost(config.of(method.name))
        held = working(model, bucket, devices)
        asked = method.uses_teacher and needs_teacher(config, method.name) and not config.teacher_elsewhere
        if asked:  # beside the student's: the teacher's logits, and its cache where it writes
            held += scores(teacher, bucket) / devices + cache(teacher, bucket) / devices
        steps, kept = config.training.loop.steps + cost.further_steps, frozen if asked else 0
        backward = 1 if config.lora.rank else 2  # times forward: what rests has no gradient
        flops = (1 + backward + cost.student) * own + (0 if config.teacher_elsewhere else cost.teacher * other)
        found.append(Stage(method.name, seeds, steps, states(model, cost.copies, config.lora), kept, held, flops))
    return found


def parameters(config: ModelConfig) -> int:
    """Those of the model itself, heads included."""
    return count_params(parameter_shapes(config))


def states(config: ModelConfig, copies: int = 0, lora: LoRAConfig | None = None) -> float:
    """Bytes of what training holds: parameters, gradients and two moments of those that learn, further `copies`.

    All of it is float32 but for matrices at rest beside adapters.
    """
    if lora is None or not lora.rank:
        return 4.0 * parameters(config) * (4 + copies)
    model = make_model(config)
    add = partial(with_adapters, model, config=lora)
    shapes = jax.eval_shape(lambda params, key: add(params, key=key), parameter_shapes(config), jax.random.key(0))
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    return held * (1.0 + copies) + 12.0 * count_params(part_of(model.role, LEARNING)(shapes)[0])


def forward_flops(config: ModelConfig, bucket: Bucket) -> float:
    """Two FLOPs per parameter and position (arXiv 2001.08361, section 2.1), and attention's products of positions."""
    cost, s, t = costs(config), bucket.source, bucket.target
    by_position = 2.0 * (cost.source_parameters * s + cost.target_parameters * t)
    return bucket.rows * (by_position + cost.pair_flops(s, t))


def working(config: ModelConfig, bucket: Bucket, devices: int) -> float:
    """Bytes per device of what a training step keeps for its gradient, estimated: activations and logits.

    Logits count thrice, in float32; the rows of a batch are divided among `devices`.
    """
    kept = bucket.rows * costs(config).activation_bytes(bucket.source, bucket.target)
    return (kept + 3 * scores(config, bucket)) / devices


def scores(config: ModelConfig, bucket: Bucket) -> float:
    """Bytes of a batch's logits."""
    return 4.0 * bucket.rows * bucket.target * config.vocab_size


def cache(config: ModelConfig, bucket: Bucket) -> float:
    """Bytes of what decoding a batch keeps from token to token."""
    return bucket.rows * costs(config).cache_bytes(bucket.source, bucket.target)


def hours(stage: Stage, tflops: float, devices: int) -> float:
    """Hours of all trainings of a stage on so many accelerators (`devices`) that do `tflops` TFLOP/s each."""
    return stage.flops * stage.steps * stage.times / (tflops * 1e12 * devices) / 3600


def show_plan(config: Experiment, tflops: float = 312.0, utilization: float = 0.3) -> list[Stage]:
    """Prints the plan, and returns it.

    Args:
      tflops: peak of one accelerator, TFLOP/s.
      utilization: share of it to expect, above 0, at most 1.

    Raises:
      UserError: a speed that is none, and as `sizes` and `make_buckets` do.
    """
    if not (0 < tflops < math.inf and 0 < utilization <= 1):
        raise UserError(f"tflops must be above 0 and utilization in (0, 1], got {tflops} and {utilization}")
    models, devices = sizes(config), max(config.devices, 1)
    stages = plan(config, models, devices)
    for name, model in models._asdict().items():
        if name == "teacher" and config.teacher_elsewhere:
            print(f"teacher: at {config.teacher_model}, no memory of it here")
            continue
        print(f"{name}: {parameters(model):,} parameters, vocabulary {model.vocab_size}, arithmetic in {model.dtype}")
    rows: list[dict[str, str | int | float | None]] = [
        {
            "training": stage.name,
            "times": stage.times,
            "steps": stage.steps,
            "states, GiB": stage.states / GIB,
            "teacher, GiB": stage.teacher / GIB,
            "working, GiB (est.)": stage.working / GIB,
            "TFLOP per step (est.)": stage.flops / 1e12,
            "hours (est.)": hours(stage, tflops * utilization, devices),
        }
        for stage in stages
    ]
    print_table(
        f"{config.preset}, {config.data}: {devices} device{'s' if devices > 1 else ''}, memory of each",
        rows,
        list(rows[0]),
    )
    total = sum(hours(stage, tflops * utilization, devices) for stage in stages)
    print(
        f"{total:.2f} hours of training at {utilization:.0%} of {tflops:g} TFLOP/s per device; "
        "evaluation, what the teacher writes ahead, asking's helped rows and compilation not counted. "
        "States: parameters, gradients and Adam's moments."
    )
    for line in (*cache_lines(config, models), *elsewhere_lines(config)):
        print(line)
    return stages


def cache_lines(config: Experiment, models: Sizes) -> list[str]:
    """What is kept of the teacher's outputs that the methods of a run learn from, in words.

    Raises:
      UserError: `teacher_cache` holds no labels, or not those that the run takes.
    """
    check_without_teacher(config)
    needed = dict.fromkeys(one for method in config.methods for one in wanted(config, method))
    cache = None if config.teacher_cache is None else open_cache(config.teacher_cache)
    found = []
    for how, kept in needed:
        top_k = kept.top_k if kept else 0
        each = bytes_per_token(top_k, models.teacher.vocab_size)
        said = f"{how} outputs" + (f", top {top_k} at temperature {kept.alpha:g}" if kept else "")
        said += f": {each} bytes per token, {each * config.text.max_target / 2**10:.1f} KiB for the longest output"
        if cache is not None:
            there = cache.find(how, kept)
            stated = there.manifest()
            rows, size = f"{stated['rows']} outputs of {stated['tokens']} tokens", stated["bytes"] / GIB
            said += f"; in {there.folder} {rows}, {size:.3f} GiB"
        found.append(f"the teacher writes ahead, or kdtw label does: {said}")
    return found
