"""What the teacher writes ahead for students to learn from: once per run, for all methods and seeds."""

from __future__ import annotations

import time
from functools import reduce

from kdtw_jax.data.batches import EncodedSplit
from kdtw_jax.data.store import fingerprint
from kdtw_jax.data.unanswered import join
from kdtw_jax.methods import find
from kdtw_jax.methods.seqkd import BeamConfig, write_outputs
from kdtw_jax.models import Model, Params
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.prepare import Setup
from kdtw_jax.pipeline.teacher_cache import CACHE_STAGE
from kdtw_jax.pipeline.teacher_cache import How as How
from kdtw_jax.runs import RunFolder
from kdtw_jax.runs.provenance import running_code
from kdtw_jax.training.reader import read_ahead
from kdtw_jax.training.readings import Kept, Readings

PROMPTS_STAGE = "prompts"

Teacher = tuple[Model, Params]


def claim_prompts(setup: Setup, run: RunFolder) -> None:
    """Binds a run to its prompts, where a student is yet to learn on them, and to the teacher of its cache.

    Raises:
      UserError: others were there before.
    """
    if setup.cache is not None:
        run.claim(CACHE_STAGE, {"hash": setup.cache.teacher["hash"]})
        at = {} if setup.remote is None else {"address": setup.remote.address, "rows": setup.remote.rows}
        run.mark_done(CACHE_STAGE, {**setup.cache.facts(), **at})  # with the place, which may be another one each time
    elif setup.remote is not None:
        run.claim(CACHE_STAGE, {"hash": setup.remote.facts["hash"]})
        at = {"address": setup.remote.address, "rows": setup.remote.rows}
        run.mark_done(CACHE_STAGE, {**at, "teacher": setup.remote.facts})
    if setup.prompts is not None:
        run.claim(PROMPTS_STAGE, {"fingerprint": fingerprint({"prompts": setup.task.prompts})})
        run.mark_done(PROMPTS_STAGE, {"prompts": len(setup.prompts)})


def prompts_for(
    config: Experiment, setup: Setup, teacher: Teacher | None, run: RunFolder, method: str
) -> EncodedSplit | None:
    """What a method's `TrainContext.prompts` is."""
    targets = config.prompt_targets(method)
    if targets == "greedy" or targets == "beam":
        kept = find(method).readings(config.of(method))
        return reduce(join, _outputs(config, setup, teacher, run, targets, kept))
    return None if targets == "none" or setup.prompts is None else all_sources(setup)


def all_sources(setup: Setup) -> EncodedSplit:
    """The pairs of training, and after them the prompts, if there are any."""
    return setup.train if setup.prompts is None else join(setup.train, setup.prompts)


def teacher_outputs(
    config: Experiment, setup: Setup, teacher: Teacher | None, run: RunFolder, how: How
) -> EncodedSplit:
    """The training sources, and the prompts if there are any, with what the teacher writes for targets."""
    return reduce(join, _outputs(config, setup, teacher, run, how))


def _outputs(
    config: Experiment, setup: Setup, teacher: Teacher | None, run: RunFolder, how: How, kept: Kept | None = None
) -> list[EncodedSplit]:
    """Both apart, as they are written, or together, out of the set of a cache that has what is `kept`."""
    if setup.cache is not None:
        return [setup.cache.outputs(config, all_sources(setup), how, kept)]
    if teacher is None:
        raise ValueError("there is no teacher to write the targets")
    sources = {stage_of(how): setup.train}
    if setup.prompts is not None:
        sources[stage_of(how, prompts=True)] = setup.prompts
    return [_write(config, setup, teacher, run, stage, how, data) for stage, data in sources.items()]


def stages_written(config: Experiment) -> list[str]:
    """The stages of such outputs that a run has; none where it takes them from a cache."""
    stages: list[str] = []
    if config.teacher_cache is not None or config.teacher_elsewhere:
        return stages
    for method in config.methods:
        targets = {"beam"} if config.learns_from_beams(method) else set()
        for how in sorted({config.prompt_targets(method), *targets} & {"greedy", "beam"}):
            stages += [stage_of(how), *([stage_of(how, prompts=True)] if config.takes_prompts(method) else [])]
        kept, of = find(method).readings(config.of(method)), config.prompt_targets(method)
        if kept is not None and (of == "greedy" or of == "beam"):
            stages.append(reading_stage(config, method, kept, of))
    return list(dict.fromkeys(stages))


def stage_of(how: str, prompts: bool = False) -> str:
    """Where a run's folder keeps them: for the training sources, or for the prompts."""
    return f"teacher/{how}{'_prompts' if prompts else ''}"


def readings_for(
    config: Experiment, setup: Setup, teacher: Teacher | None, run: RunFolder, method: str
) -> Readings | None:
    """What a method's `TrainContext.readings` are."""
    kept, targets = find(method).readings(config.of(method)), config.prompt_targets(method)
    if kept is None or not (targets == "greedy" or targets == "beam"):
        return None
    outputs = _outputs(config, setup, teacher, run, targets, kept)
    if setup.cache is not None:
        return setup.cache.readings(config, outputs[0], targets, kept)
    if teacher is None:
        raise ValueError("there is no teacher to read")
    stage = reading_stage(config, method, kept, targets)
    run.claim(stage, {**kept._asdict(), **(config.beam() if targets == "beam" else {})})
    started = time.monotonic()
    found = read_ahead(
        f"teacher's opinion of its {targets} outputs, {sum(map(len, outputs))}",
        run.path / stage,
        teacher,
        outputs,
        setup.buckets,
        kept,
        banned=setup.tokenizer.banned_ids,
        devices=setup.devices,
        chunks=config.training.chunks(),
    )
    if not run.done(stage):
        run.mark_done(stage, {"seconds": round(time.monotonic() - started, 1), **running_code()})
    return found


def reading_stage(config: Experiment, method: str, kept: Kept, how: How) -> str:
    """Where a run's folder keeps what the teacher makes of its outputs."""
    sharp = "" if kept.alpha == 1 else f"_alpha{kept.alpha:g}"
    return f"{stage_of(how, config.takes_prompts(method))}_top{kept.top_k}{sharp}"


def _write(
    config: Experiment, setup: Setup, teacher: Teacher, run: RunFolder, stage: str, how: How, data: EncodedSplit
) -> EncodedSplit:
    run.claim(stage, config.beam() if how == "beam" else {})
    started = time.monotonic()
    written = write_outputs(
        f"teacher's {how} outputs, {len(data)} {'prompts' if data is setup.prompts else 'pairs'}",
        run.path / stage,
        teacher,
        data,
        setup.buckets,
        BeamConfig(config.beam_size, config.length_penalty) if how == "beam" else BeamConfig(1, 0.0),
        banned=setup.tokenizer.banned_ids,
        devices=setup.devices,
    )
    if not run.done(stage):
        seconds = round(time.monotonic() - started, 1)
        run.mark_done(stage, {"seconds": seconds, "unfinished": written.unfinished, **running_code()})
    return written.data
