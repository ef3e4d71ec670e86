"""Answers say who wrote what: in numbers, with marks on a terminal, in colour in a notebook."""

from __future__ import annotations

import json
import re

from kdtw_jax.answers import Answer, Answers
from kdtw_jax.text.words import word_marks, word_numbers
from tests.counting import BYTES, PIECES, count_words, random_outputs

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


def test_words_are_marked_whole_so_that_the_marks_are_the_share() -> None:
    seen = 0
    for pieces in (PIECES, BYTES):
        for row, by in zip(*random_outputs(60, 20, 0), strict=True):
            tokens, asked = row[row != 0].tolist(), by[row != 0].tolist()
            written = tuple(pieces[i] for i in tokens)
            words = tuple(word_numbers(word_marks(pieces), tokens))
            answer = Answer("x", "".join(written), written, tuple(asked), unit="word", words=words)
            slow = count_words(written, asked)
            assert (answer.length, answer.helped) == (slow.length, slow.helped)
            text = answer.marked.replace("∎", "")
            bracketed = " ".join(re.findall("⟦(.*?)⟧", text)).split()
            assert len(text.replace("⟦", "").replace("⟧", "").split()) == slow.length
            assert len(bracketed) == slow.helped
            assert answer.share * max(slow.length, 1) == slow.helped
            seen += 0 < slow.helped < slow.length
    assert seen > 30


def test_where_words_are_counted_they_are_told_in_words() -> None:
    answer = Answer(
        "s", "Ein Haus.", ("▁Ein", "▁Ha", "us", ".", "</s>"), (False, False, True, True, True), 5, 3, "word",
        (0, 1, 1, 1, -1), (False, False, True, False, True),
    )  # fmt: skip
    assert (answer.calls, answer.helped, answer.length, answer.share) == (2, 1, 2, 0.5)
    assert repr(Answers([answer])) == "Ein ⟦Haus.∎⟧\nthe teacher wrote 1 of 2 words (50.0%)"
    plain = answer.to_json()
    assert [plain[name] for name in ("unit", "words", "asked_words", "calls")] == ["word", 2, 1, 2]
    assert ONE.to_json()["unit"] == "token" and "words" not in ONE.to_json()
