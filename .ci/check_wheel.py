"""Imports all of the installed package, and compares its files with those of the source tree: `check_wheel.py TREE`."""

import importlib
import importlib.metadata
import pkgutil
import re
import sys
from pathlib import Path

import kdtw_jax

installed, tree = Path(kdtw_jax.__file__).parent, Path(sys.argv[1]) / "kdtw_jax"
assert tree not in installed.parents and installed != tree, f"imported from the source tree: {installed}"
assert (installed / "py.typed").is_file(), "py.typed is not in the package"
# What the extra `serve` brings, of which some modules are told in one line that it is missing; all else has to import.
stated = importlib.metadata.requires("kdtw_jax") or []
serve = {re.split(r"[^\w-]", one)[0].replace("-", "_") for one in stated if re.search(r"extra == .serve.", one)}
assert serve, "there is no extra named serve"
for module in pkgutil.walk_packages(kdtw_jax.__path__, "kdtw_jax."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if error.name not in serve:
            raise
kinds = ("*.py", "static/*")
missing = {p.relative_to(tree) for kind in kinds for p in tree.rglob(kind)} - {
    p.relative_to(installed) for kind in kinds for p in installed.rglob(kind)
}
assert not missing, f"not in the package: {sorted(map(str, missing))}"
files = [str(file) for file in importlib.metadata.files("kdtw_jax") or []]
assert any(file.endswith("LICENSE") for file in files), "the licence is not in the wheel"
assert importlib.metadata.version("kdtw_jax") == kdtw_jax.__version__
