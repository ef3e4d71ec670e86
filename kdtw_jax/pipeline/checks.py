"""Whether a configuration fits the vocabulary and the batches that a run has."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from kdtw_jax.constraints import without_budgets
from kdtw_jax.data.batches import Bucket
from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.methods import find
from kdtw_jax.pipeline.config import Experiment


def needs_validation(config: Experiment) -> bool:
    """Whether thresholds or prices are set, or students are watched, on pairs that no model was trained on."""
    judged = "ask" in config.methods and config.has_teacher
    thresholds = judged and "share" in without_budgets(config.of("ask").constraints)
    return thresholds or config.eval.watch > 0 or any(find(name).unseen(config.of(name)) for name in config.methods)


def check_fit(config: Experiment, tokenizer: Tokenizer, buckets: Sequence[Bucket], devices: int) -> None:
    """Checks what the methods keep of the teacher's distribution, and how they cut batches.

    Args:
      devices: among which the rows of each bucket are divided.

    Raises:
      UserError: more is kept than there are pieces, or batches are cut into parts that they do not divide into.
    """
    counts = {bucket.rows // devices for bucket in buckets}
    for name in dict.fromkeys(("pcl", *config.methods)):  # by pcl.top_k all students are compared, too
        if field := find(name).top_k:
            top_k = operator.attrgetter(field)(config.of(name))
            if top_k > tokenizer.vocab_size:
                raise UserError(f"{name}.{field} is {top_k}, but the vocabulary has {tokenizer.vocab_size} pieces")
    further = {-(-find(name).further_rows // devices) for name in config.methods} - {0}
    stages = {"training": (config.training, counts | further)}
    stages |= {"teacher_fit": (config.teacher_fit, counts)} if config.trains_teacher else {}
    stages |= {"warmup": (config.warmup, counts)} if config.warms_up else {}
    for stage, (training, cut) in stages.items():
        parts = training.optimizer.accumulate
        for count in sorted(cut):
            if count % parts:
                raise UserError(
                    f"{stage}.optimizer.accumulate is {parts}, which does not divide {count} rows per device"
                )
