"""One budget for many outputs: never overspent, whoever writes on it and in whatever order they finish."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.accounts import KEPT, kept_by
from kdtw_jax import Account
from kdtw_jax.cli import main as kdtw
from kdtw_jax.constraints import Rule, make_calls, make_pause, make_share, make_unit, start_history
from kdtw_jax.decoding import programs
from kdtw_jax.errors import UserError
from kdtw_jax.lines import one_line
from kdtw_jax.methods.ask_config import AskConfig
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.student import Student, load
from kdtw_jax.text.words import WordMarks
from tests.test_writing import RULE, run

__all__ = ["run"]  # a fixture
SHARED = Rule((make_pause(), make_share()), (jnp.float32(1), jnp.float32(0.2)))
TEXTS = [f"number {i} " * (i % 3 + 1) for i in range(75)]


@pytest.fixture(scope="module")
def asking(run: Path) -> Student:
    return load(run)


def finished(calls: list[int], lengths: list[int]) -> Any:
    history = start_history(jnp.ones((len(calls), 1)))
    counts = {"length_B": lengths, "tokens_B": lengths, "calls_B": calls, "helped_B": calls}
    return history._replace(**{name: np.array(count) for name, count in counts.items()})


def test_what_is_saved_is_reserved_once_and_what_is_left_of_it_comes_back() -> None:
    account = Account(RULE)
    first, second = account.reserve(SHARED), account.reserve(SHARED)
    assert first == second == (0.0, 0.0)
    account.settle(SHARED, first, finished([0, 3], [10, 20]))
    assert account.reserve(SHARED) == (0.0, pytest.approx(3.0))  # 30 x 20% less 3 calls; a pause saves nothing
    assert account.reserve(SHARED) == (0.0, 0.0)  # someone has it
    account.settle(SHARED, (0.0, 3.0), None)  # who failed and wrote nothing
    kept = account.reserve(SHARED)
    assert kept == (0.0, pytest.approx(3.0))
    account.settle(SHARED, kept, finished([5], [10]))
    account.settle(SHARED, second, finished([], []))
    assert account.reserve(SHARED) == (0.0, 0.0)
    assert (account.outputs, account.tokens, account.calls, account.share) == (3, 40, 8, 0.2)
    assert "the teacher wrote 8 of 40 tokens in 3 outputs; left: 0.0 of share" in repr(account)


def test_a_share_is_the_number_that_was_said_and_not_the_nearest_of_float32() -> None:
    account, tenths = Account(RULE), Rule((make_share(),), (jnp.float32(0.1),))
    for _ in range(2000):
        account.settle(tenths, (0.0,), finished([1], [10]))
    assert abs(account.reserve(tenths)[0]) < 1e-9
    account.settle(tenths, (0.0,), finished([0], [10**8]))
    assert account.reserve(tenths)[0] == 10**7


def total(answers: Any) -> tuple[int, int]:
    return sum(a.calls for a in answers), sum(len(a.tokens) for a in answers)


def test_a_document_spends_what_its_outputs_save(asking: Student) -> None:
    for percent in (3, 10):
        rule = RULE.replace("20", str(percent))
        single, together, free = (asking(TEXTS, rule, **how) for how in ({}, {"account": "document"}, {"guard": False}))
        calls, tokens = total(together)
        assert total(single)[0] < calls <= 0.01 * percent * tokens + 1e-6 < total(free)[0]
        assert calls > 0.01 * percent * tokens - 2  # nearly all
        assert any(a.calls > 0.01 * percent * len(a.tokens) + 1e-3 for a in together)
        assert all(a.calls <= 0.01 * percent * len(a.tokens) + 1e-3 for a in single)


def test_at_any_time_what_is_finished_is_within_the_account_and_no_output_waits(
    asking: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, taken = Account(RULE), []

    def sources() -> Any:
        for text in TEXTS:
            taken.append(text)
            yield text

    for number, _ in enumerate(asking.stream(sources(), account=account), 1):
        assert len(taken) == min(-(-number // 32) * 32, len(TEXTS))
        assert account.outputs == len(taken) and account.calls <= 0.2 * account.tokens + 1e-6
    spent = account.calls
    for text in TEXTS[:10]:  # one by one they spend what was saved
        asking(text, account=account)
        assert account.calls <= 0.2 * account.tokens + 1e-6
    assert account.calls > spent and account.outputs == len(TEXTS) + 10


def test_threads_share_an_account_and_spend_nothing_twice(asking: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, check, seen = RULE.replace("20", "3"), programs.check_written, []
    account, together = Account(rule), Barrier(5)
    # One that would ask at once, so that it asks whoever comes first.
    texts = [next(text for text in TEXTS if asking(text, rule, guard=False).by_teacher[0])] * 5
    account.settle(Rule((make_share(),), (jnp.float32(0.03),)), (0.0,), finished([0], [50]))  # 1.5 saved

    def wait(*given: Any) -> None:
        check(*given)
        together.wait(60)  # all have reserved, and nobody has settled

    def write(text: str) -> None:
        asking(text, account=account)
        seen.append((account.calls, account.tokens))

    asking(texts[0], account=Account(rule))  # compiled
    free = total(asking(texts, rule, guard=False))[0]
    monkeypatch.setattr(programs, "check_written", wait)
    threads = [Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 5 and account.outputs == 6
    assert all(calls <= 0.03 * tokens + 1e-6 for calls, tokens in seen)
    assert account.calls == 1 < free


def test_who_fails_gives_back_what_was_reserved(asking: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account(RULE)
    asking(TEXTS[:40], account=account)
    before = repr(account)

    def broken(*_: Any) -> None:
        raise UserError("scores are not finite")

    monkeypatch.setattr(programs, "check_written", broken)
    with pytest.raises(UserError, match="not finite"):
        asking(TEXTS[:40], account=account)
    assert repr(account) == before


def test_rows_that_fill_up_a_batch_neither_save_nor_spend(asking: Student) -> None:
    told = 0
    for text in TEXTS[0:10:3]:
        source = np.array([[*asking.model.tokenizer.encode(text), 1]], np.int32)
        params = (asking.model.params, asking.teacher.params)  # type: ignore[union-attr]
        found = []
        for rows, count in ((1, 1), (4, 1), (4, 4)):
            plan = asking._plan(RULE, True, Account(RULE))
            found.append(programs.write_rows(plan, params, np.repeat(source, rows, 0), count))
        np.testing.assert_array_equal(found[0].asked_BxT[0], found[1].asked_BxT[0])
        told += bool((found[0].asked_BxT[0] != found[2].asked_BxT[0]).any())
    assert told  # others in their places would change what is asked for


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s("x", account="document"), "an account is the budget of a rule; give a rule"),
        (lambda s: s("x", RULE, account="all"), 'account is "output", "document", "auto" or an Account, not \'all\''),
        (lambda s: s("x", RULE, guard=False, account="document"), "an account enforces its rule"),
        (lambda s: s("x", "never ask", account=Account(RULE)), f"the account is of the rule '{RULE}', not of 'never"),
    ],
)
def test_accounts_that_make_no_sense_are_refused(asking: Student, call: Callable[[Student], Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        call(asking)


def in_words(student: Student) -> Student:
    """Every third byte begins a word."""
    size = student.model.tokenizer.vocab_size
    marks = WordMarks(np.arange(size) % 3 == 0, np.arange(size) == 0)
    return replace(student, unit=make_unit("word", marks), _programs={})


def test_in_words_answers_accounts_and_the_command_line_count_words(
    asking: Student, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student, account = in_words(asking), Account(RULE)
    assert student.unit.marks is not None
    monkeypatch.setattr("kdtw_jax.cli.write.load", lambda *_, **__: student)
    answers = student(TEXTS[:40], account=account)
    assert any(sum(a.called) < sum(a.by_teacher) for a in answers)
    assert sum(a.helped for a in answers) <= 0.2 * sum(a.length for a in answers) + 1e-6
    assert f"the teacher wrote {answers.helped} of {sum(a.length for a in answers)} words in 40" in repr(account)
    assert account.share == answers.share > 0 and account.calls == answers.calls
    assert account.tokens == sum(len(a.tokens) for a in answers) > sum(a.length for a in answers)
    alone = student(TEXTS[:40], RULE)
    assert all(a.helped <= 0.2 * a.length + 1e-6 for a in alone) and alone.helped > 0
    by_itself = ["--account", "output", "--json"]
    assert kdtw(["write", "run", "--rule", RULE, *by_itself, "--text", *TEXTS[:40]]) == 0
    found = capsys.readouterr()
    assert [json.loads(line) for line in found.out.splitlines()] == [answer.to_json() for answer in alone]
    assert f"the teacher wrote {alone.helped} of {sum(a.length for a in alone)} words (" in found.err
    with pytest.raises(UserError, match="the account counts words, and this student tokens; open another one"):
        asking("x", account=account)


def test_a_student_counts_what_it_was_trained_to_count(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "stages" / "seed0" / "ask.config.json").write_text(json.dumps({"ask": {"unit": "word"}}))
    assert (load(run).unit.name, load(folder).unit.name) == ("token", "word")
    assert load(folder).unit.marks is not None


def test_a_run_that_does_not_say_what_it_counts_counts_tokens(run: Path, tmp_path: Path) -> None:
    """It is older than words, which are the default since."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    said = folder / "stages" / "seed0" / "ask.config.json"
    for config, unit in (({"gate_width": 8}, "token"), ({"gate_width": 8, "unit": "4"}, "4")):
        said.write_text(json.dumps({"ask": config}))
        assert restore(folder)[1].settings["ask"].unit == unit  # type: ignore[attr-defined]
    said.write_text(json.dumps({"ask": {"gate_width": 8}}))
    assert AskConfig().unit == "word" and restore(folder)[1].settings["ask"].unit == "token"  # type: ignore[attr-defined]


def test_a_rule_that_nothing_repays_has_no_account(asking: Student) -> None:
    knows = replace(asking, constraints=(make_calls(), make_pause()), _programs={})
    with pytest.raises(UserError, match='this one is on "calls" and "pause": leave the account out'):
        knows("x", "at most 3 calls to the teacher; pause for 2 words after each call", account="document")


def test_the_command_line_keeps_a_rule_over_all_lines(
    asking: Student, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kdtw_jax.cli.write.load", lambda *_, **__: asking)
    arguments = ["write", "run", "--rule", RULE]
    assert kdtw([*arguments, "--text", *TEXTS[:40]]) == 0
    found = capsys.readouterr()
    assert kdtw([*arguments, "--account", "document", "--text", *TEXTS[:40]]) == 0
    assert capsys.readouterr() == found
    together = asking(TEXTS[:40], RULE, account="document")
    assert found.out == "".join(f"{one_line(answer.marked, None, {})}\n" for answer in together)
    assert any(answer.share > 0.2 for answer in together)
    assert f"the teacher wrote {together.calls} of" in found.err
    for text in TEXTS[:8]:  # one text has nobody to share with, and asks ahead by its draft
        assert kdtw([*arguments, "--text", text]) == 0
        assert capsys.readouterr().out == f"{one_line(asking(text, RULE).marked, None, {})}\n"


def test_what_is_shared_where_it_can_be_is_else_kept_in_every_output(asking: Student) -> None:
    knows = replace(asking, constraints=(*asking.constraints, make_calls()), _programs={})
    for rule, together in ((RULE, "document"), ("at most 2 calls to the teacher", "output")):
        found = [answer.to_json() for answer in knows(TEXTS[:40], rule, account="auto")]
        assert found == [answer.to_json() for answer in knows(TEXTS[:40], rule, account=together)]  # type: ignore[call-overload]
    for rule, guard in ((None, True), (RULE, False)):
        found = [answer.to_json() for answer in knows(TEXTS[:40], rule, guard=guard, account="auto")]
        assert found == [answer.to_json() for answer in knows(TEXTS[:40], rule, guard=guard)]


def test_what_enforcing_costs_is_measured_by_who_keeps_the_share(asking: Student) -> None:
    pairs = [(text, text) for text in TEXTS[:40]]
    rows = list(kept_by(asking, pairs, ["chrf", "exact_match"], [0.1, 0.3]))
    assert [(row["asked"], row["account"], row["metric"]) for row in rows] == [
        (share, account, metric) for share in (0.1, 0.3) for account in KEPT for metric in ("chrf", "exact_match")
    ]
    for share in (0.1, 0.3):
        free, alone, together = (row for row in rows if row["asked"] == share and row["metric"] == "chrf")
        assert alone["over"] == 0 < together["over"]  # type: ignore[operator]
        assert alone["used"] < together["used"] <= share + 1e-6  # type: ignore[operator]
        assert free["outputs"] == 40 and free["unit"] == "token"
