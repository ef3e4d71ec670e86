"""Operating points of a finished run: written, judged and timed once per seed."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.constraints import known_constraints
from kdtw_jax.data.batches import EncodedSplit, Ragged
from kdtw_jax.decoding.gates import compared_gates, is_oracle
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.cells import Found
from kdtw_jax.evaluation.decoder import Decoder, share_index
from kdtw_jax.evaluation.harness import Harness, make_harness
from kdtw_jax.evaluation.operating import Outcome, costs_per_token, teacher_log_probs, time_points, write_point
from kdtw_jax.evaluation.operating_table import areas
from kdtw_jax.evaluation.phrasings import make_phrasings
from kdtw_jax.evaluation.rows import spaced_pairs, widen_buckets
from kdtw_jax.evaluation.strategies import BUDGETS, Point, Settings, every_strategy
from kdtw_jax.evaluation.written import DecodeSpec, Written, unfinished, write_split
from kdtw_jax.metrics.scores import Statistics, bootstrap, interval, ratio_of_sums, sentence_statistics
from kdtw_jax.pipeline.ask_report import asking_decoder, asking_stage, is_studied
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.prepare import Setup
from kdtw_jax.pipeline.stages import BEAM, Row, Trained, asking_rules, judged_with, still_good
from kdtw_jax.runs import Progress, RunFolder
from kdtw_jax.runs.provenance import program
from kdtw_jax.training.deferral import look_at, train_deferral

REWARD = "teacher_log_prob"  # a metric beside those of the task: nats per output
_DEFERRAL_PAIRS = 4096


class Timing(NamedTuple):
    """How wall-clock is taken: a round to warm up and `repeats` more, over `sentences` alone and in batches."""

    repeats: int = 3
    sentences: int = 12


def check_studied(config: Experiment, seed: int, run: RunFolder) -> None:
    """Sees to it that the asking student of a seed has been studied: the thresholds of gates are from there.

    Raises:
      UserError: it was not judged on the share of words, or with other settings, or before a gate was registered; or
        the teacher is not here.
    """
    if not config.has_teacher:
        raise UserError(
            f"{run.path} learned from a teacher at an address: ways to share the writing are compared with the "
            "teacher's weights, which are not here"
        )
    share_index(known_constraints(config.of("ask").constraints, config.teacher))
    if not is_studied(replace(config, eval=replace(config.eval, gates=())), seed, run):
        every = compared_gates()
        said = ["evaluate", shlex.quote(str(run.path)), *(["--gates", *every] if config.eval.gates else [])]
        raise UserError(
            f"{run.path}: the student of seed {seed} that asks was not judged with these settings and beside all gates "
            f"({', '.join(every)}); first run {program()} {' '.join(said)}"
        )


def study_points(
    config: Experiment,
    setup: Setup,
    teacher: Trained,
    student: Trained,
    seed: int,
    run: RunFolder,
    timing: Timing,
) -> Found:
    """Makes the rows of the table for the asking student of a seed, and the area under each frontier.

    They are computed once, and again when ways to share the writing have been registered. `check_studied` has to have
    let it pass.
    """
    stage = f"seed{seed}/ask/{config.eval.split}-operating"
    made_with = judged_with(config, *BEAM)
    if still_good(run, stage, made_with) and has_all_ways(run.info(stage)["rows"]):
        return run.info(stage)
    rules = asking_rules(config, setup, teacher)
    asked = run.info(asking_stage(config, seed))
    assert setup.validation is not None
    # Saved models are loaded into the host's memory: once to the device, not at every call.
    student, teacher = (t._replace(params=jax.device_put(t.params)) for t in (student, teacher))
    decoder = asking_decoder(config, setup, teacher, student, rules, seed, greedy=True)
    phrasings = make_phrasings(rules.constraints, rules.encode, rules.room)
    some = spaced_pairs(setup.train, _DEFERRAL_PAIRS)
    states = look_at(
        decoder.student, decoder.teacher, some, widen_buckets(setup.buckets, some), setup.tokenizer.banned_ids
    )
    harness = make_harness(decoder, train_deferral(states), config.of("ask").distil.pcl.alpha)
    data = spaced_pairs(setup.test, config.eval.ask_limit or len(setup.test))
    validation = spaced_pairs(setup.validation)
    deferral_levels = _deferral_levels(harness, validation, setup, rules.room)
    levels = {**asked["levels"], "co_llm": deferral_levels}
    settings = Settings(levels, lambda budget: phrasings.of(budget, "seen"))
    points = [point for sharing in every_strategy().values() for point in sharing.points(settings)]
    oracles = [
        DecodeSpec(gate, phrasings.of(float(budget), "seen"), float(budget), level)
        for gate in decoder.gates
        if is_oracle(gate)
        for budget, level in levels[gate].items()
    ]
    count = len(points) + len(oracles) + 2 * (timing.repeats + 1)
    with Progress(f"operating points {seed}", total=count) as bar:
        ticks = itertools.count(1)

        def tick() -> None:
            bar.update(next(ticks))

        outcomes = []
        for point in points:
            outcomes.append(write_point(harness, point, data, widen_buckets(setup.buckets, data), rules.room))
            tick()
        for wanted in oracles:
            outcomes.append(_outcome(write_split(decoder, data, widen_buckets(setup.buckets, data), wanted)))
            tick()
        times = _times(harness, points, data, setup, rules.room, timing, tick)
    names = [(p.method, p.setting) for p in points] + [(w.gate, f"{w.budget:g}") for w in oracles]
    found = _judge(names, outcomes, times, harness, data, config, setup)
    run.mark_done(stage, {**found, "made_with": made_with})
    return found


def has_all_ways(rows: Sequence[Row]) -> bool:
    """Whether a table of operating points has every way to share the writing that is now registered."""
    return {str(row["method"]) for row in rows}.issuperset(every_strategy())


def _times(
    harness: Harness,
    points: Sequence[Point],
    data: EncodedSplit,
    setup: Setup,
    room: int,
    timing: Timing,
    tick: Callable[[], None],
) -> dict[str, np.ndarray]:
    """Milliseconds per sentence, [points], by the table's column: one by one, and in batches of 32."""
    (largest,) = _longest(setup)
    batches = {"ms_b1": (1, timing.sentences), "ms_b32": (32, -(-timing.sentences // 12))}
    return {
        column: time_points(
            harness, points, data, largest, rows, room, batches=count, repeats=timing.repeats, tick=tick
        )
        for column, (rows, count) in batches.items()
    }


def _judge(
    names: Sequence[tuple[str, str]],
    outcomes: Sequence[Outcome],
    times: Mapping[str, np.ndarray],
    harness: Harness,
    data: EncodedSplit,
    config: Experiment,
    setup: Setup,
) -> Found:
    """Rows of the table, one per point and metric, and the area under each frontier. The first points are timed."""
    student, teacher = harness.decoder.student[0].config, harness.decoder.teacher[0].config
    sources_N = np.asarray(data.sources.lengths)
    pairs = setup.task.splits[config.eval.split]
    references = [pairs[int(i)]["target"] for i in data.examples]
    costs = [costs_per_token(o, student, teacher, sources_N) for o in outcomes]
    earned = teacher_log_probs(harness, data, widen_buckets(setup.buckets, data), [o.tokens_NxT for o in outcomes])
    judged = {
        m: [sentence_statistics(m, o.texts, references, setup.scoring) for o in outcomes] for m in setup.task.metrics
    }
    judged[REWARD] = [Statistics(np.stack([x, np.ones_like(x)], axis=1), ratio_of_sums) for x in earned]
    rows, frontiers = [], {}
    for metric, each in judged.items():
        values = np.array([s.formula(s.rows.sum(axis=0)) for s in each])
        draws = bootstrap(each, 1000, seed=0)
        for i, (method, setting) in enumerate(names):
            low, high = interval(draws[:, i], float(values[i]))
            timed = {column: float(t[i]) if i < len(t) else None for column, t in times.items()}
            rows.append(
                {"method": method, "setting": setting, "metric": metric, "value": float(values[i]), "low": low}
                | {"high": high, **costs[i], **timed, "unfinished": unfinished(outcomes[i].tokens_NxT)}
                | {"unit": harness.decoder.unit.name, "account": "output"}
            )
        frontiers[metric] = areas([name for name, _ in names], costs, values)
    return {"rows": rows, "frontiers": frontiers}


def _outcome(written: Written) -> Outcome:
    units = (written.lengths_N, written.helped_N, written.calls_N)
    passes_N = np.count_nonzero(written.tokens_NxT, axis=1)
    return Outcome(written.texts, written.tokens_NxT, *units, written.positions_N, passes_N)


def _deferral_levels(harness: Harness, data: EncodedSplit, setup: Setup, room: int) -> dict[str, float]:
    """Quantiles of phi over the states that the student visits alone."""
    decoder: Decoder = harness.decoder
    buckets = widen_buckets(setup.buckets, data)
    alone = write_point(harness, Point("student_only", "greedy", alone="student"), data, buckets, room)
    tokenizer = decoder.tokenizer
    most = max(b.target for b in buckets)
    written = Ragged.pack([[*tokenizer.encode_target(text), 1][:most] for text in alone.texts])
    seen = look_at(
        decoder.student, decoder.teacher, _with_targets(data, written), _longest(setup), tokenizer.banned_ids
    )
    phi_X = 1 / (1 + np.exp(-np.asarray(harness.deferral.logit(jnp.asarray(seen.hidden_NxD)))))
    return {f"{b:g}": float(np.quantile(phi_X, 1 - b)) for b in BUDGETS}


def _with_targets(data: EncodedSplit, targets: Ragged) -> EncodedSplit:
    return EncodedSplit(data.sources, targets, data.examples, data.dropped, data.truncated_pairs, data.truncated_tokens)


def _longest(setup: Setup) -> list[Any]:
    return [max(setup.buckets, key=lambda b: (b.target, b.source))]


def table(task: str, config: Experiment, found: dict[int, Found]) -> list[Row]:
    """Rows of operating_points.csv, from what `study_points` found by seed (`found`)."""
    common = {"task": task, "data": config.data, "preset": config.preset}
    return [{**common, "seed": seed, **row} for seed, one in found.items() for row in one["rows"]]
