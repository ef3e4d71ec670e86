"""Everything about a student that may ask, on networks of random weights."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from kdtw_jax.constraints import make_calls, parse_rule
from kdtw_jax.decoding.gates import GATES, compared_gates, is_oracle
from kdtw_jax.decoding.utility import nearness
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.ahead import PARTS, concentration, level_of_part
from kdtw_jax.evaluation.asking import evaluate_asking
from kdtw_jax.evaluation.asking_figure import asking_figure
from kdtw_jax.evaluation.cells import Texts
from kdtw_jax.evaluation.decoder import make_decoder
from kdtw_jax.evaluation.phrasings import further_rules, make_phrasings
from kdtw_jax.evaluation.rows import spaced_pairs
from kdtw_jax.pipeline.ask_report import COLUMNS, WHERE_COLUMNS, summarise_asking
from kdtw_jax.training.foresight import label_states, train_foresight
from tests.asking import (
    BUCKETS,
    DATA,
    DECODER,
    KNOWN,
    PHRASINGS,
    SHARE,
    STUDENT,
    TEACHER,
    WORLD,
    decoder,
    endless,
    network,
)
from tests.pictures import colours


def test_further_rules_name_every_other_constraint_and_its_conjunction_with_the_share() -> None:
    found = further_rules(KNOWN, PHRASINGS)
    assert [(said.share, said.phrasing, said.others[0]) for said in found] == [
        *((None, phrasing, (0, budget)) for phrasing in ("seen", "unseen") for budget in (1.0, 3.0, 6.0, 9.0)),
        (0.2, "seen", (0, 6.0)),
    ]
    rule = parse_rule(found[-1].rule, KNOWN)
    assert [c.name for c in rule.constraints] == ["share", "calls"] and float(rule.budgets[1]) == 6
    assert not further_rules((SHARE,), PHRASINGS)


def test_a_student_none_of_whose_outputs_end_is_judged_all_the_same(tmp_path: Any) -> None:
    few = spaced_pairs(DATA, 3)
    references = [WORLD.tokenizer.decode(few.targets[i].tolist()) for i in range(len(few))]
    settings: dict[str, Any] = {"alpha": 1.0, "sampled_gate": False, "sampled_tokens": False, "seed": 0}
    found = evaluate_asking(
        "toy", make_decoder(STUDENT, TEACHER, endless(), KNOWN, **settings), PHRASINGS,
        Texts(few, references, references, ("bleu",)), spaced_pairs(few, 1), WORLD.data.targets.values, BUCKETS,
        held_out=(), twin=None, resamples=5,
    )  # fmt: skip
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {r["unfinished"] for r in (*found["rows"], *found["rules"])} == {1.0}
    asking_figure(found["rows"], "bleu", {}, found["equal_use"]["bleu"], tmp_path / "asking.png")


def test_a_student_that_does_not_know_the_share_or_has_no_gate_is_refused() -> None:
    with pytest.raises(UserError, match="judged on the constraint 'share'"):
        make_phrasings((make_calls(),), WORLD.tokenizer.encode, 40)
    with pytest.raises(UserError, match="no gate to judge"):
        decoder(network(0))


def test_everything_about_a_student_is_plain_values_in_the_columns_of_the_tables(tmp_path: Any) -> None:
    references = [WORLD.tokenizer.decode(DATA.targets[i].tolist()) for i in range(len(DATA))]
    test = Texts(DATA, references, references, ("bleu", "chrf"))
    tokens = WORLD.data.targets.values
    found = evaluate_asking(
        "toy", DECODER, PHRASINGS, test, spaced_pairs(DATA, 16), tokens, BUCKETS,
        held_out=(0.15, 0.25), twin=references, resamples=20,
    )  # fmt: skip
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {*COLUMNS[:4], *found["rows"][0]} == set(COLUMNS)
    assert {*WHERE_COLUMNS[:4], *found["where"][0]} == set(WHERE_COLUMNS)
    learned = [r for r in found["rows"] if r["gate"] == "learned" and r["metric"] == "bleu"]
    assert len(learned) == 4 * 9 and len(found["rows"]) == 2 * (4 * 9 + 5 * 7)
    assert {r["asked"] for r in learned if not r["budget_seen"]} == {0.15, 0.25}
    for r in found["rows"]:
        assert r["low"] <= r["value"] <= r["high"]
        assert r["calls"] == pytest.approx(r["used"])
        assert r["used"] - 1e-6 <= r["positions"] <= 1
        assert r["guard"] == 0 or r["used"] <= r["asked"] + 1e-6
        assert 0 <= r["unfinished"] <= 1
        if r["asked"] == 0 and r["gate"] != "learned":
            assert r["used"] == 0 and r["value"] == found["alone"][r["metric"]]
    assert found["no_harm"]["bleu"]["value"] < 0
    assert sum(g["states"] for g in found["where"] if g["kind"] == "position") == sum(
        g["states"] for g in found["where"] if g["kind"] == "kl_decile"
    )
    pooled = summarise_asking([found, found], test.metrics)
    harm = found["no_harm"]["bleu"]
    assert pooled["no_harm"]["bleu"] == pytest.approx({k: harm[k] for k in ("value", "low", "high")}, abs=1e-4)
    assert pooled["equal_use"]["bleu"]["mean_quality"] == pytest.approx(found["equal_use"]["bleu"]["mean_quality"])
    assert all(group["outputs_over"] == 0 for group in pooled["obedience"] if group["guard"])
    assert len(found["rules"]) == 2 * 9
    for kept in found["rules"]:
        assert kept["outputs"] == len(DATA) and (kept["outputs_over"] == 0 or not kept["guard"])
    compared = found["equal_use"]["bleu"]
    asking_figure(found["rows"], "bleu", {"teacher": 30.0}, compared, tmp_path / "asking.png")
    assert {GATES[gate].color for gate in compared_gates()} <= colours(tmp_path / "asking.png")
    without = [r for r in found["rows"] if r["gate"] != "oracle_kl"]
    del compared["learned_minus"]["oracle_kl"]
    asking_figure(without, "bleu", {"teacher": 30.0}, compared, tmp_path / "less.png")
    assert GATES["oracle_kl"].color not in colours(tmp_path / "less.png")


def test_oracles_that_look_ahead_are_judged_beside_the_others_where_that_is_wanted() -> None:
    few = spaced_pairs(DATA, 12)
    references = [WORLD.tokenizer.decode(few.targets[i].tolist()) for i in range(len(few))]
    names = compared_gates(ahead=True)
    labels = label_states(STUDENT, TEACHER, few, BUCKETS, nearness, banned=WORLD.banned, seed=0)
    foresight = train_foresight(labels, WORLD.tokenizer.vocab_size, seed=0, steps=5)
    ahead = decoder(gates=names, foresight=foresight)
    found = evaluate_asking(
        "toy", DECODER, PHRASINGS, Texts(few, references, references, ("chrf",)), spaced_pairs(few, 4),
        WORLD.data.targets.values, BUCKETS, held_out=(), twin=None, resamples=5, ahead=ahead,
    )  # fmt: skip
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    oracles = [name for name in names if is_oracle(name)]
    assert found["ahead"].keys() == set(oracles) and set(names) == {*oracles, "drafts", "foresight"}
    assert not set(oracles) & {*found["levels"], *compared_gates()}
    for name in ("drafts", "foresight"):
        rows = [row for row in found["rows"] if row["gate"] == name]
        assert [row["asked"] for row in rows] == [0.0, *map(float, found["levels"][name])]
    for name in oracles:
        rows = [row for row in found["rows"] if row["gate"] == name]
        assert [row["asked"] for row in rows] == [0.0, *PARTS]
        assert [row["used"] for row in rows] == sorted(row["used"] for row in rows) and rows[-1]["used"] > 0
        assert rows[0]["value"] == found["alone"]["chrf"] and rows[0]["used"] == 0
        held = found["ahead"][name]["held"]
        assert held.keys() == {
            name,
            "drafts",
            "foresight",
            "learned",
            "entropy",
            "max_prob",
            "oracle_kl",
            "oracle_regret",
        }
        assert all(held[name][share] >= other[share] for other in held.values() for share in other)
    assert found["equal_use"]["chrf"]["ceiling"] in {*oracles, "oracle_regret"}


def test_what_the_best_states_hold_by_hand() -> None:
    worth = np.array([0.0, 6.0, -2.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    scores = {"own": worth, "other": np.arange(10.0)[::-1]}
    found = concentration(worth, scores)
    assert (found["states"], found["helps"], found["harms"]) == (10, 0.3, 0.1)
    assert found["held"]["own"] == {"0.02": 0.6, "0.05": 0.6, "0.1": 0.6, "0.2": 0.9, "0.3": 1.0}
    assert found["held"]["other"] == {"0.02": 0.0, "0.05": 0.0, "0.1": 0.0, "0.2": 0.6, "0.3": 0.4}
    assert concentration(-abs(worth), scores)["held"] == {}
    assert [level_of_part(worth, part) for part in (0.3, 0.5, 1.0)] == [3.0, 3.0, 0.0]
    assert level_of_part(-abs(worth), 0.5) == 0.0
