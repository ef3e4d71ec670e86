"""How close a student is to its teacher."""

from __future__ import annotations

import numpy as np
import pytest

from kdtw_jax.evaluation.agreement import compare_with_teacher
from kdtw_jax.evaluation.rows import spaced_pairs, widen_buckets
from kdtw_jax.losses.pcl import PCLConfig
from tests.asking import (
    BUCKETS,
    DATA,
    STUDENT,
    TEACHER,
    WORLD,
    endless,
)


@pytest.mark.parametrize("endings", [False, True])
def test_a_student_is_compared_with_its_teacher_even_where_no_output_ends(endings: bool) -> None:
    few = spaced_pairs(DATA, 16)
    banned = WORLD.tokenizer.banned_ids if endings else endless().banned_ids
    found = compare_with_teacher(
        STUDENT, TEACHER, few, widen_buckets(BUCKETS, few), banned=banned, values=PCLConfig(values="head"), top_k=2
    )
    of_value = {name for name in found if name.startswith("v_")}
    assert {name for name, value in found.items() if not np.isfinite(value)} == (
        {"v_spearman", "v_slope"} if endings else of_value  # fresh value heads say 0 everywhere
    )
    assert found["kl_on_policy"] > 0
