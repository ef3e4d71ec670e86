"""Rules on asking the teacher: what asking costs, how much is allowed, a hard mask, and all of it in words."""

from kdtw_jax.constraints.builtin import (
    make_after,
    make_calls,
    make_compute,
    make_first,
    make_in_a_row,
    make_pause,
    make_price,
    make_share,
)
from kdtw_jax.constraints.draw import Drawn, Terms, as_rule, draw_rules, pad_words, sayings, word_tokens, words_room
from kdtw_jax.constraints.history import History, advance, called, histories, start_history
from kdtw_jax.constraints.known import CONSTRAINTS, known_constraints, need_costs, register, without_budgets
from kdtw_jax.constraints.record import Constraint, Rule, excess, total_cost
from kdtw_jax.constraints.rules import Read, parse_rule, read_rule, word_rule
from kdtw_jax.constraints.unit import TOKENS, Unit, make_unit
from kdtw_jax.constraints.wording import Wording

__all__ = [
    "CONSTRAINTS",
    "TOKENS",
    "Constraint",
    "Drawn",
    "History",
    "Read",
    "Rule",
    "Terms",
    "Unit",
    "Wording",
    "advance",
    "as_rule",
    "called",
    "draw_rules",
    "excess",
    "histories",
    "known_constraints",
    "make_after",
    "make_calls",
    "make_compute",
    "make_first",
    "make_in_a_row",
    "make_pause",
    "make_price",
    "make_share",
    "make_unit",
    "need_costs",
    "pad_words",
    "parse_rule",
    "read_rule",
    "register",
    "sayings",
    "start_history",
    "total_cost",
    "without_budgets",
    "word_rule",
    "word_tokens",
    "words_room",
]
