"""Several helpers of one student, teachers and tools, each with its price (the guide: docs/guides/helpers.md).

from kdtw_jax.helpers import HelpedWriter, make_calculator

writer = HelpedWriter(kdtw_jax.load("runs/mine"), [make_calculator()])
"""

from kdtw_jax.helpers.answer import HelpedAnswer
from kdtw_jax.helpers.budgets import Budget, HelperUse, Limits, limits_of, read_budget
from kdtw_jax.helpers.calculator import calculate, make_calculator
from kdtw_jax.helpers.function import FunctionHelper
from kdtw_jax.helpers.glossary import make_glossary
from kdtw_jax.helpers.known import HELPERS, HelperSpec, make_helper, read_helper, register
from kdtw_jax.helpers.protocol import Begun, Helper, Suggestion
from kdtw_jax.helpers.teacher import TeacherHelper
from kdtw_jax.helpers.writing import HelpedWriter

__all__ = [
    "HELPERS",
    "Begun",
    "Budget",
    "FunctionHelper",
    "HelpedAnswer",
    "HelpedWriter",
    "Helper",
    "HelperSpec",
    "HelperUse",
    "Limits",
    "Suggestion",
    "TeacherHelper",
    "calculate",
    "limits_of",
    "make_calculator",
    "make_glossary",
    "make_helper",
    "read_budget",
    "read_helper",
    "register",
]
