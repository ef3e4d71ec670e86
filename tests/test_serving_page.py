"""The page of a server: its files, the run's curve on it, and the teacher's own answer."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from kdtw_jax.decoding.sample import generate
from kdtw_jax.serving import page as page_module
from kdtw_jax.serving.app import Serving, make_app
from kdtw_jax.serving.engine import Engine
from kdtw_jax.serving.page import Curve, Page, first_source, read_curve
from kdtw_jax.student import Student
from tests.served import SHARE_RULE, student
from tests.test_serving_app import send

QUICKSTART = Path(__file__).parent.parent / "results" / "cldr"
CURVE = Curve("BLEU", ((0.0, 80.0), (0.2, 92.0)), (("teacher alone", 94.5),))


@pytest.fixture(scope="module")
def own() -> Student:
    return student("word")


@pytest.fixture(scope="module")
def engine(own: Student) -> Iterator[Engine]:
    made = Engine(own, rows=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def app(own: Student, engine: Engine) -> Any:
    return make_app(engine, Serving("toy", rule=SHARE_RULE, api_key="key"), Page(own, CURVE, "one"))


KEY = {"authorization": "Bearer key"}


def test_the_page_is_made_of_files_of_the_server_and_no_script_stands_in_it(app: Any) -> None:
    page = send(app, "GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sorted(named) == ["classroom.css", "classroom.js", "data:,", "page.css", "page.js"]
    for name in ("page.css", "page.js", "classroom.css", "classroom.js"):
        found = send(app, "GET", f"/{name}")
        assert found.status_code == 200 and found.headers["content-security-policy"].startswith("default-src 'none'")
        assert not re.search(r"https?://(?!www\.w3\.org)", found.text)
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", page.text)
    for field in re.findall(r"<(?:textarea|input|select)[^>]*>", page.text):
        name = re.search(r'\bid="(\w+)"', field)
        assert name and f'<label for="{name[1]}"' in page.text, field
    # What the script looks for is there.
    script = send(app, "GET", "/page.js").text + send(app, "GET", "/classroom.js").text
    assert "innerHTML" not in script and "eval" not in script
    assert set(re.findall(r'\bat\("([\w-]+)"\)', script)) <= set(re.findall(r'\bid="([\w-]+)"', page.text))
    assert send(app, "GET", "/page.html/..%2fpage.py").status_code == 404


def scripted(calls: str) -> Any:
    """What JavaScript says that is run with the page's scripts, in a page without anything on it."""
    folder = Path(page_module.__file__).parent / "static"
    scripts = "\n".join((folder / name).read_text(encoding="utf8") for name in ("page.js", "classroom.js"))
    around = """
        const fields = {};
        const blank = () => ({ value: "", classList: {}, addEventListener() {}, replaceChildren() {} });
        globalThis.document = { getElementById: (id) => (fields[id] ??= blank()), querySelectorAll: () => [] };
        globalThis.addEventListener = () => {};
        globalThis.fetch = async () => { throw new Error("nobody is there"); };
    """
    done = subprocess.run(["node", "-"], input=around + scripts + calls, capture_output=True, encoding="utf8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the page's scripts with node")
def test_an_answer_that_breaks_off_and_too_many_problems_are_said() -> None:
    said = scripted("""
        const streamed = async (text) => {
          const found = [];
          try {
            for await (const one of events(new Response(text))) found.push(one);
          } catch (error) { found.push(error.message); }
          return found;
        };
        const wishes = async (count) => {
          facts.classroom = { most: 20 };
          at("own").value = Array.from({ length: count }, (_, number) => `Problem ${number}.`).join("\\n");
          try { return (await wished()).length; } catch (error) { return error.message; }
        };
        (async () => {
          const two = "data: 1\\n\\ndata: 2\\n\\n";
          const streams = [await streamed(two + "data: [DONE]\\n\\n"), await streamed(two), await streamed("")];
          console.log(JSON.stringify([streams, [await wishes(20), await wishes(21)]]));
        })();
    """)
    assert said[0] == [[1, 2], [1, 2, "the answer broke off"], ["the answer broke off"]]
    assert said[1] == [20, "at most 20 problems, not 21"]


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the page's scripts with node")
def test_the_page_marks_whole_words_by_their_writers_and_says_how_many_each_wrote() -> None:
    said = scripted("""
        {
        const parts = [["3 - 1 = ", []], ["2", ["calculator"]], [".", ["student"]], [" So", ["student", "teacher"]],
          ["on ", ["student"]], ["x", ["teacher"]], ["y", ["calculator"]]];
        const by = (names) => writerOf({ writers: names.map((who) => ["", who]) });
        const found = words(parts.map(([text, names]) => [text, by(names)]));
        const help = { helped: 3, length: 20, calculator: 2 };
        const told = [help, { ...help, calculator: 0 }, undefined].map(helpSaid);
        facts.asks = false;
        console.log(JSON.stringify([found, [...told, helpSaid(help), helpSaid({ ...help, calculator: 0 })]]));
        }
    """)
    marks = {text: writer for text, writer in said[0] if writer}
    assert marks == {"2.": "calculator", "Soon": "teacher", "xy": "calculator"}
    assert "".join(text for text, _ in said[0]) == "3 - 1 = 2. Soon xy"
    assert said[1][:2] == [
        " The teacher wrote 3 of 20 words, the calculator 2.",
        " The teacher wrote 3 of 20 words.",
    ]
    assert said[1][2:] == ["", " The calculator wrote 2 of 20 words.", ""]


def test_what_the_page_shows_is_the_runs_and_needs_the_key(app: Any, own: Student) -> None:
    assert send(app, "GET", "/page.json").status_code == 401
    said = send(app, "GET", "/page.json", KEY).json()
    assert said["points"] == [[0.0, 80.0], [0.2, 92.0]] and said["levels"] == [["teacher alone", 94.5]]
    assert (said["model"], said["rule"], said["unit"], said["asks"], said["example"]) == (
        *("toy", SHARE_RULE, own.unit.noun, True, "one"),
    )


def test_the_teacher_alone_writes_what_it_writes_greedily(app: Any, own: Student) -> None:
    teacher = own.teacher
    assert teacher is not None
    text = "number 2 is here"
    assert send(app, "POST", "/page/teacher", json={"text": text}).status_code == 401
    said = send(app, "POST", "/page/teacher", KEY, json={"text": text}).json()["text"]
    source, _ = own.encode(text)
    limits: dict[str, Any] = {"max_len": own.max_target, "banned": teacher.tokenizer.banned_ids}
    tokens_1xT = generate(teacher.model, teacher.params, np.array([source], np.int32), None, **limits).tokens_BxT
    assert said == teacher.tokenizer.decode(np.asarray(tokens_1xT)[0].tolist())
    for body in ([], {}, {"text": 1}):
        wrong = send(app, "POST", "/page/teacher", KEY, json=body)
        assert wrong.status_code == 400 and "text" in wrong.json()["error"]["message"]


def test_few_wait_for_the_teacher_alone_and_who_leaves_does_not(
    own: Student, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, go, begun = Page(own, CURVE), threading.Event(), list[str]()

    def writes(body: Any) -> str:
        begun.append(body["text"])
        assert go.wait(60)
        return str(body["text"])

    monkeypatch.setattr(page, "teacher_writes", writes)
    made = make_app(engine, Serving("toy"), page)

    async def post(client: httpx.AsyncClient, number: int) -> Any:
        return await client.post("/page/teacher", json={"text": str(number)})

    async def leave(number: int) -> list[int]:
        messages = [{"type": "http.request", "body": json.dumps({"text": str(number)}).encode(), "more_body": False}]
        said = list[int]()

        async def receive() -> Any:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def hear(message: Any) -> None:
            said.append(message.get("status", 0))

        headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": "/page/teacher", "headers": headers, "query_string": b""}
        await made({**scope, "raw_path": b"", "http_version": "1.1"}, receive, hear)
        return said

    async def whole() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://localhost") as client:
            tasks = [asyncio.create_task(post(client, number)) for number in range(3)]
            while not begun:
                await asyncio.sleep(0.001)
            assert (await leave(3))[0] == 499
            tasks.append(asyncio.create_task(post(client, 4)))
            refused = asyncio.create_task(post(client, 5))
            for _ in range(200):  # more turns of the loop than a request takes to its place
                await asyncio.sleep(0)
            go.set()
            assert (await refused).status_code == 503
            assert [(await task).json()["text"] for task in tasks] == ["0", "1", "2", "4"]

    asyncio.run(whole())
    assert begun == ["0", "1", "2", "4"]


def test_a_student_that_asks_nobody_has_no_teacher_on_its_page(own: Student) -> None:
    alone = Student(own.model, None, (), 1.0, own.instruction, own.max_source, own.max_target)
    page = Page(alone, Curve())
    assert page.facts("toy", None)["asks"] is False
    with pytest.raises(Exception, match="did not learn to ask"):
        page.teacher_writes({"text": "one"})


def test_the_curve_is_that_of_the_runs_table(tmp_path: Path) -> None:
    found = read_curve(QUICKSTART, None)
    use = [x for x, _ in found.points]
    assert found.metric == "BLEU" and use == sorted(use) and len(use) > 5 and 0 <= use[0] < 0.01 and use[-1] < 0.6
    rows = (QUICKSTART / "asking.csv").read_text().splitlines()
    assert all(any(f",{y:g}," in row and ",learned,0,seen," in row for row in rows) for _, y in found.points)
    assert found.levels[0][0] == "teacher alone" and found.levels[0][1] > found.points[0][1]
    assert read_curve(QUICKSTART, 7).points == ()
    assert read_curve(tmp_path, None) == Curve()
    (tmp_path / "asking.csv").write_bytes(b"\xff\xfe,\x00")
    assert read_curve(tmp_path, None) == Curve()


def test_the_first_example_is_a_test_text_of_the_run(tmp_path: Path) -> None:
    assert first_source(tmp_path) == ""
    (tmp_path / "samples.txt").write_text("how\n\nseed 0\n  source: in 3 days\n  output: in 3 Tagen\n")
    assert first_source(tmp_path) == "in 3 days"
