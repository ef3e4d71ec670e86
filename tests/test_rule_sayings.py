"""Rules as people say them, in English and German: nearly all are understood, none wrongly; what is vague is told."""

from __future__ import annotations

import pytest

from kdtw_jax.constraints import parse_rule, read_rule
from kdtw_jax.errors import UserError
from tests.rule_sayings import sayings
from tests.test_free_words import KNOWN, SHARE


@pytest.mark.parametrize("seed", [20261128, 1789])  # not those that the readers were written with
def test_of_a_thousand_ways_to_say_a_rule_nearly_all_are_understood_and_none_wrongly(seed: int) -> None:
    missed = []
    for said in sayings(seed):
        try:
            rule = parse_rule(said.text, KNOWN)
        except UserError:
            missed += [said.text] if said.meaning else []
            continue
        found = sorted((c.name, float(b)) for c, b in zip(rule.constraints, rule.budgets, strict=True))
        assert found == [(name, pytest.approx(budget, rel=1e-3)) for name, budget in sorted(said.meaning)], said.text
    assert len(missed) <= 10, missed


def test_vague_words_are_taken_for_a_share_that_is_told() -> None:
    found = read_rule("a little help, wait two words between calls", KNOWN)
    assert found.words.startswith("ask the teacher for at most 10% of the words; ")
    assert found.assumed == ('"a little help" is vague, and taken for "ask the teacher for at most 10% of the words"',)
    assert read_rule("at most 10%", KNOWN).assumed == ()
    for text in ("not a little", "a little more than 20%", "at least a little help", "never sometimes", "nicht wenig"):
        with pytest.raises(UserError):
            parse_rule(text, KNOWN)


def test_of_many_forms_those_are_shown_that_are_nearest() -> None:
    with pytest.raises(UserError) as found:
        parse_rule("pause 3 words after a call my friend", KNOWN)
    said = str(found.value).partition("understood are, for example: ")[2].split("; ")
    assert len(said) == 6 and '"pause for N words after each call"' in said[:2]
    with pytest.raises(UserError, match="understood are: "):
        parse_rule("pause 3 words after a call my friend", SHARE)
