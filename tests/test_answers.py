"""Answers say who wrote what: in numbers, with marks on a terminal, in colour in a notebook."""

from __future__ import annotations

import json

from kdtw_jax.answers import Answer, Answers

ONE = Answer(
    "a <b>", "ein Haus & Hof", ("▁ein", "▁Haus", "▁&", "▁Hof", "</s>"), (False, True, True, False, False), 4, 3
)
NONE = Answer("", "")


def test_shares_and_calls_are_those_of_the_tokens() -> None:
    assert (ONE.calls, ONE.share, NONE.share) == (2, 0.4, 0.0)
    assert ONE.writers[1:4] == (("▁Haus", "teacher"), ("▁&", "teacher"), ("▁Hof", "student"))
    both = Answers([ONE, NONE, ONE])
    assert (both.calls, both.share, both.text) == (4, 0.4, [ONE.text, "", ONE.text])
    assert both[1] is NONE and list(both[1:]) == [NONE, ONE] and isinstance(both[1:], Answers)
    assert Answers([]).share == Answers([NONE]).share == 0.0


def test_they_print_themselves_with_the_teachers_words_marked() -> None:
    assert repr(ONE) == "ein ⟦Haus &⟧ Hof" and str(ONE) == ONE.text
    assert repr(Answers([ONE, NONE])) == "ein ⟦Haus &⟧ Hof\n\nthe teacher wrote 2 of 5 tokens (40.0%)"


def test_a_notebook_shows_them_in_colour_and_runs_nothing_that_they_say() -> None:
    (before, rest) = ONE._repr_html_().split('<span style="')
    assert "ein" in before and rest.partition(">")[2].startswith("Haus &amp;</span> Hof")
    evil = Answer("<script>x</script>", "<script>", ("▁<script>",), (True,))
    shown = Answers([evil] * 60)._repr_html_()
    assert "<script>" not in shown and shown.count("&lt;script&gt;x") == 50 and "10 more" in shown


def test_json_holds_the_writer_of_every_token() -> None:
    plain = json.loads(json.dumps(ONE.to_json()))
    assert [plain[name] for name in ("source", "text", "share", "calls")] == ["a <b>", ONE.text, 0.4, 2]
    assert plain["writers"] == [list(pair) for pair in ONE.writers]
