"""What a server's programs are given of its R rows, as arrays: rules, and what others than the student write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdtw_jax.serving.job import Job
from kdtw_jax.serving.rows import TOP_K, RowSpec, TeacherReply, ToolWord
from kdtw_jax.teachers.protocol import TopTokens


def row_spec(job: Job, names: Sequence[str]) -> RowSpec:
    """The budgets of a request's row, by constraint and, behind these, of the number of calls.

    `names`: those of the student's constraints, in their order.
    """
    asking, width = job.asking, len(names) + 1
    budget, saved = np.zeros((1, width), np.float32), np.zeros((1, width), np.float32)
    active, drafted = np.zeros((1, width), bool), False
    member = bool(job.reserved is not None and job.reserved.saved)
    for number, (constraint, value) in enumerate(zip(asking.rule.constraints, asking.rule.budgets, strict=True)):
        place = names.index(constraint.name)
        budget[0, place], active[0, place] = value, asking.guard
        # Of a share that is nothing there is nothing to ask ahead of.
        drafted |= constraint.spent is not None and not (constraint.name == "share" and float(value) == 0.0)
        if job.reserved is not None and member:
            saved[0, place] = job.reserved.saved[number]
    calls = asking.calls if job.reserved is None else job.reserved.calls
    if calls is not None:
        budget[0, -1], active[0, -1] = calls, True
    drafted &= asking.guard and not member
    most, draft, on = np.full(1, job.most, np.int32), np.full(1, drafted), np.full(1, member)
    return RowSpec(most, draft, budget, active, saved, on)


def teacher_reply(said: Sequence[tuple[int, TopTokens | None]], rows: int) -> TeacherReply:
    """What a teacher elsewhere has said to rows, by their number; None: it did not answer."""
    ids, logs = np.zeros((rows, TOP_K), np.int32), np.full((rows, TOP_K), -np.inf, np.float32)
    has, gone = np.zeros(rows, bool), np.zeros(rows, bool)
    for row, top in said:
        if top is None:
            gone[row] = True
            continue
        found = min(TOP_K, len(top.ids_K))
        ids[row], has[row] = top.ids_K[0], True
        ids[row, :found], logs[row, :found] = top.ids_K[:found], top.log_probs_K[:found]
        logs[row, found:] = top.log_probs_K[0]  # the first one again
    return TeacherReply(ids, logs, has, gone)


def tool_word(jobs: Sequence[Job], rows: int) -> ToolWord:
    """What the tool writes next in the rows of those requests that want it."""
    token_R, left_R, closed_R = (np.zeros(rows, kind) for kind in (np.int32, np.int32, bool))
    for job in jobs:
        if job.tool is not None:
            token_R[job.row], left_R[job.row] = job.tool.next(job.tokens, job.most), job.tool.left
            closed_R[job.row] = job.tool.is_closed
    return ToolWord(token_R, left_R, closed_R)
