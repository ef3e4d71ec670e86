"""Serve a teacher to students elsewhere: next tokens, scores and continuations, over HTTP.

    kdtw serve-teacher runs/quickstart
    kdtw serve-teacher smollm2-135m --port 8100 --dtype bfloat16

It listens on this machine alone unless --host says otherwise; it knows no passwords, so that on a network it belongs
behind something that does. What waits is answered together, and who comes when too much waits is told to come again.
GET /about says what the teacher is, GET /health how much it does. Ctrl-C ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kdtw_jax.cli.extensions import load_extensions
from kdtw_jax.cli.listening import bound, names_of
from kdtw_jax.errors import UserError
from kdtw_jax.lines import say
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.pretrained.named import find_model, read_teacher
from kdtw_jax.runs.compiled import keep_compiled
from kdtw_jax.teachers.in_process import InProcessTeacher
from kdtw_jax.teachers.named import check_extra


@dataclass(frozen=True)
class ServeTeacher:
    """Options of `kdtw serve-teacher`."""

    model: Annotated[str, tyro.conf.Positional]
    """the folder of a run, whose teacher is served, or a model: a folder, a GGUF file, hf:NAME, or a fetched one"""
    host: str = "127.0.0.1"
    """address to listen on"""
    port: int = 8100
    """port to listen on; 0: a free one, which is printed"""
    dtype: Literal["float32", "bfloat16"] | None = None
    """what a published model computes in; by default as in the run, or float32"""
    cache_mb: int = 1024
    """memory for what sessions have read"""
    rows: int = 64
    """prefixes of a request, and of a batch"""
    waiting: int = 256
    """prefixes that may wait"""
    tokens: int = 4096
    """tokens of a row, what is written to it included"""


def run(arguments: list[str]) -> None:
    """Runs `kdtw serve-teacher`.

    Raises:
      UserError: a package or the model is missing, a number is out of range, or the port cannot be had.
    """
    options = tyro.cli(ServeTeacher, prog="kdtw serve-teacher", description=__doc__, args=arguments)
    for name, least in (("cache_mb", 1), ("rows", 1), ("tokens", 1), ("waiting", options.rows)):
        if getattr(options, name) < least:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it has to be at least {least}")
    check_extra()
    import uvicorn

    from kdtw_jax.teachers.server import Limits, make_app

    load_extensions()
    keep_compiled()
    name, dtype = _teacher_of(options.model)
    found = find_model(name)
    with bound(options.host, options.port) as listener:  # before a model is read
        saved = read_teacher(found, dtype=options.dtype or dtype)
        teacher = InProcessTeacher(saved, options.model, cache_bytes=options.cache_mb * 2**20)
        limits = Limits(rows=options.rows, waiting=options.waiting, tokens=options.tokens)
        app = make_app(teacher, limits, names_of(options.host))
        config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=5)
        shown = f"[{options.host}]" if ":" in options.host else options.host
        say(f"serving {options.model} at http://{shown}:{listener.getsockname()[1]}; Ctrl-C ends it")
        uvicorn.Server(config).run(sockets=[listener])
        teacher.close()


def _teacher_of(model: str) -> tuple[str, str]:
    """The name of a model, and its dtype."""
    folder = Path(model)
    if not (folder / "stages").is_dir():
        return model, "float32"
    _, config = restore(folder)
    return config.teacher_model or str(folder / "teacher" / "model"), config.teacher.dtype
