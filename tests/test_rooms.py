"""The house: rooms one above the other, imports only downward, and no circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import kdtw_jax

ROOT = Path(kdtw_jax.__file__).parent
# From the top. A room may import what is below it; those of one line know nothing of each other.
FLOORS = (
    ("cli",),
    ("api",),
    ("helpers", "judge", "serving"),
    ("student",),
    ("answers", "pipeline"),
    ("evaluation", "teachers"),
    ("methods", "pretrained"),
    ("training",),
    ("decoding", "tabular"),
    ("constraints", "data"),
    ("metrics",),
    ("classroom", "text"),
    ("duals", "losses", "models", "replay"),
    ("runs",),
    ("flags", "finite", "lines", "marks", "parallel", "ranges", "registry"),
    ("errors",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports(tree: ast.AST) -> set[str]:
    """Modules of the package that code names in its imports, wherever they stand."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("kdtw_jax"):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("kdtw_jax")}
    return found


def modules() -> dict[str, set[str]]:
    """Each module of the package but its face, and the modules that it imports."""
    files = {}
    for path in ROOT.rglob("*.py"):
        parts = ("kdtw_jax", *path.relative_to(ROOT).with_suffix("").parts)
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del files["kdtw_jax"]
    return {name: imports(ast.parse(path.read_text())) & files.keys() - {name} for name, path in files.items()}


def test_every_room_has_its_floor_and_imports_only_what_is_below() -> None:
    known = modules()
    assert {name.split(".")[1] for name in known} == FLOOR.keys()
    upward = [
        f"{name} imports {other}"
        for name, others in known.items()
        for other in others
        if (one := name.split(".")[1]) != (room := other.split(".")[1]) and FLOOR[room] <= FLOOR[one]
    ]
    assert not upward


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    packages = {name for name in known if any(other.startswith(f"{name}.") for other in known)}
    graph = {name: others - packages for name, others in known.items() if name not in packages}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' -> '.join(error.args[1])}") from None
