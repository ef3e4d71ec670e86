"""What is read of a data set of tensorflow-datasets."""

from __future__ import annotations

from dataclasses import dataclass

from kdtw_jax.errors import UserError


@dataclass(frozen=True)
class Features:
    """Names of the features and splits to read; what is left empty follows from the data set.

    Splits may be parts, as in train[:98%], that do not overlap. Of a data set without a validation or test split a
    share of the training pairs is held out for it, chosen by `seed`.

    Raises:
      UserError: `held_out` is no such share.
    """

    source: str = ""
    """feature to read; by default the first language of a translation, or `document` or `article`"""
    target: str = ""
    """feature to write; by default the second language, or `summary` or `highlights`"""
    train: str = "train"
    validation: str = "validation"
    test: str = "test"
    held_out: float = 0.05
    """share of the distinct training sources, but at most 5,000 of them, for each of validation and test that the data
    set does not have"""
    seed: int = 0
    """of the choice of these"""

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 0.5:
            raise UserError(f"features.held_out must be above 0 and below 0.5, got {self.held_out}")
