"""A tool in the engine of a server, such as a calculator: where it writes, and that rules are kept as without it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from kdtw_jax.answers import Answer
from kdtw_jax.data.tokenizer import EOS_ID
from kdtw_jax.data.tool_words import Tool, tokens_apart, tokens_of_text
from kdtw_jax.errors import UserError
from kdtw_jax.serving.app import Serving, make_app
from kdtw_jax.serving.engine import Engine
from kdtw_jax.serving.in_order import write_in_order
from kdtw_jax.serving.page import Curve, Page
from kdtw_jax.serving.tool import ToolRow
from kdtw_jax.student import ALONE, Student
from tests.served import LENGTH, RULES, SHARE_RULE, TEXTS, OwnTeacher, answer, asking, student
from tests.test_serving_app import events, send
from tests.test_serving_engine import CASES, all_of, alone

SHARES = {RULES[0]: 0.2, SHARE_RULE: 0.4, RULES[3]: 0.5}


def count(source: str, written: str) -> str | None:
    """Says how much is written wherever that is a multiple of three."""
    return f"{len(written)}ab" if written and len(written) % 3 == 0 else None


@pytest.fixture(scope="module")
def own() -> Student:
    return student("word")


@pytest.fixture(scope="module")
def engine(own: Student) -> Iterator[Engine]:
    made = Engine(own, rows=3, tool=count)
    yield made
    made.close()


def solved(engine: Engine, text: str, rule: str, most: int | None = None, **limits: Any) -> Answer:
    found: SimpleQueue[Any] = SimpleQueue()
    engine.submit(text, asking(engine.student, rule, **limits), found.put, most, calculator=True)
    return answer(found)


def ids_of(own: Student, found: Answer) -> list[int]:
    return [own.pieces.index(piece) for piece in found.tokens]


def test_whoever_does_not_want_it_gets_what_there_is_without_one(engine: Engine) -> None:
    assert all_of(engine, CASES) == alone("word")


@pytest.mark.parametrize("rule", [ALONE, "ask the teacher as often as you like"])
def test_it_writes_wherever_it_has_something_to_say_and_there_is_room(engine: Engine, own: Student, rule: str) -> None:
    tokenizer, apart, words = own.model.tokenizer, set(tokens_apart(own.model.tokenizer)), 0
    for text in TEXTS:
        found = solved(engine, text, rule, guard=rule == ALONE)
        tokens, place = ids_of(own, found), 0
        while place < len(tokens):
            written = tokenizer.decode(tokens[:place])
            said = count(text, written)
            word = () if said is None else tokens_of_text(tokenizer, tokens[:place], written, said)
            if not word or len(word) > LENGTH - place:
                assert not found.calculated[place]
                place += 1
                continue
            assert tuple(tokens[place : place + len(word)]) == word
            assert all(found.calculated[place : place + len(word)])
            place, words = place + len(word), words + 1
            assert place == len(tokens) or not found.by_teacher[place]
            assert place == len(tokens) or tokens[place] in apart or count(text, tokenizer.decode(tokens[:place]))
        assert (rule != ALONE or not found.helped) and len(found.calculated) == len(found.tokens)
    assert words > len(TEXTS) / 2


def assert_whole(own: Student, found: Answer, tool: Tool = count) -> None:
    """Each word that it writes is there from its first token to its last."""
    tokenizer, tokens, place = own.model.tokenizer, ids_of(own, found), 0
    while place < len(tokens):
        if not found.calculated[place]:
            place += 1
            continue
        written = tokenizer.decode(tokens[:place])
        word = tokens_of_text(tokenizer, tokens[:place], written, str(tool("", written)))
        assert tuple(tokens[place : place + len(word)]) == word
        assert all(found.calculated[place : place + len(word)])
        place += len(word)


def test_rules_are_kept_whatever_it_writes(engine: Engine, own: Student) -> None:
    asked = calculated = 0
    for text in TEXTS:
        for rule in RULES:
            found = solved(engine, text, rule)
            assert not any(a and c for a, c in zip(found.by_teacher, found.calculated, strict=True))
            assert found.helped <= SHARES.get(rule, 1.0) * found.length + 1e-6
            assert rule != RULES[1] or found.calls <= 3
            assert rule != ALONE or not found.calls
            assert_whole(own, found)
            asked, calculated = asked + found.helped, calculated + found.by_calculator
    assert asked > 10 and calculated > len(TEXTS)
    together = list(write_in_order(engine, TEXTS, SHARE_RULE, account="document", calculator=True))
    assert sum(one.answer.helped for one in together) <= 0.4 * sum(one.answer.length for one in together) + 1e-6
    assert sum(one.answer.by_calculator for one in together) > 3
    for one in together:
        assert_whole(own, one.answer)


def test_where_a_rule_is_in_debt_up_to_the_last_token_a_word_is_written_whole_or_not_begun(
    own: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    def letters(source: str, written: str) -> str | None:
        return "abcdefg"[: 3 + len(written) % 5] if len(written) % 3 else None

    # An output is trusted to become as long as it may be, so that the teacher is asked as far ahead as can be.
    monkeypatch.setattr("kdtw_jax.serving.rows.trusted_length", lambda units_R, finished_R: 0 * units_R + LENGTH)
    engine, rng = Engine(own, rows=8, tool=letters), random.Random(1)
    rules = {share: asking(own, f"ask the teacher for at most {share}% of the words") for share in (10, 20, 40)}
    under_way = list[tuple[int, SimpleQueue[Any]]]()
    try:
        for index in range(200):
            text, share = f"{rng.getrandbits(rng.randint(1, 64)):x}", (10, 20, 40)[index % 3]
            under_way.append((share, SimpleQueue()))
            engine.submit(text, rules[share], under_way[-1][1].put, 5 + index % 12, calculator=True)
        for share, events in under_way:
            found = answer(events)
            assert_whole(own, found, letters)
            assert found.helped <= share / 100 * found.length + 1e-6
    finally:
        engine.close()


def test_it_is_heard_beside_a_teacher_elsewhere_as_beside_one_that_is_here() -> None:
    own, most = student("token"), 12
    asked = calculated = 0
    here, there = Engine(own, rows=3, tool=count), Engine(own, rows=3, tool=count, teacher=OwnTeacher(own), pause=0.0)
    try:
        for text in TEXTS[:5]:
            for guard in (True, False):
                found = solved(here, text, SHARE_RULE, most, guard=guard)
                assert solved(there, text, SHARE_RULE, most, guard=guard) == found
                asked, calculated = asked + found.helped, calculated + found.by_calculator
    finally:
        here.close()
        there.close()
    assert asked > 5 and calculated > 5


def test_a_word_is_begun_where_there_is_room_for_it_and_dropped_where_another_token_has_to_stand(own: Student) -> None:
    tokenizer = own.model.tokenizer
    written = tokenizer.encode_target("3 + 4 =")
    row = ToolRow(lambda source, text: "7 apples" if text.endswith("=") else None, tokenizer, "")
    word = tokens_of_text(tokenizer, written, "3 + 4 =", "7 apples")
    assert row.next(written, len(written) + len(word) - 1) == 0
    row = ToolRow(row.tool, tokenizer, "")
    row.wrote = [False] * len(written)
    tokens = list(written)
    for token in word[:3]:
        assert row.next(tokens, 99) == token and row.took(token, asked=False) and not row.is_closed
        tokens.append(token)
    assert not row.took(EOS_ID + 5, asked=False) and row.next([*tokens, EOS_ID + 5], 99) == 0 and not row.is_closed
    row = ToolRow(row.tool, tokenizer, "")
    assert row.next(written, 99) == word[0] and not row.took(word[0], asked=True)  # the teacher's own, by chance


def test_a_request_says_that_it_wants_it_and_is_told_what_it_wrote(engine: Engine, own: Student) -> None:
    app = make_app(engine, Serving("toy", rule=SHARE_RULE, classroom="all"), Page(own, Curve()))
    assert send(app, "GET", "/page.json").json()["calculator"] is True
    body = {"prompt": list(TEXTS[:4]), "calculator": True}
    for path in ("/v1/completions", "/classroom/solve"):
        whole = send(app, "POST", path, json=body).json()
        plain = send(app, "POST", path, json={**body, "calculator": False}).json()
        assert plain["teacher_help"]["calculator"] == 0 < whole["teacher_help"]["calculator"]
        parts: dict[int, list[Any]] = {index: [] for index in range(4)}
        for event in events(send(app, "POST", path, json={**body, "stream": True})):
            parts[event["choices"][0]["index"]] += event["choices"][0]["writers"]
        for index, choice in enumerate(whole["choices"]):
            found = solved(engine, TEXTS[index], SHARE_RULE)
            assert [list(pair) for pair in found.writers] == choice["writers"] == parts[index]
        assert {who for choice in whole["choices"] for _, who in choice["writers"]} >= {"student", "calculator"}
    metrics = send(app, "GET", "/metrics").text
    assert 'kdtw_tokens_total{writer="calculator"} 0.0' not in metrics and 'writer="calculator"' in metrics
    wrong = send(app, "POST", "/v1/completions", json={**body, "calculator": 1})
    assert wrong.status_code == 400 and "calculator is true or false" in wrong.text
    near = send(app, "POST", "/v1/completions", json={"prompt": "one", "calculater": True})
    assert near.status_code == 400 and "do you mean calculator" in near.text


def test_where_there_is_none_it_is_refused(engine: Engine, own: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "tool", None)
    app = make_app(engine, Serving("toy"), Page(own, Curve()))
    assert send(app, "GET", "/page.json").json()["calculator"] is False
    said = send(app, "POST", "/v1/completions", json={"prompt": "one", "calculator": True})
    assert said.status_code == 400 and "this server has no calculator" in said.text
    with pytest.raises(UserError, match="no calculator here"):
        engine.submit("one", asking(own, ALONE), lambda _: None, calculator=True)
