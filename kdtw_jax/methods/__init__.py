"""Methods of training a student: one file each, ending in its `Method`.

A method of your own is an entry more: `register(Method(...))`, before the command line is read or a run is restored; or
installed with a package of yours that names the entry under the entry points of `kdtw_jax.methods`, which the command
line reads.
"""

from __future__ import annotations

from kdtw_jax import registry
from kdtw_jax.errors import UserError
from kdtw_jax.methods.ask import ASK
from kdtw_jax.methods.gkd import GKD
from kdtw_jax.methods.minillm import MINILLM
from kdtw_jax.methods.mle import MLE
from kdtw_jax.methods.pcl import PCL
from kdtw_jax.methods.protocol import Cost, Method
from kdtw_jax.methods.seqkd import SEQKD
from kdtw_jax.methods.tb import TB
from kdtw_jax.methods.word_kd import WORD_KD
from kdtw_jax.training.context import StudentTraining, TrainContext

__all__ = ["METHODS", "Cost", "Method", "StudentTraining", "TrainContext", "find", "load_installed", "register"]

GROUP = "kdtw_jax.methods"
HOW = f"kdtw_jax.methods.register(Method(...)), or a package with entry points {GROUP}"

METHODS: dict[str, Method] = {m.name: m for m in (MLE, WORD_KD, PCL, ASK, SEQKD, GKD, MINILLM, TB)}


def register(method: Method) -> Method:
    """Adds a method. Raises UserError where another one has its name."""
    return registry.add(METHODS, method.name, method, "method")


def find(name: str) -> Method:
    """Raises UserError for a name that is none's."""
    return registry.find(METHODS, name, "method", HOW)


def load_installed() -> None:
    """Registers the methods of installed packages: for command lines. Raises UserError where one cannot be had."""
    for found, entry in registry.load_group(GROUP, "method"):
        if not isinstance(found, Method):
            raise UserError(f"the entry point {entry.name} of {GROUP} must name a Method, {entry.value} is none")
        register(found)
