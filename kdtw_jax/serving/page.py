"""The page of a server: a text and a rule in, three answers out, and where that is on the run's own curve."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.figures import written_metric
from kdtw_jax.serving.classroom import Reach, classroom_facts
from kdtw_jax.student import Student
from kdtw_jax.teachers.protocol import Prefix, Teacher, TeacherUnavailable

FILES = {
    "page.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "classroom.css": "text/css",
    "classroom.js": "text/javascript",
}
# Everything is from this server, and nothing of it runs but its own file.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Curve:
    """What a run's students did on its test texts, by how much of them the teacher wrote."""

    metric: str = ""
    points: tuple[tuple[float, float], ...] = ()
    """use, 0 to 1, and quality, in order of use"""
    levels: tuple[tuple[str, float], ...] = ()
    """what the teacher alone and other students reach"""


async def page_file(request: Request) -> Response:
    """One of `FILES`, the page itself at /; read anew each time, they are small."""
    name = request.url.path.rpartition("/")[2] or "page.html"
    text = (files("kdtw_jax.serving") / "static" / name).read_text(encoding="utf-8")
    kept = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}
    return Response(text, media_type=FILES[name], headers=kept)


class Page:
    """What the page needs beside the API: the run's curve, and the teacher's own answer."""

    def __init__(self, student: Student, curve: Curve, example: str = "", teacher: Teacher | None = None):
        """Begins without compiling anything.

        Args:
          student: of the server.
          curve: of its run.
          example: a text to begin with.
          teacher: who is asked in place of the student's own.
        """
        self._student, self._curve, self._example = student, curve, example
        self._teacher, self._lock = _alone(student, teacher), Lock()

    def facts(self, model: str, rule: str | None, classroom: Reach = "", *, calculator: bool = False) -> dict[str, Any]:
        """What the page shows before anything is written.

        Args:
          model: its name.
          rule: the server's default.
          classroom: which word problems it solves.
          calculator: the server has one.
        """
        return {
            "model": model,
            "rule": rule,
            "example": self._example,
            "calculator": calculator,
            "asks": self._teacher is not None,
            "unit": self._student.unit.noun,
            "metric": self._curve.metric,
            "points": self._curve.points,
            "levels": self._curve.levels,
            "classroom": classroom_facts(classroom) if classroom else None,
        }

    def teacher_writes(self, body: object) -> str:
        """The teacher's own answer; one text at a time.

        Args:
          body: a JSON object with a text.

        Raises:
          UserError: there is no text, or no teacher, or it does not answer.
        """
        text = body.get("text") if isinstance(body, Mapping) else None
        if not isinstance(text, str):
            raise UserError('the body is an object such as {"text": "in 3 days"}')
        if self._teacher is None:
            raise UserError("this student did not learn to ask: no teacher is here")
        with self._lock:
            return self._teacher(text)


def _alone(student: Student, elsewhere: Teacher | None) -> Callable[[str], str] | None:
    """The teacher's own answer to a text; None: there is no teacher."""
    if student.teacher is None:
        return None
    if elsewhere is None:  # the teacher, as a student that has nobody to ask
        read = (student.instruction, student.max_source, student.max_target)
        alone = Student(student.teacher, None, (), student.alpha, *read)
        return lambda text: alone(text).text
    tokenizer = student.model.tokenizer

    def asked(text: str) -> str:
        source, _ = student.encode(text)
        if not source:
            return ""
        try:
            (tokens,) = elsewhere.generate([Prefix(tuple(source))], student.max_target, tokenizer.banned_ids)
        except TeacherUnavailable as error:
            raise UserError(f"the teacher does not answer: {error}") from error
        return tokenizer.decode(tokens)

    return asked


def read_curve(run: Path, seed: int | None) -> Curve:
    """What the tables of a run say of its students; an empty curve where they say nothing.

    Args:
      run: its folder.
      seed: of the student; None: the first there is. Of its metrics the first is taken.
    """
    asked, distilled = (_table(run / f"{name}.csv") for name in ("asking", "distil"))
    told = [
        row
        for row in asked
        if row["gate"] == "learned" and row["guard"] == "0" and row["phrasing"] == "seen" and row["rule"] == "share"
    ]
    told = [row for row in told if row["seed"] == (told[0]["seed"] if seed is None else str(seed))]
    metric = told[0]["metric"] if told else ""
    points = {float(row["used"]): float(row["value"]) for row in told if row["metric"] == metric}
    levels = [float(row["value"]) for row in distilled if (row["method"], row["metric"]) == ("teacher", metric)]
    return Curve(written_metric(metric), tuple(sorted(points.items())), tuple(("teacher alone", x) for x in levels[:1]))


def first_source(run: Path) -> str:
    """A test text of a run to begin with; "" where its samples show none."""
    with suppress(OSError, UnicodeDecodeError):
        for line in (run / "samples.txt").read_text(encoding="utf-8").splitlines():
            if line.startswith("  source: "):
                return line.removeprefix("  source: ").strip()
    return ""


def _table(path: Path) -> list[dict[str, str]]:
    """Rows of a table, none where it cannot be read; columns that older tables lack are empty."""
    with suppress(OSError, ValueError, csv.Error), path.open(newline="", encoding="utf-8") as file:
        columns = ("gate", "guard", "phrasing", "rule", "seed", "metric", "used", "value", "method")
        return [{name: row.get(name) or "" for name in columns} for row in csv.DictReader(file)]
    return []
