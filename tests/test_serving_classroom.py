"""Word problems over HTTP: what is made to a body's wishes, and that nothing of a solution goes without its check."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kdtw_jax.answers import Answer
from kdtw_jax.classroom.checking import check_solution
from kdtw_jax.classroom.understanding import understand
from kdtw_jax.classroom.worksheet import make_exercises
from kdtw_jax.errors import UserError
from kdtw_jax.serving.app import Serving, make_app
from kdtw_jax.serving.asking import Asking
from kdtw_jax.serving.classroom import (
    PROBLEMS,
    SOLVE,
    CheckedReply,
    classroom_facts,
    places,
    problems_of,
    reach_of,
    read_wishes,
)
from kdtw_jax.serving.engine import Engine
from kdtw_jax.serving.job import Done, Written
from kdtw_jax.serving.page import Curve, Page
from kdtw_jax.serving.wire import Request
from kdtw_jax.student import Student
from tests.served import SHARE_RULE, student
from tests.test_serving_app import events, send

TEXT = "Mia loves Minecraft and has 34 Minecraft stickers. She gives 17 of them to Ben. How many stickers are left?"
RIGHT = "Mia gives 17 to Ben: 34 - 17 = 17. Answer: 17 stickers."
ASKED = {"interest": "Minecraft", "grade": 4, "operations": ["subtract", "add"], "numbers": [34, "17", "25"]}


@pytest.fixture(scope="module")
def own() -> Student:
    return student("word")


@pytest.fixture(scope="module")
def engine(own: Student) -> Iterator[Engine]:
    made = Engine(own, rows=2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def app(own: Student, engine: Engine) -> Any:
    settings = Serving("toy", rule=SHARE_RULE, api_key="key", max_body=2000, classroom="all")
    return make_app(engine, settings, Page(own, Curve()))


KEY = {"authorization": "Bearer key"}


def test_problems_come_to_the_wishes_of_a_body(app: Any) -> None:
    said = send(app, "POST", PROBLEMS, KEY, json={**ASKED, "count": 3, "seed": 5}).json()["problems"]
    made = make_exercises(read_wishes({**ASKED, "count": 3, "seed": 5}, "all"), places())
    assert [one["text"] for one in said] == [one.text for one in made] and len(said) == 3
    assert all(one["answer"].startswith("42 ") and "34 - 17 = 17" in one["solution"] for one in said)
    about = said[0]["specification"]
    assert about["steps"] == [{"operation": "subtract", "number": "17"}, {"operation": "add", "number": "25"}]
    assert about["line"].startswith("grade 4, interest: Minecraft, ")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "an object such as"),
        ({}, "interest is a text"),
        ({**ASKED, "intrest": "x"}, "'intrest' is no field; use interest"),
        ({**ASKED, "grade": "4"}, "grade is a whole number"),
        ({**ASKED, "count": True}, "count is a whole number"),
        ({**ASKED, "count": 10**400}, "count is a whole number"),
        ({**ASKED, "count": 0}, "1 to 20 problems, not 0"),
        ({**ASKED, "operations": "add"}, "operations is a list"),
        ({**ASKED, "numbers": [1.5]}, "numbers is a list of texts"),
        ({**ASKED, "numbers": ["1" * 41]}, "numbers is a list of texts"),
        ({**ASKED, "numbers": ["34", "35", "1"]}, "subtract '35' does not go with 34"),
        ({**ASKED, "grade": 12}, "there is no grade 12; use 2 to 7"),
    ],
)
def test_a_body_that_is_wrong_is_refused_in_a_line(body: Any, said: str) -> None:
    with pytest.raises(UserError) as refused:
        problems_of(json.loads(json.dumps(body)), "all")
    assert said in str(refused.value) and len(str(refused.value)) < 300


def test_the_endpoints_need_the_key_and_a_run_of_word_problems(app: Any, engine: Engine) -> None:
    for path, body in ((PROBLEMS, ASKED), (SOLVE, {"prompt": "one"})):
        assert send(app, "POST", path, json=body).status_code == 401
        assert send(app, "POST", path, KEY, content=b"{}").status_code == 415
        assert send(app, "POST", path, KEY, json={"interest": "x" * 3000}).status_code == 413
        assert send(make_app(engine, Serving("toy")), "POST", path, json=body).status_code == 404
    wrong = send(app, "POST", PROBLEMS, KEY, json={**ASKED, "grade": 9})
    assert wrong.status_code == 400 and wrong.json()["error"]["message"] == "there is no grade 9; use 2 to 7"
    assert send(app, "POST", SOLVE, KEY, json={"problem": TEXT}).status_code == 400


def test_a_solution_has_its_check_whole_and_in_a_stream(app: Any) -> None:
    body = {"prompt": ["one", "number 2 is here"], "max_teacher_share": 0.4}
    whole = send(app, "POST", SOLVE, KEY, json=body).json()
    plain = send(app, "POST", "/v1/completions", KEY, json=body).json()
    streamed = events(send(app, "POST", SOLVE, KEY, json={**body, "stream": True}))
    for index, (choice, other) in enumerate(zip(whole["choices"], plain["choices"], strict=True)):
        assert {**choice, "checked": 0} == {**other, "checked": 0} and "checked" not in other
        expected = {**check_solution(choice["text"], None).to_json(), "answer": None}
        assert choice["checked"] == expected and not expected["is_right"] and not expected["is_understood"]
        last = [event["choices"][0] for event in streamed if event["choices"][0]["index"] == index][-1]
        assert last["finish_reason"] is not None and last["checked"] == expected


def test_a_server_of_a_german_run_makes_and_checks_in_german(engine: Engine) -> None:
    german = make_app(engine, Serving("toy", classroom="all", language="de"))
    (made,) = send(german, "POST", PROBLEMS, json=ASKED).json()["problems"]
    assert "Minecraft-" in made["text"] and "Antwort: 42 " in made["solution"]
    request = cast(Request, SimpleNamespace(texts=(made["text"], "Was ist 17 : 5?"), chat=False))
    reply = CheckedReply(request, "toy", "de")
    written = (made["solution"], "Dann: 17 : 5 = 3 Rest 2. Dann: 2 · 3,50 = 7,50. Antwort: 3.")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("kdtw_jax.serving.wire.help_of", lambda *_: {})
        answers = [Done(Answer(*texts), True, False) for texts in zip(request.texts, written, strict=True)]
        right, unknown = (choice["checked"] for choice in reply.whole(cast(Asking, None), answers)["choices"])
    assert right["is_right"] and right["answer"] == made["answer"]
    verdicts = [span["verdict"] for span in unknown["spans"] if span["what"] != "words"]
    assert verdicts == ["unchecked", "wrong", "unchecked"] and not unknown["is_understood"]


def heard(problem: str, solution: str) -> list[dict[str, Any]]:
    """The choices of a stream in which a solution comes in letters."""
    request = cast(Request, SimpleNamespace(texts=(problem,), chat=False))
    reply, asking = CheckedReply(request, "toy"), cast(Asking, None)
    said = [reply.chunk(0, letter, letter, Written(1, False, False)) for letter in solution]
    answer = Done(Answer(problem, solution), True, False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("kdtw_jax.serving.wire.help_of", lambda *_: {})
        said.append(reply.end(0, "", answer, asking))
    return [event["choices"][0] for event in said]


@pytest.mark.parametrize(
    "solution", [RIGHT, RIGHT.replace("= 17", "= 18"), RIGHT.replace("34 -", "34 +"), "Hm. Hm. Hm."]
)
def test_no_sentence_counts_as_checked_before_its_marks_are_there(solution: str) -> None:
    whole = check_solution(solution, understand(TEXT)).to_json()
    shown = 0
    for choice in heard(TEXT, solution):
        if "checked" not in choice:
            continue
        found = choice["checked"]
        assert found["checked_to"] > shown or choice["finish_reason"]
        shown = found["checked_to"]
        # Marks of all that is shown as checked, and they stay as they are.
        assert found["spans"] == [span for span in whole["spans"] if span["end"] <= shown]
    assert shown == len(solution)
    assert found["is_right"] is (solution == RIGHT) and found["answer"] == "17 stickers"


def test_the_page_is_told_what_can_be_wished_for_where_the_run_reach_of(app: Any, engine: Engine) -> None:
    facts = send(app, "GET", "/page.json", KEY).json()["classroom"]
    assert facts == json.loads(json.dumps(classroom_facts("all")))
    for grade in facts["grades"]:
        for operations in grade["operations"]:
            made = problems_of({"interest": "chess", "grade": grade["grade"], "operations": operations}, "all")
            steps = made["problems"][0]["specification"]["steps"]
            assert [step["operation"] for step in steps] == operations
    other = make_app(engine, Serving("toy"), Page(engine.student, Curve()))
    assert send(other, "GET", "/page.json").json()["classroom"] is None


def test_which_problems_a_run_solves_is_said_by_their_data(tmp_path: Path) -> None:
    for data, reach in (
        ("classroom", "small"),
        ("classroom/solve", "all"),
        ("classroom/quick", "small"),
        ("classroom/ways", "small"),
        ("classroom/hasty", "small"),
        ("classroom/write", ""),
        ("cldr", ""),
        (None, ""),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"data": data}))
        assert reach_of(tmp_path) == reach
    with pytest.raises(UserError, match="is not a run's folder"):
        reach_of(tmp_path / "none")
