"""A student that writes with several helpers: who is asked, that no finished output is over a budget, what is said."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from kdtw_jax.cli import main
from kdtw_jax.constraints import make_share, make_unit, pad_words
from kdtw_jax.data.tokenizer import EOS_ID, train_tokenizer
from kdtw_jax.data.tool_words import tokens_of_text
from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.errors import UserError
from kdtw_jax.helpers import (
    Begun,
    Budget,
    FunctionHelper,
    HelpedAnswer,
    HelpedWriter,
    Helper,
    Suggestion,
    TeacherHelper,
    make_calculator,
)
from kdtw_jax.helpers.teacher import first_word
from kdtw_jax.marks import SPACE
from kdtw_jax.models import T5Config, make_model
from kdtw_jax.student import Student
from kdtw_jax.teachers.protocol import Prefix, TeacherAbout, TeacherUnavailable
from kdtw_jax.training.saved import SavedModel

SENTENCE = "34 - 17 = 17 stickers are left 5 + 8 = 13 and 9 + 20 = 29 anna had 46 pens . ben took 2 pens"
TOKENIZER = train_tokenizer([SENTENCE, *sorted(set(SENTENCE.split())) * 50], vocab_size=120, exact=False)
SPACED_V = np.array([2.0 if piece.startswith("▁") else 0.0 for piece in TOKENIZER.pieces], np.float32)
TEXTS = ["anna had 46 pens", "ben took 2", "5 + 8", "stickers", "9 + 20 and 34 - 17", ""]
EAGER, NEVER = -1e3, 1e9  # nats


def saved(seed: int, gate_width: int = 0, spaced: float = 1.0) -> SavedModel:
    """Random, but that most of its tokens begin words, unless `spaced` is below 0: then most go on with one."""
    model = make_model(T5Config.toy(TOKENIZER.vocab_size, dropout_rate=0.0, gate_width=gate_width))

    def extend(*given: Any) -> Any:
        decoded, cache = plain(*given)
        return decoded._replace(logits_BxTxV=decoded.logits_BxTxV + spaced * SPACED_V[None, None, :]), cache

    plain, model = model.extend, model._replace(extend=extend)
    params = jax.tree.map(lambda x: 1.5 * x, model.init(jax.random.key(seed)))
    if gate_width:
        params["gate"]["saving_out"]["kernel"] *= 30.0
    return SavedModel(model, params, TOKENIZER)


class GreedyHelper:
    """A model as a helper, slowly: everything is decoded anew for each of its tokens."""

    price, exact = 1.0, False

    def __init__(self, name: str, model: SavedModel):
        self.name, self._saved, self._marks = name, model, model.tokenizer.words

        def step(source_BxS: Any, tokens_BxT: Any, place: Any) -> Any:
            params = model.params
            cache = model.model.start(params, model.model.encode(params, source_BxS), 16)
            inputs_BxT = jax.numpy.pad(tokens_BxT[:, :-1], ((0, 0), (1, 0)))
            decoded, _ = model.model.extend(params, cache, inputs_BxT, jax.numpy.int32(0))
            return log_policy(decoded.logits_BxTxV[:, place], model.tokenizer.banned_ids)

        self._step = jax.jit(step)

    def suggest(self, begun: Sequence[Begun]) -> list[Suggestion | None]:
        return [Suggestion(tokens=self._word(one)) for one in begun]

    def _word(self, begun: Begun) -> tuple[int, ...]:
        source, tokens = pad_words([begun.source], 16), list(begun.written)
        while len(tokens) < 16 and tokens[-1:] != [EOS_ID]:
            row = pad_words([tokens], 16)
            tokens.append(int(np.asarray(self._step(source, row, np.int32(len(tokens)))).argmax()))
        return first_word(self._marks, begun.written[-1] if begun.written else 0, tokens[len(begun.written) :])


@pytest.fixture(scope="module")
def student() -> Student:
    unit = make_unit("word", TOKENIZER.words)
    return Student(saved(0, 8), saved(1), (make_share(),), 1.0, "{source}", 16, 16, unit)


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdtw_jax.helpers.writing._ROWS", 4)


class HashTeacher:
    """Writes words that are drawn from what stands before them; seldom the end."""

    def __init__(self, seed: int):
        self.about = TeacherAbout(f"{seed}", vocabulary_hash(TOKENIZER), TOKENIZER.vocab_size, True, 8)

    def generate(self, prefixes: Sequence[Prefix], max_len: int, banned: Sequence[int] = ()) -> list[list[int]]:
        found = []
        for prefix in prefixes:
            rng = np.random.default_rng(zlib.crc32(f"{self.about.name} {prefix.source} {prefix.written}".encode()))
            allowed = sorted({*range(1, TOKENIZER.vocab_size)} - {*banned})
            found.append([*rng.choice(allowed, size=max_len - 1).tolist(), EOS_ID])
        return found


@pytest.fixture(scope="module")
def teachers() -> list[TeacherHelper]:
    said: list[tuple[str, Any, float]] = [("small", HashTeacher(2), 1.0), ("large", HashTeacher(1), 4.0)]
    return [TeacherHelper(name, teacher, TOKENIZER, price) for name, teacher, price in said]


def used(answers: Sequence[HelpedAnswer], name: str) -> int:
    """Words with a token of a helper, counted from tokens and their writers."""
    return sum(len({word for word, by in zip(a.words, a.by, strict=True) if by == name and word >= 0}) for a in answers)


def cost(answers: Sequence[HelpedAnswer], helpers: Sequence[Helper]) -> float:
    ends = Counter(a.by[-1] for a in answers if a.tokens[-1:] == ("</s>",))
    return sum(helper.price * (used(answers, helper.name) + ends[helper.name]) for helper in helpers)


def test_without_helpers_it_writes_what_the_student_does(student: Student) -> None:
    answers = HelpedWriter(student, [])(TEXTS)
    alone = list(replace(student, teacher=None).stream(TEXTS))
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in alone]
    assert len({answer.text for answer in answers}) > 3 and not any(answer.share for answer in answers)


def test_an_answer_does_not_depend_on_those_beside_it(student: Student, teachers: list[TeacherHelper]) -> None:
    writer = HelpedWriter(student, [make_calculator(), *teachers], nats=[0, 0.3, 0.6])
    together = writer(TEXTS * 3)  # five batches
    assert [a.by for a in together[: len(TEXTS)]] == [a.by for a in together[-len(TEXTS) :]]
    assert len({name for answer in together for name in answer.by}) > 1
    for text, answer in zip(TEXTS[:3], together, strict=False):
        (alone,) = writer([text])
        assert (alone.tokens, alone.by) == (answer.tokens, answer.by)


BUDGETS = [
    [Budget("small", share=0.3), Budget("large", share=0.2)],
    [Budget("cost", share=0.7)],
    [Budget("small", words=1), Budget("cost", share=3.0)],
    [Budget("small", share=0.0), Budget("large", words=2)],
    [Budget("large", share=0.5), Budget("small", share=0.4), Budget("cost", share=1.2)],
]


@pytest.mark.parametrize("account", ["output", "document"])
@pytest.mark.parametrize("budgets", BUDGETS)
def test_no_finished_output_is_over_a_budget_however_eager_the_gate(
    student: Student, teachers: list[TeacherHelper], budgets: list[Budget], account: Any
) -> None:
    def eager(features: np.ndarray, begun: Sequence[Begun]) -> np.ndarray:
        return np.array([[1 + len(one.written) % 2, 1 + len(one.written) % 3] for one in begun], float)

    writer = HelpedWriter(student, teachers, budgets, savings=eager, nats=[EAGER, EAGER])
    answers = list(writer.stream(TEXTS * 3, account=account))
    groups = [answers] if account == "document" else [[answer] for answer in answers]
    for budget in budgets:
        for group in groups:
            length = sum(answer.length for answer in group)
            if budget.share is None:
                continue
            if budget.name == "cost":
                assert cost(group, teachers) <= budget.share * length + 1e-6
            else:
                assert used(group, budget.name) <= budget.share * length + 1e-6
        if budget.words is not None:
            assert all(used([answer], budget.name) <= budget.words for answer in answers)
    assert sum(answer.helped for answer in answers) > 10
    for answer in answers:
        assert answer.used == tuple(used([answer], helper.name) for helper in teachers)
        assert answer.cost == pytest.approx(cost([answer], teachers))
        assert " ".join(word for word, _ in answer.word_writers).split() == answer.text.split()
    if account == "document":
        if all(budget.words is None for budget in budgets):  # what easy texts leave is spent on others
            bound = {b.name: b.share for b in budgets if b.share}
            assert any(
                cost([a], teachers) > bound.get("cost", np.inf) * a.length + 1e-6
                or any(used([a], n) > s * a.length + 1e-6 for n, s in bound.items() if n != "cost")
                for a in answers
            )
        assert writer.total.words == sum(answer.length for answer in answers)
        assert writer.total.cost == pytest.approx(cost(answers, teachers))


def test_what_is_not_guarded_goes_over(student: Student, teachers: list[TeacherHelper]) -> None:
    given: dict[str, Any] = {"nats": [NEVER, EAGER], "guard": False}
    answers = HelpedWriter(student, teachers, [Budget("large", share=0.1)], **given)(TEXTS)
    assert used(answers, "large") > 0.5 * sum(answer.length for answer in answers)


def test_a_higher_price_is_paid_for_fewer_words_and_an_infinite_one_for_none(
    student: Student, teachers: list[TeacherHelper]
) -> None:
    prices = (EAGER, 0.0, 4.0, 8.0, 16.0, NEVER)
    words = [used(HelpedWriter(student, teachers[1:], nats=[price])(TEXTS * 3), "large") for price in prices]
    assert words[0] == max(words) > words[3] > words[-1] == 0, words


def test_of_two_helpers_the_one_is_asked_whose_saving_most_exceeds_its_price(student: Student) -> None:
    asked: list[tuple[str, Begun]] = []

    def helper(name: str, declines: bool = False) -> Helper:
        def say(source: str, written: str) -> str | None:
            return None if declines or len(written.split()) > 4 else {"a": "anna", "b": "ben", "c": "pens"}[name]

        made = FunctionHelper(name, say, exact=False)

        class Heard:
            name, price, exact = made.name, made.price, made.exact

            def suggest(self, begun: Sequence[Begun]) -> list[Suggestion | None]:
                asked.extend((self.name, one) for one in begun)
                return made.suggest(begun)

        return Heard()

    def savings(features: np.ndarray, begun: Sequence[Begun]) -> np.ndarray:
        even = np.array([len(one.written_text.split()) % 2 == 0 for one in begun])
        return np.stack([np.where(even, 3.0, 1.0), np.full(len(begun), 2.5), np.full(len(begun), 9.0)], axis=1)

    # Less their prices: 3 or 1, 2 and 2.5; the last declines.
    writer = HelpedWriter(student, [helper("a"), helper("b"), helper("c", True)], savings=savings, nats=[0, 0.5, 6.5])
    (answer,) = writer(["5 + 8"])
    written = [name for _, name in answer.word_writers][:5]
    assert written == ["a", "b", "a", "b", "a"] and answer.text.startswith("anna ben anna ben anna")
    for name, one in asked:
        count = len(one.written_text.split())
        assert name != "a" or count % 2 == 0 or count > 4  # b, which is worth more, was not passed over
    order = [name for name, one in asked if len(one.written_text.split()) == 1]
    assert order == ["c", "b"]  # the best declined, so the next best was asked
    (none,) = HelpedWriter(student, [helper("a")], savings=lambda f, b: np.zeros((len(b), 1)), nats=[0.0])(["5 + 8"])
    assert not none.helped  # what saves nothing is not asked for


def test_a_calculator_is_heard_first_whatever_the_gate_says(student: Student, teachers: list[TeacherHelper]) -> None:
    def start(source: str, written: str) -> str | None:
        return "34 - 17 =" if not written else None

    tools = [FunctionHelper("start", start), make_calculator(0.5)]
    (answer,) = HelpedWriter(student, [teachers[1], *tools], nats=[NEVER] * 3)(["anna"])
    assert answer.text.startswith("34 - 17 = 17")
    assert [name for _, name in answer.word_writers][:5] == ["start"] * 4 + ["calculator"]
    assert answer.used == (0, 4, 1) and answer.cost == 0.5 and answer.calls == 2
    assert "⟦34 - 17 = 17⟧" in answer.marked or "⟦34 - 17 = 17" in answer.marked
    found = answer.to_json()
    assert found["helpers"] == {"large": 0, "start": 4, "calculator": 1} and found["cost"] == 0.5
    (none,) = HelpedWriter(student, tools, [Budget("start", words=3)])(["anna"])
    assert not none.helped  # four words are more than three: none of them is written


def test_a_word_of_a_tool_is_over_when_it_is_written(student: Student) -> None:
    """A student that would go on with its digits begins another word instead, or writes punctuation, or ends."""
    eager = replace(student, model=saved(0, 8, spaced=-2.0))
    (alone,) = HelpedWriter(eager, [])(["anna"])
    assert max(map(len, alone.text.split())) > 8
    tool = FunctionHelper("tool", lambda source, written: None if written else "34")
    (answer,) = HelpedWriter(eager, [tool, make_calculator()])(["anna"])
    assert answer.tokens[:3] == (SPACE, "3", "4") and not answer.tokens[3][0].isalnum(), answer.tokens


def test_a_teacher_that_cannot_be_reached_leaves_the_student_alone(student: Student) -> None:
    class Gone(HashTeacher):
        def generate(self, *_: Any) -> list[list[int]]:
            raise TeacherUnavailable("gone")

    gone: Any = Gone(0)
    helper = TeacherHelper("gone", gone, TOKENIZER)
    answers = HelpedWriter(student, [helper], nats=[EAGER])(TEXTS)
    assert [a.tokens for a in answers] == [a.tokens for a in HelpedWriter(student, [])(TEXTS)]
    assert helper.unanswered > 5  # once for each output at the least
    gone.about = replace(gone.about, vocabulary="another")
    with pytest.raises(UserError, match="another vocabulary"):
        TeacherHelper("x", gone, TOKENIZER)


def test_the_command_line_waits_for_a_helper_as_long_as_it_is_told_and_says_where_it_was_gone(
    student: Student, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, closed = [], []

    class Gone(HashTeacher):
        def generate(self, *_: Any) -> list[list[int]]:
            raise TeacherUnavailable("gone")

        def close(self) -> None:
            closed.append(self)

    def opens(where: str, *, tokenizer: Any, patience: Any) -> Any:
        opened.append((where, patience.timeout_s))
        return Gone(0)

    monkeypatch.setattr("kdtw_jax.cli.write.load", lambda *_, **__: student)
    monkeypatch.setattr("kdtw_jax.teachers.named.open_teacher", opens)
    there = ["--helper", "t=http://127.0.0.1:9", "--nats-per-cost", "0", "--teacher-timeout", "0.25"]
    assert main(["write", "run", *there, "--text", *TEXTS[:5]]) == 0
    found = capsys.readouterr().err
    assert opened == [("http://127.0.0.1:9", 0.25)] and len(closed) == 1
    assert "t did not answer " in found and " times" in found, found


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([Suggestion(tokens=(2,))], "suggests tokens that are never written"),
        ([Suggestion(tokens=(10**6,))], "suggests tokens that are never written"),
        ([], "gave 0 answers to 1 outputs"),
    ],
)
def test_what_can_never_be_written_is_refused(student: Student, said: list[Any], message: str) -> None:
    class Odd:
        name, price, exact = "odd", 0.0, True

        def suggest(self, begun: Sequence[Begun]) -> list[Any]:
            return said

    with pytest.raises(UserError, match=message):
        HelpedWriter(student, [Odd()])(["anna"])


def test_a_text_that_the_vocabulary_cannot_say_counts_as_declined(student: Student) -> None:
    helper = FunctionHelper("odd", lambda source, written: "\u0416" if not written else None)
    assert not HelpedWriter(student, [helper])(["anna"])[0].helped
    anna = TOKENIZER.encode_target("anna")
    ids = tokens_of_text(TOKENIZER, anna, "anna", "had 46")
    assert TOKENIZER.decode([*anna, *ids]) == "anna had 46" and EOS_ID not in ids
    assert tokens_of_text(TOKENIZER, anna, "anna", "\u0416") == ()


def test_who_has_no_gate_may_have_tools_and_no_teachers(student: Student, teachers: list[TeacherHelper]) -> None:
    plain = replace(student, model=saved(0), teacher=None, constraints=())
    assert HelpedWriter(plain, [make_calculator()])(["anna"])[0].text
    with pytest.raises(UserError, match="has no gate"):
        HelpedWriter(plain, teachers)
    with pytest.raises(UserError, match="knows no rules on a share of the words"):
        HelpedWriter(replace(student, constraints=()), teachers, [Budget("large", share=0.1)])
    with pytest.raises(UserError, match="a number for each of the 2 helpers"):
        HelpedWriter(student, teachers, nats=[1.0])


def test_the_command_line_has_a_helper_of_a_users_own(
    student: Student, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kdtw_jax.cli.write.load", lambda *_, **__: student)
    own = ["--helper", "tests.own_helper:make_echo:price=2", "--helper", "calculator"]
    assert main(["write", "run", *own, "--budget", "echo=1", "--json", "--text", "anna had", "ben took"]) == 0
    found = capsys.readouterr()
    first, second = map(json.loads, found.out.splitlines())
    assert first["by_word"][0] == ["anna", "echo"] and second["by_word"][0] == ["ben", "echo"]
    assert first["helpers"] == {"echo": 1, "calculator": 0} and first["cost"] == 2
    assert "helpers wrote: echo 2" in found.err and "the teacher wrote" not in found.err
    assert main(["write", "run", *own, "--text", "anna had"]) == 0
    assert capsys.readouterr().out.startswith("⟦anna⟧") or "⟦anna" in found.out
    for words, message in (
        (["--budget", "a=1"], "--budget and --nats-per-cost are about helpers"),
        ([*own, "--rule", "never ask"], "--rule does not go with --helper"),
        ([*own, "--teacher", "http://x"], "--teacher does not go with --helper"),
        ([*own, "--budget", "calculator=x"], "--budget takes a share of the words"),
        ([*own[2:], "--budget", "other=3"], "a budget is of 'other'; helpers are calculator"),
        ([*own, "--nats-per-cost", "-1"], "nats-per-cost is a number from 0 up"),
        (["--helper", "nobody"], "unknown helper 'nobody'"),
    ):
        assert main(["write", "run", *words, "--text", "anna"]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and message in said.err, said.err
