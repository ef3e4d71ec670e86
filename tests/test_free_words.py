"""Rules in free words mean what they say, never something more lenient, and what cannot be meant is refused."""

from __future__ import annotations

import re

import pytest

from kdtw_jax.constraints import Constraint, known_constraints, make_share, parse_rule, read_rule, word_rule
from kdtw_jax.constraints.draw import sayings
from kdtw_jax.constraints.plain_words import plain_text
from kdtw_jax.constraints.wording import understand, understand_freely, understand_loosely
from kdtw_jax.errors import UserError
from kdtw_jax.models import T5Config
from tests.every_other import make_every_other
from tests.pages import PAGES

NAMES = ("share", "calls", "pause", "in_a_row", "first", "after", "compute", "price")
KNOWN = known_constraints(NAMES, T5Config.toy(40))
SHARE = KNOWN[:1]

MEANT = {
    ("share", 0.2): """
        at most 20% of the words; 20%; 20 %; 20 percent; max. 20%; maximum of 20 per cent of words
        no more than a fifth of the words; up to one in five words; twenty percent
        use the teacher for 20% of the tokens or less; ≤ 20%; 0.2 of the words; never more than 20%
        do not ask for more than 20% of the words; Keep it to 20%; limit the teacher to 20%; a maximum of 20 %
        20% max; 20% at the most; 20% tops; I want you to ask the teacher for at most 20% of the words, please
        you may ask the teacher for 20% of the words; you may not ask for more than 20% of the words
        the teacher may not write more than 20% of the words; let the teacher write at most 20% of the text
        at most one word in five; at most 1 of 5 words; 1/5 of the words; no more than 20 out of 100 words
        teacher: at most 20%; budget 20%; the limit is 20%; don’t exceed 20%; ask at most 20% of the time
        at most 20% of the words may come from the teacher; at most 20% of the output words
        up to 20% of the words in the output; 20% or less; use at most 20% help
        get help for at most 20% of the words; you must ask for at most 20% of the words; not over 20%
        ask the teacher for twenty percent of words at most; 20% of your words; only 20% of the words
        help with up to 20% of what you write; get up to 20% of your words from the teacher
        at most 20% teacher words; at most 20% help; with at most 20% of the words from the teacher
        0,2 of the words; as much as 20%; at most 20% of words, not more; %20; at most % 20""",
    ("share", 0.25): """
        a quarter; 25%; a quarter of the words; at most a quarter of the text; one in four; ¼ of the words""",
    ("share", 0.5): """
        half of the text; 50/50; fifty-fifty
        half the words; at most half; ½ of the words; fifty percent; one half of the words""",
    ("share", 0.19998): """
        less than 20%; keep it under 20%; below 20%; fewer than 20% of the words; <20%; under a fifth of the words
        stay below 20%""",
    ("share", 0.0): """
        never ask; don't ask the teacher; no help; without the teacher; do not ask; never ask the teacher
        no help from the teacher; don’t use the teacher; without help; without asking the teacher
        do not ask for help; do not ask at all; 0%; never; write everything on your own; alone; no questions
        you must not ask the teacher; don't ask anything; no teacher; never ask for help
        never ever ask the teacher; please never ask""",
    ("share", 1.0): """
        ask as often as you like; ask whenever you want; no limit; ask freely; ask the teacher whenever you like
        no limits; without limit; ask as much as you want; unlimited help; you may ask as often as you wish
        there is no limit; ask as you please; 100%; a hundred percent; ask the teacher freely""",
    ("price", 2.5): """
        a call costs 2.5 nats; Each call to the teacher costs 2.5 nats.; ask where an answer saves 2.5 nats or more
        do not ask unless it is worth 2.5 nats; pay two and a half nats for every call
        2.5 nats per call; the price of a question is 2.5 nats; every answer costs you 2.5 nats
        ask only if it saves 2.5 nats; ask for help where an answer is worth at least 2.5 nats""",
    ("share", 0.015): """
        1,5%; one and a half percent; 1½%; 1.5 %; 1 1/2 percent""",
    ("share", 0.005): """
        half a percent; 0.5%; .5%; ½%""",
    ("calls", 3): """
        at most 3 calls; ask at most three times; up to 3 questions; 3 calls; ask the teacher no more than 3 times
        never ask more than 3 times; max 3 calls; three questions at most; limit yourself to 3 calls
        limit the number of calls to 3; calls: at most 3; 3 teacher calls at most; fewer than 4 calls
        do not ask more than three times; you may ask three times; ask 3 questions; make at most 3 calls
        3 calls or fewer; a maximum of 3 calls to the teacher; at most 3 words from the teacher
        the teacher may write at most 3 words; ask for help at most 3 times; 3-call limit; only 3 questions
        no more than 3 calls; call the teacher at most 3 times; use the teacher 3 times; you get 3 questions""",
    ("calls", 1): """
        ask once; at most once; only once; ask at most one question; no more than one call; a single question
        ask the teacher just once""",
    ("calls", 2): """
        ask only twice; not more than twice; at most two calls; less than three times; don't ask more than twice""",
    ("pause", 2): """
        wait two words between calls; at least 2 words between calls; pause for two words after each call
        between two calls wait at least two words; after each call write two words yourself
        wait 2 words before asking again; don't ask again for 2 words; two words between any two calls
        leave at least 2 words between questions; more than 1 word between calls; a pause of two words
        wait at least two words before the next question; after every question pause for 2 words
        wait two words after every call; keep 2 words between calls""",
    ("in_a_row", 2): """
        not more than 2 in a row; at most two in a row; at most 2 calls in a row; never more than 2 in a row
        max 2 in a row; at most two consecutive calls; do not ask more than 2 times in a row
        never ask three times in a row; no more than twice in a row; at most twice in a row; fewer than 3 in a row
        no three calls in a row; don't ask more than two times in a row
        never ask the teacher more than twice in a row""",
    ("first", 10): """
        only in the first 10 words; only within the first ten words; ask only in the first 10 words
        the teacher may help only with the first 10 words; no help after the first 10 words
        do not ask after the first 10 words; not after the tenth word; help only for the first ten words
        only ask during the first 10 words; in the first 10 words only; stop asking after 10 words
        not after 10 words; ask only for the first 10 words; don't ask after the first ten words""",
    ("after", 5): """
        not in the first 5 words; don't ask in the first five words; no help in the first 5 words
        only after the first 5 words; only after 5 words; ask only after the first five words
        write the first 5 words yourself; the first five words are yours; start asking after 5 words
        never ask within the first 5 words; no questions in the first 5 words
        write the first five words on your own; do not use the teacher for the first 5 words
        only after the fifth word""",
    ("compute", 2): """
        at most 2 GFLOPs; 2 GFLOP; no more than two gflops of compute; max. 2 GFLOP; up to 2 GFLOPs
        use at most 2 giga-flops; at most 2000 MFLOP; keep the teacher within 2 GFLOPs; spend at most 2 GFLOPs
        the teacher may use up to 2 GFLOP; do not spend more than 2 GFLOPs; teacher compute: at most 2 GFLOPs
        0.002 TFLOPs""",
}


def each(texts: str) -> list[str]:
    """The texts of a list, which line breaks and semicolons separate."""
    return [text.strip() for text in re.split(r"[;\n]", texts) if text.strip()]


REFUSED = {
    "says how much is to be asked at the least, and a rule says how much may be asked at the most": """
        at least 20%; at least 20% of the words; more than 20%; minimum 20%; a minimum of 20 percent; 20% or more; 20%+
        no less than 20% of the words; not fewer than 3 calls; ask at least three times; ask more than twice; ≥ 20%
        limit the teacher to at least 20%; the teacher must write more than 20%""",
    "is a range, and a rule says how much may be asked at the most": """
        between 10 and 20%; between 10% and 20% of the words; between ten and twenty percent; 10-20%
        10–20 % of the words; 10 to 20%; from 10% to 20%; 10 or 20%
        two or three times; 3-5 calls; up to 10-20%; between 3 and 5 calls""",
    "counts what no rule does; rules count words": """
        ask the teacher for at most 20% of the characters; at most 20% of the sentences; at most 3 calls per sentence
        at most 20% of the letters; ask for at most 5 seconds; at most 3 bytes; 2 GFLOP per second""",
    'sets no limit; say "at most"': "about 20%; roughly a fifth of the words; around 20%; exactly 3 calls; ~20%",
    'may be a duty; say "at most"': "you must ask 3 times; the teacher should write 20% of it; always ask 3 times",
    "has a condition or a choice": "ask if needed; only when unsure; ask only when you need it; 20% unless needed",
    "can be read in two ways": """
        at most 1,500 calls; at most 1.000 calls; wait 1.500 words between calls; at most 12,125% of the words""",
    "has a number with an exponent": "1e-1%; 1e3%; at most 2e5 calls",
    "divides by 0": "1/0; at most 1/0 of the words; one in zero words; 3 out of 0 words",
    "does not say of what": "20; a call costs 2; at most 20%, 3; at most 20; 0.2; at most 0.2",
    "0 to 100%, not 120%": "120%; at most 120 percent of the words; six fifths of the words",
    "0 to 100%, not -5%": "-5%; minus five percent; at most −5% of the words",
    "a call costs at least 0 nats, not -1": "a call costs -1 nats; minus one nat per call",
    "a whole number of at least 0, not 2.5": "2.5 calls; at most two and a half times; wait 2.5 words between calls",
    "contradict each other": "at most 20% and at most 30%; ask freely, up to 20%; never ask, no limit; 1/5 plus 1/4",
    "is not a rule that is understood": """
        restrict help much; limit the teacher a lot; limit often; Limit viel Hilfe; you must ask much
        the teacher must write often; Frag den Lehrer ab 5 Wörtern nicht mehr; from 5 words on ask the teacher no more
        Frag 3 Mal nicht mehr; only you in the first 5 words; Nur du in den ersten 5 Wörtern
        Der Lehrer darf bis auf 20% schreiben; bis auf fünf Wörter vom Lehrer
        write at most 20% of the words yourself; the student may write at most 20%; 20% of the words on your own
        all but 20% of the words; at most 20% of 20%; half of 20%; at most 20% more; 20 percentage points; 2²%; ₂%
        a fifth question; ask half as often; twenty twenty percent; one thousand calls; 1 000 calls
        never ask for 20%; do not ask 3 times; not 20%; not at most 20%; never ask at most 3 times; no; no more
        not never; do not limit the teacher; no limit on 20%; at most 2 words between calls; wait 2 words
        only in the last 10 words
        the first 10% of the words only; the teacher may help in the first 10 words; a dozen calls; a couple of calls
        a call costs nothing; at most 2 nats; not for 2 nats
        at most 3 calls, 5 in an emergency; 20% 3 times
        ask at will; ask me anything; teacher; please; at most; 2 GFLOP/s; never ask twice; ask the teacher always""",
}


def meaning(text: str) -> dict[str, float]:
    rule = parse_rule(text, KNOWN)
    return {c.name: float(b) for c, b in zip(rule.constraints, rule.budgets, strict=True)}


@pytest.mark.parametrize("name", NAMES)
def test_free_words_mean_what_they_say(name: str) -> None:
    texts = [(number, text) for (kind, number), texts in MEANT.items() if kind == name for text in each(texts)]
    assert len(texts) > 8
    for number, text in texts:
        for said in (text, f"  {text.upper()}!", f"Please, {text} .", f"I want you to {text}"):
            assert meaning(said) == {name: pytest.approx(number, rel=1e-6)}, said
        typed = text.replace(" ", "\u00a0").replace("'", "’").replace("-", "\u2011")
        assert meaning(typed) == {name: pytest.approx(number, rel=1e-6)}, typed


@pytest.mark.parametrize("message", REFUSED)
def test_what_no_rule_can_say_is_refused_in_one_line(message: str) -> None:
    for text in each(REFUSED[message]):
        with pytest.raises(UserError, match=re.escape(message)) as found:
            parse_rule(text, KNOWN)
        assert "\n" not in str(found.value) and len(str(found.value)) < 1500


@pytest.mark.parametrize("constraint", KNOWN, ids=NAMES)
def test_templates_mean_what_they_meant_and_are_read_as_they_are(constraint: Constraint) -> None:
    wording = constraint.wording
    for text in sayings(constraint):
        budget = understand(wording, text)
        assert budget is not None
        assert understand_loosely(wording, text) == budget == understand_loosely(wording, plain_text(text)), text
        others = [understand_freely(other.wording, text) for other in KNOWN if other is not constraint]
        assert others == [None] * (len(KNOWN) - 1), text
        assert understand_freely(wording, text) in (None, pytest.approx(budget, rel=1e-9)), text
    for template in (*wording.fixed, *wording.templates, *wording.held_out):
        for said in (template.format(7), f" {template.format(7).capitalize()}. "):
            found = read_rule(said, KNOWN)
            assert [c.name for c in found.rule.constraints] == [constraint.name]
            assert found.words == said.strip()
        assert meaning(template.format("seven")) == meaning(template.format(7))


def test_clauses_are_joined_and_students_read_templates() -> None:
    found = read_rule(
        "No more than A FIFTH of the words AND never more than two in a row, but not in the first 3 words", KNOWN
    )
    assert [c.name for c in found.rule.constraints] == ["share", "in_a_row", "after"]
    assert found.words == word_rule(found.rule.constraints, [0.2, 2, 3], [0, 0, 0])
    mixed = read_rule("At most  3 calls to the teacher; keep it under 20%. Wait two words between calls.", KNOWN)
    assert mixed.words == (
        "At most  3 calls to the teacher; ask the teacher for at most 20% of the words; "
        "after each answer of the teacher write 2 words yourself"
    )
    assert 0.199 < float(mixed.rule.budgets[1]) < 0.2
    assert read_rule("don’t ask", KNOWN).words == "do not ask the teacher"
    assert read_rule("no limit", KNOWN).words == "ask the teacher as often as you like"
    assert read_rule("one and a half percent of the words and a hundred and five calls", KNOWN).words == (
        "ask the teacher for at most 1.5% of the words; ask the teacher at most 105 times"
    )


def test_less_than_a_budget_leaves_it_out() -> None:
    from tests.test_constraints import eager  # rows that ask wherever they may

    for text, most in (("less than 20%", 0.2), ("under a quarter of the words", 0.25), ("below 50%", 0.5)):
        tokens, asked = eager(parse_rule(text, SHARE), 0)
        length = (tokens != 0).sum(1)
        assert (asked.sum(1) < most * length).all() and asked.any()
        again = eager(parse_rule(f"at most {100 * most:g}%", SHARE), 0)
        assert (again[1].sum(1) == most * (again[0] != 0).sum(1)).any()


def test_a_constraint_of_ones_own_is_said_in_its_templates_alone() -> None:
    known = (make_share(), make_every_other())
    for text in ("help with one word in 2", "Help with ONE word in two, please."):
        rule = parse_rule(text, known)  # and not half of the words
        assert [(c.name, float(b)) for c, b in zip(rule.constraints, rule.budgets, strict=True)] == [("every_other", 2)]
    with pytest.raises(UserError, match='"each second word" is not a rule that is understood; understood are: "ask'):
        parse_rule("each second word", known)
    with pytest.raises(UserError, match='"3 calls" is a rule on "calls", which is not among those known here'):
        parse_rule("20% of the words and 3 calls", known)


def test_long_and_strange_rules_are_refused_at_once() -> None:
    for text in (
        "ask " * 240 + "3",
        "at most " * 120,
        "the teacher " * 80,
        "x" * 999,
        "9" * 999 + "%",
        "9" * 999 + " calls",
    ):
        with pytest.raises(UserError) as found:
            parse_rule(text, KNOWN)
        assert len(str(found.value)) < 2200
    with pytest.raises(UserError, match="a rule of 5000 characters; say it in at most 1000"):
        parse_rule("spam " * 1000, KNOWN)
    with pytest.raises(UserError, match='"help me up" is not'):
        parse_rule("help\nme\x1b up", KNOWN)


def test_rules_in_the_pages_come_out_right() -> None:
    text = "".join(PAGES.values())
    shown = re.findall(r'--rule "([^"]+)"', text) + re.findall(r'parse_rule\(\s*"([^"]+)"', text)
    shown += re.findall(r'\brule="([^"]+)"', text)
    assert len(shown) >= 4
    in_words = {"no more than a third": "33.3", "never ask": "0"}  # what is said without digits
    assert set(in_words) < set(shown)
    for text in shown:
        text = text.removesuffix("; help with results only")  # of a constraint that the guide makes
        rule = parse_rule(text, (*KNOWN, make_every_other()))
        for constraint, budget in zip(rule.constraints, rule.budgets, strict=True):
            said = constraint.wording.write(float(budget))
            assert re.search(rf"\b{re.escape(said)}\b", in_words.get(text, text)), text


def test_rules_in_the_guide_are_of_the_kinds_it_says() -> None:
    lines = re.findall(r'^\| (".*") \| (.*) \|$', PAGES["docs/guides/rule.md"], re.MULTILINE)
    kinds = {"share": "share", "number": "calls", "pause": "pause", "help": "after", "no": "share", "price": "price"}
    assert {meaning.removeprefix("a ").partition(" ")[0] for _, meaning in lines} == set(kinds)
    for said, meaning in lines:
        for text in re.findall('"([^"]+)"', said):
            rule = parse_rule(text, KNOWN)
            assert [c.name for c in rule.constraints] == [kinds[meaning.removeprefix("a ").partition(" ")[0]]], text
    (refused,) = re.findall(r"no upper limit \((.*?)\)", PAGES["docs/guides/rule.md"])
    for text in re.findall('"([^"]+)"', refused):
        with pytest.raises(UserError):
            parse_rule(text, KNOWN)
