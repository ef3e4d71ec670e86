"""What distillation from a replay buffer can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from kdtw_jax.errors import UserError
from kdtw_jax.losses import pcl
from kdtw_jax.losses.kl import Direction
from kdtw_jax.ranges import check_ranges
from kdtw_jax.train.loop import LoopConfig
from kdtw_jax.train.state import OptimizerConfig


@dataclass(frozen=True)
class DistilConfig:
    """PCL from a mixed replay buffer."""

    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    pcl: pcl.PCLConfig = field(default_factory=pcl.PCLConfig)
    pcl_weight: float = 1.0  # weight of the path-consistency loss in what the policy learns
    value_weight: float = 1.0  # and in what V learns
    # Updates in which V alone learns from path residuals: until V is about right, all of them say "less of everything"
    value_warmup: int = 0
    kl_weight: float = 1.0  # weight of the exact divergence from the teacher's stored top-k and tail; 0 leaves it out
    kl_direction: Direction = "reverse"
    top_k: int = 16  # tokens of the teacher's distribution kept a step
    # EMA decay of the parameters that give V at the far end of a segment; 0: the current ones
    target_decay: float = 0.0
    # V learns from student rollouts only: it is then V of the student, not of the mix
    fit_value_on_policy: bool = True
    updates_per_rollout: int = 8  # minibatches replayed for each batch of fresh paths
    capacity: int = 2048  # rows a source and length bucket
    student_share: float = 0.5  # of a minibatch; the shares are kept exactly, up to rounding to rows
    teacher_share: float = 0.25
    truth_share: float = 0.25
    student_rows: float = 1.0  # share of each batch of prompts that the student answers
    teacher_rows: float = 0.25  # and that the teacher answers
    # Below 1 the teacher demonstrates what it finds likely, nearer to what greedy decoding is after. Any path is a
    # valid demonstration: nothing in the residual asks how it was drawn.
    teacher_temperature: float = 1.0
    # Of the teacher whose log-probability is the reward and whose top k is matched; below 1 it is sharper than it is.
    reward_temperature: float = 1.0
    truth_batches: int = 1  # batches of ground truth added with each batch of rollouts: more of the data is seen
    chunk: int = 0  # positions whose distributions over the vocabulary are held at once; 0: all, faster with memory
    vocab_chunk: int = 0  # tokens of the vocabulary of which they are held at once; 0: all, faster with memory

    def __post_init__(self) -> None:
        check_ranges(
            self,
            pcl_weight="[0, inf)",
            value_weight="[0, inf)",
            value_warmup="[0, inf)",
            kl_weight="[0, inf)",
            top_k="[0, inf)",
            target_decay="[0, 1)",
            updates_per_rollout="[1, inf)",
            capacity="[1, inf)",
            student_rows="[0, 1]",
            teacher_rows="[0, 1]",
            teacher_temperature="(0, inf)",
            reward_temperature="(0, inf)",
            truth_batches="[1, inf)",
            chunk="[0, inf)",
            vocab_chunk="[0, inf)",
        )
        if self.loop.checkpoint_every % self.updates_per_rollout:
            raise UserError(
                f"loop.checkpoint_every ({self.loop.checkpoint_every}) must be a multiple of updates_per_rollout "
                f"({self.updates_per_rollout}), so that a resumed run starts with fresh rows"
            )
        shares = (self.student_share, self.teacher_share, self.truth_share)
        if not (min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6):  # NaN is neither
            raise UserError(
                f"student_share, teacher_share and truth_share must be at least 0 and add to 1, got {shares}"
            )
        for name in ("student", "teacher"):
            if vars(self)[f"{name}_share"] > 0 and vars(self)[f"{name}_rows"] == 0:
                raise UserError(
                    f"{name}_share is above 0, so {name}_rows must be too: the buffer would hold no such rows"
                )
        if self.kl_weight > 0 and self.top_k == 0:
            raise UserError("kl_weight is above 0, so top_k must be at least 1: the term reads the stored distribution")


def check_uncut(config: DistilConfig) -> None:
    """Raises UserError where the minibatches of trajectory balance are to be cut up: it compares their rows."""
    if config.optimizer.accumulate > 1:
        raise UserError("trajectory balance compares the rows of a minibatch: tb.optimizer.accumulate must be 1")
