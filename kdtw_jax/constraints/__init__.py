"""Rules on asking the teacher: what asking costs, how much is allowed, a hard mask, and all of it in words."""

from kdtw_jax.constraints.builtin import (
    make_after,
    make_calls,
    make_compute,
    make_first,
    make_in_a_row,
    make_pause,
    make_share,
)
from kdtw_jax.constraints.history import History, advance, histories, start_history
from kdtw_jax.constraints.record import Constraint, Rule, excess, total_cost
from kdtw_jax.constraints.rules import instruct, parse_rule, word_rule
from kdtw_jax.constraints.wording import Wording

__all__ = [
    "Constraint",
    "History",
    "Rule",
    "Wording",
    "advance",
    "excess",
    "histories",
    "instruct",
    "make_after",
    "make_calls",
    "make_compute",
    "make_first",
    "make_in_a_row",
    "make_pause",
    "make_share",
    "parse_rule",
    "start_history",
    "total_cost",
    "word_rule",
]
