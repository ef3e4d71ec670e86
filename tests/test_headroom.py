"""What planning could give: whose tokens, chosen how, and that choosing by a utility never makes it worse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdtw_jax.cli import main as kdtw
from kdtw_jax.cli.headroom import COLUMNS
from kdtw_jax.decoding.utility import Outcome, log_mu, nearness
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.headroom import Planned, choices, plan_split
from kdtw_jax.evaluation.rows import spaced_pairs
from kdtw_jax.runs import read_csv
from tests.commands import train
from tests.world import BUCKETS, World

WORLD = World()
FEW = spaced_pairs(WORLD.data, 12)
STUDENT = (WORLD.model, WORLD.model.init(jax.random.key(5)))


def planned(by: str, width: int = 3) -> Planned:
    return plan_split(STUDENT, WORLD.teacher, FEW, BUCKETS, by, banned=WORLD.banned, width=width)


@pytest.fixture(scope="module")
def alone() -> dict[str, Planned]:
    return {who: planned(who) for who in ("student", "teacher")}


def test_one_token_to_choose_from_leaves_the_student_as_it_is(alone: dict[str, Planned]) -> None:
    for by in ("token", "log_mu"):
        np.testing.assert_array_equal(planned(by, 1).tokens_NxT, alone["student"].tokens_NxT)
    assert not np.array_equal(alone["student"].tokens_NxT, alone["teacher"].tokens_NxT)


def test_of_all_tokens_the_teacher_s_word_about_each_makes_its_own_output(alone: dict[str, Planned]) -> None:
    everything = WORLD.model.config.vocab_size - len(WORLD.banned)
    np.testing.assert_array_equal(planned("token", everything).tokens_NxT, alone["teacher"].tokens_NxT)


def test_an_output_that_is_chosen_by_what_follows_is_never_worth_less(alone: dict[str, Planned]) -> None:
    def worth(found: Planned, utility: Any) -> np.ndarray:
        reference = alone["teacher"].tokens_NxT
        log_mu_NxT = np.where(np.arange(found.tokens_NxT.shape[1])[None] == 0, found.log_mu_N[:, None], 0.0)
        return np.asarray(utility(Outcome(found.tokens_NxT, log_mu_NxT, 0 * log_mu_NxT, reference)))  # type: ignore[arg-type]

    for utility in (log_mu, nearness):
        before, after = (worth(found, utility) for found in (alone["student"], planned(utility.__name__, 8)))
        assert (after >= before - 1e-3).all() and after.mean() > before.mean() + 0.01, utility.__name__


def test_choices_are_known_by_name() -> None:
    assert choices()[:2] == ("student", "token") and "nearness" in choices() and choices()[-1] == "teacher"
    with pytest.raises(UserError, match="luck"):
        planned("luck")


@pytest.mark.long
def test_a_run_says_what_planning_could_give_its_students(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    words = ["--preset", "tiny", "--methods", "pcl", "--out", out, "--text.folder", str(tmp_path / "data")]
    assert train(words) == 0
    assert kdtw(["headroom", out, "--texts", "9", "--width", "2", "--results", str(tmp_path / "published")]) == 0
    rows = read_csv(tmp_path / "published" / "headroom.csv")
    assert all(tuple(row) == COLUMNS for row in rows)
    assert {row["by"] for row in rows} == set(choices())
    assert {row["metric"] for row in rows} == {"bleu", "chrf", "exact_match", "log_mu", "length"}
    (tmp_path / "published" / "headroom.json").read_text(encoding="utf8")
    capsys.readouterr()
    assert kdtw(["headroom", out, "--method", "mle"]) == 2
    assert "has no student of mle and seed 0; name another" in capsys.readouterr().err
    assert kdtw(["headroom", out, "--width", "100000"]) == 2
    assert "width must be at most " in capsys.readouterr().err
    assert kdtw(["headroom", out, "--width", "0"]) == 2
