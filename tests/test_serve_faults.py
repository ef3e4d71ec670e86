"""The benchmark that kills a teacher: it does not wait for ever, and its exit status says what came of it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import serve_faults


class Client:
    """A server whose teacher answers nothing more."""

    async def get(self, _: str) -> Any:
        return SimpleNamespace(text="kdtw_teacher_calls_total 3.0\n")


def test_a_teacher_that_does_not_come_back_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_faults, "_PATIENCE", 0.0)
    client: Any = Client()
    with pytest.raises(TimeoutError, match="did it come back"):
        asyncio.run(asyncio.wait_for(serve_faults._helped(client, 1), 30))
    asyncio.run(serve_faults._helped(client, 0))


@pytest.mark.parametrize("wrong", ["", "lost", "mixed_up", "broken", "away"])
def test_the_exit_status_is_1_where_something_was_lost_or_broken(
    wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def faults(*_: Any) -> dict[str, int]:
        if wrong == "away":
            raise TimeoutError("did it come back?")
        return {name: int(name == wrong) for name in ("lost", "mixed_up", "broken")}

    process = SimpleNamespace(terminate=lambda: None, wait=lambda _: 0)
    monkeypatch.setattr(serve_faults, "serving", lambda _: contextlib.nullcontext(("http://127.0.0.1:1", process)))
    monkeypatch.setattr(serve_faults, "texts_of", lambda *_: [])
    monkeypatch.setattr(serve_faults, "address_of", lambda _: "")
    monkeypatch.setattr(serve_faults.subprocess, "Popen", lambda *_, **__: process)
    monkeypatch.setattr(serve_faults, "_faults", faults)
    args = serve_faults.Args(Path("run"))
    if not wrong:
        return serve_faults.main(args)
    with pytest.raises(SystemExit) as ended:
        serve_faults.main(args)
    assert ended.value.code == ("error: did it come back?" if wrong == "away" else 1)
    assert (wrong in capsys.readouterr().out) == (wrong != "away")
