"""What is read and written with Orbax (V1 interface), and what disks say of it. The only module that imports Orbax."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

PyTree = Any


def orbax() -> Any:
    """Imported where a model is read or written: it takes half a second, and errors in rules or paths come before."""
    from orbax.checkpoint import v1

    return v1


def abstract(tree: PyTree) -> PyTree:
    there = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=there), tree)


def leaves_by_place(tree: PyTree) -> dict[str, Any]:
    """The leaves by their place."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def misfit(stored: PyTree, like: PyTree) -> str:
    """The first difference between what a checkpoint says it holds and what is wanted; empty if there is none.

    Looked at beforehand, since Orbax notices in the middle of reading.
    """

    def shapes(tree: PyTree) -> dict[str, tuple[Any, ...]]:
        return {name: (*x.shape, str(x.dtype)) for name, x in leaves_by_place(tree).items()}

    held, wanted = shapes(stored), shapes(like)
    for name in {**wanted, **held}:
        if held.get(name) != wanted.get(name):
            return f"{name} is {held.get(name, 'missing')} there and {wanted.get(name, 'not wanted')} here"
    return ""


def is_refusal(error: Exception) -> bool:
    """Tells whether the file system said no. Tensorstore reports a full or read-only disk as a ValueError."""
    return isinstance(error, OSError) or bool(
        re.search(
            r"no space|read-only|permission|quota|too large|errno|os_error_code|input/output", str(error), re.IGNORECASE
        )
    )


def reason(error: Exception) -> str:
    """Says in the file system's words what Tensorstore says in several hundred letters, whose order varies."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.findall(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[-1])) if code else str(error).splitlines()[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the traces that Orbax's threads log out of the terminal: what went wrong is raised as well."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
