"""Word problems over the wire: what is wished for and made of it, and solutions whose every part is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

from kdtw_jax.classroom.checking import check_solution
from kdtw_jax.classroom.problems import CHAINS, is_small
from kdtw_jax.classroom.specification import GRADES
from kdtw_jax.classroom.understanding import Understood, understand
from kdtw_jax.classroom.worksheet import MOST, Wishes, chains_until, exercise_json, make_exercises
from kdtw_jax.data import cldr_names
from kdtw_jax.errors import UserError
from kdtw_jax.pipeline.restore import read_json
from kdtw_jax.serving.asking import Asking
from kdtw_jax.serving.job import Done, Written
from kdtw_jax.serving.wire import Reply, Request

PROBLEMS, SOLVE = "/classroom/problems", "/classroom/solve"
Reach = Literal["", "small", "all"]
# Data whose sources are problems, and whether these are small ones.
SOLVED: Mapping[object, Reach] = {
    "classroom": "small",  # which is `classroom/quick`
    "classroom/solve": "all",
    "classroom/large": "all",
    "classroom/quick": "small",
    "classroom/ways": "small",
    "classroom/hasty": "small",
    "classroom/solve-de": "all",
    "classroom/quick-de": "small",
    "classroom/ways-de": "small",
}
_FIELDS = ("interest", "grade", "operations", "numbers", "count", "seed")
_LONG = 40  # characters of a name or number that are looked at


def reach_of(run: Path) -> Reach:
    """Which word problems of ours a run's students solve: none (""), small ones, or all."""
    data = read_json(run / "config.json", f"{run} is not a run's folder").get("data")
    return SOLVED.get(data, "") if isinstance(data, str) else ""


def language_of(run: Path) -> str:
    """The language of a run's word problems: "de" where its data are of `classroom/NAME-de`, "en" elsewhere.

    Args:
      run: its folder.
    """
    data = read_json(run / "config.json", f"{run} is not a run's folder").get("data")
    return "de" if isinstance(data, str) and data in SOLVED and data.endswith("-de") else "en"


@cache
def places(language: str = "en") -> tuple[str, ...]:
    """Cities that problems name.

    Args:
      language: of the problems.
    """
    return tuple(slot.text(language, "") for slot in cldr_names.cities())


def classroom_facts(reach: Reach) -> dict[str, Any]:
    """What can be wished for: the grades, and the operations of each, those that it adds first.

    Args:
      reach: of the student.
    """
    grades = []
    for grade in GRADES:
        own: dict[tuple[str, ...], object] = dict.fromkeys(chain for _, chain in CHAINS[grade])
        known = {**own, **chains_until(grade)}
        kept = [list(chain) for chain in known if reach == "all" or is_small(("things", chain))]
        grades.append({"grade": grade, "operations": kept})
    return {"grades": grades, "most": MOST}


def problems_of(body: object, reach: Reach, language: str = "en") -> dict[str, Any]:
    """Word problems to the wishes of a body: `interest`, `grade`, `operations`, `numbers`, `count` and `seed`.

    Args:
      body: as JSON.
      reach: of the student.
      language: of the problems.

    Raises:
      UserError: what is wrong with the body, and as `make_exercises` does.
    """
    wishes = replace(read_wishes(body, reach), language=language)
    return {"problems": [exercise_json(one) for one in make_exercises(wishes, places(language))]}


def read_wishes(body: object, reach: Reach) -> Wishes:
    """The wishes of a body.

    Args:
      body: as JSON.
      reach: of the student.

    Raises:
      UserError: a field is none, or has a value of another kind.
    """
    if not isinstance(body, Mapping):
        raise UserError('the body is an object such as {"interest": "Minecraft", "grade": 4}')
    for name in body:
        if name not in _FIELDS:
            near = get_close_matches(str(name)[:_LONG], _FIELDS, 1) or _FIELDS
            raise UserError(f"{str(name)!r:.60} is no field; use {', '.join(near)}")
    interest = body.get("interest")
    if not isinstance(interest, str):
        raise UserError("interest is a text, such as Minecraft")
    whole = {name: body.get(name) for name in ("grade", "count", "seed")}
    for name, value in whole.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**53):
            raise UserError(f"{name} is a whole number, not {value!r:.60}")
    count, seed = (
        value if isinstance(value, int) else default for value, default in ((whole["count"], 1), (whole["seed"], 0))
    )
    listed = (_texts(body, "operations"), _texts(body, "numbers"))
    return Wishes(interest, whole["grade"], *listed, count, seed, reach == "small")


def _texts(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A field that is a list of texts; whole numbers are taken as they are written."""
    found = body.get(name)
    if found is None:
        return ()
    if not isinstance(found, list) or len(found) > len(_FIELDS):
        raise UserError(f"{name} is a list of at most {len(_FIELDS)} texts")
    texts = [
        str(one) if isinstance(one, int) and not isinstance(one, bool) and abs(one) < 10**9 else one for one in found
    ]
    if not all(isinstance(one, str) and len(one) <= _LONG for one in texts):
        raise UserError(f'{name} is a list of texts of at most {_LONG} characters, such as "17" or "7.50"')
    return tuple(texts)


class CheckedReply(Reply):
    """An answer whose choices are solutions: each says what of it is right, in a stream as soon as that is known."""

    def __init__(self, request: Request, model: str, language: str = "en"):
        """Reads what the problems ask for.

        Args:
          request: of which the texts are problems.
          model: its name.
          language: of the solutions of problems that are not understood.
        """
        super().__init__(request, model)
        self._language = language
        self._asks: list[Understood | None] = [understand(text) for text in request.texts]
        self._written = [""] * len(request.texts)
        self._to = [0] * len(request.texts)

    def whole(self, asking: Asking, answers: Sequence[Done]) -> dict[str, Any]:
        """All of it, with what is right of each solution."""
        said = super().whole(asking, answers)
        for index, choice in enumerate(said["choices"]):
            choice["checked"] = self._checked(index, choice["text"], finished=True)
        return said

    def chunk(self, index: int, text: str, piece: str, written: Written) -> dict[str, Any]:
        """A token, with what is right of the solution where more of it is known since."""
        said = super().chunk(index, text, piece, written)
        self._written[index] += text
        checked = self._checked(index, self._written[index], finished=False)
        if checked["checked_to"] > self._to[index]:
            self._to[index] = checked["checked_to"]
            said["choices"][0]["checked"] = checked
        return said

    def end(self, index: int, rest: str, done: Done, asking: Asking) -> dict[str, Any]:
        """The last chunk of a solution, with what is right of all of it."""
        said = super().end(index, rest, done, asking)
        said["choices"][0]["checked"] = self._checked(index, self._written[index] + rest, finished=True)
        return said

    def _checked(self, index: int, text: str, *, finished: bool) -> dict[str, Any]:
        asks = self._asks[index]
        found = check_solution(text, asks, finished=finished, language=self._language).to_json()
        return {**found, "answer": None if asks is None else asks.answer}
