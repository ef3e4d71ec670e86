"""Lesson outlines follow the curriculum, and what does not is found."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from kdtw_jax.classroom.curriculum import OBJECTIVES, UNITS, all_needs, draw_order, is_in_order
from kdtw_jax.classroom.interests import draw_interest
from kdtw_jax.classroom.outlines import Request, draw_outline, faults, is_right, parse_request, read_outline
from kdtw_jax.data.classroom_outlines import CONDITIONS, outline_pairs
from kdtw_jax.data.classroom_shares import is_kept_out
from kdtw_jax.data.task import load_task
from kdtw_jax.errors import UserError
from kdtw_jax.metrics.scores import score

RNG = random.Random(7)
REQUESTS = [
    Request(*unit, weeks, draw_interest(RNG).name)
    for unit, objectives in UNITS.items()
    for weeks in range(1, len(objectives) + 1)
    for _ in range(3)
]
OUTLINES = [(request, draw_outline(RNG, request)) for request in REQUESTS]
FRACTIONS = Request("fractions", 5, 5, "dragon stories")


def keeps_order(keys: Sequence[str]) -> bool:
    """By the needs that the curriculum states, one by one."""
    return all(
        need not in keys or keys.index(need) < place for place, key in enumerate(keys) for need in OBJECTIVES[key].needs
    )


def parts(text: str) -> tuple[str, list[str]]:
    """The head of an outline, and what its weeks say."""
    head, *weeks = text.split(" Week ")
    return head, [week.partition(": ")[2] for week in weeks]


def joined(head: str, weeks: Sequence[str]) -> str:
    return " ".join([head, *(f"Week {number}: {week}" for number, week in enumerate(weeks, 1))])


def faults_of(text: str, request: Request) -> str:
    outline = read_outline(text)
    assert outline is not None, text
    assert is_right(text, request) == (not faults(outline, request))
    return "; ".join(faults(outline, request))


def test_the_curriculum_has_no_circle_and_needs_nothing_of_a_later_grade() -> None:
    order = list(TopologicalSorter({key: one.needs for key, one in OBJECTIVES.items()}).static_order())
    assert sorted(order) == sorted(OBJECTIVES)
    assert is_in_order(order) and not is_in_order(order[::-1])
    for one in OBJECTIVES.values():
        assert all(OBJECTIVES[need].unit.grade <= one.unit.grade for need in all_needs(one.key)), one.key
    assert {unit.grade for unit in UNITS} == set(range(2, 8))


def test_its_texts_are_of_one_objective_each_and_have_the_form_that_outlines_need() -> None:
    for texts in ("activities", "checks"):
        found = [text for one in OBJECTIVES.values() for text in getattr(one, texts)]
        assert len(set(found)) == len(found)
    assert len({one.text for one in OBJECTIVES.values()}) == len(OBJECTIVES)
    for one in OBJECTIVES.values():
        assert not set(".;:?") & set("".join((one.text, *one.activities))), one.key
        assert ["{i}" in activity for activity in one.activities] == [False, True], one.key
        assert all(check.find("?") == len(check) - 1 for check in one.checks), one.key


def test_every_order_that_the_graph_allows_is_drawn() -> None:
    rng = random.Random(0)
    for unit, objectives in UNITS.items():
        keys = [one.key for one in objectives]
        drawn = {tuple(draw_order(rng, unit)) for _ in range(400)}
        assert all(sorted(order) == sorted(keys) and keeps_order(order) for order in drawn)
    orders = {tuple(draw_order(rng, FRACTIONS.unit)) for _ in range(600)}
    assert len(orders) == 20  # two after a third one, and a chain of two, in any way between them: 2 · (5 over 2)


@pytest.mark.parametrize("words", ["dragon stories", "Zamola Ritan", "Week 2 heroes"])
def test_what_is_drawn_is_right_whoever_likes_what(words: str) -> None:
    for request, _ in OUTLINES:
        request = request._replace(interest=words)
        assert parse_request(request.line) == request
        assert faults_of(draw_outline(RNG, request), request) == ""


def test_weeks_that_change_places_are_right_if_the_graph_allows_it_and_wrong_if_not() -> None:
    seen = set()
    for request, text in OUTLINES:
        head, weeks = parts(text)
        for at in range(len(weeks) - 1):
            swapped = joined(head, [*weeks[:at], weeks[at + 1], weeks[at], *weeks[at + 2 :]])
            outline = read_outline(swapped)
            assert outline is not None
            allowed = keeps_order(outline.objectives)
            assert is_right(swapped, request) == allowed, swapped
            seen.add(allowed)
    assert seen == {True, False}


def test_weeks_and_objectives_that_are_missing_or_come_twice_are_found() -> None:
    for request, text in OUTLINES:
        head, weeks = parts(text)
        if request.weeks > 1:
            assert "lacks " in faults_of(joined(head, weeks[:-1]), request)
            assert f"has {request.weeks - 1} week" in faults_of(joined(head, weeks[:-1]), request)
            assert " twice" in faults_of(joined(head, [*weeks, weeks[0]]), request)
        if "; " in text:
            first, _, rest = text.partition("; ")
            said = first.rpartition(": ")
            assert "lacks " in faults_of(f"{said[0]}: {rest[0].upper()}{rest[1:]}", request)


def test_activities_and_checks_of_other_objectives_are_found() -> None:
    for request, text in OUTLINES:
        head, weeks = parts(text)
        for other_request, other in RNG.sample(OUTLINES, 3):
            if other_request.unit == request.unit:
                continue
            objectives, _, rest = weeks[0].partition(". Activity: ")
            activity, _, check = rest.partition(". Check: ")
            foreign, _, question = parts(other)[1][0].partition(". Activity: ")[2].partition(". Check: ")
            wrong = joined(head, [f"{objectives}. Activity: {foreign}. Check: {check}", *weeks[1:]])
            assert "week 1 has an activity of " in faults_of(wrong, request)
            wrong = joined(head, [f"{objectives}. Activity: {activity}. Check: {question}", *weeks[1:]])
            assert "week 1 has checks of " in faults_of(wrong, request)
            wrong = joined(head, [f"{objectives}. Activity: {activity}. Check: {check} {check}", *weeks[1:]])
            assert "week 1 has checks of " in faults_of(wrong, request)


def test_another_interest_or_none_is_found() -> None:
    text = draw_outline(random.Random(1), FRACTIONS)
    head, weeks = parts(text)
    other = joined(head, [week.replace("dragon stories", "jazz bands") for week in weeks])
    assert faults_of(other, FRACTIONS) == "takes up jazz bands"
    plain = {one.activities[1].replace("{i}", "dragon stories"): one.activities[0] for one in UNITS[FRACTIONS.unit]}
    for long, short in plain.items():
        text = text.replace(long[0].upper() + long[1:], short[0].upper() + short[1:])
    assert faults_of(text, FRACTIONS) == "takes up no interest"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Week 2:", "Week 3:"),
        ("Activity:", "Doing:"),
        ("Fractions, grade", "Fractions of grade"),
        ("Add and subtract fractions", "Add fractions"),
        ("Check: ", "Check: Is it good? "),
        ("Activity: ", "Activity: do nothing and "),
    ],
)
def test_what_is_nowhere_in_the_curriculum_is_not_read(old: str, new: str) -> None:
    text = draw_outline(random.Random(1), FRACTIONS)
    assert old in text
    assert read_outline(text.replace(old, new)) is None
    assert not is_right(text.replace(old, new), FRACTIONS)


def test_more_weeks_than_objectives_or_an_unknown_topic_cannot_be_drawn() -> None:
    for request in (FRACTIONS._replace(weeks=6), FRACTIONS._replace(weeks=0), FRACTIONS._replace(grade=2)):
        with pytest.raises(ValueError, match="no outline can be made for 'outline: fractions, "):
            draw_outline(RNG, request)
    for line in ("outline: fractions, grade 5", "fractions, grade 5, weeks 3, interest: x", f"{FRACTIONS.line}, more"):
        assert parse_request(line) is None


def test_the_metric_takes_any_right_outline_of_the_request_of_the_reference() -> None:
    references = [text for _, text in OUTLINES]
    others = [draw_outline(RNG, request) for request, _ in OUTLINES]
    assert others != references
    assert score("outline", others, references).value == 100
    assert score("outline", references[1:] + references[:1], references).value == 0
    broken = [text.replace("Activity", "Doing") if place % 4 == 0 else text for place, text in enumerate(others)]
    assert score("outline", broken, references).value == pytest.approx(75, abs=0.5)


def test_splits_share_no_request_and_what_is_kept_out_is_nowhere_in_training(tmp_path: Path) -> None:
    splits = outline_pairs(limit=3000)
    assert splits == outline_pairs(limit=3000) != outline_pairs(seed=1, limit=3000)
    sources = [pair["source"] for pairs in splits.values() for pair in pairs]
    assert len(set(sources)) == len(sources) == 3000 + 1000 + 2000
    requests = {split: [parse_request(pair["source"]) for pair in pairs] for split, pairs in splits.items()}
    for split, pairs in splits.items():
        for pair, request in zip(pairs, requests[split], strict=True):
            assert request is not None and is_right(pair["target"], request)
    trained = [request for request in requests["train"] if request is not None]
    interests, weeks = {one.interest for one in trained}, {one[:3] for one in trained}
    assert {one[:2] for one in weeks} == set(UNITS)  # every topic and grade is learned
    by_condition = defaultdict(list)
    for pair, request in zip(splits["test"], requests["test"], strict=True):
        by_condition[pair["group"].split()[0]].append(request)
    assert set(by_condition) == set(CONDITIONS)
    assert all(one is not None and is_kept_out(one.interest) for one in by_condition["interest"])
    assert not any(one is None or one.interest in interests for one in by_condition["interest"])
    assert not any(one is None or one[:3] in weeks for one in by_condition["weeks"])
    orders = {
        tuple(outline.objectives)
        for pair in splits["train"]
        if (outline := read_outline(pair["target"])) and outline.request.unit == FRACTIONS.unit
    }
    assert len(orders) > 10


def test_it_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdtw_jax.data.classroom_outlines.SIZES", {"train": 30, "validation": 3, "test": 6})
    task = load_task("classroom/outline", data_dir=tmp_path, test_limit=3)
    assert (len(task.splits["train"]), len(task.splits["test"]), task.metrics) == (30, 3, ("outline", "chrf"))
    with pytest.raises(UserError, match=r"unknown task 'classroom/nothing'; use .*classroom/outline"):
        load_task("classroom/nothing", data_dir=tmp_path)
