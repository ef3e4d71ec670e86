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

from kdtw_jax.config import JUDGING, Experiment, Method, TextConfig, plain
from kdtw_jax.constraints import known_constraints, word_tokens
from kdtw_jax.data.batches import EncodedSplit
from kdtw_jax.decoding.view import told
from kdtw_jax.duals import prices
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.evaluate import Decoding, Outputs, compare_with_teacher, decode_split
from kdtw_jax.evaluation.metrics import Score, score_all
from kdtw_jax.models import Model, Params, T5Config, count_params, make_model
from kdtw_jax.prepare import Setup
from kdtw_jax.pretrained.named import read_student, read_teacher, student_config
from kdtw_jax.runs import RunFolder, write_json
from kdtw_jax.runs.folder import flatten
from kdtw_jax.runs.provenance import running_code
from kdtw_jax.train import parallel
from kdtw_jax.train.ask import ask
from kdtw_jax.train.ask_config import Rules, dual_configs, make_rules
from kdtw_jax.train.balance import balance
from kdtw_jax.train.blame import blamed
from kdtw_jax.train.checkpoint import load_model, save_model
from kdtw_jax.train.distil import distil
from kdtw_jax.train.fit import fit
from kdtw_jax.train.gkd import gkd
from kdtw_jax.train.loop import Diverged
from kdtw_jax.train.minillm import minillm
from kdtw_jax.train.seqkd import BeamConfig, write_outputs

Row = dict[str, str | int | float | None]

BEAM_STAGE = "teacher/beam"  # the teacher's outputs for the training sources


Train = Callable[[Model, Path], Params]  # (model, the stage's folder) -> trained parameters


class Trained(NamedTuple):
    """A model of the table."""

    model: Model
    params: Params


def _stage(run: RunFolder, name: str, config: T5Config, setup: Setup, train: Train) -> Trained:
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
    """The teacher: the model that was named, otherwise maximum likelihood; spread over devices if asked for."""
    found = _find_teacher(config, setup, run)
    return found._replace(params=parallel.spread(found.params, setup.devices, config.teacher_shards))


def _find_teacher(config: Experiment, setup: Setup, run: RunFolder) -> Trained:
    if setup.teacher is not None:
        saved = read_teacher(setup.teacher, dtype=config.teacher.dtype)
        return Trained(saved.model, saved.params)
    seed = config.seeds[0]

    def train(model: Model, folder: Path) -> Params:
        params = model.init(jax.random.key(seed))
        return fit(
            "teacher",
            folder,
            model,
            params,
            setup.train,
            setup.buckets,
            config.teacher_fit,
            seed=seed,
            devices=setup.devices,
        )

    return _stage(run, "teacher", _with_vocabulary(config.teacher, setup), setup, train)


def _with_vocabulary(config: T5Config, setup: Setup) -> T5Config:
    return dataclasses.replace(config, vocab_size=setup.tokenizer.vocab_size)


def train_students(config: Experiment, setup: Setup, teacher: Trained, seed: int, run: RunFolder) -> dict[str, Trained]:
    """One student a method, all from the same start, warmed up or named, and for the same further steps on the same
    data."""
    named = setup.student
    size = _with_vocabulary(config.student, setup) if named is None else student_config(named.config, config.student)
    buckets, banned = setup.buckets, setup.tokenizer.banned_ids
    common: dict[str, Any] = {"seed": seed, "devices": setup.devices}

    def warm_up(model: Model, folder: Path) -> Params:
        params = model.init(jax.random.key(seed + 1000))
        return fit(f"warm-up {seed}", folder, model, params, setup.train, buckets, config.warmup, **common)

    if named is None:
        start = _stage(run, f"seed{seed}/warmup", size, setup, warm_up)
    else:
        start = Trained(make_model(size), read_student(named, size, jax.random.key(seed + 1000)))
    after = {**common, "seed": seed + 2000}  # other batches than in the warm-up

    def mle(model: Model, folder: Path, data: EncodedSplit) -> Params:
        return fit(f"mle {seed}", folder, model, start.params, data, buckets, config.mle, **after)

    def word_kd(model: Model, folder: Path, data: EncodedSplit) -> Params:
        return fit(
            f"word_kd {seed}",
            folder,
            model,
            start.params,
            data,
            buckets,
            config.word_kd,
            banned=banned,
            teacher=teacher,
            **after,
        )

    def pcl(model: Model, folder: Path, data: EncodedSplit) -> Params:
        return distil(
            f"pcl {seed}", folder, model, start.params, teacher, data, buckets, config.pcl, banned=banned, **after
        )

    def with_help(model: Model, folder: Path, data: EncodedSplit) -> Params:
        rules = asking_rules(config, setup, teacher)
        fresh = model.init(jax.random.key(seed + 3000))
        params = {**fresh, **start.params}  # only the gate is new
        unseen = setup.validation if config.ask.settle else None
        settings: dict[str, Any] = {"banned": banned, "unseen": unseen, **after}
        params, duals = ask(f"ask {seed}", folder, model, params, teacher, data, buckets, config.ask, rules, **settings)
        table = zip(dual_configs(config.ask, rules.constraints), rules.constraints, duals, strict=True)
        write_json(
            folder / "prices.json",
            {c.name: {"budget": list(d.knots), "price": np.exp(prices(d, x)).tolist()} for d, c, x in table},
        )
        return params

    def seqkd(model: Model, folder: Path, data: EncodedSplit) -> Params:
        return fit(f"seqkd {seed}", folder, model, start.params, data, buckets, config.seqkd, **after)

    def generalised(model: Model, folder: Path, data: EncodedSplit) -> Params:
        return gkd(
            f"gkd {seed}", folder, model, start.params, teacher, data, buckets, config.gkd, banned=banned, **after
        )

    def by_policy_gradient(model: Model, folder: Path, data: EncodedSplit) -> Params:
        settings = config.minillm
        return minillm(
            f"minillm {seed}", folder, model, start.params, teacher, data, buckets, settings, banned=banned, **after
        )

    def tb(model: Model, folder: Path, data: EncodedSplit) -> Params:
        return balance(
            f"tb {seed}", folder, model, start.params, teacher, data, buckets, config.tb, banned=banned, **after
        )

    trainers: dict[str, Callable[[Model, Path, EncodedSplit], Params]] = {
        "mle": mle,
        "word_kd": word_kd,
        "pcl": pcl,
        "ask": with_help,
        "seqkd": seqkd,
        "gkd": generalised,
        "minillm": by_policy_gradient,
        "tb": tb,
    }
    sizes = {
        "ask": dataclasses.replace(size, gate_width=config.ask.gate_width, rule_in_source=config.ask.rule_in_source)
    }

    def train(method: Method, model: Model, folder: Path) -> Params:
        beams = config.learns_from_beams(method)
        data = beam_outputs(config, setup, teacher, run) if beams else setup.train
        try:
            return trainers[method](model, folder, data)
        except Diverged as error:
            others = {"the model that the student starts from": start}
            if method not in ("mle", "seqkd"):  # which ask nothing of it in training
                others = {"the teacher": teacher, **others}
            whose = blamed(others, setup.train, buckets, error.examples, setup.devices)
            if whose is None:
                raise
            raise UserError(
                f"{error.said}; the scores of {whose} are not finite there: its weights are too large for its "
                "arithmetic, so take another model, or compute in float32"
            ) from error

    students: dict[str, Trained] = {}
    for method in config.methods:
        name = f"seed{seed}/{method}"
        run.claim(name, config.identity_of(method), free=[n for n in JUDGING if n.startswith(f"{method}.")])
        students[method] = _stage(run, name, sizes.get(method, size), setup, partial(train, method))
    return students


def beam_outputs(config: Experiment, setup: Setup, teacher: Trained, run: RunFolder) -> EncodedSplit:
    """The training split with the teacher's beam outputs for targets; written once a run, for all seeds."""
    run.claim(BEAM_STAGE, config.beam())
    started = time.monotonic()
    written = write_outputs(
        "teacher's beam outputs",
        run.path / BEAM_STAGE,
        teacher,
        setup.train,
        setup.buckets,
        BeamConfig(config.beam_size, config.length_penalty),
        banned=setup.tokenizer.banned_ids,
        devices=setup.devices,
    )
    if not run.done(BEAM_STAGE):
        seconds = round(time.monotonic() - started, 1)
        run.mark_done(BEAM_STAGE, {"seconds": seconds, "unfinished": written.unfinished, **running_code()})
    return written.data


def asking_rules(config: Experiment, setup: Setup, teacher: Trained) -> Rules:
    """What the asking student can be told."""
    return make_rules(known_constraints(config.ask.constraints, teacher.model.config), setup.tokenizer)


def evaluate(
    config: Experiment, setup: Setup, teacher: Trained, trained: Trained, method: str, seed: int, run: RunFolder
) -> list[Row]:
    """Rows of the results table for one model: task metrics of greedy and sampled outputs, and nearness to the teacher.

    The teacher also gets its metrics under beam search. Everything is computed once and kept in the run's folder.
    """
    stage = evaluation_stage(config, method, seed)
    made_with = judged_with(config, "split", "text.", *(config.beam() if method == "teacher" else ()))
    if method != "teacher":
        made_with |= {"pcl.pcl": config.to_json()["pcl"]["pcl"], "pcl.top_k": config.pcl.top_k}
    if not still_good(run, stage, made_with):
        if method == "ask":  # alone, it is told so
            alone = word_tokens("do not ask the teacher", setup.tokenizer.encode)
            trained = Trained(told(trained.model, alone), trained.params)
        greedy, scores = _decode_and_score(f"{config.split} {method} {seed}", config, setup, trained, Decoding())
        rows = [_row(s, "") for s in scores]
        sampling = Decoding("sample", seed=seed)
        sampled, drawn = _decode_and_score(f"{method} {seed}, sampled", config, setup, trained, sampling)
        rows += [_row(s, "_sampled") for s in drawn]
        numbers = {"tokens_per_s": greedy.tokens_per_s, "parameters": float(count_params(trained.params))}
        unfinished = {"unfinished": greedy.unfinished, "unfinished_sampled": sampled.unfinished}
        if method == "teacher":
            beam = Decoding("beam", beam_size=config.beam_size, length_penalty=config.length_penalty)
            searched, found = _decode_and_score("teacher, beam search", config, setup, trained, beam)
            rows += [_row(s, f"_beam{config.beam_size}") for s in found]
            unfinished[f"unfinished_beam{config.beam_size}"] = searched.unfinished
        else:
            numbers |= compare_with_teacher(
                trained,
                teacher,
                setup.test,
                setup.buckets,
                banned=setup.tokenizer.banned_ids,
                values=config.pcl.pcl,
                top_k=config.pcl.top_k,
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


def judged_with(config: Experiment, *names: str) -> dict[str, Any]:
    """The settings of evaluation that a stage of it was made with: those whose dotted names begin so."""
    return {name: value for name, value in config.judging().items() if name.startswith(names)}


def still_good(run: RunFolder, stage: str, made_with: Mapping[str, Any]) -> bool:
    """Whether a stage of evaluation is done, and with these settings. Of stages from before they said with which, the
    run's configuration does; what that does not name had its default."""
    if not run.done(stage):
        return False
    found = run.info(stage).get("made_with")
    if found is None:
        known = {**flatten(run.stored()), **flatten(run.claimed(stage.rpartition("/")[0]))}
        usual = flatten({"text": plain(TextConfig())})
        found = {name: known.get(name, usual.get(name, value)) for name, value in made_with.items()}
    same: bool = found == dict(made_with)
    return same


def _row(score: Score, suffix: str) -> Row:
    return {"metric": score.name + suffix, "value": score.value, "low": score.low, "high": score.high}


def evaluation_stage(config: Experiment, method: str, seed: int) -> str:
    """Where the run's folder keeps the evaluation of a model."""
    return f"teacher/{config.split}" if method == "teacher" else f"seed{seed}/{method}/{config.split}"


def _decode_and_score(
    name: str, config: Experiment, setup: Setup, trained: Trained, decoding: Decoding
) -> tuple[Outputs, list[Score]]:
    how: dict[str, Any] = {"decoding": decoding, "devices": setup.devices}
    outputs = decode_split(name, *trained, setup.test, setup.buckets, setup.tokenizer, **how)
    hypotheses = [outputs.texts[int(i)] for i in setup.test.examples]
    return outputs, score_all(setup.task.metrics, hypotheses, setup.references, scoring=setup.scoring)
