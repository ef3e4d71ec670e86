"""`kdtw serve` as a command: what is wrong is said before anything large is read, and a process serves and ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kdtw_jax.cli import main, serve
from kdtw_jax.cli.listening import names_of
from kdtw_jax.errors import UserError
from tests.test_serving_app import send
from tests.test_writing import RULE, run

__all__ = ["run"]  # a fixture


@pytest.fixture
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("models are read")

    monkeypatch.setattr(serve, "_serve", read)


@pytest.mark.usefixtures("nothing_is_read")
def test_what_is_wrong_is_said_before_models_are_read(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, said in (
            ([str(tmp_path)], "is not a run's folder"),
            ([str(run), "--port", str(port)], "take another --port"),
            ([str(run), "--port", "70000"], "from 0 to 65535"),
            ([str(run), "--host", "192.0.2.1"], "cannot listen at 192.0.2.1"),  # of documentation (RFC 5737): nobody's
            ([str(run), "--rows", "0"], "rows, queue and max-body have to be at least 1"),
            ([str(run), "--teacher-timeout", "0"], "seconds above 0"),
        ):
            assert main(["serve", *arguments]) == 2
            error = capsys.readouterr().err
            assert said in error and error.count("\n") == 1
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(UserError, match=r"needs uvicorn: pip install '\.\[serve\]'"):
        serve.run([str(run)])


def test_a_server_of_this_machine_alone_is_called_by_its_names() -> None:
    async def answered(_: Request) -> Response:
        return Response()

    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2", "192.0.2.1"):
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=list(names_of(host)), www_redirect=False)
        app = Starlette(routes=[Route("/", answered)], middleware=[hosts])
        called = f"[{host}]" if ":" in host else host
        for name in (called, "localhost", "127.0.0.1", "[::1]"):
            for port in ("", ":8000"):
                assert send(app, "GET", "/", {"host": f"{name}{port}"}).status_code == 200, (host, name)
        status = send(app, "GET", "/", {"host": "evil.example"}).status_code
        assert status == (200 if host == "192.0.2.1" else 400)


def test_the_page_is_opened_beside_a_server_that_does_not_wait_for_the_browser(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    over, opened, served = threading.Event(), SimpleQueue[str](), SimpleQueue[bool]()

    def opens(address: str) -> None:
        opened.put(address)
        served.put(over.wait(20))  # as long as the browser is there; the server begins meanwhile

    class Server:
        def __init__(self, _: object) -> None:
            pass

        def run(self, sockets: list[socket.socket]) -> None:
            assert opened.get(timeout=120) == f"http://127.0.0.1:{sockets[0].getsockname()[1]}/"
            over.set()

    monkeypatch.setattr(serve.webbrowser, "open", opens)
    monkeypatch.setattr("uvicorn.Server", Server)
    monkeypatch.setattr("uvicorn.Config", lambda *_, **__: None)  # which sets up the log of the process
    monkeypatch.setattr("kdtw_jax.runs.compiled.keep_compiled", lambda: None)
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)
    assert main(["serve", str(run), "--port", "0", "--rows", "2", "--open"]) == 0
    assert served.get(timeout=60) and "is served at" in capsys.readouterr().err


@pytest.mark.long
def test_a_process_serves_and_ends_when_it_is_told_to(run: Path) -> None:
    command = [sys.executable, "-m", "kdtw_jax.cli", "serve", str(run), "--port", "0", "--rows", "2", "--rule", RULE]
    environment = {**os.environ, "KDTW_API_KEY": "secret", "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        address = re.search(r"run is served at (http://127\.0\.0\.1:\d+/v1)", line)
        assert address is not None, line
        given = {"prompt": "in 3 days"}
        assert httpx.post(f"{address[1]}/completions", json=given, timeout=60).status_code == 401
        key = {"authorization": "Bearer secret"}
        answer = httpx.post(f"{address[1]}/completions", json=given, headers=key, timeout=60).json()
        assert answer["teacher_help"]["budget"]["rule"] == RULE and answer["model"] == "run"
        server.send_signal(signal.SIGINT)
        assert "3 days" not in server.stderr.read()
        assert server.wait(60) in (0, 130)
