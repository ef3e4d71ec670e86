"""What helpers are worth, measured and told; models that read along write as helpers that are asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdtw_jax.cli.write_helped import helped_writer
from kdtw_jax.errors import UserError
from kdtw_jax.helpers import Budget, FunctionHelper, HelpedWriter, Limits, limits_of
from kdtw_jax.helpers.along import Along
from kdtw_jax.helpers.measure import AlongWriter, measure_worth, word_gains
from kdtw_jax.helpers.steps import feature_count
from kdtw_jax.helpers.worth import Worth, check_worth, fit_worth, measured, read_worth, write_worth
from kdtw_jax.student import Student
from kdtw_jax.training.identity import model_hash
from tests.test_helpers_writing import TEXTS, TOKENIZER, GreedyHelper, HashTeacher, saved
from tests.test_helpers_writing import student as student  # the fixture

NAMES = ("cheap", "dear")


def drawn(states: int = 600, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, gains that are linear in them but for noise, the text of each state, and what is linear."""
    rng = np.random.default_rng(0)
    features, weight = 3 + 2 * rng.normal(size=(states, 4)), np.array([[1.0, 0], [0, 2.0], [0.5, 0], [0, 0]])
    clean = features @ weight - 4
    return features, clean + noise * rng.normal(size=clean.shape), np.arange(states) // 6, clean


def test_what_is_linear_in_the_features_is_told_up_to_its_noise() -> None:
    features, gain, texts, clean = drawn()
    worth = fit_worth(NAMES, features, gain, texts, 500)
    assert np.abs(worth(features) - clean).max() < 0.3 and min(worth.told.values()) > 0.9
    assert worth.states_per_word == pytest.approx(1.2)
    turned = worth.of(("dear", "cheap"))
    np.testing.assert_allclose(turned(features), worth(features)[:, ::-1])
    with pytest.raises(UserError, match="what nobody is worth was not measured; measured are cheap, dear"):
        worth.of(("nobody",))
    with pytest.raises(UserError, match="too few to measure"):
        fit_worth(NAMES, features[:20], gain[:20], texts[:20], 10)
    for text in (0, 1):  # everything is held out, or nothing
        with pytest.raises(UserError, match="every fifth is held out; give at least 6"):
            fit_worth(NAMES, features, gain, np.full_like(texts, text), 500)


@pytest.mark.parametrize(
    ("shares", "cost"),
    [((0.2, 0.1), None), ((None, 0.1), None), ((None, None), 0.5), ((0.3, None), 0.8), ((None, None), None)],
)
def test_prices_keep_each_budget_on_the_sample_and_those_that_bind_to_their_ends(
    shares: tuple[float | None, ...], cost: float | None
) -> None:
    features, gain, texts, _ = drawn()
    worth = fit_worth(NAMES, features, gain, texts, 500)
    limits = Limits((1.0, 4.0), shares, (None, None), cost)
    nats = worth.nats(limits)
    score = worth.sample_NxK - nats
    choice = np.where(score.max(axis=1) > 0, score.argmax(axis=1), -1)
    per_word = np.array([(choice == k).mean() for k in range(2)]) * worth.states_per_word
    used = [*per_word, per_word @ [1.0, 4.0]]
    bounds = [np.inf if bound is None else bound for bound in (*shares, cost)]
    assert all(use <= bound + 0.03 for use, bound in zip(used, bounds, strict=True)), (used, bounds)
    if cost is None and None in shares and shares[1] is None:
        assert (nats == 0).all()
    else:  # something binds
        assert any(abs(use - bound) < 0.03 for use, bound in zip(used, bounds, strict=True)), (used, bounds)
        assert (nats >= 0).all() and nats.max() > 0.1


def test_what_was_measured_is_read_again_and_refused_where_it_is_damaged(tmp_path: Path) -> None:
    features, gain, texts, _ = drawn()
    worth = replace(fit_worth(NAMES, features, gain, texts, 500), models={"student": "ab", "cheap": "", "dear": "cd"})
    write_worth(tmp_path, worth, {"texts": 100})
    again = read_worth(tmp_path)
    np.testing.assert_array_equal(again(features), worth(features))
    assert (again.helpers, again.told, again.states_per_word) == (NAMES, worth.told, worth.states_per_word)
    text = (tmp_path / "helpers.json").read_text()
    older = text.replace('"measured": "words"', '"texts": 12')
    (tmp_path / "helpers.json").write_text(older)
    with pytest.raises(UserError, match="was not measured by words, as it is now; measure again"):
        read_worth(tmp_path)
    assert older != text
    for damage in ('{"measured": "words"}', text.replace('"dear"', '"dear", "third"', 1), "["):
        (tmp_path / "helpers.json").write_text(damage)
        with pytest.raises(UserError, match=r"damaged|JSON"):
            read_worth(tmp_path)
    (tmp_path / "helpers.json").write_text(text)
    for name, value in {"sample_NxK": np.zeros(2), "scale_F": np.ones(3), "bias_K": np.zeros(1)}.items():
        write_worth(tmp_path, replace(worth, **{name: value}), {})  # type: ignore[arg-type]
        with pytest.raises(UserError, match="shapes or numbers do not fit"):
            read_worth(tmp_path)
    with pytest.raises(UserError, match="has no measured helpers"):
        read_worth(tmp_path / "none")


def test_what_was_measured_with_other_models_is_refused(tmp_path: Path) -> None:
    features, gain, texts, _ = drawn()
    worth = replace(fit_worth(NAMES, features, gain, texts, 500), models={"student": "ab", "cheap": "", "dear": "cd"})
    write_worth(tmp_path, worth, {})
    again = read_worth(tmp_path)
    assert again.models == worth.models == again.of(("dear",)).models
    for models in ({}, {"student": "ab", "cheap": "x", "dear": "cd"}, {"dear": "", "tool": "y"}):
        check_worth(again, 4, models)
    for name, advice in (("dear", "; measure again, or give this one another name"), ("student", "; measure again$")):
        with pytest.raises(UserError, match=f"measured with another model as {name} .*{advice}"):
            check_worth(again, 4, {name: "other"})
    with pytest.raises(UserError, match="measured with 4 features, not 5"):
        check_worth(again, 5, {})


def test_the_command_line_uses_what_was_measured_with_these_models_alone(
    student: Student, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kdtw_jax.teachers.named.open_teacher", lambda *_, **__: HashTeacher(1))
    size = feature_count(student.model.model)
    told: Any = (np.zeros(size), np.ones(size), np.zeros((size, 1)), np.ones(1), np.zeros((9, 1)), 1.0, {"t": 0.5})
    for models in ({"student": model_hash(student.model.model, student.model.params)}, {"student": "other"}):
        write_worth(tmp_path, Worth(("t",), *told, models), {})
        if models["student"] == "other":
            with pytest.raises(UserError, match="with another model as student"):
                helped_writer(student, tmp_path, ("t=x",), (), None, guard=True)
        else:
            assert helped_writer(student, tmp_path, ("t=x",), (), None, guard=True).helpers[0].name == "t"


def test_exact_helpers_need_no_measure_and_keep_their_places() -> None:
    features, gain, texts, _ = drawn()
    worth = fit_worth(NAMES, features, gain, texts, 500)
    tool = FunctionHelper("tool", lambda *_: None)
    dear = FunctionHelper("dear", lambda *_: None, 4.0, exact=False)
    told, nats = measured(worth, [tool, dear], limits_of([tool, dear], [Budget("cost", share=0.4)]))
    np.testing.assert_allclose(told(features)[:, 1], worth(features)[:, 1])
    assert (told(features)[:, 0] == 0).all() and nats[0] == 0 < nats[1]
    with pytest.raises(UserError, match="what other is worth was not measured"):
        measured(worth, [FunctionHelper("other", lambda *_: None, exact=False)], limits_of([], []))


def test_models_that_read_along_write_what_they_do_when_they_are_asked(student: Student) -> None:
    """The same words and writers, whoever decides; the gain is the judge's; and measuring finds states of it."""
    models = {name: saved(seed) for name, seed in zip(NAMES, (2, 1), strict=True)}
    writer = AlongWriter(student, models)
    size, rng = feature_count(student.model.model), np.random.default_rng(0)
    weight, bias = 0.3 * rng.normal(size=(size, 2)), np.array([0.2, -0.1])
    told: Any = ({}, np.zeros(size), np.ones(size), weight, bias, np.zeros((1, 2)), 1.0, {})
    worth = Worth(NAMES, *told[1:])
    helpers = [GreedyHelper(name, model) for name, model in models.items()]
    asked = HelpedWriter(student, helpers, savings=worth, nats=[0.5, 0.0])(TEXTS[:-1])
    ((numbers, along),) = writer.write(TEXTS, writer.decision(worth, [0.5, 0.0]))
    assert sorted(numbers) == list(range(len(TEXTS) - 1))  # shorter sources first
    names = {-1: "student", 0: "cheap", 1: "dear"}
    for row, answer in enumerate(asked[n] for n in numbers):
        mask: Any = np.asarray(along.mask_BxT[row])
        assert tuple(TOKENIZER.pieces[t] for t in along.tokens_BxT[row][mask]) == answer.tokens
        assert tuple(names[k] for k in along.writer_BxT[row][mask].tolist()) == answer.by
    assert {name for answer in asked for name in answer.by} == set(names.values())
    gain = along.gain_BxTxK[along.mask_BxT]
    assert (gain[:, 1] >= 0).all() and gain.min() < 0 and np.abs(gain).max() <= 10  # the judge's own word is the best
    ((_, oracle),) = writer.write(TEXTS, writer.decision(None, [1e6, 0.5], oracle=True))
    first = oracle.begins_BxT & oracle.mask_BxT
    np.testing.assert_array_equal(oracle.writer_BxT[first] == 1, oracle.gain_BxTxK[first][:, 1] > 0.5)
    found = measure_worth(writer, TEXTS * 12)
    assert list(found.models) == ["student", *NAMES] and len(set(found.models.values())) == 3
    assert found.models["dear"] == model_hash(models["dear"].model, models["dear"].params)
    assert found.helpers == NAMES and 1.0 <= found.states_per_word < 2.0


def test_a_word_is_worth_what_its_first_token_is_that_asking_would_write_otherwise(student: Student) -> None:
    """As a writer writes whose helper begins a word there: the first token of its own that is not the student's."""
    models = {name: saved(seed) for name, seed in zip(NAMES, (2, 1), strict=True)}
    writer, marks = AlongWriter(student, models), TOKENIZER.words
    ((_, alone),) = writer.write(TEXTS, writer.decision(None, [1e6, 1e6]))
    worth_BxTxK, begins_BxT = word_gains(alone), np.asarray(alone.begins_BxT & alone.mask_BxT)
    seen = set()
    for row, start in zip(*np.nonzero(begins_BxT), strict=True):
        tokens = alone.tokens_BxT[row]
        for k in range(len(NAMES)):
            for t in range(start, int(alone.mask_BxT[row].sum())):
                if t > start and not alone.runs_BxTxK[row, t, k]:  # the helper's word is over, all the same so far
                    assert worth_BxTxK[row, start, k] == 0
                    break
                if alone.gain_BxTxK[row, t, k] != 0:
                    assert worth_BxTxK[row, start, k] == alone.gain_BxTxK[row, t, k]
                    seen.add(t - start)
                    break
            else:
                assert worth_BxTxK[row, start, k] == 0
        last = tokens[start - 1] if start else 0
        # Who has just written a blank piece goes on, whatever comes; nobody runs on into another word.
        assert not marks.blank_V[last] or alone.runs_BxTxK[row, start].all()
    assert seen


def test_nothing_is_credited_that_a_helper_whose_word_is_over_would_not_write() -> None:
    one: Any = [[True] * 4]
    runs = np.array([[True, True, False, True]])[..., None]
    gain = np.array([[0.0, 0.0, 3.0, 5.0]])[..., None]
    along = Along(*(np.zeros((1, 4)),) * 2, np.array(one), np.array(one), np.zeros((1, 4, 1)), gain, runs)  # type: ignore
    np.testing.assert_array_equal(word_gains(along)[0, :, 0], [0.0, 0.0, 3.0, 5.0])
    longer = along._replace(runs_BxTxK=np.array([[True, True, True, True]])[..., None])  # over the student's next word
    np.testing.assert_array_equal(word_gains(longer)[0, :, 0], [3.0, 3.0, 3.0, 5.0])
    ended = longer._replace(mask_BxT=np.array([[True, True, False, False]]))
    np.testing.assert_array_equal(word_gains(ended)[0, :, 0], [0.0, 0.0, 0.0, 0.0])
