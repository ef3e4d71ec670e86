"""Imports all of the installed package, and compares its files with those of the source tree: `check_wheel.py TREE`."""

import importlib
import importlib.metadata
import pkgutil
import sys
from pathlib import Path

import kdtw_jax

installed, tree = Path(kdtw_jax.__file__).parent, Path(sys.argv[1]) / "kdtw_jax"
assert tree not in installed.parents and installed != tree, f"imported from the source tree: {installed}"
assert (installed / "py.typed").is_file(), "py.typed is not in the package"
for module in pkgutil.walk_packages(kdtw_jax.__path__, "kdtw_jax."):
    importlib.import_module(module.name)
missing = {p.relative_to(tree) for kind in ("*.py", "*.html") for p in tree.rglob(kind)} - {
    p.relative_to(installed) for kind in ("*.py", "*.html") for p in installed.rglob(kind)
}
assert not missing, f"not in the package: {sorted(map(str, missing))}"
files = [str(file) for file in importlib.metadata.files("kdtw_jax") or []]
assert any(file.endswith("LICENSE") for file in files), "the licence is not in the wheel"
assert importlib.metadata.version("kdtw_jax") == kdtw_jax.__version__
