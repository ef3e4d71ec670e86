"""Sizes and schedules shared by the experiments; each experiment file says what it changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypedDict

from kdtw_jax.config import Experiment, TextConfig
from kdtw_jax.losses.pcl import PCLConfig
from kdtw_jax.models import T5Config
from kdtw_jax.train.ask_config import AskConfig
from kdtw_jax.train.distil_config import DistilConfig
from kdtw_jax.train.fit import FitConfig
from kdtw_jax.train.gkd import GKDConfig
from kdtw_jax.train.loop import LoopConfig
from kdtw_jax.train.minillm import MiniLLMConfig
from kdtw_jax.train.state import OptimizerConfig


def model(d_model: int, heads: int, layers: int, dropout: float = 0.0) -> T5Config:
    """A T5 v1.0 of a size below the published ones; the vocabulary is filled in from the tokenizer."""
    return T5Config(
        vocab_size=32,
        d_model=d_model,
        d_kv=d_model // heads,
        d_ff=4 * d_model,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        dropout_rate=dropout,
    )


def schedule(steps: int, learning_rate: float, save: int, log: int) -> dict[str, LoopConfig | OptimizerConfig]:
    """Loop and optimiser of one stage."""
    return {
        "loop": LoopConfig(steps=steps, log_every=log, checkpoint_every=save),
        "optimizer": OptimizerConfig(learning_rate=learning_rate, warmup_steps=min(200, steps // 10)),
    }


def likelihood(steps: int, learning_rate: float, save: int = 400, log: int = 40) -> FitConfig:
    """A stage of maximum likelihood or word-level distillation."""
    return FitConfig(**schedule(steps, learning_rate, save, log))  # type: ignore[arg-type]


def path_consistency(
    steps: int, learning_rate: float, save: int = 400, log: int = 40, **changes: object
) -> DistilConfig:
    """A stage of Path Consistency Learning with the project's defaults."""
    chosen = {
        "pcl": PCLConfig(values="head", lengths=(1, 2), huber=2.0),
        "pcl_weight": 0.01,
        "value_weight": 0.1,
        "value_warmup": steps // 3,
        "kl_direction": "jsd",
        "top_k": 64,
        "updates_per_rollout": 4,
        "student_share": 0.125,
        "teacher_share": 0.375,
        "truth_share": 0.5,
        "teacher_rows": 0.5,
        "teacher_temperature": 0.5,
        "truth_batches": 2,
        **changes,
    }
    return DistilConfig(**schedule(steps, learning_rate, save, log), **chosen)  # type: ignore[arg-type]


# Mostly what the teacher writes itself, nearly without chance: a small student comes nearer to that than to people's
# translations. Tried on debian/en-de alone.
DEMONSTRATIONS: dict[str, Any] = {
    "student_share": 0.125,
    "teacher_share": 0.75,
    "truth_share": 0.125,
    "teacher_rows": 1.0,
    "truth_batches": 1,
    "teacher_temperature": 0.25,
}


def asking(distil: DistilConfig, gate_rate: float = 1.0, judged_on: int = 0, settle: int = 0) -> AskConfig:
    """A stage of the same length in which the student also learns to ask; `gate_rate` as in `Rates`, the others as in
    `AskConfig`.

    Its distributions are matched by the forward KL, with the path loss at the weight that asking was measured with.
    """
    optimizer = replace(distil.optimizer, rates=replace(distil.optimizer.rates, gate=gate_rate))
    words = replace(distil, optimizer=optimizer, kl_direction="forward", pcl_weight=0.1, student_rows=0.5)
    return AskConfig(distil=words, judged_on=judged_on, settle=settle)


class Rivals(TypedDict):
    """The stages of the methods that path consistency is compared with."""

    seqkd: FitConfig
    gkd: GKDConfig
    minillm: MiniLLMConfig
    tb: DistilConfig


def rivals(steps: int, learning_rate: float, save: int = 400, log: int = 40, **changes: object) -> Rivals:
    """Stages of the same length and rate for each rival; trajectory balance changes `path_consistency` by `changes`.

    Balance is the squared deviation itself, from the first step: it has no V to wait for.
    """
    same = schedule(steps, learning_rate, save, log)
    balance = {**changes, "pcl": PCLConfig(values="head"), "value_warmup": 0}
    return {
        "seqkd": likelihood(steps, learning_rate, save, log),
        "gkd": GKDConfig(**same),  # type: ignore[arg-type]
        "minillm": MiniLLMConfig(**same),  # type: ignore[arg-type]
        "tb": path_consistency(steps, learning_rate, save, log, **balance),
    }


TINY = Experiment(
    preset="tiny",
    data="cldr",
    text=TextConfig(limit=600, test_limit=32, vocab_size=400, batch_tokens=512, buckets=1, on_long="truncate"),
    teacher=model(32, 4, 1),
    student=model(16, 2, 1),
    teacher_fit=likelihood(40, 3e-3, save=8, log=4),
    warmup=likelihood(16, 3e-3, save=8, log=4),
    mle=likelihood(16, 1e-3, save=8, log=4),
    word_kd=likelihood(16, 1e-3, save=8, log=4),
    pcl=path_consistency(16, 1e-3, save=8, log=4, updates_per_rollout=4, capacity=64, top_k=8),
    ask=asking(path_consistency(16, 1e-3, save=8, log=4, updates_per_rollout=4, capacity=64, top_k=8)),
    **rivals(16, 1e-3, save=8, log=4, capacity=64, top_k=8),
    beam_size=2,
)

# So short a training starts far from its teacher, where a divergence that is bounded has little slope.
FROM_AFAR: dict[str, Any] = {"kl_direction": "forward", "pcl_weight": 0.1}

QUICKSTART = Experiment(
    preset="quickstart",
    data="cldr",
    text=TextConfig(vocab_size=2000, max_source=48, max_target=48, test_limit=300, on_long="truncate"),
    teacher=model(128, 4, 2),
    student=model(64, 4, 1),
    teacher_fit=likelihood(1500, 3e-3),
    warmup=likelihood(600, 6e-3),
    mle=likelihood(900, 3e-3),
    word_kd=likelihood(900, 3e-3),
    pcl=path_consistency(900, 3e-3, **FROM_AFAR),
    ask=asking(path_consistency(900, 3e-3)),
    **rivals(900, 3e-3, **FROM_AFAR),
    methods=("mle", "pcl", "ask"),
)

SMALL = Experiment(
    preset="small",
    data="debian/en-de",
    text=TextConfig(),
    teacher=model(192, 6, 3, dropout=0.2),
    student=model(80, 4, 1),
    teacher_fit=likelihood(6000, 2e-3),
    warmup=likelihood(1200, 6e-3, save=200),
    mle=likelihood(1200, 3e-3, save=200),
    word_kd=likelihood(1200, 3e-3, save=200),
    pcl=path_consistency(1200, 3e-3, save=200),
    ask=asking(path_consistency(1200, 3e-3, save=200)),
    **rivals(1200, 3e-3, save=200),
    seeds=(0, 1, 2),
)

BASE = replace(
    SMALL,
    preset="base",
    text=TextConfig(
        vocab_size=16000, max_source=128, max_target=128, batch_tokens=32768, buckets=4, on_long="truncate"
    ),
    teacher=T5Config.named("base", version="v1.1"),
    student=replace(T5Config.named("small", version="v1.1"), dropout_rate=0.0),
    teacher_fit=likelihood(100_000, 1e-3, save=5000, log=100),
    warmup=likelihood(30_000, 1e-3, save=5000, log=100),
    mle=likelihood(30_000, 5e-4, save=5000, log=100),
    word_kd=likelihood(30_000, 5e-4, save=5000, log=100),
    pcl=path_consistency(30_000, 5e-4, save=4000, log=100, capacity=16384),
    ask=asking(path_consistency(30_000, 5e-4, save=4000, log=100, capacity=16384)),
    **rivals(30_000, 5e-4, save=4000, log=100, capacity=16384),
)

# Sizes of the paper's models. The teacher is published, and with it the vocabulary; --teacher-model names another.
PAPER = replace(
    BASE,
    preset="paper",
    text=replace(BASE.text, instruct=True, max_source=256, max_target=256),
    teacher=replace(T5Config.named("xl", version="v1.1"), dtype="bfloat16"),
    student=replace(T5Config.named("small", version="v1.1"), dtype="bfloat16", dropout_rate=0.0),
    teacher_model="hf:google/flan-t5-xl",
    student_model="hf:google/flan-t5-small",
)
