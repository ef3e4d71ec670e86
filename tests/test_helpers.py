"""Helpers by themselves: what tools say and where they decline, how they are named, what budgets mean."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from kdtw_jax.classroom.arithmetic import evaluate
from kdtw_jax.classroom.problems import draw_specification
from kdtw_jax.classroom.specification import results
from kdtw_jax.data.tokenizer import EOS_ID
from kdtw_jax.errors import NotRegistered, UserError
from kdtw_jax.helpers import (
    HELPERS,
    Begun,
    Budget,
    FunctionHelper,
    HelperUse,
    calculate,
    limits_of,
    make_glossary,
    make_helper,
    read_budget,
    read_helper,
    register,
)
from kdtw_jax.helpers.teacher import first_word
from kdtw_jax.text.words import word_marks, word_numbers
from tests.world import World

WORLD = World()


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = dict(HELPERS)
    yield
    HELPERS.clear()
    HELPERS.update(before)


# ---- the calculator


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("34 - 17 =", "17"),
        ("34-17 =", "17"),
        ("He says \u201c3 + 4 =", "7"),
        ("Step 3: 4 + 5 =", "9"),
        ("34 - 17 = 17 stickers are left. 17 + 25 =", "42"),
        ("She buys 3 \u00d7 4 =", "12"),
        ("3 x 4 = 12, 12 \u00f7 8 =", "1 remainder 4"),
        ("(3 + 4) * 2 =", "14"),
        ("2 + 3 * 4 =", "14"),
        ("10 - 4 - 3 =", "3"),
        ("24 / 4 / 2 =", "3"),
        ("7.50 + 2.25 =", "9.75"),
        ("7.50 + 2.50 =", "10.00"),
        ("0.5 * 0.25 =", "0.125"),
        ("1,200 + 300 =", "1500"),
        ("3/4 of 24 =", "18"),
        ("3/4 of 10 =", "15/2"),
        ("7.50 / 4.00 + 0.125 =", "2.000"),
        ("1/2 + 1/4 =", "3/4"),
        ("10 / 3 =", "10/3"),
        ("25% of 80 =", "20"),
        ("12.5% of 80 =", "10"),
        ("17 : 5 =", "3 remainder 2"),
        ("15 : 5 =", "3"),
        ("It leaves at 14:35 + 50 min =", "15:25"),
        ("9:05 + 1 h 20 min =", "10:25"),
        ("00:20 - 50 min =", "23:30"),
        ("16:10 - 14:35 =", "95 min"),
        ("-3 + 5 =  ", "2"),
    ],
)
def test_the_calculator_says_the_exact_value_in_the_same_form(written: str, value: str) -> None:
    assert calculate(written) == value


@pytest.mark.parametrize(
    "written",
    [
        *("", "=", "5 =", "34 - 17", "34 - 17 = 17", "x = y =", "-5 =", "(3 + 4 =", "3 + =", "3 4 + 5 ="),
        *("3 apples - 2 + 5 =", "In 2024 17 + 25 =", "a3 + 4 =", "4 / 0 =", "4 : 0 =", "10.00 / 3 =", "20 + 5% ="),
        *("25:10 + 5 min =", "14:35 + 14:35 =", "14:35 - 16:10 =", "14:35 + 5 =", "5 min + 6 min =", "2 * 3 : 4 ="),
        *("3,5 + 1 =", "1234567890123456 + 1 =", "2 ** 3 =", "__import__('os') =", "1e5 + 1 =", "0xff + 1 ="),
        # Of a longer expression than is read, or one whose beginning is not understood, the end is something else.
        *("She has 900 - 1 - " + "1 - " * 60 + "1 =", "900 - " + "1 - " * 200 + "1 =", "1" * 300 + " - 1 ="),
        *("10 - $3 + 4 =", "He pays 2 * $3 + 1 =", "$7.50 + $2.25 =", "10 - $ 3 + 4 =", "\u221a9 + 1 =", "2^3 + 1 ="),
        *("10 minus 3 + 4 =", "n x 3 + 4 =", "10 \u2014 3 + 4 =", "- 3 + 4 =", "5\u00b2 3 + 4 =", "twice 3 + 4 ="),
        # Numbers that are no amounts: of telephones, of days, of agents.
        *(
            "tel 555-1234 =",
            "tel 1234-555 =",
            "2021-03-05 =",
            "10-4-3 =",
            "3/4/2024 =",
            "007 + 1 =",
            "24/4/2 =",
            "6 / 1/2 =",
        ),
        # What the exact forms of a class do not say.
        *("17 - 34 =", "7.50 / 4 =", "25% of 7.50 =", "1/4 of 7.50 =", "0.25 * 0.25 =", "25% of 10 ="),
    ],
)
def test_the_calculator_declines_where_it_is_not_sure(written: str) -> None:
    assert calculate(written) is None


def test_sums_are_those_of_exact_arithmetic() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        numbers = rng.integers(1, 200, size=4)
        signs = rng.choice(["+", "-", "*"], size=3)
        text = f"{numbers[0]}" + "".join(f" {s} {n}" for s, n in zip(signs, numbers[1:], strict=True))
        value = eval(text)
        assert calculate(f"so {text} =") == (str(value) if value >= 0 else None)
        cents = [Fraction(int(n), 100) for n in numbers]
        priced = " + ".join(f"{float(x):.2f}" for x in cents)
        assert Fraction(str(calculate(f"{priced} ="))) == sum(cents)


# ---- the glossary, and functions


def test_a_glossary_says_the_first_term_whose_translation_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "terms.tsv"
    file.write_text("window manager\tFensterverwaltung\n\nwindow\tFenster\n", "utf-8")
    for glossary in (make_glossary(file), make_glossary({"window manager": "Fensterverwaltung", "window": "Fenster"})):
        source = "window manager with one window"

        def said(written: str, source: str = source, glossary: FunctionHelper = glossary) -> str | None:
            (found,) = glossary.suggest([Begun(source, written)])
            return None if found is None else found.text

        assert said("") == "Fensterverwaltung"
        assert said("Die Fensterverwaltung mit") == "Fenster"  # of which the longer word is no part
        assert said("Fensterverwaltung mit einem Fenster.") is None
        assert said("", "windows and managers") is None
        assert not glossary.exact
    file.write_text("no tab\n", "utf-8")
    with pytest.raises(UserError, match=r"terms\.tsv, line 1: a term, a tab and its translation are wanted"):
        make_glossary(file)
    with pytest.raises(UserError, match="cannot read"):
        make_glossary(tmp_path / "none")
    with pytest.raises(UserError, match="terms and translations that are not empty"):
        make_glossary({})


def test_a_function_declines_by_none_and_what_is_no_text_is_refused() -> None:
    states = [Begun("a", ""), Begun("", "b"), Begun("c", "d")]
    found = FunctionHelper("up", lambda source, written: source.upper() or None).suggest(states)
    assert [one and one.text for one in found] == ["A", None, "C"]
    assert FunctionHelper("blank", lambda *_: "  ").suggest(states) == [None] * 3
    with pytest.raises(UserError, match="the helper seven must return a text or None, not 7"):
        FunctionHelper("seven", lambda *_: 7).suggest(states)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the helper odd failed: ZeroDivisionError"):
        FunctionHelper("odd", lambda *_: str(1 / 0)).suggest(states)


# ---- words of teachers


def test_what_a_teacher_writes_is_cut_word_by_word_and_nothing_is_lost() -> None:
    pieces = ["", "</s>", "", "", "▁", "▁a", "b", "▁c", "d", "▁e"]
    marks, rng = word_marks(pieces), np.random.default_rng(0)
    for _ in range(300):
        tokens = [*rng.integers(4, len(pieces), size=rng.integers(0, 12)).tolist(), EOS_ID]
        left, last, parts = tokens, 0, []
        while left:
            parts.append(first_word(marks, last, left))
            left, last = left[len(parts[-1]) :], parts[-1][-1]
        assert [token for part in parts for token in part] == tokens
        numbers = iter(word_numbers(marks, tokens))
        for part in parts[:-1]:
            assert len({next(numbers) for _ in part} - {-1}) == 1  # one word each; blanks and the end beside
        assert {next(numbers) for _ in parts[-1]} == {-1}  # the end is an answer by itself
        assert EOS_ID in parts[-1] and len(parts) <= max(word_numbers(marks, tokens), default=-1) + 2


# ---- names


def test_helpers_are_read_by_name_place_price_and_worth() -> None:
    assert read_helper("calculator").where is None
    large = read_helper("large=http://127.0.0.1:8100:price=3,worth=0.5")
    assert (large.name, large.where, large.price, large.worth) == ("large", "http://127.0.0.1:8100", 3.0, 0.5)
    assert read_helper("large=runs/mine:price=8").where == "runs/mine"
    mine = read_helper("tests.own_helper:make_echo:price=2")
    assert (mine.name, mine.where, mine.price) == ("tests.own_helper:make_echo", None, 2.0)
    for wrong in ("", "=x", "a=", "a b", "student", "cost=1"):
        with pytest.raises(UserError, match="--helper takes NAME, NAME=WHERE or MODULE:MAKER"):
            read_helper(wrong)
    with pytest.raises(UserError, match="price has to be a number from 0 up, not '-1'"):
        read_helper("a=b:price=-1")


def test_a_helper_is_made_by_its_name_or_module_and_has_the_price_that_is_said() -> None:
    made = make_helper(read_helper("calculator:price=0.25"), WORLD.tokenizer)
    assert (made.name, made.price, made.exact) == ("calculator", 0.25, True)
    assert made.suggest([Begun("", "1 + 1 =")])[0].text == "2"  # type: ignore[union-attr]
    own = make_helper(read_helper("tests.own_helper:make_echo"), WORLD.tokenizer)
    assert (own.name, own.price) == ("echo", 0.5)
    register("mine", lambda: FunctionHelper("mine", lambda *_: None))
    assert make_helper(read_helper("mine"), WORLD.tokenizer).name == "mine"
    with pytest.raises(UserError, match="there is a helper mine already"):
        register("mine", make_glossary)
    with pytest.raises(NotRegistered, match="unknown helper 'nobody'; known are calculator, glossary"):
        make_helper(read_helper("nobody"), WORLD.tokenizer)
    for said, message in (
        ("glossary", "the helper glossary needs a text: --helper glossary=TEXT"),
        ("no_such_module:make", "is the folder of no_such_module in PYTHONPATH"),
        ("tests.own_helper:nothing", "has no attribute 'nothing'"),
        ("tests.world:BUCKETS", "a helper is made by a function"),
        ("tests.world:World", "must make a helper"),
        ("big=no/such/model", "no/such/model"),
        ("calculator=3", "the helper calculator takes nothing behind =; its price is said as calculator:price=NUMBER"),
        ("builtins:dict", "--helper builtins:dict: it is not known what .* takes; give a function"),
        ("tests.own_helper:make_broken", "--helper tests.own_helper:make_broken: ZeroDivisionError: division by zero"),
        ("tests.own_helper:make_dear", "the helper dear has a price of '3'; it has to be a number from 0 up"),
    ):
        with pytest.raises(UserError, match=message):
            make_helper(read_helper(said), WORLD.tokenizer)
    for name in ("cost", "student", "a b", ""):
        with pytest.raises(UserError, match="a helper's name is a word"):
            register(name, make_glossary)


# ---- budgets


def test_budgets_are_shares_numbers_of_words_and_cost_per_word() -> None:
    assert read_budget("large=10%") == Budget("large", share=0.1)
    assert read_budget("large=3") == Budget("large", words=3)
    assert read_budget("cost=0.5") == Budget("cost", share=0.5)
    for wrong in ("", "large", "large=", "large=x", "large=0.5", "large=120%", "cost=10%", "cost=-1", "=3"):
        with pytest.raises(UserError, match="--budget takes a share of the words"):
            read_budget(wrong)
    helpers = [FunctionHelper("a", lambda *_: None, price=1.0), FunctionHelper("b", lambda *_: None, price=4.0)]
    limits = limits_of(helpers, [Budget("a", share=0.5), Budget("b", words=2), Budget("cost", share=1.5)])
    assert limits.keeps(HelperUse(10, (5, 2), 13.0), HelperUse(10, (5, 2), 13.0))
    for beyond in (HelperUse(10, (6, 0), 6.0), HelperUse(10, (0, 3), 12.0), HelperUse(10, (4, 2), 15.1)):
        assert not limits.keeps(beyond, beyond)
    assert limits.keeps(HelperUse(100, (0, 9), 36.0), HelperUse(10, (0, 2), 8.0))  # a number is of each output
    for budgets, message in (
        ([Budget("c", share=0.1)], "a budget is of 'c'; helpers are a, b, or say cost"),
        ([Budget("a", share=0.1), Budget("a", share=0.2)], "two budgets of one kind for a"),
        ([Budget("a", share=1.1)], "from 0 to 1"),
        ([Budget("a", words=-1)], "0 or more"),
    ):
        with pytest.raises(UserError, match=message):
            limits_of(helpers, budgets)
    with pytest.raises(UserError, match="two helpers are called a"):
        limits_of(helpers[:1] * 2, [])


def test_a_use_counts_words_of_each_helper_and_an_end_as_one_word_of_cost() -> None:
    marks = word_marks(["", "</s>", "", "", "▁", "▁a", "b", "▁c"])
    helpers = [FunctionHelper("a", lambda *_: None, price=1.0), FunctionHelper("b", lambda *_: None, price=4.0)]
    limits = limits_of(helpers, [])
    #        a    b   blank c   a    b   end
    tokens = [5, 6, 4, 7, 5, 6, 1]
    assert limits.use(marks, tokens, [-1] * 7) == HelperUse(3, (0, 0), 0.0)
    assert limits.use(marks, tokens, [-1, 0, 1, 1, -1, -1, -1]) == HelperUse(3, (1, 1), 5.0)
    assert limits.use(marks, tokens, [0, 1, -1, -1, -1, -1, 1]) == HelperUse(3, (1, 1), 9.0)  # both of one word
    use = limits.use(marks, tokens, [0, 0, -1, -1, 1, 1, -1])
    assert limits.nothing + use - use == limits.nothing and limits.one_more(use, 1) == HelperUse(4, (1, 2), 9.0)


def test_the_calculator_says_what_solutions_of_a_class_are_checked_by() -> None:
    rng = random.Random(3)
    for _ in range(300):
        found = draw_specification(rng, "chess")
        reached = results(found)
        assert reached is not None
        for step, left, result in zip(found.steps, (found.start, *reached), reached, strict=False):
            assert calculate(f"Mia knows: {step.expression(left, found.kind)} =") == result


def test_the_calculator_and_what_checks_solutions_agree_wherever_one_of_them_has_a_value() -> None:
    rng = random.Random(4)

    def number(money: bool) -> str:
        return f"{rng.randrange(40)}.{rng.randrange(0, 100, 5):02d}" if money else str(rng.randrange(120))

    said = 0
    for _ in range(3000):
        money, sign = rng.random() < 0.4, rng.choice("+-\u2212\u00d7x*")
        divided = rng.choice(":\u00f7")
        expression = rng.choice(
            [
                f"{number(money)} {sign} {number(rng.random() < 0.4)}",
                f"{number(False)} {divided} {number(False)}",
                f"{rng.randrange(1, 9)}/{rng.randrange(10)} of {number(money)}",
                f"{rng.randrange(150)}% of {number(money)}",
                f"{rng.randrange(26)}:{rng.randrange(60):02d} {rng.choice('+-')} {rng.randrange(1, 2000)} min",
            ]
        )
        value, checked = calculate(f"Mia knows: {expression} ="), evaluate(expression)
        if "%" in expression and "/" in (checked or ""):
            checked = None  # of a whole number no part that a percentage is written as
        assert value == checked, expression
        said += value is not None
    assert said > 1500
