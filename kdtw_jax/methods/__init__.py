"""Methods of training a student: one file each, ending in its `Method`.

A method of your own is an entry more: `register(Method(...))`, before the command line is read or a run is restored; or
installed with a package of yours that names the entry under the entry points of `kdtw_jax.methods`, which the command
line reads.
"""

from __future__ import annotations

from importlib.metadata import entry_points

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
    if METHODS.setdefault(method.name, method) is not method:
        raise UserError(f"there is a method {method.name} already; give yours another name")
    return method


def find(name: str) -> Method:
    """Raises UserError for a name that is none's."""
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}; known are {', '.join(METHODS)}; {HOW} adds another")
    return METHODS[name]


def load_installed() -> None:
    """Registers the methods of installed packages: for command lines. Raises UserError where one cannot be had."""
    for entry in sorted(entry_points(group=GROUP)):
        try:
            method = entry.load()
        except Exception as error:
            raise UserError(f"cannot load the method {entry.name} from {entry.value}: {error}") from error
        if not isinstance(method, Method):
            raise UserError(f"the entry point {entry.name} of {GROUP} must name a Method, {entry.value} is none")
        register(method)
