"""Sizes and schedules of the experiments, by task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kdtw_jax.data.byt5 import BYT5
from kdtw_jax.data.prompts import REST
from kdtw_jax.losses.pcl import PCLConfig
from kdtw_jax.methods.ask_config import AskConfig
from kdtw_jax.methods.gkd import GKDConfig
from kdtw_jax.methods.word_kd import WordKDConfig
from kdtw_jax.pipeline.config import EvalConfig, Experiment, TextConfig
from kdtw_jax.pipeline.schedules import (
    ASKED_ROWS,
    FROM_AFAR,
    OWN_PATHS,
    SHARP,
    WRITTEN_AHEAD,
    likelihood,
    path_consistency,
    schedule,
    students,
)
from kdtw_jax.pipeline.sizes import models
from kdtw_jax.training.context import StudentTraining
from kdtw_jax.training.ramp import Ramp

TINY = Experiment(
    preset="tiny",
    data="cldr",
    text=TextConfig(limit=600, vocab_size=400, batch_tokens=512, buckets=1, on_long="truncate"),
    **models("tiny"),
    teacher_fit=likelihood(40, 3e-3, save=8, log=4),
    warmup=likelihood(16, 3e-3, save=8, log=4),
    **students(16, 1e-3, save=8, log=4, capacity=64, top_k=8),
    beam_size=2,
    eval=EvalConfig(limit=32, beam_size=2),
)

QUICKSTART = Experiment(
    preset="quickstart",
    data="cldr",
    text=TextConfig(vocab_size=2000, max_source=48, max_target=48, on_long="truncate"),
    **models("quickstart"),
    teacher_fit=likelihood(1500, 3e-3),
    warmup=likelihood(600, 6e-3),
    **students(900, 3e-3, paths=FROM_AFAR),
    methods=("mle", "pcl", "ask"),
    eval=EvalConfig(limit=300),
)


def on_prompts(
    steps: int, learning_rate: float, save: int = 400, *, alpha: float = SHARP, **changes: Any
) -> dict[str, Any]:
    """The training and the settings of students that learn from what the teacher wrote ahead.

    Its rivals learn from the same demonstrations, in as many steps, and GKD's own rows come when those of PCL do.

    Args:
      steps: as for `schedule`, like `learning_rate` and `save`.
      alpha: of pcl and tb; below 1 they learn the tokens of beam outputs, otherwise distributions at greedy ones.
      changes: of `WRITTEN_AHEAD`, for all.
    """
    distil = path_consistency(steps, **{**WRITTEN_AHEAD, **changes})
    # A beam output is near the likeliest sequence, which the likeliest tokens one by one are not: it teaches as it is.
    beams = {"demonstrations": "beam", "likelihood_share": 1.0}
    sharp = replace(distil, **(beams if alpha < 1 else {"demonstrations": "greedy"}))
    # The finished student of PCL learns to ask: on validation data of debian/en-de it is 0.9 BLEU ahead, at shares to
    # 20%, of one that learned both together. Rows with help are a quarter of a batch: the gate remembers more of them.
    asking = AskConfig(
        distil=path_consistency(steps, **{**WRITTEN_AHEAD, **ASKED_ROWS, "capacity": 512, **changes}),
        start="pcl",
        gate_alone=True,
        helped_fraction=0.25,
        gate_rate=3.0,
        gate_calibration_steps=400,
    )
    # Distributions of four positions of 64 rows stay in a processor's cache, which makes a step a quarter faster.
    return {
        "training": StudentTraining(*schedule(steps, learning_rate, save, log=40), chunk=4),
        "settings": {
            "pcl": replace(sharp, pcl=replace(sharp.pcl, alpha=alpha)),
            "ask": asking,
            "tb": replace(sharp, pcl=PCLConfig(values="head", alpha=alpha)),
            "word_kd": WordKDConfig(kl_weight=1.0, top_k=distil.top_k),
            "gkd": GKDConfig(demonstrations="greedy", top_k=distil.top_k, own_rows=distil.own_rows),
        },
    }


SMALL = Experiment(
    preset="small",
    data="debian/en-de",
    text=TextConfig(batch_tokens=2048),
    **models("small"),
    teacher_fit=likelihood(3000, 2e-3),
    warmup=likelihood(600, 6e-3, save=200),
    **on_prompts(2400, 6e-3, save=400),
    seeds=(0, 1, 2),
    eval=EvalConfig(watch=256),
)

# A teacher of more than fifty times its student's parameters, of which help has to save time on a CPU, too.
WIDE = replace(SMALL, preset="wide", **models("wide"), teacher_fit=likelihood(2000, 1e-3, save=200), seeds=(0,))

BASE = replace(
    SMALL,
    preset="base",
    text=TextConfig(
        vocab_size=16000, max_source=128, max_target=128, batch_tokens=32768, buckets=4, on_long="truncate"
    ),
    **models("base"),
    teacher_fit=likelihood(100_000, 1e-3, save=5000, log=100),
    warmup=likelihood(30_000, 1e-3, save=5000, log=100),
    **students(30_000, 5e-4, save=4000, log=100, capacity=16384),
)

# Sizes of the paper's models. The teacher is published, and with it the vocabulary; --teacher-model names another.
PAPER = replace(
    BASE,
    preset="paper",
    text=replace(BASE.text, instruct=True, max_source=256, max_target=256),
    **models("paper"),
    teacher_model="hf:google/flan-t5-xl",
    student_model="hf:google/flan-t5-small",
)

# A published decoder-only model and students of six of its 30 layers. `experiments/smollm.py` fits the teacher first.
SMOLLM = replace(
    SMALL,
    preset="smollm",
    data="debian/summarize",
    text=TextConfig(
        instruct=True, limit=16_000, max_source=160, max_target=48, batch_tokens=5120, buckets=1, on_long="truncate"
    ),
    family="causal",
    **models("smollm", "causal"),
    teacher_model="smollm2-135m",
    student_from_teacher=6,
    **on_prompts(600, 5e-4, save=200),
    seeds=(0,),
    eval=EvalConfig(limit=500, ask_limit=200, watch=64),
)

TRANSLATION = {
    "quickstart": QUICKSTART,
    "tiny": TINY,
    "small": SMALL,
    "wide": WIDE,
    "base": replace(BASE, data="tfds:para_crawl/ende"),
    "paper": replace(PAPER, data="tfds:wmt14_translate/de-en"),
}

# Descriptions are long and synopses short; what lies beyond a description's first 64 pieces is cut off (and counted).
LENGTHS = replace(SMALL.text, max_source=64, max_target=24, on_long="truncate")

SUMMARIZATION = {
    "small": replace(SMALL, data="debian/summarize", text=LENGTHS, eval=EvalConfig(ask_limit=1000, watch=256)),
    "tiny": replace(TINY, data="debian/summarize", text=replace(TINY.text, max_source=64, max_target=16)),
    "smollm": SMOLLM,
    "base": replace(BASE, data="tfds:xsum", text=replace(BASE.text, max_source=512, max_target=64)),
    "paper": replace(PAPER, data="tfds:xsum", text=replace(PAPER.text, max_source=512, max_target=64)),
}

# A student of one layer can go one of its teacher's two ways: paths on its own rows, distributions on the teacher's.
WAYS_TEXT = TextConfig(tokenizer=Path(BYT5), max_source=22, max_target=26, batch_tokens=128 * 26, buckets=1)
WAYS_ROWS: dict[str, Any] = {
    "student_share": 0.5,
    "teacher_share": 0.5,
    "reference_share": 0.0,
    "demonstration_fraction": 1.0,
    "teacher_temperature": 1.0,
    "updates_per_rollout": 1,
    "reference_batches": 1,
    "capacity": 256,
    "top_k": 16,
}
WAYS_PATHS: dict[str, Any] = {**OWN_PATHS, "kl_weight": 0.05}
WAYS_ASKING: dict[str, Any] = {
    "distil": path_consistency(800, **WAYS_ROWS, **WAYS_PATHS),
    "unit": "token",  # a sum is one word
}
WAYS = {
    "ways": Experiment(
        preset="ways",
        data="ways",
        text=WAYS_TEXT,
        **models("ways"),
        teacher_model="ways:program",
        teacher_fit=likelihood(6000, 1e-3, save=1000, log=100),
        warmup=likelihood(6000, 3e-3, save=1000, log=100),
        **students(800, 3e-4, save=200, paths=WAYS_PATHS, asking=WAYS_ASKING, **WAYS_ROWS),
        seeds=(0, 1, 2),
    ),
    "tiny": replace(
        TINY.with_settings(ask=replace(TINY.of("ask"), unit="token")),
        data="ways",
        text=replace(WAYS_TEXT, limit=600, batch_tokens=512),
        teacher_model="ways:program",
    ),
}

# A teacher that finds every other answer in its head, and students that are surer of steps.
CLASSROOM_WAYS = Experiment(
    preset="ways",
    data="classroom/ways",
    text=TextConfig(vocab_size=800, whole_words=True, max_source=112, max_target=112, on_long="truncate"),
    student_pairs=60_000,  # once around for a student, and a third as many for beams to find outputs of
    **models("classroom"),
    teacher_fit=likelihood(10_000, 3e-3, save=1000, log=100),
    warmup=likelihood(6000, 6e-3, save=1000, log=100),
    # At three times the rate path consistency falls apart after some 300 steps.
    **students(800, 1e-4, save=200, paths=WAYS_PATHS, asking={"distil": WAYS_ASKING["distil"]}, **WAYS_ROWS),
    seeds=(0, 1, 2),
    eval=EvalConfig(limit=1000),
)
# The teacher has all problems with their solutions, students a ninth of them; for the others they have the teacher.
CLASSROOM_TEXT = TextConfig(
    limit=18_000, vocab_size=1000, whole_words=True, max_source=112, max_target=112, on_long="truncate"
)
# Solutions are determined, so the teacher's hold all there is to learn; the student's own come last and count little.
CLASSROOM_ROWS: dict[str, Any] = {
    "top_k": 16,
    "student_share": 0.125,
    "teacher_share": 0.875,
    "rollout_fraction": 0.25,
    "own_rows": Ramp(0.9, 0.95),
    "pcl_weight": 0.02,
}
CLASSROOM = {
    "quickstart": Experiment(
        preset="quickstart",
        data="classroom/quick",
        text=CLASSROOM_TEXT,
        prompts=REST,
        student_pairs=2000,
        **models("classroom"),
        teacher_fit=likelihood(3000, 3e-3),
        warmup=likelihood(800, 6e-3),
        **on_prompts(800, 6e-3, alpha=1.0, **CLASSROOM_ROWS),
        methods=("mle", "pcl", "ask"),
        eval=EvalConfig(limit=400, ask_limit=160),
    ),
    "ways": CLASSROOM_WAYS,
    "tiny": replace(TINY, data="classroom/solve"),
}

TASKS = {
    "translation": TRANSLATION,
    "summarization": SUMMARIZATION,
    "classroom": CLASSROOM,
    "ways": WAYS,
}
