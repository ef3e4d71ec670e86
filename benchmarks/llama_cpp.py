"""llama.cpp's server in a process of a benchmark, and GGUF files in the quantisation that it is fastest with."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdtw_jax.errors import UserError

_WAIT_S = 120.0  # until the server has read its model
_Q8_0 = 7  # general.file_type of llama.cpp


@contextlib.contextmanager
def serving(program: Path, model: Path, *, slots: int, context: int, threads: int) -> Iterator[str]:
    """The server on a free port of this machine, with its model read, killed in the end: HOST:PORT.

    Args:
      program: llama-server.
      model: a GGUF file.
      slots: texts that it writes side by side.
      context: tokens of each.
      threads: that it computes with.

    Raises:
      UserError: there is no such program, or it does not read the model.
    """
    if not program.is_file():
        raise UserError(f"there is no {program}; build llama.cpp's llama-server and name it")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    command = [str(program), "--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--log-disable"]
    command += ["--ctx-size", str(context * slots), "--parallel", str(slots), "--threads", str(threads)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(running, port)
        yield f"127.0.0.1:{port}"
    finally:
        running.kill()
        running.wait()


def _wait_for(running: subprocess.Popen[bytes], port: int) -> None:
    """Waits until it has read its model, two minutes at the most."""
    until = time.monotonic() + _WAIT_S
    while time.monotonic() < until and running.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.2)
    ended = f"has ended with status {running.poll()}" if running.poll() is not None else f"takes over {_WAIT_S:.0f} s"
    raise UserError(f"llama-server {ended} before it has read its model; start it by hand to see why")


def write(address: str, prompts: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """What its model writes greedily after each prompt, published ids int32 [rows, length], past any end.

    Args:
      address: of the server.
      prompts: published ids.
      length: tokens of each output.

    Raises:
      UserError: an output has another length.
    """
    how = {"n_predict": length, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False, "return_tokens": True}
    body = json.dumps({"prompt": [list(map(int, one)) for one in prompts], **how}).encode()
    request = urllib.request.Request(
        f"http://{address}/completion", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        found: Any = json.load(reply)
    rows = [one["tokens"] for one in (found if isinstance(found, list) else [found])]
    if [len(row) for row in rows] != [length] * len(prompts):
        raise UserError(f"llama-server wrote {[len(row) for row in rows]} tokens where {length} were asked for")
    return np.asarray(rows, np.int32)


def quantise(file: Path, into: Path) -> Path:
    """Copies a GGUF file with its matrices in Q8_0, which is 8 bits a weight and a scale for 32, and returns `into`.

    Args:
      file: in any quantisation that `gguf` reads.
      into: the copy.
    """
    import gguf

    reader = gguf.GGUFReader(file)
    architecture = reader.get_field("general.architecture")
    assert architecture is not None
    writer = gguf.GGUFWriter(into, architecture.contents())
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        value = _Q8_0 if field.name == "general.file_type" else field.contents()
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], inner)
    kinds = gguf.GGMLQuantizationType
    for tensor in reader.tensors:
        plain = gguf.dequantize(tensor.data, tensor.tensor_type)
        kind = kinds.Q8_0 if plain.ndim > 1 else kinds.F32
        writer.add_tensor(tensor.name, gguf.quantize(plain, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return into


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
