"""From a task's name to a table: the stages the experiments share, each done once and found again on a restart."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.constraints import known_constraints, word_tokens
from kdtw_jax.data.rule_place import how_read, rule_encoder, with_rule_place
from kdtw_jax.decoding.view import with_fixed_rule
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.agreement import compare_with_teacher
from kdtw_jax.evaluation.decode import Decoding, Outputs, decode_split
from kdtw_jax.methods import find
from kdtw_jax.methods.ask_config import Rules, make_rules
from kdtw_jax.methods.mle import mle
from kdtw_jax.methods.protocol import Method
from kdtw_jax.metrics.scores import Score, score_all
from kdtw_jax.models import (
    Model,
    ModelConfig,
    Params,
    count_params,
    cut_teacher,
    init_heads,
    make_model,
    split_axis,
)
from kdtw_jax.models.lora import LEARNING, merged, with_adapters
from kdtw_jax.models.roles import HEADS
from kdtw_jax.pipeline.config import Experiment, plain, without
from kdtw_jax.pipeline.prepare import Setup
from kdtw_jax.pipeline.teacher_cache import reads_rows_elsewhere
from kdtw_jax.pipeline.teacher_outputs import (
    all_sources,
    claim_prompts,
    prompts_for,
    readings_for,
    teacher_outputs,
)
from kdtw_jax.pipeline.watching import make_watch
from kdtw_jax.pretrained.named import read_student, read_teacher, student_config
from kdtw_jax.runs import RunFolder
from kdtw_jax.runs.provenance import running_code
from kdtw_jax.training.blame import blamed
from kdtw_jax.training.context import StudentTraining, TrainContext
from kdtw_jax.training.identity import model_hash
from kdtw_jax.training.loop import Diverged
from kdtw_jax.training.saved import load_model, save_model

Row = dict[str, str | int | float | None]

BEAM = ("beam_size", "length_penalty")  # of evaluation: what only the teacher is judged by


Train = Callable[[Model, Path], Params]  # (model, the stage's folder) -> trained parameters


class Trained(NamedTuple):
    """A model of the table."""

    model: Model
    params: Params


def _stage(run: RunFolder, name: str, config: ModelConfig, setup: Setup, train: Train) -> Trained:
    """Runs `train(model, folder) -> params` once; later calls load what it saved.

    The marker, written last, decides: after a kill just before it, `train` finds its last checkpoint and ends at once.
    """
    model = make_model(config)
    folder = run.path / name
    if run.done(name):
        return Trained(model, load_model(folder / "model", expect=config, tokenizer=setup.tokenizer).params)
    started = time.monotonic()
    params = train(model, folder)
    save_model(folder / "model", config, params, setup.tokenizer)
    run.mark_done(name, {"seconds": round(time.monotonic() - started, 1), **running_code()})
    return Trained(model, params)


def train_teacher(config: Experiment, setup: Setup, run: RunFolder) -> Trained:
    """The teacher: the model that was named, otherwise one of maximum likelihood; spread over devices if asked for.

    Raises:
      UserError: a run has only the labels of one, or those of another one.
    """
    if not config.has_teacher:
        only = "one at an address" if config.teacher_elsewhere else f"what one wrote ({config.teacher_cache})"
        raise UserError(f"there is no teacher here, only {only}; name it with --teacher-model in a run of its own")
    found = _find_teacher(config, setup, run)
    if setup.cache is not None:  # it is still on the host: of an array that is spread over hosts, none has all
        setup.cache.check_teacher(str(config.teacher_model), model_hash(found.model, found.params))
    axis = partial(split_axis, found.model.role)
    return found._replace(params=parallel.shard_params(found.params, setup.devices, config.teacher_shards, axis))


def _find_teacher(config: Experiment, setup: Setup, run: RunFolder) -> Trained:
    if setup.teacher is not None:
        placement = None
        if config.teacher_shards > 1 and setup.cache is None:  # each parameter goes to its devices as it is read
            axis = partial(split_axis, make_model(setup.teacher.config).role)
            placement = parallel.shardings(setup.devices, config.teacher_shards, axis)
        saved = read_teacher(setup.teacher, dtype=config.teacher.dtype, placement=placement)
        return Trained(saved.model, saved.params)
    seed = config.seeds[0]

    def train(model: Model, folder: Path) -> Params:
        context = _context("teacher", folder, model, setup, config.teacher_fit, seed)
        if setup.teachers is not None:
            context = dataclasses.replace(context, data=setup.teachers)
        return mle(context, model.init(jax.random.key(seed)), config.teacher_fit.likelihood)

    return _stage(run, "teacher", _with_vocabulary(config.teacher, setup), setup, train)


def _with_vocabulary(config: ModelConfig, setup: Setup) -> ModelConfig:
    return dataclasses.replace(config, vocab_size=setup.tokenizer.vocab_size)


def train_students(
    config: Experiment, setup: Setup, teacher: Trained | None, seed: int, run: RunFolder
) -> dict[str, Trained]:
    """Trains one student per method, all from the same start and for the same further steps on the same data.

    A method may name another one whose finished student it goes on from. The start is warmed up, named, or made of the
    teacher. There is no need of a teacher where none of the methods asks anything of it, nor the start.

    Raises:
      UserError: losses or scores that are not finite.
    """
    named = setup.students.get(seed)
    size = _with_vocabulary(config.student, setup) if named is None else student_config(named.config, config.student)
    if config.student_from_teacher:
        start = _cut(config, teacher, seed)
        size = start.model.config
    elif named is None:

        def warm_up(model: Model, folder: Path) -> Params:
            context = _context(f"warm-up {seed}", folder, model, setup, config.warmup, seed)
            return mle(context, model.init(jax.random.key(seed + 1000)), config.warmup.likelihood)

        start = _stage(run, f"seed{seed}/warmup", size, setup, warm_up)
    else:
        start = Trained(make_model(size), read_student(named, size, jax.random.key(seed + 1000)))

    def train(method: Method, model: Model, folder: Path) -> Params:
        beams, own = config.learns_from_beams(method.name), config.of(method.name)
        context = dataclasses.replace(
            # Other batches than in the warm-up.
            _context(f"{method.name} {seed}", folder, model, setup, config.training, seed + 2000),
            teacher=teacher if method.uses_teacher else None,
            data=teacher_outputs(config, setup, teacher, run, "beam") if beams else setup.train,
            prompts=prompts_for(config, setup, teacher, run, method.name),
            **_elsewhere(config, setup, method.name),
            readings=readings_for(config, setup, teacher, run, method.name),
            unseen=setup.validation if method.unseen(own) else None,
            watch=make_watch(config, setup, _alone(model, setup)),
        )
        begin = students.get(method.start(own), start)
        params, rank = begin.params, config.lora.rank
        if rank:
            context = dataclasses.replace(context, learning=LEARNING)
            params = with_adapters(begin.model, params, config.lora, jax.random.key(seed + 1000))
        try:
            trained = method.train(context, params, own)
            return merged(trained) if rank else trained
        except Diverged as error:
            others = {"the model that the student starts from": begin}
            if method.uses_teacher and teacher is not None:
                others = {"the teacher": teacher, **others}
            whose = blamed(others, all_sources(setup), setup.buckets, error.examples, setup.devices)
            if whose is None:
                raise
            raise UserError(
                f"{error.said}; the scores of {whose} are not finite there: its weights are too large for its "
                "arithmetic, so take another model, or compute in float32"
            ) from error

    claim_prompts(setup, run)
    students: dict[str, Trained] = {}
    # Those first that others go on from.
    for method in sorted(map(find, config.methods), key=lambda one: bool(one.start(config.of(one.name)))):
        name = f"seed{seed}/{method.name}"
        read = how_read(setup.tokenizer) if method.name == "ask" else {}
        run.claim(name, {**config.identity_of(method.name), **read})
        own_size = with_rule_place(method.student(size, config.of(method.name)), setup.tokenizer)
        students[method.name] = _stage(run, name, own_size, setup, partial(train, method))
    return students


def _elsewhere(config: Experiment, setup: Setup, method: str) -> dict[str, Any]:
    """The teacher at an address, where a method has it read and answer while a student is trained."""
    remote = setup.remote
    if remote is None or not reads_rows_elsewhere(config, method):
        return {}
    return {"reader": remote.read, "answers": remote.answers}


def _cut(config: Experiment, teacher: Trained | None, seed: int) -> Trained:
    """Some layers of the teacher, with fresh heads, to be trained in float32."""
    if teacher is None:
        raise ValueError("there is no teacher to make a student of")
    smaller, shorten = cut_teacher(teacher.model.config, config.student_from_teacher)
    size, key = student_config(smaller, config.student), jax.random.key(seed + 1000)
    body = shorten(jax.tree.map(lambda x: np.asarray(x, np.float32), jax.device_get(teacher.params)))
    return Trained(make_model(size), {**{k: x for k, x in body.items() if k not in HEADS}, **init_heads(size, key)})


def _context(name: str, folder: Path, model: Model, setup: Setup, training: StudentTraining, seed: int) -> TrainContext:
    """Of a training on the data's targets, without a teacher."""
    return TrainContext(
        name=name,
        folder=folder,
        student=model,
        data=setup.train,
        buckets=setup.buckets,
        devices=setup.devices,
        training=training,
        seed=seed,
        banned=setup.tokenizer.banned_ids,
        tokenizer=setup.tokenizer,
    )


def asking_rules(config: Experiment, setup: Setup, teacher: Trained) -> Rules:
    """What the asking student can be told."""
    asking = config.of("ask")
    known = known_constraints(asking.constraints, teacher.model.config)
    return make_rules(known, setup.tokenizer, asking.unit, in_source=asking.rule_in_source)


def _alone(model: Model, setup: Setup) -> Model:
    """A model without help: one that could ask is told not to."""
    if not model.config.gate_width:
        return model
    encode = rule_encoder(setup.tokenizer, in_source=model.config.rule_in_source)
    return with_fixed_rule(model, word_tokens("do not ask the teacher", encode))


def result_rows(
    config: Experiment, setup: Setup, teacher: Trained | None, trained: Trained, method: str, seed: int, run: RunFolder
) -> list[Row]:
    """Rows of the results table for one model: task metrics of greedy and sampled outputs, and nearness to a teacher.

    Where there is none, nearness is left out. The teacher also gets its metrics under beam search. Everything is
    computed once and kept in the run's folder.
    """
    stage, compared = evaluation_stage(config, method, seed), config.of("pcl")
    made_with = judged_with(config, "ask_limit", *(BEAM if method != "teacher" else ()))
    if method != "teacher":
        made_with |= {"pcl.pcl": plain(compared.pcl), "pcl.top_k": compared.top_k}
    if not still_good(run, stage, made_with):
        trained = Trained(_alone(trained.model, setup), trained.params)
        greedy, scores = _decode_and_score(f"{config.eval.split} {method} {seed}", config, setup, trained, Decoding())
        rows = [_row(s, "") for s in scores]
        sampling = Decoding("sample", seed=seed)
        sampled, drawn = _decode_and_score(f"{method} {seed}, sampled", config, setup, trained, sampling)
        rows += [_row(s, "_sampled") for s in drawn]
        numbers = {"tokens_per_s": greedy.tokens_per_s, "parameters": float(count_params(trained.params))}
        unfinished = {"unfinished": greedy.unfinished, "unfinished_sampled": sampled.unfinished}
        if method == "teacher":
            width = config.eval.beam_size
            beam = Decoding("beam", beam_size=width, length_penalty=config.eval.length_penalty)
            searched, found = _decode_and_score("teacher, beam search", config, setup, trained, beam)
            rows += [_row(s, f"_beam{width}") for s in found]
            unfinished[f"unfinished_beam{width}"] = searched.unfinished
        elif teacher is not None:
            numbers |= compare_with_teacher(
                trained,
                teacher,
                setup.test,
                setup.buckets,
                banned=setup.tokenizer.banned_ids,
                values=compared.pcl,
                top_k=compared.top_k,
                devices=setup.devices,
            )
        # A correlation with a constant (a value head that was never trained) is undefined: an empty cell.
        numbers |= unfinished
        rows += [
            {"metric": name, "value": value if math.isfinite(value) else None, "low": None, "high": None}
            for name, value in numbers.items()
        ]
        signatures = {s.name: s.signature for s in scores}
        outputs = [greedy.texts[i] for i in sorted(greedy.texts)]
        run.mark_done(stage, {"rows": rows, "signatures": signatures, "outputs": outputs, "made_with": made_with})
    common: Row = {"data": config.data, "preset": config.preset, "seed": seed, "method": method}
    return [{**common, **row} for row in run.info(stage)["rows"]]


def judged_with(config: Experiment, *apart: str) -> dict[str, Any]:
    """The settings of evaluation that a stage of it depends on: all but those named and what only adds to it."""
    return without(plain(config.eval), ("gates", "look_ahead", "watch", *apart))


def still_good(run: RunFolder, stage: str, made_with: Mapping[str, Any]) -> bool:
    """Whether a stage of evaluation is done, and with these settings."""
    same: bool = run.done(stage) and run.info(stage).get("made_with") == dict(made_with)
    return same


def _row(score: Score, suffix: str) -> Row:
    return {"metric": score.name + suffix, "value": score.value, "low": score.low, "high": score.high}


def evaluation_stage(config: Experiment, method: str, seed: int) -> str:
    """Where the run's folder keeps the evaluation of a model."""
    return f"teacher/{config.eval.split}" if method == "teacher" else f"seed{seed}/{method}/{config.eval.split}"


def _decode_and_score(
    name: str, config: Experiment, setup: Setup, trained: Trained, decoding: Decoding
) -> tuple[Outputs, list[Score]]:
    how: dict[str, Any] = {"decoding": decoding, "devices": setup.devices}
    outputs = decode_split(name, *trained, setup.test, setup.buckets, setup.tokenizer, **how)
    hypotheses = [outputs.texts[int(i)] for i in setup.test.examples]
    return outputs, score_all(setup.task.metrics, hypotheses, setup.references, scoring=setup.scoring)
