"""What users may call says what it does: a sentence, what arrays and numbers are, and what it refuses.

Held for what the package exports: its face, every `__all__`, and what the pages of docs/api show.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import kdtw_jax
from tests.pages import PAGES, imported

PACKAGE = Path(kdtw_jax.__file__).parent
# All rooms of the package.
ROOMS = tuple(
    sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")} - {"__init__"})
)
# Rooms that export little or nothing: all that is public in their modules is held.
WHOLE = (
    *(
        "classroom",
        "cli",
        "data",
        "finite",
        "flags",
        "lines",
        "marks",
        "pipeline",
        "pretrained",
        "ranges",
        "registry",
        "runs",
        "serving",
        "text",
    ),
)
# Types that say neither shape nor unit: what they are stands in words. Others have a docstring of their own.
BARE = {"Array", "ndarray", "float", "int"}
SELF_EXPLAINING = {"seed"}


class Exported(NamedTuple):
    """A function or class as it stands in its file."""

    name: str
    room: str
    node: ast.FunctionDef | ast.ClassDef


@cache
def definitions(module: str) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    tree = ast.parse(Path(inspect.getfile(importlib.import_module(module))).read_text("utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def public(module: ModuleType) -> Iterator[object]:
    """What a module defines under names that begin with no underscore."""
    return (getattr(module, name) for name in definitions(module.__name__) if name[0] != "_")


def found_objects() -> Iterator[object]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("kdtw_jax", *path.relative_to(PACKAGE).with_suffix("").parts)
        module = ".".join(parts).removesuffix(".__init__")
        if parts[1] in WHOLE:
            yield from public(importlib.import_module(module))
        if path.name == "__init__.py" or "__all__" in path.read_text("utf-8"):
            found = importlib.import_module(module)
            yield from (getattr(found, name) for name in getattr(found, "__all__", ()))
    for page, text in PAGES.items():
        if page.startswith("docs/api/"):
            for shown in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE):
                found = imported(shown)
                if inspect.ismodule(found):
                    yield from public(found)
                else:
                    yield found


@cache
def exported() -> tuple[Exported, ...]:
    places = {}
    for found in found_objects():
        module, name = str(getattr(found, "__module__", "")), str(getattr(found, "__name__", ""))
        if module.startswith("kdtw_jax.") and name in definitions(module):
            places[f"{module}.{name}"] = Exported(f"{module}.{name}", module.split(".")[1], definitions(module)[name])
    return tuple(places[name] for name in sorted(places))


def complaints(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    """What a docstring lacks."""
    text = ast.get_docstring(node) or ""
    first = text.partition("\n")[0]
    found = []
    if not re.search(r"\w.*[.:]$", first):
        found.append(f"its first line is no sentence: {first!r}")
    if isinstance(node, ast.FunctionDef):
        found += [f"says nothing of {name}" for name in bare_parameters(node) if not named(name, text)]
        arguments = re.search(r"^Args:\n((?:  .*\n?|\n)+)", text, re.MULTILINE)
        found += [
            f"an argument a line, not {entry!r}"  # as the pages of the API take it
            for entry in re.findall(r"^  (\w+(?:, \w+)+): ", arguments[1] if arguments else "", re.MULTILINE)
        ]
    makers = [x for x in node.body if isinstance(x, ast.FunctionDef) and x.name in ("__init__", "__post_init__")]
    if any(refuses(x) for x in ([node] if isinstance(node, ast.FunctionDef) else makers)) and "Raises:\n" not in text:
        found.append("raises UserError and has no section Raises:")
    return found


def bare_parameters(node: ast.FunctionDef) -> list[str]:
    """Arrays and numbers among the parameters."""
    every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return [
        arg.arg
        for arg in every
        if arg.annotation is not None
        and BARE & set(re.findall(r"\w+", ast.unparse(arg.annotation)))
        and "Callable" not in ast.unparse(arg.annotation)
        and arg.arg not in SELF_EXPLAINING
    ]


def named(name: str, text: str) -> bool:
    """With its suffix of axes or without."""
    bare = re.sub(r"_[A-Z0-9]\w*$", "", name)
    return re.search(rf"(?<!\w)(?:{name}|{bare})(?!\w)", text) is not None


def refuses(node: ast.FunctionDef) -> bool:
    """Whether UserError is raised in it, in so many words; functions within may be called by others."""
    rest: list[ast.AST] = list(node.body)
    while rest:
        one = rest.pop()
        if isinstance(one, ast.Raise) and one.exc is not None and "UserError(" in ast.unparse(one.exc):
            return True
        if not isinstance(one, ast.FunctionDef):
            rest += ast.iter_child_nodes(one)
    return False


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_exports_explains_itself(room: str) -> None:
    held = [one for one in exported() if one.room == room]
    assert held, f"{room} exports nothing"
    lacking = [f"{one.name}: {complaint}" for one in held for complaint in complaints(one.node)]
    assert not lacking, "\n".join(lacking)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("def f(): pass", "its first line"),
        ("def f():\n    '''Adds two things and\n    more.'''", "its first line"),
        ("def f(x_BxT: jax.Array):\n    '''Adds.'''", "says nothing of x_BxT"),
        ("def f(*, rate: float | None = None):\n    '''Generates.'''", "says nothing of rate"),
        ("def f():\n    '''Adds. Raises UserError.'''\n    raise UserError('no')", "no section Raises"),
        ("def f(x, y):\n    '''Adds.\n\n    Args:\n      x, y: two things.\n    '''", "an argument a line, not 'x, y'"),
        ("class A:\n    '''Adds.'''\n    def __post_init__(self):\n        raise UserError('no')", "no section Raises"),
    ],
)
def test_what_is_lacking_is_found(source: str, complaint: str) -> None:
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    assert [one for one in complaints(node) if complaint in one]


def test_a_docstring_that_says_all_is_let_be() -> None:
    source = (
        "def f(x_BxT: jax.Array, model: Model, seed: int):\n"
        "    '''Adds.\n\n    Args:\n      x_BxT: nats.\n\n    Raises:\n      UserError: no x.\n    '''\n"
        "    raise UserError('no')"
    )
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef)
    assert complaints(node) == []
