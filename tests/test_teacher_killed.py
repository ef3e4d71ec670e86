"""A server that is killed and started again while it is asked: every answer is whole, in order, and counted once."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kdtw_jax.teachers import Prefix, TeacherUnavailable
from kdtw_jax.teachers.http import HttpTeacher
from kdtw_jax.teachers.resilience import Endpoint, Patience
from tests.simple_teacher import SimpleTeacher, V, same_answers

ROOT = Path(__file__).resolve().parents[1]
KILLS, ASKING = 20, 4
STUBBORN = Patience(timeout_s=20.0, attempts=10_000, first_wait_s=0.05, longest_wait_s=0.2, failures=1_000_000)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def serving(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, killed in the end."""
    server = subprocess.Popen([sys.executable, "-m", "tests.serve_simple", str(port)], cwd=ROOT)
    try:
        yield server
    finally:
        server.kill()
        server.wait()


def connect(port: int, patience: Patience = STUBBORN) -> HttpTeacher:
    return HttpTeacher(Endpoint(f"http://127.0.0.1:{port}", patience))


@pytest.mark.long
def test_twenty_kills_under_load() -> None:
    port, done = free_port(), threading.Event()
    here = SimpleTeacher()
    clients: list[HttpTeacher] = []

    def ask(thread: int) -> int:
        """Asks until the killing is over; what was asked for in all."""
        teacher, rows, number = connect(port), 0, 0
        clients.append(teacher)
        while not done.is_set():
            number += 1
            prefixes = [Prefix((2 + thread,), (number % V, i), f"{thread}") for i in range(1 + number % 5)]
            same_answers(teacher.next_token(prefixes, 4), here.next_token(prefixes, 4))
            tokens = [[3, 4, 1][: 1 + i % 3] for i in range(len(prefixes))]
            same_answers(teacher.score(prefixes, tokens, 2), here.score(prefixes, tokens, 2))
            assert teacher.generate(prefixes, 20, [1]) == here.generate(prefixes, 20, [1])
            rows += 3 * len(prefixes)
        return rows

    with ThreadPoolExecutor(ASKING) as pool:
        asking = [pool.submit(ask, thread) for thread in range(ASKING)]
        try:
            for _ in range(KILLS):
                before = sum(client.answered for client in clients)
                with serving(port) as server:
                    while sum(client.answered for client in clients) < before + 40:
                        assert server.poll() is None and not any(one.done() for one in asking)
                        threading.Event().wait(0.002)
            done.set()
            with serving(port):
                asked = [one.result(timeout=120) for one in asking]
        finally:
            done.set()
            for client in clients:  # so that nobody asks on where something went wrong
                client.close()
    assert sum(client.answered for client in clients) == sum(asked) >= 40 * KILLS


@pytest.mark.long
def test_one_that_is_gone_is_given_up_and_found_again() -> None:
    port = free_port()
    hasty = Patience(attempts=2, first_wait_s=0.01, longest_wait_s=0.01, failures=4, rest_s=0.0)
    with serving(port):
        connect(port).close()
        teacher = connect(port, hasty)
        assert len(teacher.next_token([Prefix((5,))], 3)) == 1
    for _ in range(3):
        with pytest.raises(TeacherUnavailable):
            teacher.next_token([Prefix((5,))], 3)
    with serving(port):
        connect(port).close()  # it waits until the server is there
        assert len(teacher.next_token([Prefix((5,))], 3)) == 1
    teacher.close()
