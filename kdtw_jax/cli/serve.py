"""Serve a student of a run to clients of OpenAI's API: completions, chats, streams.

    kdtw serve runs/quickstart --port 8000
    kdtw serve runs/quickstart --rule "ask the teacher for at most 20% of the words" --api-key secret --host 0.0.0.0

Clients say a rule in the header X-KDTW-Rule, in the body (rule, max_teacher_share, max_teacher_calls, guard,
account), or in a sentence of the system message. Each answer says how much the teacher helped, and who wrote each
token. No text of a request stands in the log, unless --log-prompts. Ctrl-C ends it.
"""

from __future__ import annotations

import logging
import os
import webbrowser
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from socket import socket
from threading import Thread
from typing import Annotated

import tyro

from kdtw_jax.cli.elsewhere import TIMEOUT, check_timeout, patience_with, teacher_at
from kdtw_jax.cli.listening import bound, is_loopback, names_of
from kdtw_jax.errors import UserError
from kdtw_jax.lines import say

KEY = "KDTW_API_KEY"
_NEEDED = ("starlette", "uvicorn", "prometheus_client")
_STOP = 5  # seconds that requests under way have at the end


@dataclass(frozen=True)
class Serve:
    """Options of `kdtw serve`."""

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run"""
    host: str = "127.0.0.1"
    """the address to listen at; by default this machine alone reaches it"""
    port: int = 8000
    """0: any that is free, which is said"""
    rule: str | None = None
    """of requests that say none, in words. By default they do not ask"""
    rows: int = 16
    """outputs that are written at a time"""
    queue: int = 256
    """requests that may wait; more are answered 503"""
    api_key: str = ""
    """clients have to send it as a bearer token; by default that of the environment's KDTW_API_KEY, or none"""
    max_body: int = 1 << 20
    """bytes of a request at the most"""
    teacher: str = ""
    """where the teacher is served; by default it is read from the run"""
    teacher_timeout: float = TIMEOUT
    """seconds that a teacher elsewhere has to answer, twice; then the student writes on alone"""
    method: str = ""
    """the student of this method; by default the one that may ask, if there is one"""
    seed: int | None = None
    """the student of this seed; by default the run's first"""
    name: str = ""
    """that clients call the model by; by default the folder's"""
    log_prompts: bool = False
    """write texts of requests into the log"""
    open: bool = False
    """open the page in a browser of this machine"""
    constraint: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """MODULE:FUNCTION that makes a rule of your own, which the run was trained with; may be repeated"""


def run(arguments: list[str], *, prog: str = "kdtw serve", description: str | None = __doc__) -> None:
    """Runs `kdtw serve` until it is told to end.

    Args:
      arguments: its own.
      prog: the name that its help shows.
      description: likewise.

    Raises:
      UserError: the run, a package or the port cannot be had, and as `kdtw_jax.load` does.
    """
    options = tyro.cli(Serve, prog=prog, description=description, args=arguments)
    # What goes wrong often is looked for before anything large is imported or read.
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"serving needs {', '.join(missing)}: pip install '.[serve]' (from a clone of kdtw_jax)")
    if not (options.run / "config.json").is_file():
        raise UserError(f"{options.run} is not a run's folder; give one that an experiment has made")
    if min(options.rows, options.queue, options.max_body) < 1:
        raise UserError("rows, queue and max-body have to be at least 1")
    check_timeout(options.teacher_timeout)
    with bound(options.host, options.port) as listening:
        _serve(options, listening)


def _serve(options: Serve, listening: socket) -> None:
    import uvicorn

    from kdtw_jax.cli.extensions import load_extensions
    from kdtw_jax.helpers import make_calculator
    from kdtw_jax.runs.compiled import keep_compiled
    from kdtw_jax.serving.app import Serving, make_app
    from kdtw_jax.serving.classroom import language_of, reach_of
    from kdtw_jax.serving.engine import Engine
    from kdtw_jax.serving.page import Page, first_source, read_curve
    from kdtw_jax.student import load

    keep_compiled()
    load_extensions(options.constraint)
    key, local = options.api_key or os.environ.get(KEY, ""), is_loopback(options.host)
    student = load(options.run, options.method, options.seed, rule=options.rule, with_teacher=not options.teacher)
    settings = Serving(
        model=options.name or options.run.resolve().name,
        rule=options.rule,
        api_key=key,
        max_body=options.max_body,
        hosts=names_of(options.host),
        log_prompts=options.log_prompts,
        classroom=reach_of(options.run),
        language=language_of(options.run),
    )
    where, timeout, teacher = options.teacher, options.teacher_timeout, None
    if where:
        teacher = teacher_at(where, student.model.tokenizer, timeout)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    limits = {"rows": options.rows, "queue": options.queue}
    patience, calculator = patience_with(where, timeout), make_calculator(language=settings.language)
    engine = Engine(student, **limits, teacher=teacher, patience=patience, tool=calculator.function)
    page = Page(student, read_curve(options.run, options.seed), first_source(options.run), teacher)
    app = make_app(engine, settings, page)
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    say(f"{settings.model} is served at {address}/v1, and its page at {address}/")
    if not local and not key:
        say(f"anyone who reaches this machine may use it: --api-key, or {KEY} in the environment, asks for a key")
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_STOP)
    if options.open:
        # Connections wait at the socket, which listens already. A browser of a terminal returns when it ends.
        Thread(target=webbrowser.open, args=(f"{address}/",), daemon=True).start()
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        engine.close()
        if teacher is not None:
            teacher.close()
