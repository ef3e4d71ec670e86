"""Progress: all it should say, not more often than it should, and no waiting for the device."""

from __future__ import annotations

import io
import math
import sys
import time

import pytest

from kdtw_jax.runs import Progress
from kdtw_jax.runs.progress import format_seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_a_log_is_a_line_now_and_then_with_all_it_should_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Progress("teacher", total=200, start=100) as bar:
        for step in range(101, 200):
            clock[0] += 1.0
            bar.update(step, loss=2.5, tokens_per_s=12345.6)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "teacher 101/200  loss 2.5  12,346 tokens/s  01:39 left"
    assert lines[1] == "teacher 111/200  loss 2.5  12,346 tokens/s  01:29 left"
    assert lines[-1].startswith("teacher 199/200")
    assert len(lines) == 11  # one each 10 s, and the last


def test_progress_waits_for_no_value_that_it_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unfinished:
        conversions = 0

        def __float__(self) -> float:
            Unfinished.conversions += 1
            return 1.0

    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Progress("student", total=1000) as bar:
        for step in range(1, 1001):
            bar.update(step, loss=Unfinished())
    assert Unfinished.conversions == 2  # the first and the last


def test_progress_on_a_terminal_is_a_bar_that_ends_full(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with Progress("student", total=30) as bar:
        for step in range(1, 31):
            bar.update(step, loss=0.5, tokens_per_s=1000)
    shown = terminal.getvalue()
    assert all(word in shown for word in ("student", "30/30", "loss 0.5", "1,000 tokens/s", "left"))
    assert shown.count("student") <= 8  # not a redraw a step


def test_progress_lets_an_exception_through(capsys: pytest.CaptureFixture[str]) -> None:
    def broken_loop() -> None:
        with Progress("x", total=3) as bar:
            bar.update(1, loss=1.0)
            bar.update(2, loss=1.0)
            raise KeyError

    with pytest.raises(KeyError):
        broken_loop()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_times_are_written_for_people() -> None:
    assert [format_seconds(s) for s in (0, 59.6, 3723, math.nan)] == ["00:00", "01:00", "1:02:03", "-:--"]
