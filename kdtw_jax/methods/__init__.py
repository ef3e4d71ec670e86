"""Methods of training a student: one file each, ending in its `Method`.

A method of your own is an entry more: `register(Method(...))`, before the command line is read or a run is restored; or
installed with a package of yours that names the entry under the entry points of `kdtw_jax.methods`, which the command
line reads.
"""

from __future__ import annotations

from kdtw_jax.methods.ask import ASK
from kdtw_jax.methods.gkd import GKD
from kdtw_jax.methods.minillm import MINILLM
from kdtw_jax.methods.mle import MLE
from kdtw_jax.methods.pcl import PCL
from kdtw_jax.methods.protocol import Cost, Method
from kdtw_jax.methods.seqkd import SEQKD
from kdtw_jax.methods.tb import TB
from kdtw_jax.methods.word_kd import WORD_KD
from kdtw_jax.registry import Registry
from kdtw_jax.training.context import StudentTraining, TrainContext

__all__ = ["METHODS", "Cost", "Method", "StudentTraining", "TrainContext", "find", "register"]

METHODS = Registry(
    {method.name: method for method in (MLE, WORD_KD, PCL, ASK, SEQKD, GKD, MINILLM, TB)},
    kind="method",
    group="kdtw_jax.methods",
    how="kdtw_jax.methods.register(Method(...))",
    expected=Method,
    register=lambda name, method: register(method),
)


def register(method: Method) -> Method:
    """Adds a method.

    Raises:
      UserError: another one has its name.
    """
    return METHODS.add(method.name, method)


def find(name: str) -> Method:
    """Finds a method by its name.

    Raises:
      UserError: a name that is none's.
    """
    return METHODS.find(name)
