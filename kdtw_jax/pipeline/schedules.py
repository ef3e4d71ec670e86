"""Schedules of trainings, and the settings of path consistency that presets share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdtw_jax.losses.pcl import PCLConfig
from kdtw_jax.methods.ask_config import AskConfig
from kdtw_jax.methods.mle import FitConfig
from kdtw_jax.methods.pcl_config import DistilConfig
from kdtw_jax.training.context import StudentTraining
from kdtw_jax.training.loop import LoopConfig
from kdtw_jax.training.ramp import Ramp
from kdtw_jax.training.state import OptimizerConfig


def likelihood(steps: int, learning_rate: float, save: int = 400, log: int = 40) -> FitConfig:
    """Training of a teacher, or of the start of the students (`steps`, `learning_rate`, `save`, `log`: `schedule`)."""
    return FitConfig(*schedule(steps, learning_rate, save, log))


def schedule(steps: int, learning_rate: float, save: int, log: int) -> tuple[LoopConfig, OptimizerConfig]:
    """Loop and optimiser of a training.

    Args:
      steps: of the optimiser, of which a tenth, at most 200, warm it up.
      learning_rate: the largest, after these.
      save: steps between checkpoints.
      log: steps between lines of the log.
    """
    return (
        LoopConfig(steps=steps, log_every=log, checkpoint_every=save),
        OptimizerConfig(learning_rate=learning_rate, warmup_steps=min(200, steps // 10)),
    )


def path_consistency(steps: int, **changes: Any) -> DistilConfig:
    """Path Consistency Learning with the project's defaults, for a training of so many `steps` but for `changes`."""
    chosen = {
        "pcl": PCLConfig(values="head", segment_lengths=(1, 2), huber=2.0),
        "pcl_weight": 0.01,
        "value_weight": 0.1,
        "value_warmup": steps // 3,
        "kl_direction": "jsd",
        "top_k": 64,
        "updates_per_rollout": 4,
        "student_share": 0.125,
        "teacher_share": 0.375,
        "reference_share": 0.5,
        "demonstration_fraction": 0.5,
        "teacher_temperature": 0.5,
        "reference_batches": 2,
        **changes,
    }
    return DistilConfig(**chosen)


# Paths are the student's own, in expectation to their ends; others' rows teach distributions.
OWN_PATHS: dict[str, Any] = {
    "pcl": PCLConfig(values="head", segment_lengths=(0,), huber=2.0),
    "residuals": "expected",
    "path_rows": "student",
    "path_bound": 8.0,
    "pcl_weight": 1.0,
    "value_warmup": 0,
    "value_weight": 0.01,  # small, it leaves the clipping of gradients to the policy
    "kl_rows": "others",
    "kl_direction": "forward",
}

# The teacher writes and reads its demonstrations once for all students, so a step is the student's own. A student's own
# rows come at the end, when it is near enough for them to be more than noise, and few of them: they improve what is
# drawn, and earlier or more of them cost what is written greedily (validation data of debian/summarize). There they
# only match distributions: where models are alike, looking at what follows adds nothing (`kdtw headroom`).
WRITTEN_AHEAD: dict[str, Any] = {
    "demonstrations": "greedy",
    "read_ahead": True,
    "student_share": 0.125,
    "teacher_share": 0.875,
    "reference_share": 0.0,
    "rollout_fraction": 0.125,
    "demonstration_fraction": 1.0,
    "updates_per_rollout": 1,
    "reference_batches": 1,
    "capacity": 1,  # a buffer holds a batch at least (`train_replayed`): here no more, so that each row comes once
    "own_rows": Ramp(0.9, 0.95),
    **OWN_PATHS,
    "path_lambda": 0.0,
    "kl_weight": 1.0,
    "pcl_weight": 0.2,
}

# A student that learns to ask: what answers are worth is learned where it comes to. Chosen on validation data of
# debian/en-de, when PCL had the same; fewer rows were not tried.
ASKED_ROWS: dict[str, Any] = {
    "student_share": 0.5,
    "teacher_share": 0.5,
    "rollout_fraction": 0.5,
    "own_rows": Ramp(0.75, 0.85),
}

# A temperature below the teacher's, on the student's own rows, beside what beam search finds: outputs that are drawn
# come near to greedy ones, which lose nothing. Where a student asks, the teacher's own distribution is what words are
# worth.
SHARP = 0.3

# So short a training starts far from its teacher, where a divergence that is bounded has little slope.
FROM_AFAR: dict[str, Any] = {"kl_direction": "forward", "pcl_weight": 0.1}


def students(
    steps: int,
    learning_rate: float,
    save: int = 400,
    log: int = 40,
    *,
    paths: Mapping[str, Any] = {},
    asking: Mapping[str, Any] = {},
    **rows: Any,
) -> dict[str, Any]:
    """The training that all students of a seed have in common, and the settings of their methods.

    A student that asks has its distributions matched by the forward KL, with the path loss at the weight that asking
    was measured with. Trajectory balance is the squared deviation itself, from the first step: it has no V to wait for.

    Args:
      steps: as for `schedule`, like `learning_rate`, `save` and `log`.
      paths: further changes of `path_consistency` for pcl and tb alone.
      asking: fields of `AskConfig`.
      rows: changes of `path_consistency` for pcl, ask and tb.
    """
    words = path_consistency(steps, **rows, kl_direction="forward", pcl_weight=0.1, rollout_fraction=0.5)
    balance = {**rows, **paths, "pcl": PCLConfig(values="head"), "value_warmup": 0}
    return {
        "training": StudentTraining(*schedule(steps, learning_rate, save, log)),
        "settings": {
            "pcl": path_consistency(steps, **rows, **paths),
            "ask": AskConfig(**{"distil": words, **asking}),
            "tb": path_consistency(steps, **balance),
        },
    }
