"""How a student is distilled by path consistency: rows, residuals, and what is weighed how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kdtw_jax.errors import UserError
from kdtw_jax.flags import flags
from kdtw_jax.losses.kl import Direction
from kdtw_jax.losses.pcl import PCLConfig
from kdtw_jax.ranges import check_ranges
from kdtw_jax.training.rows import RowsConfig


@dataclass(frozen=True)
class DistilConfig(RowsConfig):
    """PCL from a mixed replay buffer.

    Raises:
      UserError: numbers out of their range, shares that do not add up, or a KL term without a stored distribution.
    """

    pcl: PCLConfig = field(default_factory=PCLConfig, metadata=flags("values", "segment_lengths"))
    pcl_weight: float = 1.0  # weight of the path-consistency loss in what the policy learns
    value_weight: float = field(default=1.0, metadata=flags())  # and in what V learns
    # Updates in which V alone learns from path residuals: until V is about right, all of them say "less of everything"
    value_warmup: int = 0
    kl_weight: float = 1.0  # weight of the exact divergence from the teacher's stored top-k and tail; 0 leaves it out
    kl_direction: Direction = "reverse"
    # The part of `kl_weight` that goes to the likelihood of the tokens instead, on rows of others: a beam output is
    # near the likeliest sequence, of which distributions that are sharpened token by token do not know
    likelihood_share: float = field(default=0.0, metadata=flags())
    # EMA decay of the parameters that give V at the far end of a segment; 0: the current ones
    target_decay: float = field(default=0.0, metadata=flags())
    # V learns from student rollouts only: it is then V of the student, not of the mix
    fit_value_on_policy: bool = field(default=True, metadata=flags())
    # Whose residuals count: those of the student alone are of states that it comes to itself
    path_rows: Literal["all", "student"] = field(default="all", metadata=flags())
    # Where distributions are matched; others: not on the student's own rows
    kl_rows: Literal["all", "others"] = field(default="all", metadata=flags())
    # What residuals are made of: the log-ratio of the token taken, or its expectation (`kdtw_jax.losses.expected`),
    # which is known of the student's own rows
    residuals: Literal["sampled", "expected"] = field(default="sampled", metadata=flags())
    path_lambda: float = field(default=1.0, metadata=flags())  # of expected ones; 0: distributions, 1: sequences
    path_bound: float | None = field(default=None, metadata=flags())  # |C| to which they are cut for the policy, nats

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, pcl_weight="[0, inf)", value_weight="[0, inf)", value_warmup="[0, inf)")
        check_ranges(self, kl_weight="[0, inf)", likelihood_share="[0, 1]", target_decay="[0, 1)")
        check_ranges(self, path_lambda="[0, 1]", path_bound="(0, inf)")
        if self.likelihood_share and self.kl_weight == 0:
            raise UserError("kl_weight is 0, so likelihood_share, a part of it, must be 0 too")
        expected = self.residuals == "expected"
        if self.top_k == 0 and (self.kl_weight > 0 or expected):
            why = "residuals are expected" if expected else "kl_weight is above 0"
            raise UserError(f"{why}, so top_k must be at least 1: the term reads the stored distribution")
        if expected and self.path_rows != "student":
            raise UserError(
                'residuals are expected, so path_rows must be "student": on others\' rows nobody knows them'
            )
        if expected and self.pcl.clip is not None:
            raise UserError("residuals are expected, so pcl.clip must be None: path_bound cuts them")
