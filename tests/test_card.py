"""The card of an exported model says what is known of it, and nothing that is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kdtw_jax.methods import METHODS
from kdtw_jax.pipeline.card import model_card
from kdtw_jax.pipeline.presets import TINY
from kdtw_jax.runs import write_json


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The files of a run that a card reads."""
    config = replace(TINY, seeds=(3, 4), methods=("pcl", "ask"), teacher_model="hf:someone/large")
    write_json(tmp_path / "config.json", {"task": "translation", **config.identity()})
    for seed in (3, 4):
        for method in config.methods:
            write_json(tmp_path / "stages" / f"seed{seed}" / f"{method}.config.json", config.identity_of(method))
    values = {("teacher", 3): 90.0, ("pcl", 3): 50.0, ("pcl", 4): 60.0, ("ask", 4): 55.0}
    rows = [
        {"method": method, "seed": seed, "metric": metric, "value": value, "low": value - 1, "high": value + 2}
        for (method, seed), value in values.items()
        for metric in ("bleu", "bleu_sampled")
    ]
    rows.append({"method": "pcl", "seed": 4, "metric": "agreement", "value": 0.5, "low": None, "high": None})
    data = {"train_pairs": 1234, "test_pairs": 56, "language": "de"}
    more = {"command": ["kdtw", "train", "--data", "a b"], "commit": "abc", "config": {"eval": {"split": "validation"}}}
    write_json(tmp_path / "results.json", {"rows": rows, "data": data, "signatures": {"bleu": "tok:13a"}, **more})
    return tmp_path


def test_a_students_card_has_its_data_teacher_method_scores_and_command(run: Path) -> None:
    card = model_card(run, "pcl", 4, parameters=1_234_567, dtype="bfloat16")
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["language"], front["license"]) == ("de", "other") and {"pcl", "translation"} <= set(front["tags"])
    for part in ("1.23 M parameters, weights in bfloat16", "cldr (1,234 training pairs)", METHODS["pcl"].describe):
        assert part in card
    assert "| teacher | hf:someone/large |" in card and "`kdtw train --data 'a b'`" in card and "| abc |" in card
    assert "56 validation pairs" in card and "| bleu | 60.0 (59.0 to 62.0) | 90.0 (89.0 to 92.0) |" in card
    assert "sampled" not in card and "agreement" not in card and "50.0" not in card and "tok:13a" in card
    assert "It does not ask" in card and "licence" in card


def test_one_that_asks_says_under_which_rules_and_that_it_does_not_here(run: Path) -> None:
    card = model_card(run, "ask", 4, parameters=1, dtype="float32")
    assert "these files write alone" in card.replace("\n", " ") and "% of the words" in card
    assert "| bleu | 55.0" in card


def test_what_is_not_known_is_said_so(run: Path) -> None:
    (run / "results.json").unlink()
    for method in ("teacher", "warmup", "pcl"):
        card = model_card(run, method, 3, parameters=1, dtype="float32")
        assert "It has not been evaluated." in card and "not recorded" in card
    assert "| teacher |" not in model_card(run, "teacher", 3, parameters=1, dtype="float32")
