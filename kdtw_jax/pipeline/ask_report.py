"""Evidence about students that may ask: evaluated once per seed, put together for all seeds, written and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdtw_jax.constraints import Unit
from kdtw_jax.decoding.gates import compared_gates
from kdtw_jax.decoding.utility import nearness
from kdtw_jax.evaluation.asking import evaluate_asking
from kdtw_jax.evaluation.asking_figure import asking_figure
from kdtw_jax.evaluation.cells import Found, Texts
from kdtw_jax.evaluation.decode import Decoding, decode_split
from kdtw_jax.evaluation.decoder import Decoder, make_decoder
from kdtw_jax.evaluation.obedience import obedience
from kdtw_jax.evaluation.phrasings import make_phrasings
from kdtw_jax.evaluation.rows import spaced_pairs, widen_buckets
from kdtw_jax.evaluation.tradeoff import pool, pooled_difference
from kdtw_jax.methods.ask_config import Rules
from kdtw_jax.pipeline.ask_tables import show_ahead, show_asking, show_rules
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.prepare import Setup
from kdtw_jax.pipeline.stages import BEAM, Row, Trained, asking_rules, evaluation_stage, judged_with, still_good
from kdtw_jax.runs import RunFolder, write_csv, write_json, write_text
from kdtw_jax.training.foresight import Foresight, label_states, train_foresight

COLUMNS = (
    "task",
    "data",
    "preset",
    "seed",
    "gate",
    "guard",
    "phrasing",
    "budget_seen",
    "asked",
    "used",
    "metric",
    "value",
    "low",
    "high",
    "calls",
    "positions",
    "unfinished",
    "unit",
    "account",
    "rule",
)
WHERE_COLUMNS = ("task", "data", "preset", "seed", "kind", "group", "states", "help_rate")
_FORESIGHT_PAIRS = 4096


def asking_stage(config: Experiment, seed: int) -> str:
    """Where the run's folder keeps what was found about the asking student of a seed."""
    return f"seed{seed}/ask/{config.eval.split}-asking"


def judged_gates(config: Experiment) -> tuple[str, ...]:
    """Those that an asking student is judged beside, itself and chance among them; gates that look ahead apart."""
    named = {"learned", "random", *config.eval.gates} if config.eval.gates else set(compared_gates())
    return tuple(gate for gate in compared_gates() if gate in named)


def is_studied(config: Experiment, seed: int, run: RunFolder) -> bool:
    """Whether the asking student of a seed has been judged with these settings, and beside every gate that is wanted.

    A gate may have been registered since.
    """
    stage = asking_stage(config, seed)
    if not still_good(run, stage, judged_with(config, *BEAM)):
        return False
    wanted = {*judged_gates(config), *(compared_gates(ahead=True) if config.eval.look_ahead else ())}
    return {row["gate"] for row in run.info(stage)["rows"]}.issuperset(wanted)


def asking_decoder(
    config: Experiment,
    setup: Setup,
    teacher: Trained,
    student: Trained,
    rules: Rules,
    seed: int,
    *,
    greedy: bool,
    gates: Sequence[str] | None = None,
    foresight: Foresight | None = None,
) -> Decoder:
    """What writes as the asking student of a seed does at test time, or, if `greedy`, without chance."""
    return make_decoder(
        student,
        teacher,
        setup.tokenizer,
        rules.constraints,
        alpha=config.of("ask").distil.pcl.alpha,
        sampled_gate=config.of("ask").gate == "sample" and not greedy,
        sampled_tokens=config.of("ask").tokens == "sample" and not greedy,
        seed=seed,
        devices=setup.devices,
        gates=gates,
        foresight=foresight,
        unit=rules.unit,
    )


def study_asking(
    config: Experiment,
    setup: Setup,
    teacher: Trained,
    student: Trained,
    twin: Trained | None,
    seed: int,
    run: RunFolder,
) -> Found:
    """Finds out about the asking student of a seed what `kdtw_jax.evaluation.asking` asks.

    That is computed once, and again when gates have come to be compared.

    `twin`: the student of that seed trained likewise without help. Thresholds of rival gates are set on at most 256
    pairs of the validation split, the prices of a student at rest on all of its sources; where models are judged on
    that split, those are the pairs that they are judged on.
    """
    stage = asking_stage(config, seed)
    if not is_studied(config, seed, run):
        assert setup.validation is not None
        rules = asking_rules(config, setup, teacher)
        decoder = asking_decoder(config, setup, teacher, student, rules, seed, greedy=False, gates=judged_gates(config))
        test = judged_texts(config, setup)
        outputs = None
        if twin is not None:
            mode = Decoding("sample" if config.of("ask").tokens == "sample" else "greedy", seed=seed)
            parts = (twin.model, twin.params, test.data, setup.buckets, setup.tokenizer, mode)
            texts = decode_split(f"pcl {seed}, without help", *parts, devices=setup.devices).texts
            outputs = [texts[int(i)] for i in test.data.examples]
        ahead = None
        if config.eval.look_ahead:
            foresight = _learn_foresight(setup, teacher, student, seed, rules.unit)
            ahead = asking_decoder(
                config,
                setup,
                teacher,
                student,
                rules,
                seed,
                greedy=True,
                gates=compared_gates(ahead=True),
                foresight=foresight,
            )
        found = evaluate_asking(
            f"asking {seed}",
            decoder,
            make_phrasings(rules.constraints, rules.encode, rules.room),
            test,
            spaced_pairs(setup.validation),
            setup.train.targets.values,
            setup.buckets,
            held_out=config.of("ask").held_out,
            twin=outputs,
            ahead=ahead,
        )
        run.mark_done(stage, {**found, "made_with": judged_with(config, *BEAM)})
    return run.info(stage)


def judged_texts(config: Experiment, setup: Setup) -> Texts:
    """What asking is judged on: of the split, as many texts as the configuration says."""
    pairs = setup.task.splits[config.eval.split]
    data = spaced_pairs(setup.test, config.eval.ask_limit or len(setup.test))
    sources, references = ([pairs[int(i)][side] for i in data.examples] for side in ("source", "target"))
    return Texts(data, sources, references, setup.task.metrics, setup.scoring)


def _learn_foresight(setup: Setup, teacher: Trained, student: Trained, seed: int, unit: Unit) -> Foresight:
    """On training sources; their targets are not read."""
    data, tokenizer = spaced_pairs(setup.train, _FORESIGHT_PAIRS), setup.tokenizer
    rows = widen_buckets(setup.buckets, data)
    labels = label_states(student, teacher, data, rows, nearness, banned=tokenizer.banned_ids, seed=seed, unit=unit)
    return train_foresight(labels, tokenizer.vocab_size, seed=seed)


def report_asking(
    task: str, config: Experiment, setup: Setup, run: RunFolder, further: Sequence[Row] = ()
) -> list[Row]:
    """Writes asking.csv, where.csv, asking.json, asking.png and (in the run's folder) samples.txt; prints a table.

    Returns the rows of asking.csv, to which `further` ones are added. Every seed has to be studied before.
    """
    found = {seed: run.info(asking_stage(config, seed)) for seed in config.seeds}
    rows, where = ([named_row(task, config, seed, r) for seed, f in found.items() for r in f[kind]] for kind in _TABLES)
    teacher_rows = run.info(evaluation_stage(config, "teacher", config.seeds[0]))["rows"]
    first = setup.task.metrics[0]
    suffix = "_sampled" if config.of("ask").tokens == "sample" else ""
    levels = {
        "teacher": next(float(r["value"]) for r in teacher_rows if r["metric"] == first + suffix),
        "student alone": float(np.mean([f["alone"][first] for f in found.values()])),
    }
    summary = {
        "gate": config.of("ask").gate,
        "tokens": config.of("ask").tokens,
        "pooled": summarise_asking(list(found.values()), setup.task.metrics),
        "seeds": {
            str(seed): {
                **{k: v for k, v in f.items() if k not in (*_TABLES, "samples", "draws", "obedience", "made_with")},
                "no_harm": f["no_harm"] and {m: _without_draws(h) for m, h in f["no_harm"].items()},
                "obedience": obedience(f["obedience"]),
                "cells": f["obedience"],
            }
            for seed, f in found.items()
        },
    }
    for folder in [run.path] + ([config.results] if config.results is not None else []):
        write_csv(folder / "asking.csv", [*rows, *further], COLUMNS)
        write_csv(folder / "where.csv", where, WHERE_COLUMNS)
        write_json(folder / "asking.json", summary)
        asking_figure(rows, first, levels, summary["pooled"]["equal_use"][first], folder / "asking.png")
    write_text(run.path / "samples.txt", _samples(found))  # the data's text stays out of what is published
    show_asking(config, rows, first)
    show_rules([f["rules"] for f in found.values()])
    show_ahead([f["ahead"] for f in found.values() if "ahead" in f])
    return [*rows, *further]


_TABLES = ("rows", "where")


def named_row(task: str, config: Experiment, seed: int, row: Mapping[str, Any]) -> Row:
    """A row with what says where it is from."""
    return {"task": task, "data": config.data, "preset": config.preset, "seed": seed, **row}


def _without_draws(found: Found) -> Found:
    return {name: value for name, value in found.items() if name != "draws"}


def summarise_asking(found: Sequence[Found], metrics: Sequence[str]) -> Found:
    """Of all seeds together. Intervals of gates at equal use are over test sentences, of the mean over seeds."""
    harms = [f["no_harm"] for f in found if f["no_harm"] is not None]
    numbers = ("spearman", "slope", "intercept", "rmse")
    known = {n: [f["expected_calls"][n] for f in found if f["expected_calls"][n] is not None] for n in numbers}
    return {
        "obedience": obedience([cell for f in found for cell in f["obedience"]]),
        "equal_use": {m: pool([f["equal_use"][m] for f in found], [f["draws"][m] for f in found]) for m in metrics},
        "no_harm": {m: pooled_difference([h[m] for h in harms]) for m in metrics} if harms else None,
        "expected_calls": {name: float(np.mean(values)) if values else None for name, values in known.items()},
    }


def _samples(found: Mapping[int, Found]) -> str:
    lines = ["The teacher wrote what is in ⟦ ⟧; ∎ is the end of an output. Asked for at most 20% of the words.", ""]
    for seed, f in found.items():
        for sample in f["samples"]:
            lines += [f"seed {seed}", *(f"  {name}: {text}" for name, text in sample.items()), ""]
    return "\n".join(lines)
