"""What a replay buffer is fed with and how often it is drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field

from kdtw_jax.errors import UserError
from kdtw_jax.flags import flags
from kdtw_jax.ranges import check_ranges
from kdtw_jax.training.demonstrations import Demonstrations
from kdtw_jax.training.ramp import Ramp


@dataclass(frozen=True)
class RowsConfig:
    """Rows of a replay buffer: who writes them, how many, and for how long they are used.

    Raises:
      UserError: numbers out of their range, or shares that do not add up or that nobody writes rows for.
    """

    top_k: int = 16  # tokens of the teacher's distribution kept per step
    updates_per_rollout: int = 8  # minibatches replayed for each batch of fresh paths
    capacity: int = 2048  # rows per source and length bucket
    student_share: float = 0.5  # of a minibatch; the shares are kept exactly, up to rounding to rows
    teacher_share: float = 0.25
    reference_share: float = 0.25
    rollout_fraction: float = 1.0  # share of each batch of prompts that the student answers
    demonstration_fraction: float = 0.25  # and that the teacher answers
    # Demonstrations are drawn at alpha times this. Below 1 they are what the teacher finds likely, nearer than the
    # optimum to what greedy decoding is after. Any path is valid: nothing in the residual asks how it was drawn.
    teacher_temperature: float = 1.0
    # The teacher's demonstrations: fresh samples, or, written once for all students, what it finds most likely.
    demonstrations: Demonstrations = field(default="sampled", metadata=flags())
    # Of those written ahead its distributions are kept, too, read once for all students: (6 top_k + 4) bytes a token
    read_ahead: bool = field(default=False, metadata=flags())
    # How student_share rises over the training; demonstrations, or else ground truth, stand for what is not there yet.
    own_rows: Ramp = field(default_factory=Ramp, metadata=flags())
    reference_batches: int = 1  # batches of ground truth added with each batch of rollouts: more of the data is seen

    def __post_init__(self) -> None:
        check_ranges(self, top_k="[0, inf)", updates_per_rollout="[1, inf)", capacity="[1, inf)")
        check_ranges(self, rollout_fraction="[0, 1]", demonstration_fraction="[0, 1]", reference_batches="[1, inf)")
        check_ranges(self, teacher_temperature="(0, inf)")
        shares = (self.student_share, self.teacher_share, self.reference_share)
        if not (min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6):  # NaN is neither
            raise UserError(
                f"student_share, teacher_share and reference_share must be at least 0 and add to 1, got {shares}"
            )
        if self.read_ahead and (self.demonstrations == "sampled" or not self.top_k):
            raise UserError(
                'read_ahead is set, so demonstrations must be "greedy" or "beam", written ahead, and top_k at least 1'
            )
        if self.student_share == 1 and self.own_rows.full > 0:
            raise UserError("student_share is 1, so own_rows.full must be 0: there are no other rows to begin with")
        for share, fraction in (("student_share", "rollout_fraction"), ("teacher_share", "demonstration_fraction")):
            if vars(self)[share] > 0 and vars(self)[fraction] == 0:
                raise UserError(f"{share} is above 0, so {fraction} must be too: the buffer would hold no such rows")
